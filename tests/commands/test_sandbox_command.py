"""`presswork sandbox` prints its URL and ends on Ctrl-C."""

from __future__ import annotations

import signal
import subprocess

import httpx2
import pytest

from tests.commands.conftest import PRESSWORK, call, first_answer


def test_sandbox_runs_until_ctrl_c() -> None:
    command = [str(PRESSWORK), "sandbox", "--port", "0", "--switch", "latency_ms=5", "--json"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = first_answer(running)["url"]
        assert httpx2.get(f"{url}/sandbox/switches").json()["latency_ms"] == 5
        running.send_signal(signal.SIGINT)
        _stdout, stderr = running.communicate(timeout=20)
    finally:
        running.kill()
    assert running.returncode == 0
    assert stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--switch", "latency_ms"], "takes name=value"),
        (["--switch", "nothing=1"], "no such switch"),
        (["--switch", "rpm=0"], "rpm"),
        (["--port", "70000"], "--port"),
    ],
)
def test_a_wrong_call_is_told(arguments: list[str], message: str) -> None:
    result = call("sandbox", *arguments)

    assert result.exit_code == 2
    assert message in result.stderr


def test_a_port_that_is_taken_is_told(sandbox_url: str) -> None:
    result = call("sandbox", "--port", sandbox_url.rpartition(":")[2])

    assert result.exit_code == 2
    assert "Set another with --port" in result.stderr
