"""Start Prefect's server, the worker and the audit room, restart one that ends by itself, and stop all in order.

`presswork up --foreground` supervises in its own process. `presswork up` starts this module as a process of its own,
which logs to `supervisor.log`; it imports neither Prefect nor SQLAlchemy, because it stays. If the supervisor itself is
killed, the services continue: the next one adopts them, and `presswork down` stops them.
"""

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from dotenv import dotenv_values
from pydantic import TypeAdapter

from db.machine import monotonic_s, pause, utc_now
from db.words import POOL
from presswork.addresses import url_of, why_not
from presswork.errors import ConfigurationError, PressworkError
from presswork.operate.installation import (
    AUDIT,
    SERVER,
    SERVICE_NAMES,
    STAMP,
    SUPERVISOR,
    WORKER,
    Installation,
    Say,
    State,
    SupervisedError,
    locked,
    read_state,
    stop_started,
    write_state,
)
from presswork.operate.prefect_server import QUIET, Server, is_healthy, wait_until_healthy
from presswork.operate.processes import (
    MARK,
    Process,
    current_process,
    ended_by_signals,
    ignore_stop_signals,
    let_go,
    reap_children,
    start_in_own_session,
)
from presswork.settings import AUDIT_URL, ROOT

DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
LEASES = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"
FILE_LEASES = "prefect.server.concurrency.lease_storage.filesystem"
CHECK_SERVICES_S = 0.5
PAUSES_S = (1, 2, 4, 8)
"""The pauses before a service is restarted. If it ends once more within PAUSES_WITHIN_S, all is stopped.

Not if it is the audit room: nobody's content waits for that, so the others go on without it.
"""
PAUSES_WITHIN_S = 600.0
ENDS_WITHIN_S = 5.0
"""How long an earlier supervisor, which has stopped its services, may need to end."""
ERROR = "Error: "
_INSTALLATIONS = TypeAdapter(Installation)


class ServiceError(PressworkError):
    """A service did not start, or ended; its log has the reason."""


class Supervisor:
    """Supervises the services of an installation. With `logs`, their output goes to files."""

    def __init__(self, here: Installation, say: Say, *, logs: bool) -> None:
        self._here = here
        self._say = say
        self._logs = logs
        state = read_state(here.home) or State(uuid.uuid4().hex, here.api)
        for service, called in SERVICE_NAMES.items():
            process: Process | None = getattr(state, service)
            if process is not None and not process.is_alive:
                say(f"{called.capitalize()} (process {process.pid}) has ended since. Starting another.")
        self.state = replace(
            state,
            api=here.api,
            server=state.living(SERVER),
            worker=state.living(WORKER),
            audit=state.living(AUDIT),
            supervisor=current_process(),
            stopping=False,
            audit_error=None,
        )
        self._ends: dict[str, list[float]] = {service: [] for service in SERVICE_NAMES}
        self._environment = _environment(here, self.state.mark)

    def start(self) -> None:
        """Start what does not run. If that fails, stop what this call has started, and nothing else."""
        adopted = self.state
        write_state(self._here.home, adopted)
        try:
            if adopted.audit is None:
                self._start_audit_room()
            if adopted.server is None:
                self._say("Starting Prefect's server ...")
                self._start(SERVER)
            server = self.state.server
            assert server is not None
            wait_until_healthy(self._here.api, server, self._here.starts_within_s, self._here.log(SERVER))
            if adopted.worker is None:
                self._say("Starting the worker ...")
                self._start(WORKER)
        except PressworkError:
            ignore_stop_signals()
            stop_started(
                self._here.home,
                self._here.run_stops_within_s,
                lambda _text: None,
                keep=replace(adopted, supervisor=None),
            )
            raise

    def watch(self) -> NoReturn:
        """Watch, and restart what ends.

        ServiceError if one service ends too often, SupervisedError if the state names another supervisor.
        """
        due: dict[str, float] = {}
        while True:
            if not self._is_in_charge():
                raise SupervisedError
            for service in SERVICE_NAMES:
                if self.state.living(service) or (service == AUDIT and self.state.audit is None):
                    continue
                if service not in due:
                    due[service] = monotonic_s() + self._pause(service)
                elif monotonic_s() >= due[service] and (service != WORKER or is_healthy(self._here.api)):
                    # The flow runs of a worker that has ended are left alone. They report to the server themselves,
                    # so they complete without it; the new worker takes only new ones.
                    self._start(service)
                    del due[service]
            reap_children()
            pause(CHECK_SERVICES_S)

    def stop(self) -> None:
        """Stop all in order, unless another supervisor is in charge of it, or start() has failed."""
        ignore_stop_signals()
        if self._is_in_charge():
            write_state(self._here.home, replace(self.state, stopping=True))
            stop_started(self._here.home, self._here.run_stops_within_s, self._say)

    def _is_in_charge(self) -> bool:
        """Whether the state names this supervisor. If its file is lost or damaged, write it again."""
        try:
            state = read_state(self._here.home)
        except ConfigurationError:
            state = None
        if state is None:
            write_state(self._here.home, self.state)
        return state is None or state.supervisor == self.state.supervisor

    def _pause(self, service: str) -> float:
        now, called = monotonic_s(), SERVICE_NAMES[service].capitalize()
        ends = self._ends[service] = [when for when in self._ends[service] if now - when < PAUSES_WITHIN_S] + [now]
        see = f"; see {self._here.log(service)}" if self._logs else ""
        if len(ends) > len(PAUSES_S):
            minutes = f"{PAUSES_WITHIN_S / 60:.0f} minutes"
            ended = f"{called} has ended by itself {len(ends)} times within {minutes}{see}."
            if service != AUDIT:
                raise ServiceError(ended)
            self._say(f"{ended} The other services go on without it.")
            self._record(audit=None, audit_error=ended)
            return 0
        pause_s = PAUSES_S[len(ends) - 1]
        self._say(f"{called} has ended by itself{see}. Restarting it in {pause_s} s.")
        return pause_s

    def _start_audit_room(self) -> None:
        """Start the audit room if there is to be one; if its port can't be used, say so and go on without it."""
        here = self._here
        if not here.audit_port:
            return
        if error := why_not(here.audit_host, here.audit_port):
            reason = (
                f"It can't listen on {here.audit_host}, port {here.audit_port}: {error.strerror or error}. Set "
                "PRESSWORK_AUDIT_HOST or PRESSWORK_AUDIT_PORT to another, or PRESSWORK_AUDIT_PORT=0 to go without it."
            )
            self._say(f"The audit room was not started. {reason}")
            self._record(audit=None, audit_error=reason)
            return
        self._say("Starting the audit room ...")
        self.state = replace(self.state, audit_url=url_of(here.audit_host, here.audit_port))
        self._start(AUDIT)

    def _start(self, service: str) -> None:
        start = {SERVER: self._start_server, WORKER: self._start_worker, AUDIT: self._start_auditing}[service]
        self._record(**{service: let_go(start())})

    def _record(self, **changed: Any) -> None:
        self.state = replace(self.state, **changed)
        write_state(self._here.home, self.state)

    def _start_server(self) -> subprocess.Popen[bytes]:
        return self._server().start(self._environment)

    def _server(self) -> Server:
        here, given = self._here, self._environment
        settings = {
            "PREFECT_SERVER_API_HOST": here.host,
            "PREFECT_SERVER_API_PORT": str(here.port),
            # Only a server that still knows who holds a slot of a concurrency limit releases it in time.
            LEASES: given.get(LEASES) or FILE_LEASES,
            "PREFECT_HOME": str(here.home / "prefect-home"),
            # Unless Prefect's settings name another database. No other server ever uses this one.
            DATABASE: given.get(DATABASE) or f"sqlite+aiosqlite:///{here.home / 'control.db'}",
        }
        if here.auth_string:
            settings["PREFECT_SERVER_API_AUTH_STRING"] = here.auth_string
        return Server(here.host, here.port, settings, self._log(SERVER))

    def _start_worker(self) -> subprocess.Popen[bytes]:
        environment = self._client_environment()
        if self.state.audit and AUDIT_URL not in environment and AUDIT_URL not in dotenv_values(ROOT / ".env"):
            environment[AUDIT_URL] = self.state.audit_url or ""
        command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start"]
        command += ["--pool", POOL, "--type", "process", "--name", socket.gethostname()]
        return start_in_own_session(command, environment, self._log(WORKER))

    def _start_auditing(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "presswork.cli", "audit"]
        command += ["--host", self._here.audit_host, "--port", str(self._here.audit_port)]
        return start_in_own_session(command, self._client_environment(), self._log(AUDIT))

    def _client_environment(self) -> dict[str, str]:
        """Return the environment of a service that asks our server."""
        environment = self._environment | {"PREFECT_API_URL": self._here.api, "PREFECT_LOGGING_COLORS": "false"}
        if self._here.auth_string:
            environment["PREFECT_API_AUTH_STRING"] = self._here.auth_string
        return environment

    def _log(self, service: str) -> Path | None:
        # systemd and containers keep what is printed.
        return self._here.log(service) if self._logs else None


