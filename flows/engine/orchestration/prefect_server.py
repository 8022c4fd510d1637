"""Start a Prefect server for commands that find none running, wait for it, and stop it again.

It is Prefect's own server in a process of its own, tuned for many task runs, on loopback, with its database and its log
in `.presswork/` of the project. It ends when the process that started it does, however that ends. Run as a module, this
file is that process. The server that `presswork up` starts (flows/control) is the same one, but stays, and has a
database of its own: two servers never share one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from flows.engine.orchestration.server_check import is_healthy
from flows.errors import PressworkError
from flows.settings import ROOT

HOME = ROOT / ".presswork"

# Measured in docs/performance.md: at the defaults the recorder costs ten times the CPU and drops task runs.
TUNING = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
}
QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


class ServerStartError(PressworkError):
    """Prefect's server did not start."""


@contextmanager
def own_server(
    *,
    timeout_s: float,
    home: Path = HOME,
    waiting: Callable[[float], None] = lambda _seconds: None,
    with_ui: bool = False,
) -> Iterator[str]:
    """Start a server, yield its API URL and stop it; with `with_ui`, its UI is there too.

    `waiting` is called now and then with the seconds that have passed. Raises ServerStartError after `timeout_s`.
    """
    home.mkdir(parents=True, exist_ok=True)
    log = home / "prefect-server.log"
    # Two that start at once must not migrate one database together.
    with FileLock(home / "prefect-server.lock"):
        port = _free_port()
        process = _start(port, home, log, with_ui=with_ui)
        try:
            _wait_until_healthy(process, port, timeout_s, waiting, log)
        except BaseException:
            _stop(process)
            raise
    try:
        yield f"http://127.0.0.1:{port}/api"
    finally:
        _stop(process)


def server_command(port: int, *host: str) -> list[str]:
    """The command of a server; without a host it listens on loopback and ends with the process that started it."""
    return [sys.executable, "-m", "flows.engine.orchestration.prefect_server", str(port), *host]


def server_environment(given: Mapping[str, str], **settings: str) -> dict[str, str]:
    """The environment of a server: what is `given`, its tuning and its settings."""
    # The UI is told where the API is by this, or else by host and port.
    rest = {name: value for name, value in given.items() if name != "PREFECT_API_URL"}
    return {**rest, **TUNING, **QUIET, "PREFECT__SERVER_FINAL": "1", **settings}


def _start(port: int, home: Path, log: Path, *, with_ui: bool) -> subprocess.Popen[bytes]:
    environment = server_environment(
        os.environ,
        PREFECT_SERVER_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        PREFECT_UI_ENABLED=str(with_ui),
        PREFECT_UI_API_URL=f"http://127.0.0.1:{port}/api",
        PREFECT_UI_STATIC_DIRECTORY=str(home / "ui"),
    )
    if not with_ui:
        # It leaves out what only people and schedules need.
        environment["PREFECT__SERVER_EPHEMERAL"] = "1"
    with log.open("ab") as output:
        return subprocess.Popen(
            server_command(port),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            # Ctrl-C is for the command: the server is stopped by it, after the run has been recorded.
            start_new_session=True,
        )


def _wait_until_healthy(
    process: subprocess.Popen[bytes],
    port: int,
    timeout_s: float,
    waiting: Callable[[float], None],
    log: Path,
) -> None:
    began = time.monotonic()
    while (passed := time.monotonic() - began) < timeout_s:
        if process.poll() is not None:
            raise ServerStartError(f"Prefect's server ended while it started (status {process.returncode}); see {log}.")
        if is_healthy(f"http://127.0.0.1:{port}/api"):
            return
        waiting(passed)
        time.sleep(0.2)
    raise ServerStartError(
        f"Prefect's server has not started within {timeout_s:.0f} s; see {log}. On a slow machine raise "
        "PRESSWORK_PREFECT_STARTUP_TIMEOUT_S, or start one yourself and set PREFECT_API_URL."
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(port: int, host: str | None = None) -> None:
    """Serve until SIGTERM; without a host on loopback, and no longer than the process that started it."""
    import uvicorn  # noqa: PLC0415 - only the child needs it, and it takes time to load

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    if host is None:
        threading.Thread(target=end_with_parent, daemon=True).start()
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host=host or "127.0.0.1",
        port=port,
        log_level="error",
        lifespan="on",
        timeout_graceful_shutdown=3,
    )


if __name__ == "__main__":
    _serve(int(sys.argv[1]), *sys.argv[2:])
