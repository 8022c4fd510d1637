"""A machine for tests: a state folder, a port and settings of its own, and the command as a person has it."""

from __future__ import annotations

import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import prefect.settings
import psutil
import pytest
from prefect.settings import temporary_settings
from typer.testing import Result

from presswork.operate.processes import MARK
from tests.commands.conftest import call, set_all

PRESSWORK = Path(sys.executable).with_name("presswork")
AUTH = "operator:knock-knock"


def free_port() -> int:
    """A port below those that a system gives to connections, one of which may take it before the server does."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(what: Callable[[], Any], within_s: float = 60) -> Any:
    """Wait until it is true, and return it."""
    deadline = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.2)
    return found


@dataclass
class Machine:
    """What `presswork up` finds."""

    home: Path
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def environment(self) -> dict[str, str]:
        mine = {"PRESSWORK_STATE_DIR": str(self.home), "PREFECT_SERVER_API_PORT": str(self.port)}
        mine["PRESSWORK_AUDIT_PORT"] = "0"
        outer = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return {**outer, **mine, **self.settings}

    def presswork(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(PRESSWORK), *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def json(self, *arguments: str, status: int = 0) -> Any:
        done = self.presswork(*arguments, "--json")
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads(done.stdout)

    def call(self, *arguments: str, **environment: str) -> Result:
        """Call the command in this process, which starts nothing that outlives the call."""
        environment = {**self.environment, **environment}
        of_prefect = {
            getattr(prefect.settings, name): value for name, value in environment.items() if name.startswith("PREFECT_")
        }
        with pytest.MonkeyPatch.context() as patch, temporary_settings(of_prefect):
            set_all(patch, environment)
            return call(*arguments)

    def told(self, *arguments: str, status: int = 0) -> Any:
        """Call the command in this process, and return what it tells programs."""
        done = self.call(*arguments, "--json")
        assert done.exit_code == status, done.output
        return json.loads(done.stdout)

    def foreground(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(PRESSWORK), "up", "--foreground", "--json"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def is_well(self) -> bool:
        return bool(json.loads(self.call("status", "--json").stdout).get("well"))

    def pids(self) -> dict[str, int | None]:
        """What is recorded as started."""
        state = json.loads((self.home / "control.json").read_text())
        return {name: state[name] and state[name]["pid"] for name in ("server", "worker", "audit", "supervisor")}

    def kill(self, service: str) -> int:
        """Kill a service as a crash does, and return its pid once it has ended."""
        pid = self.pids()[service]
        assert pid is not None
        process = psutil.Process(pid)
        process.kill()
        wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
        return pid

    def wait_for_another(self, service: str, pid: int) -> None:
        wait_for(lambda: self.pids()[service] not in {None, pid})

    def processes(self) -> list[psutil.Process]:
        """All that was started by this machine's services, and the services."""
        found = []
        for process in psutil.process_iter():
            try:
                is_service = MARK in process.environ() or "presswork.operate.supervisor" in process.cmdline()
                of_ours = process.environ().get("PRESSWORK_STATE_DIR") == str(self.home) and is_service
            except psutil.Error:
                continue
            if of_ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def assert_nothing_is_left(self) -> None:
        assert self.processes() == []
        assert not (self.home / "control.json").exists()
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", self.port))

    def sql(self, query: str) -> list[Any]:
        """Ask Prefect's own database."""
        with closing(sqlite3.connect(self.home / "control.db")) as connection:
            return connection.execute(query).fetchall()


@contextmanager
def answering(version: str | None) -> Iterator[int]:
    """Something at a port that answers like a Prefect server of a version; with None like anything else."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"/api/health": b"true", "/api/admin/version": json.dumps(version).encode()}.get(self.path, b"")
            self.send_response(200 if body and version else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
