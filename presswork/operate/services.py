"""Start the services of a machine that do not run yet, and set up its Prefect server."""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TextIO

from prefect import settings as prefect

from db.machine import monotonic_s, utc_now
from db.words import POOL
from presswork.addresses import why_not
from presswork.errors import ConfigurationError
from presswork.operate import prefect_server
from presswork.operate.command_server.retiring_server import retire_server
from presswork.operate.deployments import deploy, ensure_pool
from presswork.operate.installation import (
    SERVER,
    SUPERVISOR,
    WORKER,
    Installation,
    Say,
    State,
    follow,
    locked,
    open_log,
    read_state,
    stop_started,
    stop_supervisor,
    stop_unrecorded,
    wait_until_stopped,
)
from presswork.operate.overview import has_heard_of
from presswork.operate.processes import Process, ended_by_signals
from presswork.operate.supervisor import ERROR, ServiceError, Supervisor, start_supervisor, supervising
from presswork.settings import Settings

_LOOK_S = 0.2
_MARGIN_S = 30.0  # for the supervisor to start, and to report what failed


def read_installation(settings: Settings) -> Installation:
    """Read where the services belong, from our settings and Prefect's, wherever these are set.

    ConfigurationError if PREFECT_API_URL names another server.
    """
    port = prefect.PREFECT_SERVER_API_PORT.value()
    if not 0 < port < 65536:
        raise ConfigurationError(f"PREFECT_SERVER_API_PORT is {port}. Set it to a number from 1 to 65535.")
    here = Installation(
        home=settings.state_dir.resolve(),
        host=prefect.PREFECT_SERVER_API_HOST.value(),
        port=port,
        auth_string=prefect.PREFECT_SERVER_API_AUTH_STRING.value() or None,
        starts_within_s=settings.prefect_startup_timeout_s,
        run_stops_within_s=settings.stop_wait_s,
        audit_host=settings.audit_host,
        audit_port=settings.audit_port,
    )
    configured = prefect.PREFECT_API_URL.value()
    if configured and configured.rstrip("/").replace("//localhost:", "//127.0.0.1:") != here.api:
        raise ConfigurationError(
            f"PREFECT_API_URL is {configured}, but `presswork up` would start a server at {here.api}. Unset it, or "
            f"start only a worker for that server: `prefect worker start --pool {POOL}`."
        )
    return here


def start_services(here: Installation, say: Say) -> tuple[State, list[str]]:
    """Start a supervisor in the background, unless one runs, and wait until all is healthy and deployed.

    Returns what runs, and the deployments' names. If this fails and nothing ran before, nothing runs afterwards.
    Raises ServiceError, BusyError or ConfigurationError.
    """
    with locked(here.home, here.starts_within_s):
        before = _read_startable(here, say)
        supervisor = before.living(SUPERVISOR)
        try:
            began = utc_now()
            with open_log(here.home) as lines:
                supervisor = supervisor or start_supervisor(here)
                state = _wait_until_up(here, supervisor, lines, say)
            since = began if state.worker != before.worker else None
            names = _set_up(here, say, since, lambda: state.living(SUPERVISOR))
        except BaseException:
            if not before.lives:
                # It may not have written the state yet, so the state need not name it.
                if supervisor is not None:
                    stop_supervisor(here.home, supervisor, here.run_stops_within_s, _say_nothing)
                stop_started(here.home, here.run_stops_within_s, _say_nothing)
            raise
        now = read_state(here.home)
        if now is None or not now.is_supervised:
            raise ServiceError("The services were stopped while they started.")
        return state, names


@contextmanager
def foreground_services(here: Installation, say: Say) -> Iterator[tuple[Supervisor, list[str]]]:
    """Start the services with their supervisor in this process, and all deployments; stop all when the block ends."""
    with ended_by_signals(), ExitStack() as starting:
        starting.enter_context(locked(here.home, here.starts_within_s))
        before = _read_startable(here, say)
        if supervisor := before.living(SUPERVISOR):
            raise ConfigurationError(
                f"The services already run here, supervised by process {supervisor.pid}. Stop them with "
                "`presswork down`."
            )
        began = utc_now()
        with supervising(here, say, logs=False) as supervised:
            state = supervised.state
            since = began if state.worker != before.worker else None
            names = _set_up(here, say, since, lambda: state.living(WORKER))
            starting.close()
            yield supervised, names


