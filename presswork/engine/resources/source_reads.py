"""Find the source of a template's records, and read it in threads that a stop can interrupt.

A select can take minutes. On the event loop it would block the heartbeat, Ctrl-C and Cancel. A thread of asyncio's pool
would delay the end of the process, which does not wait for these threads. This module must not load Prefect or the SDK,
because the preflight uses it.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

from sqlalchemy import URL, Engine

from db.machine import monotonic_s
from db.sources.access import Interrupter
from db.sources.statements import Parameter, Query
from presswork.errors import TemplateError
from presswork.prompts.templates import Template
from presswork.settings import Settings, source_url, source_variable

LEDGER_VARIABLE = "PRESSWORK_DATABASE_URL"
INTERRUPT_AGAIN_S = 0.25
INTERRUPTED_WITHIN_S = 2.0
"""How long to wait for an interrupted thread. If its driver can't be interrupted, the thread is abandoned."""
P = ParamSpec("P")
T = TypeVar("T")


def query_of(template: Template, params: Mapping[str, Any]) -> Query:
    """Make the query of a template's select; raises TemplateError if it has none."""
    if template.select_sql is None:
        raise TemplateError(
            f"{template.file}: it has no `select`, so it can't run alone. Add a `select`, or use it in a flow."
        )
    typed = {
        name: Parameter(param.type, params.get(name, param.default)) for name, param in template.front.params.items()
    }
    return Query(template.file, template.select_sql, template.front.key_columns, typed)


def source_of(settings: Settings, name: str | None, ledger: URL | str) -> tuple[str, str]:
    """Return the URL of a named source and the variable that sets it; if none is set, those of the ledger."""
    url = source_url(settings, name)
    if url:
        return url, source_variable(name)
    return ledger if isinstance(ledger, str) else ledger.render_as_string(hide_password=False), LEDGER_VARIABLE


class SourceReader:
    """One source, opened at its first read. Each read has its own thread; the last one closes the connections.

    `open_engine` runs in the thread of a read, which raises its errors. `pursuing` is Stopper.pursuing.
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
        """Call `work` with the engine; raises its errors, and StoppedError if the run is stopped."""
        return await self.work(lambda: work(self._opened()))

    async def work(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that does not use the source, such as one that reads a spool; raises as `read` does."""
        # In its own task: a stop cancels the read, not the flow that waits for it.
        return await asyncio.create_task(self._pursued(partial(function, *args, **kwargs)))

    async def _pursued(self, work: Callable[[], T]) -> T:
        with self._pursuing():
            with self._counting:
                self._at_work += 1
            reading = Reading(work, self._left)
            try:
                return await asyncio.wrap_future(reading.result)
            except asyncio.CancelledError:
                await asyncio.wrap_future(Reading(lambda: reading.interrupt(lambda: self._interrupter)).result)
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
    """Work in a thread; `result` holds its value or error. `left` is called when the work has ended."""

    def __init__(self, work: Callable[[], T], left: Callable[[], None] = lambda: None) -> None:
        self.result: Future[T] = Future()
        # A running future can't be cancelled, so the thread can always set its result.
        self.result.set_running_or_notify_cancel()
        self._work = work
        self._left = left
        # A daemon, so that the end of the process does not wait for it.
        self._thread = threading.Thread(target=self._run, name="presswork-source", daemon=True)
        self._thread.start()

    def interrupt(self, find_interrupter: Callable[[], Interrupter | None]) -> None:
        """Interrupt the thread's statements until it has ended, for at most INTERRUPTED_WITHIN_S.

        `find_interrupter` is asked each time, because the thread may still be opening the source.
        """
        deadline = monotonic_s() + INTERRUPTED_WITHIN_S
        # Repeatedly, because the thread may be between two statements.
        while self._thread.is_alive() and monotonic_s() < deadline:
            interrupter = find_interrupter()
            if interrupter is not None and self._thread.ident is not None:
                interrupter.interrupt(self._thread.ident)
            self._thread.join(INTERRUPT_AGAIN_S)

    def _run(self) -> None:
        try:
            found = self._work()
        except BaseException as error:  # noqa: BLE001 - the reader that waits for the result raises it
            self._left()
            self.result.set_exception(error)
        else:
            self._left()
            self.result.set_result(found)


def read_interruptibly(engine: Engine, work: Callable[[Engine], T]) -> T:
    """Read a source outside an event loop, so that Ctrl-C also ends a long SQLite statement."""
    return asyncio.run(SourceReader(lambda: engine, nullcontext).read(work))
