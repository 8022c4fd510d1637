"""Commit what has arrived together, so that a row costs a fraction of a commit, and wait for a ledger that is away.

Rows go into the open batch at once; the loop waits a moment for more, commits them in a thread, and then wakes those
who wait for it. While a commit runs, the next batch fills. An unavailable ledger is tried again until the writer's
patience ends, for writes and reads alike; the rows wait in memory meanwhile, and whoever waits for them sends nothing
new. After that they go to a spill file, and the run stops. A row that the ledger refuses is left out, and named.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, ParamSpec, Self, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import LedgerError
from db.ledger.refused_rows import RefusedRow, in_words
from db.ledger.rows import (
    ConfirmedRow,
    GenerationRow,
    OpenedRow,
    ParentRow,
    PromptRow,
    RecordRow,
    SettledRow,
    TextRow,
    WriteBatch,
)
from db.ledger.spill import keep_batch, keep_refused
from db.ledger.writing import write
from db.session import is_unavailable, readable_url, reason_of
from presswork.errors import LedgerAwayError, StoppedError, copy_of

FULL = 1000  # rows of history that are committed without waiting for more
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
_log = logging.getLogger("prefect.presswork")
Commit = Callable[[WriteBatch, list[RefusedRow]], None]
P = ParamSpec("P")
T = TypeVar("T")


class Writer:
    """Use as an async context manager; leaving it commits what is left. Times are seconds.

    `commit` writes a batch in the writer's thread, and puts the rows that are refused into a list; that of a run is its
    lease's, and set with its `run_id` when it has that: before, there is nothing to write and nothing to spill.
    """

    def __init__(
        self, engine: Engine, *, lease_id: str, interval_s: float, patience_s: float, spill_folders: Sequence[Path]
    ) -> None:
        self._engine = engine
        self.run_id = ""
        self._lease_id = lease_id
        self._interval_s = interval_s
        self._patience_s = patience_s
        self._spill_folders = spill_folders
        self._spill: Path | None = None
        self._thread = ThreadPoolExecutor(1, "presswork-writer")
        self._loop_task: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._closing = False
        self._stopped = asyncio.Event()
        self._reason: StoppedError | None = None
        self.commit: Commit = lambda batch, refused: write(engine, batch, refused=refused)
        self._complaint = ""  # of a ledger that is unavailable just now
        self._refused: list[RefusedRow] = []
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._done.set_result(None)
        self._open(WriteBatch())

    def _open(self, batch: WriteBatch) -> None:
        self._batch = batch
        self._done_before = self._done
        self._done = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self._loop_task = asyncio.create_task(self._run(), name="presswork-writer")
        # Also where everything is cancelled at once: who waits for rows must not wait for a loop that has ended.
        self._loop_task.add_done_callback(lambda _ended: self._done.cancel())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._closing = True
        self._arrived.set()
        self._full.set()
        if self._loop_task is not None:
            await self._loop_task
        self._thread.shutdown(wait=False)

    def has_prompt(self, prompt_hash: str) -> bool:
        """Whether a prompt is in the open batch already."""
        return prompt_hash in self._batch.prompts

    def add_prompt(self, row: PromptRow, texts: Iterable[TextRow]) -> None:
        """Add a prompt with the texts that it shares with others; it is written where it is missing."""
        self._batch.prompts[row.hash] = row
        self._batch.texts.update((text.hash, text) for text in texts)

    def add_record(self, row: RecordRow) -> None:
        """Add a record; it is written where it is missing."""
        self._batch.records[row.hash] = row

    def add_generation(self, row: GenerationRow, parents: Iterable[str]) -> None:
        """Add a generation, with the ids of those that it was made from."""
        self._batch.generations.append(row)
        self._batch.parents += [ParentRow(row.id, parent) for parent in parents]

    def confirm(self, row: ConfirmedRow) -> None:
        """Add that what stands for a record still does."""
        self._batch.confirmed.append(row)

    def open_attempt(self, row: OpenedRow) -> None:
        """Add an attempt that is about to be sent; wait for `committed` before it is."""
        self._batch.opened.append(row)

    def settle_attempt(self, row: SettledRow) -> None:
        """Add how an attempt ended."""
        self._batch.settled.append(row)

    def release_claim(self, prompt_hash: str) -> None:
        """Release the claim of a prompt, in the commit that holds its outcome."""
        self._batch.released.append((self._lease_id, prompt_hash))

    async def committed(self) -> None:
        """Wait until all that was added is in the ledger; LedgerAwayError if it went to a spill file."""
        done = self._done_before
        if self._batch or self._batch.released:
            done = self._done
            self._arrived.set()
        if len(self._batch) >= FULL:
            self._full.set()
        # One waiter that is cancelled must not cancel what the others wait for.
        await asyncio.shield(done)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run another write in the writer's thread: on SQLite two writers would only wait for each other.

        It waits for an unavailable ledger as a commit does; then, or when the run is stopped, it raises LedgerAwayError
        or StoppedError. What else the database says becomes a LedgerError.
        """
        return await self._masked(lambda: self.call_once(function, *args, **kwargs))

    async def call_once(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run another write in the writer's thread, and wait for nothing."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))

    async def read(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Read from the ledger in a thread; waits and raises as `call` does."""
        return await self._masked(lambda: asyncio.to_thread(function, *args, **kwargs))

    def stop(self, reason: StoppedError) -> None:
        """Wait for the ledger no longer: who waits hears the reason, and what is not written goes to a spill file."""
        self._reason = reason
        self._stopped.set()

    def has_attempt(self, attempt_id: str) -> bool:
        """Whether an attempt that was committed is there: the ledger may have refused its row."""
        return not any(
            isinstance(refused.row, OpenedRow) and refused.written is None and refused.id == attempt_id
            for refused in self._refused
        )

    def failure_of(self, generation_id: str) -> str | None:
        """Say why a generation that was committed stands as failed, where the ledger refused its content."""
        return next(
            (refused.failure for refused in self._refused if refused.id == generation_id and refused.failure), None
        )

    async def _run(self) -> None:
        while not (self._closing and not self._batch):
            await self._arrived.wait()
            if not self._closing:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), self._interval_s)
            self._arrived.clear()
            self._full.clear()
            batch, done = self._batch, self._done
            self._open(WriteBatch())
            if self._closing:
                self._arrived.set()
            await self._commit(batch, done)

    async def _commit(self, batch: WriteBatch, done: asyncio.Future[None]) -> None:
        try:
            await self._write_patiently(batch)
        except asyncio.CancelledError:
            done.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whoever waits for these rows must hear of it, whatever it is
            done.set_exception(error)
            # Those who wait raise it; where no one does, it must not be a warning at exit.
            done.exception()
        else:
            done.set_result(None)

    async def _write_patiently(self, batch: WriteBatch) -> None:
        if self._spill is not None:
            # What is in the file must be written in first. The file's disk may be full by now, the next folder's not.
            await self._spill_it(batch)
        refused: list[RefusedRow] = []
        try:
            await self._patiently(lambda: self.call_once(self.commit, batch, refused))
        except (LedgerAwayError, StoppedError):
            await self._spill_it(batch)
        except Exception as error:  # noqa: BLE001 - whatever the ledger says, what was answered is kept
            # Waiting does not help here.
            self._complaint = reason_of(error, self._engine.url)
            await self._spill_it(batch)
        await self._tell_refused(refused)

    async def _masked(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._patiently(work)
        except SQLAlchemyError as error:
            # It goes to Prefect and the logs, and a driver's own words quote rows.
            reason = reason_of(error, self._engine.url)
            raise LedgerError(f"The ledger {readable_url(self._engine.url)} can't be used: {reason}.") from None

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        # Counted from the first failure: a process that slept in the midst of a commit has not waited yet.
        began, pause = 0.0, FIRST_PAUSE_S
        while True:
            try:
                done = await work()
            except Exception as error:
                if not is_unavailable(error):
                    raise
                began = began or time.monotonic()
                self._hear(reason_of(error, self._engine.url))
                if self._spill is not None or time.monotonic() - began + pause > self._patience_s:
                    raise LedgerAwayError(
                        f"The ledger {readable_url(self._engine.url)} is unavailable ({self._complaint}), also after "
                        f"{self._patience_s:,.0f} s. What was answered is in it or in a spill file. When it is back, "
                        "run again."
                    ) from None
                await self._pause(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
            else:
                self._complaint = ""
                return done

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)
        if self._reason is not None:
            raise copy_of(self._reason)

    def _hear(self, complaint: str) -> None:
        if not self._complaint and self._spill is None:
            _log.warning(
                "The ledger %s is unavailable: %s. The run waits for it, up to %.0f s.",
                readable_url(self._engine.url),
                complaint,
                self._patience_s,
            )
        self._complaint = complaint

    async def _spill_it(self, batch: WriteBatch) -> NoReturn:
        self._spill = await self._keep(keep_batch, batch)
        complaint = self._complaint or "it was unavailable"
        raise LedgerAwayError(
            f"The ledger {readable_url(self._engine.url)} can't be written ({complaint}). What was answered is kept in "
            f"{self._spill}: when the ledger is back, the next run or `presswork db recover` imports it."
        )

    async def _keep(self, keep: Callable[[Path, str, T], Path], what: T) -> Path:
        for folder in self._spill_folders[:-1]:
            # A full or read-only disk, most likely the ledger's own: the next folder may be on another.
            with contextlib.suppress(OSError):
                return await self.call_once(keep, folder, self.run_id, what)
        return await self.call_once(keep, self._spill_folders[-1], self.run_id, what)

    async def _tell_refused(self, refused: Sequence[RefusedRow]) -> None:
        if not refused:
            return
        self._refused += refused
        try:
            kept = await self._keep(keep_refused, refused)
        except OSError as error:
            where = f"could not be kept in a file ({error.strerror})"
        else:
            where = f"are kept in {kept}"
        _log.warning("%s As they were, they %s.", in_words(refused), where)
