"""Start the Prefect server and the worker that one machine needs, or what is missing of them, watch them and stop them.

Nothing is taken for ours that is not: installation.py says what is remembered, and how. All is stopped in order: first
the flow runs, which are given the time that a stopped run takes to record what is in flight, for Prefect's worker, told
to stop, would kill them at once; then the worker, then the server, to which they report.
"""

import asyncio
import errno
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType

from dotenv import dotenv_values

from db.words import POOL
from presswork.errors import ConfigurationError, PressworkError
from presswork.operate import installation, prefect_server
from presswork.operate.installation import SERVER, SERVICE_NAMES, SUPERVISOR, WORKER, Installation, Process, Say, State
from presswork.settings import ROOT

DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
LEASES = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"
FILE_LEASES = "prefect.server.concurrency.lease_storage.filesystem"
_LOOK_S = 0.2
SERVER_STOPS_WITHIN_S = 15.0
WORKER_STOPS_WITHIN_S = 45.0  # it gives a flow run 30 s
RUN_RECORDED_WITHIN_S = 15.0  # after the time that a run waits for what is in flight
CHECK_SERVICES_S = 0.5


class ServiceError(PressworkError):
    """A service did not start, or did not stay; its log says why."""


def start_services(here: Installation, say: Say, *, watched: bool = False) -> tuple[State, list[str]]:
    """Start the server, the pool, all deployments and the worker, or what of it is missing; wait until all is healthy.

    Returns what runs, and the deployments' names. What this call has started is stopped again where it fails.
    `watched` says that this process stays and watches. Raises ServiceError, BusyError or ConfigurationError.
    """
    with installation.locked(here.home, here.starts_within_s):
        before = installation.read_state(here.home) or State(mark=uuid.uuid4().hex, api=here.api)
        _require_no_other(here, before, watched=watched)
        for service, called in SERVICE_NAMES.items():
            process: Process | None = getattr(before, service)
            if process is not None and not process.is_alive:
                say(f"{called.capitalize()} (process {process.pid}) has ended since; starting another.")
        server, worker, supervisor = map(before.living, (SERVER, WORKER, SUPERVISOR))
        if watched:
            supervisor = installation.current_process()
        state = replace(before, api=here.api, server=server, worker=worker, supervisor=supervisor)
        installation.write_state(here.home, state)
        try:
            return _started(here, state, say)
        except BaseException:
            stop_started(here.home, here.run_stops_within_s, lambda _text: None, keep=state)
            raise


def _require_no_other(here: Installation, before: State, *, watched: bool) -> None:
    """Raise ConfigurationError where something runs, and this call could only start a second one."""
    if not any(map(before.living, (SERVER, WORKER, SUPERVISOR))):
        return
    if watched:
        where = f"watched by process {before.supervisor.pid}" if before.supervisor else "in the background"
        raise ConfigurationError(f"It already runs here, {where}; `presswork down` ends that.")
    if before.api != here.api and before.living(SERVER):
        raise ConfigurationError(
            f"Prefect's server already runs here, at {before.api}, and the settings now say {here.api}: "
            "`presswork down` first."
        )


def _started(here: Installation, state: State, say: Say) -> tuple[State, list[str]]:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings  # noqa: PLC0415 - as in installation.py

    if state.server is None:
        _require_free_port(here)
        say("Starting Prefect's server ...")
        state = replace(state, server=_start_server(here, state))
        installation.write_state(here.home, state)
    server = state.server
    assert server is not None
    silent = (
        f"Prefect's server (process {server.pid}) does not answer at {here.api}; see {here.log(SERVER)}. On a slow "
        "machine raise PRESSWORK_PREFECT_STARTUP_TIMEOUT_S; if it hangs, `presswork down` ends it."
    )
    is_up = partial(asyncio.to_thread, prefect_server.is_healthy, here.api)
    asyncio.run(_wait(here, SERVER, server, is_up, silent))
    prefect_server.require_answer(here.api, here.auth_string)
    with temporary_settings({PREFECT_API_URL: here.api, PREFECT_API_AUTH_STRING: here.auth_string}):
        return asyncio.run(_set_up(here, state, say))


