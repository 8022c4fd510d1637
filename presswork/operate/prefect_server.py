"""Start a Prefect server, and check whether one answers.

`presswork up` starts a server with a port of its own. A command that finds no server starts one on loopback
(command_server/). Each server has its own database in `.presswork/` and is a process of server_process.py.
"""

import base64
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from db.machine import monotonic_s, pause
from presswork.errors import ConfigurationError, PressworkError
from presswork.operate.processes import Process, start_in_own_session

# Measured in docs/performance.md: at the defaults the recorder costs ten times the CPU and drops task runs.
TUNING = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
}
QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
LOOPBACK = "127.0.0.1"
MARK_HEADER = "presswork-server"
"""The header in each answer of a command's server by which a command recognizes it."""
ANSWERS_WITHIN_S = 10.0
SERVER_STOPS_WITHIN_S = 15.0
NO_ANSWER = (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError, ImportError)
"""What a request raises if nothing answers, or something that does not speak HTTP, or if it can't be made.

ValueError: the URL or a proxy's is malformed. OSError: there is no certificate file. ImportError: a proxy is for SOCKS.
"""
_POLL_S = 0.02
# A server that stays needs neither the key nor passwords of databases. With PREFECT_API_URL, the UI would use that
# server's API.
_NOT_FOR_SERVERS = ("ANTHROPIC_", "PRESSWORK_AUDIT_", "PRESSWORK_DATABASE_", "PRESSWORK_SOURCE_", "PREFECT_API_URL")


class ServerStartError(PressworkError):
    """Prefect's server did not start."""


class PrefectServerError(ConfigurationError):
    """Prefect's server can't be used."""


@dataclass(frozen=True)
class Server:
    """How to start a server. Without a log, its output goes to our standard error.

    With a lock, it ends once no process has held that file for a while, and its answers carry the mark.
    """

    host: str
    port: int
    settings: Mapping[str, str]
    log: Path | None
    lock: Path | None = None
    mark: str = ""

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the environment with which it starts: what it may need of the given one, and its own settings."""
        rest = {name: value for name, value in given.items() if not name.startswith(_NOT_FOR_SERVERS)}
        return {**rest, **TUNING, **QUIET, "PREFECT__SERVER_FINAL": "1", **self.settings}

    def start(self, given: Mapping[str, str], *inherited: int) -> subprocess.Popen[bytes]:
        """Start it with this environment and its own settings; it inherits these open files."""
        command = [sys.executable, "-m", "presswork.operate.server_process", self.host, str(self.port)]
        if self.lock is not None:
            command += [str(self.lock), f"{MARK_HEADER}={self.mark}"]
        return start_in_own_session(command, self.environment(given), self.log, inherited=inherited)


def wait_until_healthy(
    api: str,
    process: Process,
    within_s: float,
    log: Path,
    waiting: Callable[[float], None] = lambda _seconds: None,
    *,
    mark: str = "",
) -> None:
    """Wait until a server that was started answers, with its mark if it has one.

    Raises ServerStartError if it ends, needs too long, or if another program has its port.
    """
    began = monotonic_s()
    while (passed := monotonic_s() - began) < within_s:
        if not process.is_alive:
            raise ServerStartError(f"Prefect's server ended while it started; see {log}.")
        found = _mark_of(api) if _listens(api) else None
        if found is not None:
            if found == mark:
                return
            raise ServerStartError(f"Another program answers at {api}.")
        waiting(passed)
        pause(_POLL_S)
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
    return _mark_of(api) is not None


def _mark_of(api: str) -> str | None:
    """Return the mark of the server that answers, empty if it has none; None if no Prefect server answers."""
    try:
        answer = _ask(f"{api}/health", None, within_s=2)
    except NO_ANSWER:
        return None
    return str(answer.headers.get(MARK_HEADER, "")) if answer.content.strip() == b"true" else None


def _listens(api: str) -> bool:
    """Whether anything listens there. It costs less than a request, and is asked often while a server starts."""
    parts = urlsplit(api)
    try:
        with socket.create_connection((parts.hostname or LOOPBACK, parts.port or 80), timeout=1):
            return True
    except OSError:
        return False


def server_version(api: str, auth_string: str | None = None) -> str | None:
    """Read the version of Prefect that serves this API; None if it is no Prefect server. Raises NO_ANSWER."""
    body = _read(f"{api.rstrip('/')}/admin/version", auth_string)
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, str) and _parts(found) else None


def _read(url: str, auth_string: str | None) -> bytes:
    return _ask(url, auth_string, ANSWERS_WITHIN_S).content


def _ask(url: str, auth_string: str | None, within_s: float) -> httpx2.Response:
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
    return answer.raise_for_status()


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
