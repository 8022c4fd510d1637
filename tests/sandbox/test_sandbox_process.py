"""The sandbox as a process of its own, from synchronous code."""

import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic, OverloadedError

from sandbox import Switches, sandbox_process
from sandbox.__main__ import main, read_switch

ROOT = Path(__file__).resolve().parents[2]


def listens(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rsplit(":", 1)[1]))) == 0


def test_process_serves_with_its_switches_and_ends_with_the_block() -> None:
    asked: Any = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    with (
        sandbox_process(Switches(overloaded=1)) as url,
        Anthropic(api_key="any", base_url=url, max_retries=0) as client,
    ):
        assert client.models.list().data
        with pytest.raises(OverloadedError):
            client.messages.create(**asked)
    assert not listens(url)


def test_process_ends_when_its_parent_is_killed() -> None:
    code = """
        import os, signal
        from sandbox import sandbox_process
        with sandbox_process() as url:
            print(url, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    parent = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    deadline = time.monotonic() + 60
    while listens(parent.stdout.strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not listens(parent.stdout.strip())


def test_taken_port_is_said_and_no_sandbox_starts(capfd: pytest.CaptureFixture[str]) -> None:
    with sandbox_process() as url:
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(RuntimeError, match="did not start"), sandbox_process(port=port):
            pass
    assert f"port {port}" in capfd.readouterr().err


@pytest.mark.parametrize("switch", ["truncated=2", "nonsense=1", "truncated"])
def test_wrong_switch_ends_the_command_with_2(switch: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "0", "--switch", switch]) == 2
    assert switch.split("=", maxsplit=1)[0] in capsys.readouterr().err


def test_switch_values_are_json_or_text() -> None:
    assert read_switch("rpm=60") == ("rpm", 60)
    assert read_switch("rpm=null") == ("rpm", None)
    assert read_switch("rpm=many") == ("rpm", "many")
