"""A Prefect server of one's own: it is there when it is needed, and gone when nobody needs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from flows.engine.orchestration.prefect_server import ServerStartError, own_server
from flows.settings import ROOT

pytestmark = pytest.mark.prefect


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310 - a loopback URL of our own
            return bool(answer.status == 200)
    except OSError:
        return False


def servers() -> list[psutil.Process]:
    """The servers that this process started, and that still run."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "flows.engine.orchestration.prefect_server" in child.cmdline()
    ]


def test_server_starts_answers_and_leaves_no_process(prefect_home: Path) -> None:
    before = {child.pid for child in servers()}
    waited: list[float] = []
    with own_server(timeout_s=120, home=prefect_home, waiting=waited.append) as url:
        assert is_healthy(url)
        (server,) = [child for child in servers() if child.pid not in before]
        assert waited
        assert "127.0.0.1" in url
    assert not is_healthy(url)
    assert not server.is_running()
    assert {child.pid for child in servers()} == before
    # What it had to say as it stopped is nothing that a person must read.
    assert "Traceback" not in (prefect_home / "prefect-server.log").read_text()


def test_server_dies_with_a_parent_that_is_killed(prefect_home: Path) -> None:
    code = f"""
        import time
        from pathlib import Path
        from flows.engine.orchestration.prefect_server import own_server
        with own_server(timeout_s=120, home=Path({str(prefect_home)!r})) as url:
            print(url, flush=True)
            time.sleep(600)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        url = parent.stdout.readline().strip()
        (server,) = psutil.Process(parent.pid).children()
        assert is_healthy(url)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    psutil.wait_procs([server], timeout=20)
    assert not server.is_running()
    assert not is_healthy(url)


def test_server_that_does_not_start_in_time_is_stopped_and_said(tmp_path: Path) -> None:
    before = {child.pid for child in servers()}
    began = time.monotonic()
    with (
        pytest.raises(ServerStartError, match="PRESSWORK_PREFECT_STARTUP_TIMEOUT_S"),
        own_server(timeout_s=0.5, home=tmp_path),
    ):
        pass
    assert time.monotonic() - began < 15
    assert {child.pid for child in servers()} == before


def test_server_that_ends_as_it_starts_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", str(tmp_path / "nowhere"))
    with pytest.raises(ServerStartError, match="ended while it started"), own_server(timeout_s=60, home=tmp_path):
        pass
