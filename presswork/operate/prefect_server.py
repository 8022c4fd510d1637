"""Check whether a Prefect server answers, or start one for a command that finds none running, and stop it again.

One of our own is Prefect's server in a process of its own, tuned for many task runs, on loopback, with its database and
its log in `.presswork/` of the project. It ends when the process that started it does, however that ends. Run as a
module, this file is that process. The server that `presswork up` starts is the same one, but stays, and has a
database of its own: two servers never share one.
"""

import base64
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO

import orjson
from filelock import FileLock

from presswork.errors import ConfigurationError, PressworkError
from presswork.settings import ROOT

# Measured in docs/performance.md: at the defaults the recorder costs ten times the CPU and drops task runs.
TUNING = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
}
ANSWERS_WITHIN_S = 10.0
NO_ANSWER = (OSError, ValueError, http.client.HTTPException)
"""What asking raises where nothing, or no HTTP, is at the other end."""
QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


class ServerStartError(PressworkError):
    """Prefect's server did not start."""


class PrefectServerError(ConfigurationError):
    """Prefect's server can't be used."""


@contextmanager
def own_server(
    *,
    timeout_s: float,
    home: Path,
    waiting: Callable[[float], None] = lambda _seconds: None,
    with_ui: bool = False,
) -> Iterator[str]:
    """Start a server, yield its API URL and stop it; with `with_ui`, its UI is there too.

    `waiting` is called now and then with the seconds that have passed. Raises ServerStartError after `timeout_s`.
    """
    home.mkdir(parents=True, exist_ok=True)
    log = home / "prefect-server.log"
    # Two that start at once must not migrate one database together.
    with FileLock(home / "prefect-server.lock") as lock:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        process = _start(port, home, log, with_ui=with_ui)
        try:
            _wait_until_healthy(process, port, timeout_s, waiting, log)
            lock.release()
            yield f"http://127.0.0.1:{port}/api"
        finally:
            _stop(process)


def server_command(port: int, *host: str) -> list[str]:
    """The command of a server; without a host it listens on loopback and ends with the process that started it."""
    return [sys.executable, "-m", "presswork.operate.prefect_server", str(port), *host]


def server_environment(given: Mapping[str, str], **settings: str) -> dict[str, str]:
    """The environment of a server: what is `given`, its tuning and its settings."""
    # The UI is told where the API is by this, or else by host and port.
    rest = {name: value for name, value in given.items() if name != "PREFECT_API_URL"}
    return {**rest, **TUNING, **QUIET, "PREFECT__SERVER_FINAL": "1", **settings}


def start_in_own_session(
    command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None, stdin: int
) -> subprocess.Popen[bytes]:
    """Start a process in the project's root. Without `output`, it has ours.

    This terminal's Ctrl-C does not reach it: it is for the command, which stops the process once runs are recorded.
    """
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=stdin,
        # Standard output is for this command's answer.
        stdout=output or 2,
        stderr=output,
        start_new_session=True,
    )


def require_answer(api: str, auth_string: str | None = None, *, other_credentials: bool = False) -> None:
    """Raise PrefectServerError unless a server answers that takes these credentials and is no older than our Prefect.

    A server with `other_credentials` than Prefect's own basic authentication (Prefect Cloud) checks them itself.
    """
    try:
        _read(f"{api.rstrip('/')}/health", None)
        if not other_credentials:
            _require_version(api, server_version(api, auth_string))
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise PrefectServerError(
                f"Prefect's server at {api} {'refuses the' if auth_string else 'asks for a'} user and password: set "
                "PREFECT_API_AUTH_STRING to what the server has in PREFECT_SERVER_API_AUTH_STRING."
            ) from None
        if error.code >= 500:
            raise _silent(api, f"it answers HTTP {error.code}") from None
        if not other_credentials:
            raise _no_prefect(api) from None
    except NO_ANSWER as error:
        raise _silent(api, str(getattr(error, "reason", error))) from None


def is_healthy(api: str) -> bool:
    """Whether a Prefect server answers at this API's URL."""
    try:
        return _read(f"{api}/health", None, within_s=2).strip() == b"true"
    except NO_ANSWER:
        return False


def server_version(api: str, auth_string: str | None = None) -> str | None:
    """Read which version of Prefect serves this API; None where it is no Prefect server. Raises NO_ANSWER."""
    body = _read(f"{api.rstrip('/')}/admin/version", auth_string)
    try:
        found = orjson.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, str) and _parts(found) else None


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
        return start_in_own_session(server_command(port), environment, output, subprocess.PIPE)


def _wait_until_healthy(
    process: subprocess.Popen[bytes], port: int, timeout_s: float, waiting: Callable[[float], None], log: Path
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


def _read(url: str, auth_string: str | None, within_s: float = ANSWERS_WITHIN_S) -> bytes:
    request = urllib.request.Request(url)  # noqa: S310 - an address that the user gave
    if auth_string:
        request.add_header("Authorization", f"Basic {base64.b64encode(auth_string.encode()).decode()}")
    with urllib.request.urlopen(request, timeout=within_s) as answer:  # noqa: S310 - as above
        return bytes(answer.read())


def _require_version(api: str, served: str | None) -> None:
    ours = version("prefect")
    if served is None:
        raise _no_prefect(api)
    major, minor = _parts(served)
    our_major, our_minor = _parts(ours)
    if major != our_major or minor < our_minor:
        raise PrefectServerError(
            f"Prefect's server at {api} is version {served}, and this Presswork works with {our_major}.{our_minor} and "
            f"later versions of {our_major}: run the server with `prefect=={ours}` or a newer one. (One that "
            "`presswork up` started: `presswork down`, then `presswork up`.)"
        )


def _parts(number: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", number)
    return tuple(map(int, found.groups())) if found else ()


def _no_prefect(api: str) -> PrefectServerError:
    return PrefectServerError(f"What answers at {api} is no Prefect server; correct PREFECT_API_URL (it ends in /api).")


def _silent(api: str, reason: str) -> PrefectServerError:
    return PrefectServerError(
        f"Prefect's server at {api} does not answer: {reason}. Start it (`presswork up` on this machine), correct "
        "PREFECT_API_URL, or unset it: then Presswork uses a server of its own."
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
