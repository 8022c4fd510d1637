"""Record the services of an installation in a file, find their processes again, and stop them.

With this file, a later call recognizes its own processes, also after a crash or a reboot. Only one call starts or stops
services at a time.

Services are stopped in order: flow runs, worker, server. The flow runs come first because they need time to record
requests in flight, and Prefect's worker would kill them at once. The server comes last because the others report to it.
Nothing waits for the audit room.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from db.machine import monotonic_s, pause
from presswork.addresses import url_of
from presswork.errors import ConfigurationError
from presswork.operate.prefect_server import SERVER_STOPS_WITHIN_S
from presswork.operate.processes import Process, marked_processes, stop_processes

SERVER, WORKER, AUDIT, SUPERVISOR = "server", "worker", "audit", "supervisor"
SERVICE_NAMES = {SERVER: "Prefect's server", WORKER: "the worker", AUDIT: "the audit room"}
Say = Callable[[str], None]
"""How a command reports its progress to a person, line by line."""
STATE_FILE = "control.json"
WORKER_STOPS_WITHIN_S = 45.0  # it gives a flow run 30 s
RUN_RECORDED_WITHIN_S = 15.0  # after the time that a run waits for what is in flight
STAMP = "%Y-%m-%d %H:%M:%S "
"""How a line of the supervisor's log begins."""
AUDIT_STOPS_WITHIN_S = 10.0
STOP_ORDER = {WORKER: WORKER_STOPS_WITHIN_S, AUDIT: AUDIT_STOPS_WITHIN_S, SERVER: SERVER_STOPS_WITHIN_S}
_WORDS = {
    SERVER: ["presswork.operate.server_process"],
    WORKER: ["prefect", "worker", "start"],
    AUDIT: ["presswork.cli", "audit"],
}
"""The words in its command line that distinguish a service from the flow runs, which have the same mark."""
_SERVICES_STOP_WITHIN_S = RUN_RECORDED_WITHIN_S + sum(STOP_ORDER.values())
_STAMPED = 20  # characters
_POLL_S = 0.2


class BusyError(ConfigurationError):
    """Another `presswork up` or `presswork down` is running here. Wait until it has ended."""


class SupervisedError(ConfigurationError):
    """Another supervisor runs here. Stop it with `presswork down`."""


@dataclass(frozen=True)
class Installation:
    """Where the services are, and their settings; with `audit_port` 0 there is no audit room."""

    home: Path
    host: str
    port: int
    auth_string: str | None
    starts_within_s: float
    run_stops_within_s: float
    audit_host: str = "127.0.0.1"
    audit_port: int = 0

    @property
    def url(self) -> str:
        """The server's address on this machine."""
        return url_of(self.host, self.port)

    @property
    def api(self) -> str:
        """The address of its API: the value for PREFECT_API_URL."""
        return f"{self.url}/api"

    def log(self, service: str) -> Path:
        """The file for a service's output."""
        return self.home / f"{service}.log"


@dataclass(frozen=True)
class State:
    """The started services: the server (with its API), the worker, the audit room, and their supervisor.

    `mark` is in the environment of the services and all processes that they start: flow runs are found by it.
    """

    mark: str
    api: str
    server: Process | None = None
    worker: Process | None = None
    audit: Process | None = None
    audit_url: str | None = None
    audit_error: str | None = None
    """Why the audit room was not started, or is not started again."""
    supervisor: Process | None = None
    stopping: bool = False
    """Whether the supervisor is stopping all."""

    def living(self, service: str) -> Process | None:
        """A service that runs; None if it has ended or was never started."""
        process: Process | None = getattr(self, service)
        return process if process is not None and process.is_alive else None

    @property
    def lives(self) -> bool:
        """Whether any of these processes runs."""
        return any(map(self.living, (*SERVICE_NAMES, SUPERVISOR)))

    @property
    def is_supervised(self) -> bool:
        """Whether a supervisor runs, and is not stopping all."""
        return not self.stopping and self.living(SUPERVISOR) is not None

    def flow_runs(self) -> list[Process]:
        """Find the processes that the services have started, also those of a crashed service."""
        return [process for process in marked_processes(self.mark) if not self.knows(process)]

    def knows(self, process: Process) -> bool:
        """Whether it is a service or the supervisor."""
        return process in (self.server, self.worker, self.audit, self.supervisor)


_STATES = TypeAdapter(State)


def read_state(home: Path) -> State | None:
    """Read which services were started here; None if there are none. ConfigurationError if the file is damaged."""
    file = home / STATE_FILE
    try:
        return _STATES.validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise ConfigurationError(
            f"{file} can't be read, so the services that run here are unknown. Stop the processes that still run "
            "(`presswork.operate`, `presswork.cli audit`, `prefect worker`), then remove the file."
        ) from None


