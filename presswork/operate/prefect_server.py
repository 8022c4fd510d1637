"""Start a Prefect server, and check whether one answers.

`presswork up` starts a server that stays. A command that finds no server starts its own on loopback. That server ends
when the command ends, even after `kill -9`. Each server has its own database in `.presswork/` and is a process of
presswork/operate/server_process.py.
"""

import base64
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from filelock import FileLock

from presswork.errors import ConfigurationError, PressworkError
from presswork.operate.processes import Process, known, start_in_own_session, stop_processes

# Measured in docs/performance.md: at the defaults the recorder costs ten times the CPU and drops task runs.
TUNING = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
}
QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
LOOPBACK = "127.0.0.1"
IDLE_LIMIT_S = 0.0
"""How long a command's server stays without its command."""
ANSWERS_WITHIN_S = 10.0
SERVER_STOPS_WITHIN_S = 15.0
NO_ANSWER = (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError, ImportError)
"""What a request raises if nothing answers, or something that does not speak HTTP, or if it can't be made.

ValueError: the URL or a proxy's is malformed. OSError: there is no certificate file. ImportError: a proxy is for SOCKS.
"""
_LOCK = "prefect-server-{}.lock"
_POLL_S = 0.2


class ServerStartError(PressworkError):
    """Prefect's server did not start."""


class PrefectServerError(ConfigurationError):
    """Prefect's server can't be used."""


@dataclass(frozen=True)
class Server:
    """How to start a server. Without a log, its output goes to our standard error; with a lock, it ends when idle."""

    host: str
    port: int
    settings: Mapping[str, str]
    log: Path | None
    lock: Path | None = None

    def start(self, given: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start it with this environment and its own settings."""
        command = [sys.executable, "-m", "presswork.operate.server_process", self.host, str(self.port)]
        if self.lock is not None:
            command += [str(self.lock), str(IDLE_LIMIT_S)]
        # With this variable, the UI would use that server's API.
        rest = {name: value for name, value in given.items() if name != "PREFECT_API_URL"}
        environment = {**rest, **TUNING, **QUIET, "PREFECT__SERVER_FINAL": "1", **self.settings}
        return start_in_own_session(command, environment, self.log)


@contextmanager
def own_server(
    *,
    timeout_s: float,
    home: Path,
    waiting: Callable[[float], None] = lambda _seconds: None,
    with_ui: bool = False,
) -> Iterator[str]:
    """Start a server, yield its API URL and stop it; with `with_ui`, it serves its UI as well.

    `waiting` is called repeatedly with the seconds that have passed. Raises ServerStartError after `timeout_s`.
    """
    home.mkdir(parents=True, exist_ok=True)
    # Two that start at once must not migrate one database together.
    with FileLock(home / "prefect-server.lock") as starting:
        _remove_free_locks(home)
        server = _own_server(_free_port(), home, with_ui=with_ui)
        assert server.lock is not None
        assert server.log is not None
        with _held(server.lock):
            child = server.start(os.environ)
            process = known(child.pid)
            api = server.settings["PREFECT_UI_API_URL"]
            try:
                wait_until_healthy(api, process, timeout_s, server.log, waiting)
                starting.release()
                yield api
            finally:
                stop_processes([process], within_s=SERVER_STOPS_WITHIN_S)
                child.wait()
                server.lock.unlink(missing_ok=True)


def wait_until_healthy(
    api: str, process: Process, within_s: float, log: Path, waiting: Callable[[float], None] = lambda _seconds: None
) -> None:
    """Wait until a server that was started answers; ServerStartError if it ends, or needs too long."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < within_s:
        if not process.is_alive:
            raise ServerStartError(f"Prefect's server ended while it started; see {log}.")
        if is_healthy(api):
            return
        waiting(passed)
        time.sleep(_POLL_S)
    raise ServerStartError(
        f"Prefect's server (process {process.pid}) does not answer at {api} after {within_s:.0f} s; see {log}. On a "
        "slow machine raise PRESSWORK_PREFECT_STARTUP_TIMEOUT_S."
    )


def require_answer(api: str, auth_string: str | None = None, *, other_credentials: bool = False) -> None:
    """Raise PrefectServerError unless a server answers, accepts these credentials and is no older than our Prefect.

    A server with `other_credentials` than Prefect's own basic authentication (Prefect Cloud) checks them itself.
    """
    try:
        _read(f"{api.rstrip('/')}/health", None)
        if not other_credentials:
            _require_version(api, server_version(api, auth_string))
    except httpx2.HTTPStatusError as error:
        code = error.response.status_code
        if code == 401:
            raise PrefectServerError(
                f"Prefect's server at {api} {'refuses the' if auth_string else 'needs a'} user and password. Set "
                "PREFECT_API_AUTH_STRING to the server's PREFECT_SERVER_API_AUTH_STRING."
            ) from None
        if code >= 500:
            raise _silent(api, f"it answers HTTP {code}") from None
        if not other_credentials:
            raise _no_prefect(api) from None
    except NO_ANSWER as error:
        raise _silent(api, str(error).rstrip(".")) from None


def is_healthy(api: str) -> bool:
    """Whether a Prefect server answers at this API URL."""
    try:
        return _read(f"{api}/health", None, within_s=2).strip() == b"true"
    except NO_ANSWER:
        return False


def server_version(api: str, auth_string: str | None = None) -> str | None:
    """Read the version of Prefect that serves this API; None if it is no Prefect server. Raises NO_ANSWER."""
    body = _read(f"{api.rstrip('/')}/admin/version", auth_string)
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, str) and _parts(found) else None


