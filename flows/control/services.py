"""Services: the Prefect server and the worker that one machine needs, started, and what is missing of them mended.

Nothing is taken for ours that is not: room.py says what is remembered, processes.py how.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from dotenv import dotenv_values

from db.words import POOL
from flows.control import processes
from flows.control.answering import UNHEARD, require_answer, server_version
from flows.control.processes import Process
from flows.control.room import CALLED, SERVER, SUPERVISOR, WORKER, Room, State, alone, read_state, write_state
from flows.control.shutdown import Say, ServiceError, stop_started
from flows.engine.orchestration.prefect_server import QUIET, TUNING, is_healthy
from flows.errors import ConfigurationError
from flows.settings import ROOT

DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
LEASES = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"
_LOOK_S = 0.2


def start_services(room: Room, say: Say, *, watched: bool = False) -> tuple[State, list[str]]:
    """Start the server, the pool, all deployments and the worker, or what of it is missing; wait until all is healthy.

    Returns what runs, and the deployments' names. What this call has started is stopped again where it fails.
    `watched` says that this process stays and watches. Raises ServiceError, BusyError or ConfigurationError.
    """
    with alone(room.home, room.starts_within_s):
        before = read_state(room.home)
        _require_no_other(room, before, watched=watched)
        state = _what_lives(room, before, say)
        if watched:
            state = replace(state, supervisor=processes.this_process())
        write_state(room.home, state)
        try:
            return _started(room, state, say)
        except BaseException:
            stop_started(room.home, room.run_stops_within_s, keep=state)
            raise


def _require_no_other(room: Room, before: State | None, *, watched: bool) -> None:
    """Refuse where something runs that this call could only put a second one beside."""
    if before is None or not any(map(before.living, (SERVER, WORKER, SUPERVISOR))):
        return
    if watched:
        where = f"watched by process {before.supervisor.pid}" if before.supervisor else "in the background"
        raise ConfigurationError(f"It already runs here, {where}; `presswork down` ends that.")
    if before.api != room.api and before.living(SERVER):
        raise ConfigurationError(
            f"Prefect's server already runs here, at {before.api}, and the settings now say {room.api}: "
            "`presswork down` first."
        )


def _what_lives(room: Room, before: State | None, say: Say) -> State:
    """Keep what still runs of what was started; what has ended is said."""
    if before is None:
        return State(mark=uuid.uuid4().hex, api=room.api)
    for service, called in CALLED.items():
        process: Process | None = getattr(before, service)
        if process is not None and not process.is_alive:
            say(f"{called.capitalize()} (process {process.pid}) has ended since; starting another.")
    return replace(
        before,
        api=room.api,
        server=before.living(SERVER),
        worker=before.living(WORKER),
        supervisor=before.living(SUPERVISOR),
    )


def _started(room: Room, state: State, say: Say) -> tuple[State, list[str]]:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings  # noqa: PLC0415 - as in room.py

    if state.server is None:
        _require_free_port(room)
        say("Starting Prefect's server ...")
        state = replace(state, server=_start_server(room, state))
        write_state(room.home, state)
    assert state.server is not None
    _wait_for_server(room, state.server)
    require_answer(room.api, room.auth_string)
    with temporary_settings({PREFECT_API_URL: room.api, PREFECT_API_AUTH_STRING: room.auth_string}):
        return asyncio.run(_furnish(room, state, say))


async def _furnish(room: Room, state: State, say: Say) -> tuple[State, list[str]]:
    """See to all that a healthy server has to know: the pool, the worker, the deployments."""
    from flows.control import pools  # noqa: PLC0415 - loads Prefect
    from flows.control.deployments import deploy_all  # noqa: PLC0415 - as above

    await pools.ensure_pool(POOL, say)
    began = datetime.now(UTC)
    is_new = state.worker is None
    if is_new:
        say("Starting the worker ...")
        state = replace(state, worker=_start_worker(room, state))
        write_state(room.home, state)
    names = await deploy_all(work_pool=POOL, say=say)
    if is_new:
        await _wait_for_worker(room, state, began)
    return state, names


def worker_name() -> str:
    """What the worker is called in Prefect."""
    return socket.gethostname()


def _start_server(room: Room, state: State) -> Process:
    environment = {
        **_environment(room, state),
        **TUNING,
        "PREFECT_SERVER_API_HOST": room.host,
        "PREFECT_SERVER_API_PORT": str(room.port),
        # A place in a concurrency limit is given back in time only by a server that still knows who has it.
        LEASES: os.environ.get(LEASES) or "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_HOME": str(room.home / "prefect-home"),
        DATABASE: os.environ.get(DATABASE) or f"sqlite+aiosqlite:///{room.database}",
        "PREFECT__SERVER_FINAL": "1",
    }
    if room.auth_string:
        environment["PREFECT_SERVER_API_AUTH_STRING"] = room.auth_string
    # The UI is told where the API is by this, or else by host and port.
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "flows.engine.orchestration.prefect_server", str(room.port), room.host]
    return _start(room, state, SERVER, command, environment)


def _start_worker(room: Room, state: State) -> Process:
    environment = {**_environment(room, state), "PREFECT_API_URL": room.api, "PREFECT_LOGGING_COLORS": "false"}
    if room.auth_string:
        environment["PREFECT_API_AUTH_STRING"] = room.auth_string
    command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start"]
    command += ["--pool", POOL, "--type", "process", "--name", worker_name()]
    return _start(room, state, WORKER, command, environment)


def _start(room: Room, state: State, service: str, command: Sequence[str], environment: dict[str, str]) -> Process:
    if state.supervisor is not None:
        # systemd and containers keep what is printed.
        return processes.start(command, environment, None)
    with room.log(service).open("ab") as output:
        return processes.start(command, environment, output)


def _environment(room: Room, state: State) -> dict[str, str]:
    """Our environment, but for what `.env` says of runs: each run reads that anew, as it is then."""
    said = {name: value for name, value in dotenv_values(ROOT / ".env").items() if not name.startswith("PREFECT_")}
    kept = {name: value for name, value in os.environ.items() if said.get(name) != value}
    return {**kept, **QUIET, "PRESSWORK_STATE_DIR": str(room.home), processes.MARK: state.mark}


def _require_free_port(room: Room) -> None:
    """Raise ConfigurationError that says what is wrong with the port, and who has it."""
    try:
        found = socket.getaddrinfo(room.host, room.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _protocol, _name, address = found[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise ConfigurationError(
                f"Prefect's server can't listen on {room.host}, port {room.port}: {error.strerror or error}. "
                "Correct PREFECT_SERVER_API_HOST or PREFECT_SERVER_API_PORT."
            ) from None
        raise ConfigurationError(
            f"Port {room.port} is taken by {_taken_by(room)}. End that, or have another port: "
            f"PREFECT_SERVER_API_PORT={room.port + 1}."
        ) from None


def _taken_by(room: Room) -> str:
    if not is_healthy(room.api):
        return "another program"
    try:
        version = server_version(room.api, room.auth_string)
    except UNHEARD:
        version = None
    named = f" (version {version})" if version else ""
    return f"another Prefect server{named}, which PREFECT_API_URL={room.api} would use"


def _wait_for_server(room: Room, server: Process) -> None:
    deadline = time.monotonic() + room.starts_within_s
    while time.monotonic() < deadline:
        if not server.is_alive:
            raise ServiceError(f"Prefect's server ended while it started; see {room.log(SERVER)}.")
        if is_healthy(room.api):
            return
        time.sleep(_LOOK_S)
    raise ServiceError(
        f"Prefect's server (process {server.pid}) does not answer at {room.api}; see {room.log(SERVER)}. On a slow "
        "machine raise PRESSWORK_PREFECT_STARTUP_TIMEOUT_S; if it hangs, `presswork down` ends it."
    )


async def _wait_for_worker(room: Room, state: State, since: datetime) -> None:
    from flows.control import pools  # noqa: PLC0415 - loads Prefect

    deadline = time.monotonic() + room.starts_within_s
    while time.monotonic() < deadline:
        if state.living(WORKER) is None:
            raise ServiceError(f"The worker ended while it started; see {room.log(WORKER)}.")
        if await pools.heard_of(POOL, worker_name(), since):
            return
        await asyncio.sleep(_LOOK_S)
    raise ServiceError(f"The worker runs, but Prefect's server has not heard of it; see {room.log(WORKER)}.")
