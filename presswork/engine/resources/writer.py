"""Commit many rows at once, so that a row costs a fraction of a commit, and wait while the ledger is unavailable.

Rows go into the open batch. The loop waits a moment for more, commits them in a thread, and then wakes the tasks that
wait for them. The next batch fills meanwhile. If the ledger is unavailable, writes and reads are retried until the
writer's patience ends. Rows stay in memory, and the tasks that wait for them send nothing new. Then the rows are saved
in a spill file and the run stops. A row that the ledger refuses is left out and reported.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, ParamSpec, Self, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.clock import now
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
from db.ledger.spill import keep_batch, keep_in_one, keep_refused
from db.ledger.writing import write
from db.machine import monotonic_s
from db.session import is_unavailable, readable_url, reason_of
from presswork.errors import LedgerAwayError, StoppedError, copy_of

FULL = 1000  # a batch with this many rows of history is committed at once
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
_log = logging.getLogger("prefect.presswork")
Commit = Callable[[WriteBatch, list[RefusedRow]], None]
P = ParamSpec("P")
T = TypeVar("T")


class Writer:
    """Writes rows in batches. Use it as an async context manager; leaving it commits the last rows. Times are seconds.

    `commit` writes a batch in the writer's thread and appends refused rows to a list. When a run has a lease, it sets
    `commit` (to HeldLease.write) and `run_id`; until then there is nothing to write or to spill.
    """

    def __init__(
        self, engine: Engine, *, lease_id: str, interval_s: float, patience_s: float, spill_folders: Sequence[Path]
    ) -> None:
        self._engine = engine
        self.run_id = ""
        self._lease_id = lease_id
        self._interval_s = interval_s
        self._patience_s = patience_s
        self.spill_folders = spill_folders
        self.spill: Path | None = None
        self._thread = ThreadPoolExecutor(1, "presswork-writer")
        self._loop_task: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._closing = self.has_lost = False
        self._stopped = asyncio.Event()
        self._reason: StoppedError | None = None
        self.commit: Commit = lambda batch, refused: write(engine, batch, refused=refused)
        self._complaint = ""  # why the ledger is unavailable now
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
        # Also if everything is cancelled at once: no task may wait for a loop that has ended.
        self._loop_task.add_done_callback(lambda _ended: self._done.cancel())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._closing = True
        self._arrived.set()
        self._full.set()
        cancelled: asyncio.CancelledError | None = None
        while self._loop_task is not None and not self._loop_task.done():
            # Waiting for the task itself would cancel it too, and lose its rows.
            try:
                await asyncio.wait([self._loop_task])
            except asyncio.CancelledError as error:
                cancelled = error  # with its message, by which anyio knows its own
        self._thread.shutdown(wait=False)
        if cancelled is not None:
            raise cancelled

    def has_prompt(self, prompt_hash: str) -> bool:
        """Return whether a prompt is already in the open batch."""
        return prompt_hash in self._batch.prompts

    def add_prompt(self, row: PromptRow, texts: Iterable[TextRow]) -> None:
        """Add a prompt and the texts that it shares with others; only missing ones are written."""
        self._batch.prompts[row.hash] = row
        self._batch.texts.update((text.hash, text) for text in texts)

    def add_record(self, row: RecordRow) -> None:
        """Add a record; it is written if it is missing."""
        self._batch.records[row.hash] = row

    def add_generation(self, row: GenerationRow, parents: Iterable[str]) -> None:
        """Add a generation and the ids of its parents."""
        self._batch.generations.append(row)
        self._batch.parents += [ParentRow(row.id, parent) for parent in parents]

    def confirm(self, row: ConfirmedRow) -> None:
        """Add that the outcome of a record is still the current one."""
        self._batch.confirmed.append(row)

    def open_attempt(self, row: OpenedRow) -> None:
        """Add an attempt; wait for `committed` before its request is sent."""
        self._batch.opened.append(row)

    def settle_attempt(self, row: SettledRow) -> None:
        """Add how an attempt ended; nobody may wait for its commit before the pause until the next attempt is over."""
        self._batch.settled.append(row)
        self._arrived.set()

    def release_claim(self, prompt_hash: str) -> None:
        """Release the claim of a prompt, in the commit that holds its outcome."""
        self._batch.released.append((self._lease_id, prompt_hash))

    async def committed(self) -> None:
        """Wait until all added rows are in the ledger; raises LedgerAwayError if they can't be written."""
        done = self._done_before
        if self._batch or self._batch.released:
            done = self._done
            self._arrived.set()
        if len(self._batch) >= FULL:
            self._full.set()
        # A cancelled waiter must not cancel the future of the others.
        await asyncio.shield(done)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run another write in the writer's thread: on SQLite two writers would only wait for each other.

        While the ledger is unavailable, it waits as a commit does; then it raises LedgerAwayError, or StoppedError if
        the run is stopped. Other database errors become a LedgerError.
        """
        return await self._masked(lambda: self.call_once(function, *args, **kwargs))

    async def call_once(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run another write in the writer's thread, without waiting for an unavailable ledger."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))

    async def read(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Read from the ledger in a thread; waits and raises as `call` does."""
        return await self._masked(lambda: asyncio.to_thread(function, *args, **kwargs))

    def stop(self, reason: StoppedError) -> None:
        """Stop waiting for the ledger: waiters raise the reason, and unwritten rows are saved in a spill file."""
        self._reason = reason
        self._stopped.set()

    def has_attempt(self, attempt_id: str) -> bool:
        """Return whether a committed attempt is in the ledger, which may have refused its row."""
        return not any(
            isinstance(refused.row, OpenedRow) and refused.written is None and refused.id == attempt_id
            for refused in self._refused
        )

    def failure_of(self, generation_id: str) -> str | None:
        """Return why the ledger refused the content of a committed generation; None if it did not."""
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
            # The last one may be empty: a run that could not begin must not wait to write nothing.
            if batch or batch.released:
                await self._write_patiently(batch)
        except asyncio.CancelledError:
            done.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - the waiters must see every error
            done.set_exception(error)
            done.exception()  # the waiters raise it; without any, it must not be a warning at exit
        else:
            done.set_result(None)

    async def _write_patiently(self, batch: WriteBatch) -> None:
        if self.spill is not None:
            # Spilled rows must be imported before later ones are written. If a disk is full by now, there is the next.
            await self._spill_it(batch)
        refused: list[RefusedRow] = []
        try:
            await self._patiently(lambda: self.call_once(self.commit, batch, refused))
        except (LedgerAwayError, StoppedError):
            await self._spill_it(batch)
        except Exception as error:  # noqa: BLE001 - no answer may be lost, and waiting does not help here
            self._complaint = reason_of(error, self._engine.url)
            await self._spill_it(batch)
        await self._report_refused(refused)

    async def _masked(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._patiently(work)
        except SQLAlchemyError as error:
            # The message goes to Prefect and the logs, and a driver's message quotes rows.
            reason = reason_of(error, self._engine.url)
            raise LedgerError(f"The ledger {readable_url(self._engine.url)} can't be used: {reason}.") from None

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        # Counted from the first failure: a process that slept during a commit has not waited yet.
        began: float | None = None
        pause = FIRST_PAUSE_S
        while True:
            try:
                done = await work()
            except Exception as error:
                if not is_unavailable(error):
                    raise
                began = monotonic_s() if began is None else began
                self._report_unavailable(reason_of(error, self._engine.url))
                if self.spill is not None or monotonic_s() - began + pause > self._patience_s:
                    raise LedgerAwayError(
                        f"The ledger {readable_url(self._engine.url)} is still unavailable after "
                        f"{self._patience_s:,.0f} s: {self._complaint}. The log says where its answers are saved. "
                        "Run again when the ledger is available."
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

    def _report_unavailable(self, complaint: str) -> None:
        if not self._complaint and self.spill is None:
            waits = f"The run waits up to {self._patience_s:,.0f} s for it."
            _log.warning("The ledger %s is unavailable: %s. %s", readable_url(self._engine.url), complaint, waits)
        self._complaint = complaint

    async def _spill_it(self, batch: WriteBatch) -> NoReturn:
        # It would look like sent before a crash, and the lease that settles the others knows only committed ones.
        batch.end_unsent(now())
        failed = f"The ledger {readable_url(self._engine.url)} can't be written: {self._complaint or 'unavailable'}."
        try:
            self.spill = await self.call_once(keep_in_one, self.spill_folders, keep_batch, self.run_id, batch)
        except OSError as error:
            self.has_lost = True
            failed += f" Nor can a spill file: {_cause_of(error)}. Answers not saved before are lost. "
            failed += "Free disk space or set PRESSWORK_SPILL_DIR, then run again."
            _log.error(failed)  # an earlier error may end the run
            raise LedgerAwayError(failed) from None
        failed += f" Its answers are saved in the spill file {self.spill}."
        raise LedgerAwayError(f"{failed} The next run or `presswork db recover` imports them.")

    async def _report_refused(self, refused: Sequence[RefusedRow]) -> None:
        if not refused:
            return
        self._refused += refused
        try:
            kept = await self.call_once(keep_in_one, self.spill_folders, keep_refused, self.run_id, refused)
        except OSError as error:
            where = f"could not be saved ({_cause_of(error)})"
        else:
            where = f"are saved in {kept}"
        _log.warning("%s The original rows %s.", in_words(refused), where)


def _cause_of(error: OSError) -> str:
    return error.strerror or type(error).__name__