async def _set_up(here: Installation, state: State, say: Say) -> tuple[State, list[str]]:
    """Make what a healthy server has to know: the pool, the worker, the deployments."""
    from presswork.operate.deployments import deploy, ensure_pool  # noqa: PLC0415 - loads Prefect
    from presswork.operate.overview import has_heard_of  # noqa: PLC0415 - as above

    await ensure_pool(POOL, say)
    began = datetime.now(UTC)
    started = None
    if state.worker is None:
        say("Starting the worker ...")
        started = _start_worker(here, state)
        state = replace(state, worker=started)
        installation.write_state(here.home, state)
    made = await deploy(work_pool=POOL, say=say)
    if started is not None:
        silent = f"The worker runs, but Prefect's server has not heard of it; see {here.log(WORKER)}."
        await _wait(here, WORKER, started, partial(has_heard_of, POOL, socket.gethostname(), began), silent)
    return state, made.names


def _start_server(here: Installation, state: State) -> Process:
    given = _environment(here, state, PREFECT_SERVER_API_AUTH_STRING=here.auth_string)
    environment = prefect_server.server_environment(
        given,
        PREFECT_SERVER_API_HOST=here.host,
        PREFECT_SERVER_API_PORT=str(here.port),
        # A place in a concurrency limit is given back in time only by a server that still knows who has it.
        PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=given.get(LEASES) or FILE_LEASES,
        PREFECT_HOME=str(here.home / "prefect-home"),
        # Where Prefect's settings name no other database. No other server ever uses this one.
        PREFECT_SERVER_DATABASE_CONNECTION_URL=given.get(DATABASE) or f"sqlite+aiosqlite:///{here.home / 'control.db'}",
    )
    return installation.start_process(
        prefect_server.server_command(here.port, here.host), environment, _log(here, state, SERVER)
    )


def _start_worker(here: Installation, state: State) -> Process:
    environment = _environment(here, state, PREFECT_API_AUTH_STRING=here.auth_string)
    environment |= {"PREFECT_API_URL": here.api, "PREFECT_LOGGING_COLORS": "false"}
    command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start"]
    command += ["--pool", POOL, "--type", "process", "--name", socket.gethostname()]
    return installation.start_process(command, environment, _log(here, state, WORKER))


def _log(here: Installation, state: State, service: str) -> Path | None:
    # systemd and containers keep what is printed.
    return here.log(service) if state.supervisor is None else None


def _environment(here: Installation, state: State, **credentials: str | None) -> dict[str, str]:
    """Our environment, but for what `.env` says of runs: each run reads that itself, as it is then."""
    given = {name: value for name, value in credentials.items() if value}
    said = {name: value for name, value in dotenv_values(ROOT / ".env").items() if not name.startswith("PREFECT_")}
    kept = {name: value for name, value in os.environ.items() if said.get(name) != value}
    own = {"PRESSWORK_STATE_DIR": str(here.home), installation.MARK: state.mark}
    return {**kept, **prefect_server.QUIET, **own, **given}


