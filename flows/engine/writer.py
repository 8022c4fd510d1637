"""The writer: commits what has arrived together, so that a row costs a fraction of a commit.

Rows go into the open batch at once; the loop waits a moment for more, commits them in a thread, and then wakes those
who wait for it. While a commit runs, the next batch fills. A database that is away is tried again until the
writer's patience ends; the rows wait in memory meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.errors import LedgerUnreachableError
from db.record import Batch, write
from db.session import readable_url

FULL = 1000  # rows of history that are committed without waiting for more


class Writer:
    """Use as an async context manager; leaving it commits what is left. Times are seconds."""

    def __init__(self, engine: Engine, *, interval_s: float, patience_s: float) -> None:
        self._engine = engine
        self._interval_s = interval_s
        self._patience_s = patience_s
        self._thread = ThreadPoolExecutor(1, "presswork-writer")
        self._loop_task: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._closing = False
        self._open(Batch())

    def _open(self, batch: Batch) -> None:
        self.batch = batch
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Writer:
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
        """Wait until all that is in the open batch is in the ledger; LedgerUnreachableError if it can't be."""
        done = self._done
        self._arrived.set()
        if len(self.batch) >= FULL:
            self._full.set()
        # One waiter that is cancelled must not cancel what the others wait for.
        await asyncio.shield(done)

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
        loop = asyncio.get_running_loop()
        deadline, pause = time.monotonic() + self._patience_s, 0.2
        while True:
            try:
                await loop.run_in_executor(self._thread, write, self._engine, batch)
            except (OperationalError, InterfaceError, PoolTimeout) as error:
                if time.monotonic() + pause > deadline:
                    raise LedgerUnreachableError(
                        f"The ledger {readable_url(self._engine.url)} has been away for {self._patience_s:.0f} s: "
                        f"{_first_line(error)}. What was answered last could not be written."
                    ) from error
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)
            else:
                return


def _first_line(error: Exception) -> str:
    original = error.orig if isinstance(error, DBAPIError) else error
    return str(original).strip().splitlines()[0].rstrip(".") if str(original).strip() else type(original).__name__
