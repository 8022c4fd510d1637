"""The writer: commits what has arrived together, so that a row costs a fraction of a commit.

Rows go into the open batch at once; the loop waits a moment for more, commits them in a thread, and then wakes those
who wait for it. While a commit runs, the next batch fills. A database that is away is tried again until the
writer's patience ends; the rows wait in memory meanwhile, and whoever waits for them sends nothing new. After that
they go to a spill file, and the run stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.record import Batch, write
from db.session import readable_url
from db.spill import SpillFile
from flows.errors import LedgerAwayError

FULL = 1000  # rows of history that are committed without waiting for more
# InternalError is what psycopg makes of a database that has become read-only, as after a switch to a replica.
PASSING = (OperationalError, InterfaceError, InternalError, PoolTimeout)
P = ParamSpec("P")
T = TypeVar("T")


class Writer:
    """Use as an async context manager; leaving it commits what is left. Times are seconds.

    `commit` writes a batch in the writer's thread; a run's lease takes its place once there is one.
    """

    def __init__(
        self, engine: Engine, *, run_id: str, interval_s: float, patience_s: float, spill_folders: Sequence[Path]
    ) -> None:
        self._engine = engine
        self._run_id = run_id
        self._interval_s = interval_s
        self._patience_s = patience_s
        self._spill_folders = spill_folders
        self._spill: SpillFile | None = None
        self.commit: Callable[[Batch], None] = lambda batch: write(engine, batch)
        self._thread = ThreadPoolExecutor(1, "presswork-writer")
        self._loop_task: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._closing = False
        self.away_s = 0.0
        self._open(Batch())

    def _open(self, batch: Batch) -> None:
        self.batch = batch
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self._loop_task = asyncio.create_task(self._run(), name="presswork-writer")
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._closing = True
        self._arrived.set()
        self._full.set()
        if self._loop_task is not None:
            await self._loop_task
        self._thread.shutdown(wait=False)

    async def committed(self) -> None:
        """Wait until all that is in the open batch is in the ledger; LedgerAwayError if it went to a spill file."""
        done = self._done
        self._arrived.set()
        if len(self.batch) >= FULL:
            self._full.set()
        # One waiter that is cancelled must not cancel what the others wait for.
        await asyncio.shield(done)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run another write in the writer's thread: on SQLite two writers would only wait for each other."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))

    async def _run(self) -> None:
        while not (self._closing and not self.batch):
            await self._arrived.wait()
            if not self._closing:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), self._interval_s)
            self._arrived.clear()
            self._full.clear()
            batch, done = self.batch, self._done
            self._open(Batch())
            if self._closing:
                self._arrived.set()
            await self._commit(batch, done)

    async def _commit(self, batch: Batch, done: asyncio.Future[None]) -> None:
        try:
            await self._write_patiently(batch)
        except Exception as error:  # noqa: BLE001 - whoever waits for these rows must hear of it, whatever it is
            done.set_exception(error)
            # Those who wait raise it; where no one does, it must not be a warning at exit.
            done.exception()
        else:
            done.set_result(None)

    async def _write_patiently(self, batch: Batch) -> None:
        if self._spill is not None:
            # What is in the file must be written in first. The file's disk may be full by now, the next folder's not.
            self._spill = await self.call(self._spilled, batch)
            raise self._away("it is away")
        began, pause = time.monotonic(), 0.2
        while True:
            try:
                await self.call(self.commit, batch)
            except PASSING as error:
                self.away_s = time.monotonic() - began
                if self.away_s + pause > self._patience_s:
                    self._spill = await self.call(self._spilled, batch)
                    raise self._away(_first_line(error)) from None
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)
            except SQLAlchemyError as error:
                # Waiting mends nothing here; what was answered is kept all the same.
                self._spill = await self.call(self._spilled, batch)
                raise self._away(_first_line(error)) from None
            else:
                self.away_s = 0.0
                return

    def _spilled(self, batch: Batch) -> SpillFile:
        for folder in self._spill_folders:
            try:
                spill = SpillFile(folder, self._run_id)
                spill.add(batch)
            except OSError:
                # A full or read-only disk, most likely the ledger's own: the next folder may be on another.
                if folder == self._spill_folders[-1]:
                    raise
            else:
                return spill
        raise AssertionError("the last folder's error is raised")

    def _away(self, reason: str) -> LedgerAwayError:
        assert self._spill is not None
        return LedgerAwayError(
            f"The ledger {readable_url(self._engine.url)} can't be written ({reason}). What was answered is kept in "
            f"{self._spill.path}: when the ledger is back, the next run or `presswork db recover` writes it in."
        )


def _first_line(error: Exception) -> str:
    original = error.orig if isinstance(error, DBAPIError) else error
    return str(original).strip().splitlines()[0].rstrip(".") if str(original).strip() else type(original).__name__
