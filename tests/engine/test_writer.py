"""The writer waits for a ledger that is unavailable, for reads as for writes, and leaves out what it refuses."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine, Select, create_engine, event, select, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from db.clock import new_id
from db.database_errors import LedgerError
from db.ledger import spill
from db.ledger.refused_rows import RefusedRow
from db.ledger.rows import WriteBatch
from db.ledger.writing import write
from db.readers.stored_generations import read_generations
from db.tables import Attempt, Generation
from presswork.engine.materials.handles import Generations
from presswork.engine.resources.writer import Writer
from presswork.errors import LedgerAwayError, StoppedError
from tests.db.rows import Book, error_of_sqlite, settled_row
from tests.machines import SetMachine
from tests.waiting import until

BUSY = OperationalError("COMMIT", {}, error_of_sqlite(5))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presswork.engine.resources.writer.FIRST_PAUSE_S", 0.001)


@pytest.fixture
def book(ledger: Engine) -> Book:
    return Book(ledger)


Open = Callable[..., Any]


@pytest.fixture
def opened(book: Book, tmp_path: Path) -> Open:
    @asynccontextmanager
    async def opened(*, patience_s: float = 20) -> AsyncIterator[Writer]:
        folders = [tmp_path / "spill"]
        async with Writer(
            book.ledger, lease_id=book.lease.id, interval_s=0.001, patience_s=patience_s, spill_folders=folders
        ) as writer:
            writer.run_id = book.run_id
            yield writer

    return opened


def first(ledger: Engine, statement: Select[Any]) -> Any:
    with ledger.connect() as connection:
        return connection.scalar(statement)


class Away:
    """A function that fails N times as an unavailable ledger does."""

    def __init__(self, times: float, error: Exception = BUSY) -> None:
        self.left = times
        self.error = error
        self.asked = 0

    def __call__(self, *_arguments: object) -> str:
        self.asked += 1
        if self.left > 0:
            self.left -= 1
            raise self.error
        return "found"


def statuses(ledger: Engine) -> dict[str, str]:
    with ledger.connect() as connection:
        found = connection.execute(select(Generation.record_key, Generation.status))
        return {row.record_key: row.status for row in found}


@pytest.mark.parametrize("way", ["read", "call"])
async def test_reads_and_claims_wait_for_a_ledger_that_comes_back(opened: Open, way: str) -> None:
    look_up = Away(3)
    async with opened() as writer:
        assert await getattr(writer, way)(look_up, "a") == "found"
    assert look_up.asked == 4


@pytest.mark.parametrize("way", ["read", "call"])
async def test_reading_that_runs_out_of_patience_says_which_ledger_and_why(opened: Open, way: str) -> None:
    async with opened(patience_s=0.01) as writer:
        with pytest.raises(LedgerAwayError, match=r"unavailable after 0 s: database is locked\..* Run again"):
            await getattr(writer, way)(Away(float("inf")))


async def test_patience_ends_also_if_the_ledger_failed_when_the_clock_showed_zero(
    opened: Open, machine: SetMachine
) -> None:
    times = iter((0.0, 0.0))
    machine.monotonic = lambda: next(times, 60.0)  # 60 s pass before the second failure
    away = Away(float("inf"))
    async with opened(patience_s=30) as writer:
        with pytest.raises(LedgerAwayError):
            await writer.read(away)
    assert away.asked == 2


async def test_statement_that_is_wrong_is_not_waited_for(opened: Open) -> None:
    wrong = Away(float("inf"), ProgrammingError("SELECT", {}, ValueError("no such table")))
    async with opened() as writer:
        with pytest.raises(LedgerError, match=r"can't be used: no such table\."):
            await writer.read(wrong)
    assert wrong.asked == 1


@pytest.mark.parametrize("way", ["read", "call"])
async def test_stop_ends_the_waiting(opened: Open, way: str) -> None:
    away = Away(float("inf"))
    async with opened(patience_s=300) as writer:
        waiting = asyncio.create_task(getattr(writer, way)(away))
        await until(lambda: away.asked >= 2, pause_s=0)
        writer.stop(StoppedError("stopped by Ctrl-C"))
        with pytest.raises(StoppedError, match="Ctrl-C"):
            await waiting


async def test_stop_has_what_waits_kept_in_a_file(opened: Open, book: Book, tmp_path: Path) -> None:
    away = Away(float("inf"))
    async with opened(patience_s=300) as writer:
        writer.commit = away
        book.generation(writer._batch, "a")
        waiting = asyncio.create_task(writer.committed())
        await until(lambda: away.asked >= 2, pause_s=0)
        writer.stop(StoppedError("stopped by Ctrl-C"))
        with pytest.raises(LedgerAwayError, match="database is locked"):
            await waiting
    (path,) = spill.find_spills(tmp_path / "spill")
    assert spill.recover(book.ledger, path) == 1


def stop(writer: Writer, _waiting: asyncio.Task[None]) -> None:
    writer.stop(StoppedError("stopped by Ctrl-C"))


def lose_patience(_writer: Writer, _waiting: asyncio.Task[None]) -> None:
    """Do nothing: the patience of this writer is short."""


def end_process(_writer: Writer, waiting: asyncio.Task[None]) -> None:
    # As at the end of asyncio.run: the task that waits can't settle anything more.
    waiting.cancel()


@pytest.mark.parametrize("end", [stop, lose_patience, end_process])
async def test_attempt_that_is_in_a_file_before_it_was_committed_was_never_sent(
    opened: Open, book: Book, tmp_path: Path, end: Callable[[Writer, asyncio.Task[None]], None]
) -> None:
    away = Away(float("inf"))
    async with opened(patience_s=300 if end is stop else 0.5) as writer:
        writer.commit = away
        book.attempt(writer._batch, "a", new_id())
        waiting = asyncio.create_task(writer.committed())
        await until(lambda: away.asked >= 2, pause_s=0)
        # The next batch is open meanwhile.
        book.attempt(writer._batch, "b", new_id())
        end(writer, waiting)
        await asyncio.gather(waiting, return_exceptions=True)
    (path,) = spill.find_spills(tmp_path / "spill")
    spill.recover(book.ledger, path)
    with book.ledger.connect() as connection:
        found = connection.execute(select(Attempt.error_type, Attempt.ended_at.is_(None))).all()
    assert [tuple(row) for row in found] == [("not_sent", False)] * 2


async def test_writer_without_rows_ends_at_once_and_leaves_no_file_if_the_ledger_is_full(
    opened: Open, tmp_path: Path
) -> None:
    full = Away(float("inf"), OperationalError("COMMIT", {}, error_of_sqlite(sqlite3.SQLITE_FULL)))
    async with opened(patience_s=0) as writer:
        writer.run_id, writer.commit = "", full
        await asyncio.sleep(0)  # it waits for rows now
    assert full.asked == 0
    assert spill.find_spills(tmp_path / "spill") == []


async def test_answer_that_neither_the_ledger_nor_a_disk_takes_is_said_to_be_lost(
    opened: Open, book: Book, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(patience_s=0) as writer:
        writer.commit = Away(float("inf"))
        (tmp_path / "no folder").touch()
        writer.spill_folders = [tmp_path / "no folder"]
        book.generation(writer._batch, "a")
        with pytest.raises(LedgerAwayError, match=r"Nor can a spill file: .*are lost\. Free disk") as raised:
            await writer.committed()
        assert "PRESSWORK_SPILL_DIR" in str(raised.value)
        with pytest.raises(LedgerAwayError) as raised_by_call:
            await writer.call(Away(1))
    assert "are lost" in caplog.text
    assert "All answers are saved" not in str(raised_by_call.value)


async def test_disk_error_without_a_text_is_named_by_its_type(
    opened: Open, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(*_arguments: object) -> Path:
        raise PermissionError

    monkeypatch.setattr("presswork.engine.resources.writer.keep_batch", keep)
    async with opened(patience_s=0) as writer:
        writer.commit = Away(float("inf"))
        book.generation(writer._batch, "a")
        with pytest.raises(LedgerAwayError, match="Nor can a spill file: PermissionError"):
            await writer.committed()


@pytest.mark.parametrize("error", [ProgrammingError("", {}, ValueError("no such table")), RuntimeError(""), OSError()])
async def test_what_nobody_foresaw_loses_no_answer(opened: Open, book: Book, tmp_path: Path, error: Exception) -> None:
    async with opened() as writer:
        writer.commit = Away(float("inf"), error)
        book.generation(writer._batch, "a")
        with pytest.raises(LedgerAwayError, match="presswork db recover"):
            await writer.committed()
    (path,) = spill.find_spills(tmp_path / "spill")
    assert spill.recover(book.ledger, path) == 1


async def test_refused_row_fails_alone_and_nobody_else_hears_of_it(
    opened: Open, book: Book, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("prefect.presswork").addHandler(caplog.handler)
    async with opened() as writer:
        bad = book.generation(writer._batch, "bad", output={"t": "PRIVATE \ud800"})
        book.generation(writer._batch, "good")
        await writer.committed()
        assert "'output'" in str(writer.failure_of(bad))
        book.generation(writer._batch, "later")
        await writer.committed()
    logging.getLogger("prefect.presswork").removeHandler(caplog.handler)

    assert statuses(book.ledger) == {"bad": "failed", "good": "succeeded", "later": "succeeded"}
    (kept,) = (tmp_path / "spill").iterdir()
    assert json.loads(kept.read_text())["row"]["output"] == {"t": "PRIVATE \ud800"}
    (line,) = {record.getMessage() for record in caplog.records if "refused" in record.getMessage()}
    assert bad in line
    assert str(kept) in line
    assert "PRIVATE" not in line
    assert spill.find_spills(tmp_path / "spill") == []


async def test_request_whose_row_is_refused_is_known_before_it_is_sent(opened: Open, book: Book) -> None:
    async with opened() as writer:
        bad = book.attempt(writer._batch, "a", new_id(), kind="guess")
        good = book.attempt(writer._batch, "b", new_id())
        await writer.committed()
        assert not writer.has_attempt(bad)
        assert writer.has_attempt(good)


async def test_ledger_that_goes_away_while_it_looks_for_refused_rows_is_waited_for(opened: Open, book: Book) -> None:
    calls: list[int] = []

    def commit(batch: WriteBatch, refused: list[Any]) -> None:
        calls.append(1)
        write(book.ledger, batch, refused=refused)

    failing = [True]

    @event.listens_for(book.ledger, "before_cursor_execute")
    def fail(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        # During the search for the refused row, after the whole batch was refused once.
        if failing and statement.startswith("INSERT INTO generations") and len(calls) == 1:
            failing.append(True)
            if len(failing) == 4:
                failing.clear()
                raise BUSY

    async with opened() as writer:
        writer.commit = commit
        for number in range(8):
            book.generation(writer._batch, str(number), output={"t": "\ud800" if number == 5 else ""})
        await writer.committed()
    assert failing == []
    assert list(statuses(book.ledger).values()).count("failed") == 1


async def test_page_that_could_not_be_read_is_read_when_the_ledger_is_back(opened: Open, book: Book) -> None:
    batch = WriteBatch()
    for number in range(25):
        generation_id = book.generation(batch, f"{number:02}")
        batch.settled.append(settled_row(book.attempt(batch, f"{number:02}", generation_id)))
    write(book.ledger, batch)
    asked = 0

    @event.listens_for(book.ledger, "before_cursor_execute")
    def fail(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        nonlocal asked
        asked += statement.startswith("SELECT generations")
        if statement.startswith("SELECT generations") and asked % 2:
            raise BUSY

    def keys(pages: Iterator[Any]) -> list[str]:
        return [generation.record_key for page in pages for generation in page]

    async with opened() as writer:
        reading = read_generations(book.ledger, book.run_id, "product_copy", page_size=10)
        pages = []
        while (page := await writer.read(next, reading, None)) is not None:
            pages.append(page)
    assert keys(iter(pages)) == [f"{number:02}" for number in range(25)]
    assert next(reading, None) is None


@pytest.mark.postgres
@pytest.mark.parametrize("ledger_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
async def test_connection_that_was_cut_is_made_again(opened: Open, book: Book) -> None:
    def cut() -> int:
        with book.ledger.connect() as connection:
            if not done:
                done.append(True)
                connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            return int(connection.scalar(text("SELECT 1")) or 0)

    done: list[bool] = []
    async with opened() as writer:
        assert await writer.read(cut) == 1


async def test_output_that_only_json_can_hold_is_seen_by_a_condition(opened: Open, book: Book) -> None:
    class Dated(BaseModel):
        model_config = ConfigDict(strict=True)
        day: date

    book.add("a", output={"day": "2026-03-01"})
    async with opened() as writer:
        dated = Generations(book.ledger, book.run_id, "product_copy", Dated, read=writer.read)
        assert [seen.output.day async for seen in dated.where(lambda seen: seen.output.day)] == [date(2026, 3, 1)]


async def test_end_of_an_attempt_is_committed_although_nobody_waits_for_it(opened: Open, book: Book) -> None:
    # A retry may come minutes later, and a crash before it would lose what the first attempt has cost.
    opening = WriteBatch()
    attempt_id = book.attempt(opening, "a", new_id())
    write(book.ledger, opening)
    ended = select(Attempt.id).where(Attempt.cost_usd.is_not(None))
    async with opened() as writer, asyncio.timeout(20):
        writer.settle_attempt(settled_row(attempt_id))
        await until(lambda: first(book.ledger, ended) is not None)


async def test_writer_that_is_cancelled_while_it_closes_commits_its_last_rows(opened: Open, book: Book) -> None:
    may_commit = threading.Event()

    def commit(batch: WriteBatch, refused: list[RefusedRow]) -> None:
        may_commit.wait(20)
        write(book.ledger, batch, refused=refused)

    async def write_and_close() -> None:
        async with opened() as writer:
            writer.commit = commit
            book.generation(writer._batch, "a")
            asyncio.get_running_loop().call_later(0.05, closing.cancel)
            asyncio.get_running_loop().call_later(0.1, may_commit.set)

    closing = asyncio.create_task(write_and_close())
    await asyncio.wait([closing])
    assert statuses(book.ledger) == {"a": "succeeded"}
    assert closing.cancelled()


async def test_writer_that_is_cancelled_lets_go_who_waits_for_it(tmp_path: Path) -> None:
    engine = create_engine("sqlite://")
    writer = Writer(engine, lease_id="lease", interval_s=0, patience_s=60, spill_folders=[tmp_path])

    def unavailable(_batch: WriteBatch, _refused: list[RefusedRow]) -> None:
        raise OperationalError("", None, error_of_sqlite(sqlite3.SQLITE_BUSY))

    writer.commit = unavailable
    await writer.__aenter__()
    waiting = asyncio.create_task(writer.committed())
    await asyncio.sleep(0.05)
    late = asyncio.create_task(writer.committed())
    await asyncio.sleep(0)
    assert writer._loop_task is not None
    writer._loop_task.cancel()
    done, _pending = await asyncio.wait([waiting, late], timeout=5)
    assert len(done) == 2
    engine.dispose()