def _read(url: str, auth_string: str | None, within_s: float = ANSWERS_WITHIN_S) -> bytes:
    credentials = base64.b64encode((auth_string or "").encode()).decode()
    parts = urlsplit(url)
    # Loading certificates takes longer than a request to this machine, which needs no proxy either. A redirect could
    # lead elsewhere, so none is followed from there.
    is_local = parts.scheme == "http" and parts.hostname in {LOOPBACK, "::1", "localhost"}
    answer = httpx2.get(
        url,
        headers={"Authorization": f"Basic {credentials}"} if auth_string else None,
        timeout=within_s,
        follow_redirects=not is_local,
        verify=not is_local,
        trust_env=not is_local,
    )
    return answer.raise_for_status().content


def _require_version(api: str, served: str | None) -> None:
    ours = version("prefect")
    if served is None:
        raise _no_prefect(api)
    major, minor = _parts(served)
    our_major, our_minor = _parts(ours)
    if major != our_major or minor < our_minor:
        raise PrefectServerError(
            f"Prefect's server at {api} is version {served}, but this Presswork needs {our_major}.{our_minor} or a "
            f"later version of {our_major}. Run the server with `prefect=={ours}` or a newer one. (If `presswork up` "
            "started it: `presswork down`, then `presswork up`.)"
        )


def _parts(number: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", number)
    return tuple(map(int, found.groups())) if found else ()


def _no_prefect(api: str) -> PrefectServerError:
    return PrefectServerError(f"{api} is no Prefect server. Correct PREFECT_API_URL (it ends in /api).")


def _silent(api: str, reason: str) -> PrefectServerError:
    return PrefectServerError(
        f"Prefect's server at {api} does not answer: {reason}. Start it (`presswork up` on this machine), correct "
        "PREFECT_API_URL, or unset it to let Presswork start a server of its own."
    )


def _own_server(port: int, home: Path, *, with_ui: bool) -> Server:
    settings = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_UI_ENABLED": str(with_ui),
        "PREFECT_UI_API_URL": f"http://{LOOPBACK}:{port}/api",
        "PREFECT_UI_STATIC_DIRECTORY": str(home / "ui"),
    }
    if not with_ui:
        # It omits what only people and schedules need.
        settings["PREFECT__SERVER_EPHEMERAL"] = "1"
    return Server(LOOPBACK, port, settings, home / "prefect-server.log", home / _LOCK.format(port))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Hold the lock file of our server, which ends once nobody holds it."""
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_free_locks(home: Path) -> None:
    """Remove the lock files that were left when a command and its server were both killed."""
    for lock in home.glob(_LOCK.format("*")):
        with suppress(BlockingIOError, FileNotFoundError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.unlink()
