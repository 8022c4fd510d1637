"""Find or start a Prefect server to run flows against.

The order: the server in PREFECT_API_URL; else the one that `presswork up` has started here; else the one that commands
start, which may stay for the next command. This module loads Prefect, which takes seconds: a command checks its
arguments before it imports this.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from prefect import settings as prefect
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

from presswork.operate.command_server.server_context import CommandServer
from presswork.operate.installation import AUDIT, SERVER, read_state
from presswork.operate.prefect_server import PrefectServerError, require_answer
from presswork.settings import AUDIT_URL, Settings
from presswork.terminal import screen
from presswork.terminal.environment import environment

FLUSHED_WITHIN_S = 5.0
STARTING = "Starting Prefect's server (the first time takes longest) ..."


@contextmanager
def prefect_api(settings: Settings, server: CommandServer, *, say: bool) -> Iterator[str]:
    """Yield the URL of a Prefect API that answers, set up for this process; with `say`, show that a server starts.

    `server` is used, and started if that has not been done, unless there is another one.
    """
    with known_api(settings) as known, ExitStack() as stack:
        if known is not None:
            yield known
            return
        server.begin()
        if say and server.note:
            screen.say(server.note)
        with _waiting(say=say and server.is_starting) as tell:
            url = server.answering(tell)
        stack.callback(_send_rest, server)
        # This server inherits our settings, and with them the user and password that servers here require.
        stack.enter_context(_set_up(url, prefect.PREFECT_SERVER_API_AUTH_STRING.value() or None))
        yield url


def _send_rest(server: CommandServer) -> None:
    """Let Prefect send what it still holds, before its server ends; afterwards it would print errors."""
    if not server.stays_s:
        EventsWorker.drain_all(timeout=FLUSHED_WITHIN_S)
        APILogWorker.drain_all(timeout=FLUSHED_WITHIN_S)


@contextmanager
def known_api(settings: Settings) -> Iterator[str | None]:
    """Yield the URL of the API that is configured, or that `presswork up` has started here, set up for this process.

    None if there is neither. PrefectServerError if it does not answer, or refuses our user and password.
    """
    state = read_state(settings.state_dir.resolve())
    configured = prefect.PREFECT_API_URL.value()
    url = configured or (state.api if state and state.living(SERVER) else None)
    if url is None:
        yield None
        return
    auth_string = prefect.PREFECT_API_AUTH_STRING.value() or None
    if auth_string is None and state is not None and state.api == url.rstrip("/"):
        # On the server's own machine, one of the two settings is enough.
        auth_string = prefect.PREFECT_SERVER_API_AUTH_STRING.value() or None
    is_cloud = auth_string is None and prefect.PREFECT_API_KEY.value() is not None
    require_answer(url, auth_string, other_credentials=is_cloud)
    is_ours = state is not None and state.api == url.rstrip("/") and state.living(AUDIT) is not None
    with _set_up(url, auth_string), environment(_links(state.audit_url if is_ours and state else None)):
        yield url


def _links(audit_url: str | None) -> dict[str, str | None]:
    """Let the runs of this process link to the audit room of `presswork up`, unless another address is set, or none."""
    return {AUDIT_URL: audit_url} if audit_url and AUDIT_URL not in os.environ else {}


@contextmanager
def needed_api(settings: Settings, purpose: str) -> Iterator[str]:
    """Yield what known_api() yields; PrefectServerError if that is None."""
    with known_api(settings) as url:
        if url is None:
            raise PrefectServerError(
                f"There is no Prefect server to {purpose}. Start one with `presswork up`, or set PREFECT_API_URL."
            )
        yield url


@contextmanager
def _set_up(url: str, auth_string: str | None) -> Iterator[None]:
    """Let Prefect use this API, in this process and in those that it starts."""
    variables = {"PREFECT_API_URL": url, **({"PREFECT_API_AUTH_STRING": auth_string} if auth_string else {})}
    changes = {prefect.PREFECT_API_URL: url, prefect.PREFECT_API_AUTH_STRING: auth_string}
    with environment(variables), prefect.temporary_settings(changes):
        yield


@contextmanager
def _waiting(*, say: bool) -> Iterator[Callable[[float], None]]:
    """Show that a server starts: a live line on a terminal, else a plain one. The function updates its seconds."""
    console = screen.err()
    if say and console.is_terminal:
        with console.status(STARTING) as status:
            yield lambda seconds: status.update(f"{STARTING} {seconds:.0f} s")
        return
    if say:
        console.print(STARTING)
    yield lambda _seconds: None