def write_state(home: Path, state: State | None) -> None:
    """Write the started services atomically; None if nothing runs any more."""
    file = home / STATE_FILE
    if state is None:
        file.unlink(missing_ok=True)
        return
    new = file.with_suffix(".new")
    new.write_bytes(_STATES.dump_json(state, indent=2))
    new.replace(file)


@contextmanager
def locked(
    home: Path, patience_s: float, file: str = "control.lock", taken: type[ConfigurationError] = BusyError
) -> Iterator[None]:
    """Be the only call that starts or stops services here; `taken` is raised if another does not end in time."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / file, timeout=patience_s).acquire()
    except Timeout:
        raise taken from None
    except OSError as error:
        raise ConfigurationError(
            f"{home} can't be written: {os.strerror(error.errno) if error.errno else error}. "
            "Fix that, or set PRESSWORK_STATE_DIR to another folder."
        ) from None
    with lock:
        yield


def stop_services(home: Path, run_stops_within_s: float, say: Say) -> list[str]:
    """Stop all that was started here, and return the names of what was stopped; empty if nothing runs."""
    state = read_state(home)
    named = []
    if state and (supervisor := state.living(SUPERVISOR)):
        named += ["flow runs"] if state.flow_runs() else []
        named += [SERVICE_NAMES[service] for service in STOP_ORDER if state.living(service)]
        say(f"Stopping the supervisor (process {supervisor.pid}) and what it started ...")
        stop_supervisor(home, supervisor, run_stops_within_s, say)
        state = read_state(home)
    if state is None:
        return named
    with locked(home, run_stops_within_s + _SERVICES_STOP_WITHIN_S):
        state = read_state(home)
        if state and state.living(SUPERVISOR):  # an `up` that waited for the lock has started it since
            return named
        return named + [name for name in stop_started(home, run_stops_within_s, say) if name not in named]


def stop_supervisor(home: Path, supervisor: Process, run_stops_within_s: float, say: Say) -> None:
    """Stop the supervisor, which stops its services, and pass on what it logs."""
    with open_log(home) as lines:
        with suppress(ProcessLookupError):
            os.kill(supervisor.pid, signal.SIGTERM)
        follow(supervisor, lines, say, within_s=run_stops_within_s + _SERVICES_STOP_WITHIN_S)
    stop_processes([supervisor], within_s=0)


def wait_until_stopped(home: Path, supervisor: Process, run_stops_within_s: float, say: Say) -> None:
    """Wait until a supervisor that is stopping all has ended; BusyError if it does not end in time."""
    say(f"The services are being stopped. Waiting until the supervisor (process {supervisor.pid}) has ended ...")
    with open_log(home) as lines:
        follow(supervisor, lines, say, within_s=run_stops_within_s + _SERVICES_STOP_WITHIN_S)
    if supervisor.is_alive:
        raise BusyError


def stop_started(home: Path, run_stops_within_s: float, say: Say, *, keep: State | None = None) -> list[str]:
    """Stop the recorded services, except those of `keep`. Call it from the supervisor or `locked`."""
    state = read_state(home)
    if state is None:
        return []
    kept = [process for process in (keep.worker, keep.audit, keep.server) if process] if keep else []
    named = []
    if not kept and (runs := state.flow_runs()):
        say(f"Stopping {'a flow run' if len(runs) == 1 else 'flow runs'} ...")
        stop_processes(runs, within_s=run_stops_within_s + RUN_RECORDED_WITHIN_S)
        named.append("flow runs")
    for service, within_s in STOP_ORDER.items():
        process = state.living(service)
        if process and process not in kept:
            say(f"Stopping {SERVICE_NAMES[service]} ...")
            stop_processes([process], within_s=within_s)
            named.append(SERVICE_NAMES[service])
    write_state(home, keep if kept else None)
    return named


def stop_unrecorded(state: State, say: Say) -> None:
    """Stop the services that a supervisor started, but was killed before it could record them.

    Call it while no supervisor runs.
    """
    for service, within_s in STOP_ORDER.items():
        found = [process for process in marked_processes(state.mark, *_WORDS[service]) if not state.knows(process)]
        if found:
            say(f"Stopping {SERVICE_NAMES[service]} that a killed supervisor has left ...")
            stop_processes(found, within_s=within_s)


def open_log(home: Path) -> TextIO:
    """Open the supervisor's log at its end; it is made if it does not exist."""
    lines = (home / f"{SUPERVISOR}.log").open("a+", encoding="utf-8", errors="replace")
    lines.seek(0, os.SEEK_END)
    return lines


def follow(
    supervisor: Process, lines: TextIO, say: Say, *, within_s: float, until: Callable[[], bool] = lambda: False
) -> None:
    """Print the supervisor's log until `until` is true, the supervisor has ended, or `within_s` seconds have passed."""
    deadline = monotonic_s() + within_s
    while True:
        is_last = until() or not supervisor.is_alive or monotonic_s() > deadline
        for line in lines:
            say(line[_STAMPED:].rstrip())
        if is_last:
            return
        pause(_POLL_S)
