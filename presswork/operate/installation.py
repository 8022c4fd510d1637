"""Say where the services of an installation are, start and stop their processes, and keep in a file which those are.

Each process stands in it by its pid and by when it began, so that another call (or the same after a crash or a
reboot) knows what is its own. What a service has started in turn (flow runs, each in a session of its own) is found by
a mark in its environment, where the system shows that (Linux). One call that starts or stops services is at work at a
time.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from db.identity import UNKNOWN, boot_id, started
from db.words import POOL
from presswork.errors import ConfigurationError
from presswork.operate import prefect_server
from presswork.settings import Settings

SERVER, WORKER, SUPERVISOR = "server", "worker", "supervisor"
Say = Callable[[str], None]
"""How a command tells a person what it does, line by line."""
SERVICE_NAMES = {SERVER: "Prefect's server", WORKER: "the worker"}
MARK = "PRESSWORK_STARTED_BY"
_LOOK_S = 0.1
_KILLED_WITHIN_S = 10.0


class BusyError(ConfigurationError):
    """Another `presswork up` or `presswork down` is at work here; wait until it has ended."""


@dataclass(frozen=True)
class Installation:
    """Where the services are, and what they are told."""

    home: Path
    host: str
    port: int
    auth_string: str | None
    starts_within_s: float
    run_stops_within_s: float

    @property
    def url(self) -> str:
        """The server's address, as this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(self.host, self.host)  # noqa: S104 - it is what people set
        return f"http://{host}:{self.port}"

    @property
    def api(self) -> str:
        """The address of its API: what PREFECT_API_URL is set to."""
        return f"{self.url}/api"

    def log(self, service: str) -> Path:
        """The file that a service's output goes to."""
        return self.home / f"{service}.log"


@dataclass(frozen=True)
class Process:
    """A process: `born` is when it began, as the system tells it."""

    pid: int
    born: str

    @property
    def is_alive(self) -> bool:
        """Whether it runs: this one, not another to whom its pid was given."""
        return born(self.pid) == self.born


@dataclass(frozen=True)
class State:
    """What has been started: the server (with its API), the worker, and the process that watches over both, if any.

    `mark` stands in the environment of all of them, and so of what they start.
    """

    mark: str
    api: str
    server: Process | None = None
    worker: Process | None = None
    supervisor: Process | None = None

    def living(self, service: str) -> Process | None:
        """A service that runs; None where it has ended or was never started."""
        process: Process | None = getattr(self, service)
        return process if process is not None and process.is_alive else None


def read_installation(settings: Settings) -> Installation:
    """Read where the services are to be: from our settings, and from Prefect's, wherever these are set.

    ConfigurationError where PREFECT_API_URL says that the server is another one.
    """
    from prefect import settings as prefect  # noqa: PLC0415 - loads Prefect, for which not every command need wait

    port = prefect.PREFECT_SERVER_API_PORT.value()
    if not 0 < port < 65536:
        raise ConfigurationError(f"PREFECT_SERVER_API_PORT is {port}; a port is a number from 1 to 65535.")
    here = Installation(
        home=settings.state_dir.resolve(),
        host=prefect.PREFECT_SERVER_API_HOST.value(),
        port=port,
        auth_string=prefect.PREFECT_SERVER_API_AUTH_STRING.value() or None,
        starts_within_s=settings.prefect_startup_timeout_s,
        run_stops_within_s=settings.stop_wait_s,
    )
    configured = prefect.PREFECT_API_URL.value()
    if configured and configured.rstrip("/").replace("//localhost:", "//127.0.0.1:") != here.api:
        raise ConfigurationError(
            f"PREFECT_API_URL says that the server is {configured}, and `presswork up` would start one at {here.api}. "
            f"Unset it, or start a worker alone for that server: `prefect worker start --pool {POOL}`."
        )
    return here


_STATES = TypeAdapter(State)
STATE_FILE = "control.json"


def read_state(home: Path) -> State | None:
    """Read what has been started here; None where nothing was. A file that is damaged is a ConfigurationError."""
    file = home / STATE_FILE
    try:
        return _STATES.validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise ConfigurationError(
            f"{file} can't be read, so what has been started here is not known. End what runs of it "
            "(`presswork.operate.prefect_server`, `prefect worker`), and remove the file."
        ) from None


def write_state(home: Path, state: State | None) -> None:
    """Write what has been started, whole or not at all; None: nothing is any more."""
    file = home / STATE_FILE
    if state is None:
        file.unlink(missing_ok=True)
        return
    fresh = file.with_suffix(".new")
    fresh.write_bytes(_STATES.dump_json(state, indent=2))
    fresh.replace(file)


@contextmanager
def locked(home: Path, patience_s: float) -> Iterator[None]:
    """Be the only call that starts or stops services here; BusyError where another does not end in time."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / "control.lock", timeout=patience_s).acquire()
    except Timeout:
        raise BusyError from None
    except OSError as error:
        raise ConfigurationError(
            f"{home} can't be written: {os.strerror(error.errno) if error.errno else error}. "
            "Fix that, or set PRESSWORK_STATE_DIR to another folder."
        ) from None
    with lock:
        yield


def start_process(command: Sequence[str], environment: Mapping[str, str], log: Path | None) -> Process:
    """Start a service, out of reach of this terminal's Ctrl-C. Without a log, it prints where we do."""
    with log.open("ab") if log else nullcontext() as output:
        child = prefect_server.start_in_own_session(command, environment, output, subprocess.DEVNULL)
    # It is known by its pid from now on; whoever started it need not wait for it.
    child.returncode = 0
    return Process(child.pid, born(child.pid) or "")


def current_process() -> Process:
    """The process that asks."""
    return Process(os.getpid(), born(os.getpid()) or "")


def stop_processes(processes: Sequence[Process], *, within_s: float) -> None:
    """End processes: SIGTERM, and SIGKILL for those that have not ended within some seconds."""
    for number, patience_s in ((signal.SIGTERM, within_s), (signal.SIGKILL, _KILLED_WITHIN_S)):
        for process in processes:
            if process.is_alive:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        deadline = time.monotonic() + patience_s
        while any(process.is_alive for process in processes) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)


def reap_children() -> None:
    """Let children of this process that have ended be forgotten by the system."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def marked_processes(mark: str) -> list[Process]:
    """Find the processes that carry a mark in their environment."""
    entry = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            carries = entry in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is not ours to look at
            continue
        if carries and (when := born(int(folder.name))):
            found.append(Process(int(folder.name), when))
    return found


def born(pid: int) -> str | None:
    """When a process began, as db.identity knows it; None where none of this pid runs."""
    if boot_id() != UNKNOWN:
        start = started(pid)
        return None if start == UNKNOWN else f"{boot_id()} {start}"
    told = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],  # noqa: S607 - the system's own, wherever that is
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split(maxsplit=1)
    # One that has ended, and is only not forgotten yet, is listed as Z or X.
    return None if not told or told[0].startswith(("Z", "X")) else told[-1].strip()
