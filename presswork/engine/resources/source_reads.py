"""Sources: which database a template's records come from, and its reading in threads that a stop interrupts.

A select can take minutes. On the event loop it would hold up the heartbeat, Ctrl-C and Cancel; in a thread of
asyncio's pool it would hold up the end of the process, which does not wait for these. Loads neither Prefect nor the
SDK, for the preflight reads too.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

from sqlalchemy import URL, Engine

from db.sources.access import Interrupter
from db.sources.statements import Parameter, Query
from presswork.errors import TemplateError
from presswork.prompts.templates import Template
from presswork.settings import Settings, source_url, source_variable

LEDGER_VARIABLE = "PRESSWORK_DATABASE_URL"
INTERRUPT_AGAIN_S = 0.25
INTERRUPTED_WITHIN_S = 2.0
"""How long a thread is waited for that was interrupted; one whose driver can't be interrupted is left behind."""
P = ParamSpec("P")
T = TypeVar("T")


def query_of(template: Template, params: Mapping[str, Any]) -> Query:
    """Make a template's select ready to run; TemplateError where it has none."""
    if template.select_sql is None:
        raise TemplateError(f"{template.file}: it has no `select`, so it can't run by itself: it is a step of a flow.")
    typed = {
        name: Parameter(param.type, params.get(name, param.default)) for name, param in template.front.params.items()
    }
    return Query(template.file, template.select_sql, template.front.key_columns, typed)


def source_of(settings: Settings, name: str | None, ledger: URL | str) -> tuple[str, str]:
    """Return the URL of a named source and the variable that it is set in; without one, those of the ledger itself."""
    url = source_url(settings, name)
    if url:
        return url, source_variable(name)
    return ledger if isinstance(ledger, str) else ledger.render_as_string(hide_password=False), LEDGER_VARIABLE


class SourceReader:
    """One source, opened at its first read; each read has a thread of its own. The last one closes the connections.

    `open_engine` runs in such a thread, and its errors are those of the read. `pursuing` is the Stopper's.
    """

    def __init__(
        self, open_engine: Callable[[], Engine], pursuing: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._open_engine = open_engine
        self._pursuing = pursuing
        self._opening = threading.Lock()
        self._engine: Engine | None = None
        self._interrupter: Interrupter | None = None
        self._counting = threading.Lock()
        self._at_work = 0

    async def read(self, work: Callable[[Engine], T]) -> T:
        """Do work with the engine; raises what it raises, and StoppedError where the run is stopped."""
        return await self.work(lambda: work(self._opened()))

    async def work(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what needs no source, such as what reads a page that came from it; raises as `read` does."""
        # A task of its own: a stop cancels the read, and not the flow that waits for it.
        return await asyncio.create_task(self._pursued(partial(function, *args, **kwargs)))

    async def _pursued(self, work: Callable[[], T]) -> T:
        with self._pursuing():
            with self._counting:
                self._at_work += 1
            reading = Reading(work, self._left)
            try:
                return await asyncio.wrap_future(reading.result)
            except asyncio.CancelledError:
                await asyncio.wrap_future(Reading(lambda: reading.interrupt(self._interrupter)).result)
                raise

    def _opened(self) -> Engine:
        with self._opening:
            if self._engine is None:
                self._engine = self._open_engine()
                self._interrupter = Interrupter(self._engine)
            return self._engine

    def _left(self) -> None:
        with self._counting:
            self._at_work -= 1
            if not self._at_work and self._engine is not None:
                self._engine.dispose()


class Reading(Generic[T]):
    """Work that goes on in a thread; `result` has what comes of it. `left` is called when the thread has ended."""

    def __init__(self, work: Callable[[], T], left: Callable[[], None] = lambda: None) -> None:
        self.result: Future[T] = Future()
        # As running it can't be cancelled: what the thread brings is then taken, or dropped, without an error.
        self.result.set_running_or_notify_cancel()
        self._work = work
        self._left = left
        # A daemon: a process that ends does not wait for it.
        self._thread = threading.Thread(target=self._run, name="presswork-source", daemon=True)
        self._thread.start()

    def interrupt(self, interrupter: Interrupter | None) -> None:
        """Interrupt the thread's statements until it has ended, or INTERRUPTED_WITHIN_S are over."""
        deadline = time.monotonic() + INTERRUPTED_WITHIN_S
        # Again and again: the thread may be between two statements.
        while self._thread.is_alive() and time.monotonic() < deadline:
            if interrupter is not None and self._thread.ident is not None:
                interrupter.interrupt(self._thread.ident)
            self._thread.join(INTERRUPT_AGAIN_S)

    def _run(self) -> None:
        try:
            found = self._work()
        except BaseException as error:  # noqa: BLE001 - whoever waits for the result raises it
            self._left()
            self.result.set_exception(error)
        else:
            self._left()
            self.result.set_result(found)


def read_interruptibly(engine: Engine, work: Callable[[Engine], T]) -> T:
    """Read a source where there is no event loop, so that Ctrl-C ends a long statement of SQLite too."""
    return asyncio.run(SourceReader(lambda: engine, nullcontext).read(work))
