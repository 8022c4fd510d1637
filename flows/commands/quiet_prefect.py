"""Prefect without its noise: a server to run flows against, and none of its lines on a person's screen.

What Prefect logs still goes to its server, where its UI shows it. A server that is configured is used; without one,
one of Prefect's own is started for as long as the command lasts.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flows.commands import screen
from flows.errors import ConfigurationError
from flows.settings import Settings

ANSWERS_WITHIN_S = 10.0
FLUSHED_WITHIN_S = 5.0
QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_COLORS": "false",
    "PREFECT_CLI_PROMPT": "false",
}


class PrefectServerError(ConfigurationError):
    """Prefect's server can't be used."""


def hush() -> None:
    """Keep Prefect's lines off the screen; to be called before Prefect is loaded."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def prefect_api(settings: Settings, *, say: bool) -> Iterator[str]:
    """Yield the URL of a Prefect API that answers, set up for this process; with `say`, tell what is waited for."""
    hush()
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415 - see commands/__init__.py

    configured = PREFECT_API_URL.value()
    if configured:
        require_answer(configured)
        yield configured
        return
    with _own_server(settings, say=say) as url:
        os.environ["PREFECT_API_URL"] = url
        try:
            with temporary_settings({PREFECT_API_URL: url}):
                yield url
        finally:
            del os.environ["PREFECT_API_URL"]


def require_server(purpose: str) -> str:
    """Return the URL of the Prefect API that is configured, and answers; PrefectServerError where there is none."""
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415 - see commands/__init__.py

    url = PREFECT_API_URL.value()
    if not url:
        raise PrefectServerError(
            f"There is no Prefect server to {purpose}: `presswork up` starts one, or set PREFECT_API_URL to yours."
        )
    require_answer(url)
    return str(url)


def require_answer(url: str) -> None:
    """Raise PrefectServerError if nothing answers at a configured API."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=ANSWERS_WITHIN_S):  # noqa: S310 - the user's
            return
    except urllib.error.HTTPError as error:
        if error.code < 500:
            # It answers: what it thinks of the key is for Prefect to say.
            return
        reason = f"it answers HTTP {error.code}"
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "reason", error))
    raise PrefectServerError(
        f"Prefect's server at {url} does not answer: {reason}. Start it (`prefect server start`), correct "
        "PREFECT_API_URL, or unset it: then Presswork starts a server of its own."
    )


@contextmanager
def _own_server(settings: Settings, *, say: bool) -> Iterator[str]:
    from flows.engine.prefect_server import own_server  # noqa: PLC0415 - see commands/__init__.py

    waiting = _Waiting(say=say)
    with waiting.shown():
        server = own_server(timeout_s=settings.prefect_startup_timeout_s, waiting=waiting.tell)
        url = server.__enter__()
    try:
        yield url
    finally:
        _flush()
        server.__exit__(None, None, None)


class _Waiting:
    """Says what is waited for: a line that moves on a terminal, one plain line elsewhere."""

    text = "Starting Prefect's server (the first time takes longest) ..."

    def __init__(self, *, say: bool) -> None:
        self._console = screen.err()
        self._say = say
        self._status: Any = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it as long as the block lasts."""
        if not self._say:
            yield
        elif self._console.is_terminal:
            with self._console.status(self.text) as self._status:
                yield
        else:
            self._console.print(self.text)
            yield

    def tell(self, seconds: float) -> None:
        """Say how long it has taken so far."""
        if self._status is not None:
            self._status.update(f"{self.text} {seconds:.0f} s")


def _flush() -> None:
    """Send what Prefect still holds while its server is there: later it would complain on the screen."""
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 - see commands/__init__.py
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415

    APILogWorker.drain_all(timeout=FLUSHED_WITHIN_S)
    EventsWorker.drain_all(timeout=FLUSHED_WITHIN_S)