def _require_free_port(here: Installation) -> None:
    """Raise ConfigurationError that says what is wrong with the port, and who has it."""
    try:
        found = socket.getaddrinfo(here.host, here.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _protocol, _name, address = found[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise ConfigurationError(
                f"Prefect's server can't listen on {here.host}, port {here.port}: {error.strerror or error}. "
                "Correct PREFECT_SERVER_API_HOST or PREFECT_SERVER_API_PORT."
            ) from None
        raise ConfigurationError(
            f"Port {here.port} is taken by {_taken_by(here)}. End that, or have another port: "
            f"PREFECT_SERVER_API_PORT={here.port + 1}."
        ) from None


def _taken_by(here: Installation) -> str:
    if not prefect_server.is_healthy(here.api):
        return "another program"
    try:
        version = prefect_server.server_version(here.api, here.auth_string)
    except prefect_server.NO_ANSWER:
        version = None
    named = f" (version {version})" if version else ""
    return f"another Prefect server{named}, which PREFECT_API_URL={here.api} would use"


async def _wait(
    here: Installation, service: str, process: Process, is_up: Callable[[], Awaitable[bool]], silent: str
) -> None:
    """Wait until a service is up; ServiceError where it ends, and, with what is said then, where it takes too long."""
    deadline = time.monotonic() + here.starts_within_s
    while time.monotonic() < deadline:
        if not process.is_alive:
            raise ServiceError(
                f"{SERVICE_NAMES[service].capitalize()} ended while it started; see {here.log(service)}."
            )
        if await is_up():
            return
        await asyncio.sleep(_LOOK_S)
    raise ServiceError(silent)


def stop_services(home: Path, run_stops_within_s: float, say: Say) -> list[str]:
    """Stop all that was started here, and name what was stopped; nothing where nothing runs."""
    state = installation.read_state(home)
    if state is None:
        return []
    longest_s = run_stops_within_s + RUN_RECORDED_WITHIN_S + WORKER_STOPS_WITHIN_S + SERVER_STOPS_WITHIN_S
    named: list[str] = []
    supervisor = state.living(SUPERVISOR)
    if supervisor and supervisor != installation.current_process():
        # It ends what it watches, in the same order.
        named = [called for service, called in SERVICE_NAMES.items() if state.living(service)]
        say(f"Stopping process {supervisor.pid}, which watches over the services ...")
        installation.stop_processes([supervisor], within_s=longest_s)
    with installation.locked(home, longest_s):
        return named + [name for name in stop_started(home, run_stops_within_s, say) if name not in named]


def stop_started(home: Path, run_stops_within_s: float, say: Say, *, keep: State | None = None) -> list[str]:
    """Stop what is remembered as started, but for what `keep` has of it; call it where the home is `locked`."""
    state = installation.read_state(home)
    if state is None:
        return []
    kept = [process for process in (keep.worker, keep.server) if process] if keep else []
    named = []
    if not kept and (runs := _flow_runs(state)):
        say(f"Stopping {'a flow run' if len(runs) == 1 else 'flow runs'} ...")
        installation.stop_processes(runs, within_s=run_stops_within_s + RUN_RECORDED_WITHIN_S)
        named.append("flow runs")
    for service, within_s in ((WORKER, WORKER_STOPS_WITHIN_S), (SERVER, SERVER_STOPS_WITHIN_S)):
        process = state.living(service)
        if process and process not in kept:
            say(f"Stopping {SERVICE_NAMES[service]} ...")
            installation.stop_processes([process], within_s=within_s)
            named.append(SERVICE_NAMES[service])
    installation.write_state(home, keep if kept else None)
    return named


@contextmanager
def watch_over(home: Path, run_stops_within_s: float, say: Say) -> Iterator[None]:
    """However the block ends, at whatever moment: stop what was started for this process to watch, and no other's."""
    try:
        yield
    finally:
        state = installation.read_state(home)
        if state is not None and state.supervisor == installation.current_process():
            stop_services(home, run_stops_within_s, say)


def watch_services(state: State) -> None:
    """Watch until a service ends by itself: ServiceError says which."""
    while True:
        for service, called in SERVICE_NAMES.items():
            if state.living(service) is None:
                raise ServiceError(f"{called.capitalize()} has ended by itself; its last lines above say why.")
        installation.reap_children()
        time.sleep(CHECK_SERVICES_S)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM, SIGINT or SIGHUP end the block, once, and with it this process, in order and with status 0."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def end(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(0)

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _flow_runs(state: State) -> list[Process]:
    """What the services have started, now or before one of them crashed: it carries their mark."""
    services = {state.server, state.worker, installation.current_process()}
    return [process for process in installation.marked_processes(state.mark) if process not in services]