@contextmanager
def supervising(here: Installation, say: Say, *, logs: bool) -> Iterator[Supervisor]:
    """Start the services and yield their supervisor. However the block ends, stop all in order.

    SupervisedError if another supervisor runs here. The system releases the lock even after `kill -9`.
    """
    with ended_by_signals(), locked(here.home, ENDS_WITHIN_S, "supervisor.lock", SupervisedError):
        supervisor = Supervisor(here, say, logs=logs)
        try:
            supervisor.start()
            yield supervisor
        finally:
            supervisor.stop()


def start_supervisor(here: Installation) -> Process:
    """Start a supervisor as a process of its own. It gets the installation by a pipe, because that has a password."""
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    command = [sys.executable, "-m", "presswork.operate.supervisor"]
    child = start_in_own_session(command, environment, here.log(SUPERVISOR), subprocess.PIPE)
    process = let_go(child)
    assert child.stdin is not None
    # If it has ended before it read this, its log has the reason.
    with suppress(BrokenPipeError), child.stdin:
        child.stdin.write(_INSTALLATIONS.dump_json(here))
    return process


def _environment(here: Installation, mark: str) -> dict[str, str]:
    """Return our environment without the run settings from `.env`: each run reads those itself when it starts."""
    said = {name: value for name, value in dotenv_values(ROOT / ".env").items() if not name.startswith("PREFECT_")}
    kept = {name: value for name, value in os.environ.items() if said.get(name) != value}
    return {**kept, **QUIET, "PRESSWORK_STATE_DIR": str(here.home), MARK: mark}


def _log_line(text: str) -> None:
    print(f"{utc_now():{STAMP}}{text}", flush=True)  # noqa: T201 - this process's output is its log


def main() -> int:
    """Supervise until a signal; return 1 if a service did not start, or ended too often."""
    try:
        with supervising(_INSTALLATIONS.validate_json(sys.stdin.buffer.read()), _log_line, logs=True) as supervisor:
            supervisor.watch()
    except PressworkError as error:
        _log_line(f"{ERROR}{error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
