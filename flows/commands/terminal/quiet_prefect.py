"""Find or start a Prefect server to run flows against, and keep its lines off a person's screen.

What Prefect logs still goes to its server, where its UI shows it. A server that is configured (PREFECT_API_URL) is
used, else the one that `presswork up` has started here, else one is started for as long as the command lasts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from flows.commands.terminal import screen
from flows.commands.terminal.environment import environment
from flows.control.installation import SERVER, read_state
from flows.engine.orchestration.prefect_server import PrefectServerError, require_answer
from flows.settings import Settings

FLUSHED_WITHIN_S = 5.0
STARTING = "Starting Prefect's server (the first time takes longest) ..."
QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_COLORS": "false",
    "PREFECT_CLI_PROMPT": "false",
}


def hush() -> None:
    """Keep Prefect's lines off the screen; to be called before Prefect is loaded."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def prefect_api(settings: Settings, *, say: bool) -> Iterator[str]:
    """Yield the URL of a Prefect API that answers, set up for this process; with `say`, tell what is waited for."""
    with known_api(settings) as known:
        if known is not None:
            yield known
            return
        from prefect import settings as prefect  # noqa: PLC0415 - see commands/__init__.py

        # One that is started here asks for what every server here is told to ask for.
        auth_string = prefect.PREFECT_SERVER_API_AUTH_STRING.value() or None
        with _own_server(settings, say=say) as url, _set_up(url, auth_string):
            yield url


@contextmanager
def known_api(settings: Settings) -> Iterator[str | None]:
    """Yield the URL of the API that is configured, or that `presswork up` has started here, set up for this process.

    None where there is neither. PrefectServerError where it does not answer, or not to us.
    """
    hush()
    from prefect import settings as prefect  # noqa: PLC0415 - see commands/__init__.py

    state = read_state(settings.state_dir.resolve())
    configured = prefect.PREFECT_API_URL.value()
    url = configured or (state.api if state and state.living(SERVER) else None)
    if url is None:
        yield None
        return
    auth_string = prefect.PREFECT_API_AUTH_STRING.value() or None
    if auth_string is None and state is not None and state.api == url.rstrip("/"):
        # On the server's own machine one of the two is enough.
        auth_string = prefect.PREFECT_SERVER_API_AUTH_STRING.value() or None
    is_cloud = auth_string is None and prefect.PREFECT_API_KEY.value() is not None
    require_answer(url, auth_string, other_credentials=is_cloud)
    with _set_up(url, auth_string):
        yield url


@contextmanager
def needed_api(settings: Settings, purpose: str) -> Iterator[str]:
    """Yield the URL of the API that is known; PrefectServerError where there is none, or it does not answer us."""
    with known_api(settings) as url:
        if url is None:
            raise PrefectServerError(
                f"There is no Prefect server to {purpose}: `presswork up` starts one, or set PREFECT_API_URL to yours."
            )
        yield url


@contextmanager
def _set_up(url: str, auth_string: str | None) -> Iterator[None]:
    """Have Prefect use this API, here and in processes that start here."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings  # noqa: PLC0415

    variables = {"PREFECT_API_URL": url, **({"PREFECT_API_AUTH_STRING": auth_string} if auth_string else {})}
    with (
        environment(variables),
        temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: auth_string}),
    ):
        yield


@contextmanager
def _own_server(settings: Settings, *, say: bool) -> Iterator[str]:
    from flows.engine.orchestration.prefect_server import own_server  # noqa: PLC0415 - see commands/__init__.py

    with ExitStack() as stack:
        with _waiting(say=say) as tell:
            server = own_server(
                timeout_s=settings.prefect_startup_timeout_s, home=settings.state_dir.resolve(), waiting=tell
            )
            url = stack.enter_context(server)
        stack.callback(_flush)
        yield url


@contextmanager
def _waiting(*, say: bool) -> Iterator[Callable[[float], None]]:
    """Say what is waited for: a line that moves on a terminal, one plain line elsewhere; the function says how long."""
    console = screen.err()
    if say and console.is_terminal:
        with console.status(STARTING) as status:
            yield lambda seconds: status.update(f"{STARTING} {seconds:.0f} s")
        return
    if say:
        console.print(STARTING)
    yield lambda _seconds: None


def _flush() -> None:
    """Send what Prefect still holds while its server is there: later it would complain on the screen."""
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 - see commands/__init__.py
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415

    APILogWorker.drain_all(timeout=FLUSHED_WITHIN_S)
    EventsWorker.drain_all(timeout=FLUSHED_WITHIN_S)
