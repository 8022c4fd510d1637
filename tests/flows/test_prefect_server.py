"""The pinned versions make a Prefect server that starts: with others its schemas have broken before."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.prefect


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - a loopback URL of our own
            return str(answer.read().decode())
    except OSError:
        return ""


def test_prefect_server_start_works_as_it_is_pinned(prefect_home: Path) -> None:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("prefect")), "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        env={
            **environment,
            "PREFECT_HOME": str(prefect_home),
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 100
        while not read(f"{base}/api/health") and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert read(f"{base}/api/health") == "true"
        assert read(f"{base}/api/admin/version").startswith('"3.')
        assert "/flow_runs/" in read(f"{base}/api/openapi.json") or "/flow_runs/" in read(f"{base}/openapi.json")
    finally:
        server.terminate()
        try:
            server.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()