def _read_startable(here: Installation, say: Say) -> State:
    """Read which services already run; ConfigurationError if they, or the port, prevent a start.

    If they are being stopped, wait for that first. The server that stayed after a command ends, because later commands
    use this one.
    """
    before = read_state(here.home) or State("", here.api)
    if before.stopping and (supervisor := before.living(SUPERVISOR)):
        wait_until_stopped(here.home, supervisor, here.run_stops_within_s, say)
        before = read_state(here.home) or State("", here.api)
    if not before.living(SUPERVISOR):
        stop_unrecorded(before, say)
    if not (before.living(SERVER) or before.living(SUPERVISOR)):
        _require_free_port(here)
    elif before.api != here.api:
        raise ConfigurationError(
            f"Prefect's server already runs here, at {before.api}, but the settings name {here.api}. "
            "Run `presswork down` first."
        )
    _, note = retire_server(here.home)
    if note:
        say(f"{note} Later commands use the server that starts now.")
    return before


def _wait_until_up(here: Installation, supervisor: Process, lines: TextIO, say: Say) -> State:
    """Wait until server and worker run; else raise ServiceError with the supervisor's last error."""
    errors: list[str] = []

    def pass_on(line: str) -> None:
        if line.startswith(ERROR):
            errors.append(line.removeprefix(ERROR))
        else:
            say(line)

    follow(supervisor, lines, pass_on, within_s=here.starts_within_s + _MARGIN_S, until=lambda: _is_up(here))
    state = read_state(here.home)
    if errors or state is None or not _is_up(here):
        raise ServiceError(errors[-1] if errors else f"The services did not start; see {here.log(SUPERVISOR)}.")
    return state


def _is_up(here: Installation) -> bool:
    state = read_state(here.home)
    return (
        state is not None
        and state.is_supervised
        and all(map(state.living, (SERVER, WORKER)))
        and prefect_server.is_healthy(here.api)
    )


def _say_nothing(_text: str) -> None:
    pass


def _set_up(here: Installation, say: Say, since: datetime | None, is_alive: Callable[[], object]) -> list[str]:
    """Make the pool and the deployments on a healthy server, and wait for a worker that was started `since` then."""

    async def set_up() -> list[str]:
        await ensure_pool(POOL, say)
        made = await deploy(work_pool=POOL, say=say)
        if since is not None:
            await _wait_for_worker(here, since, is_alive)
        return made.names

    prefect_server.require_answer(here.api, here.auth_string)
    api = {prefect.PREFECT_API_URL: here.api, prefect.PREFECT_API_AUTH_STRING: here.auth_string}
    with prefect.temporary_settings(api):
        return asyncio.run(set_up())


async def _wait_for_worker(here: Installation, since: datetime, is_alive: Callable[[], object]) -> None:
    deadline = monotonic_s() + here.starts_within_s
    while not await has_heard_of(POOL, socket.gethostname(), since):
        if not is_alive():
            raise ServiceError(f"The worker ended while it started; see {here.log(WORKER)}.")
        if monotonic_s() > deadline:
            raise ServiceError(
                f"The worker runs, but Prefect's server has received no heartbeat from it; see {here.log(WORKER)}."
            )
        await asyncio.sleep(_LOOK_S)


def _require_free_port(here: Installation) -> None:
    """Raise ConfigurationError if the port can't be used; the message names the reason, and who has the port."""
    error = why_not(here.host, here.port)
    if error is None:
        return
    if error.errno != errno.EADDRINUSE:
        raise ConfigurationError(
            f"Prefect's server can't listen on {here.host}, port {here.port}: {error.strerror or error}. "
            "Correct PREFECT_SERVER_API_HOST or PREFECT_SERVER_API_PORT."
        )
    raise ConfigurationError(
        f"Port {here.port} is taken by {_taken_by(here)}. Stop that, or set another port: "
        f"PREFECT_SERVER_API_PORT={here.port + 1}."
    )


def _taken_by(here: Installation) -> str:
    if not prefect_server.is_healthy(here.api):
        return "another program"
    try:
        version = prefect_server.server_version(here.api, here.auth_string)
    except prefect_server.NO_ANSWER:
        version = None
    named = f" (version {version})" if version else ""
    return f"another Prefect server{named}; use it with PREFECT_API_URL={here.api}"
