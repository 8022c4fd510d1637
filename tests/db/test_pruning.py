"""Rows without a reference in history are removed, and so are working rows of ended runs; all other rows stay."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, delete, insert, select, update

from db.clock import now
from db.database_errors import LedgerInUseError
from db.ledger.rows import PromptRow, RecordRow, TextRow, WriteBatch
from db.ledger.writing import write
from db.session import begin_write, rows_of
from db.tables import SharedText, StoredLease, StoredPrompt, StoredRecord, StoredRun, StoredStep, WorkingRow
from db.upkeep.pruning import Unused, find_unused, prune
from tests.db.rows import DAY, Book, settled_row, sha


@pytest.fixture
def book(ledger: Engine) -> Book:
    """An ended run with a generation, an attempt without one, and a text that its prompt refers to."""
    made, batch = Book(ledger), WriteBatch()
    generation = made.generation(batch, "a", record="{}")
    batch.settled.append(settled_row(made.attempt(batch, "a", generation)))
    made.attempt(batch, "lost in a crash", "no generation")
    batch.prompts[sha("a")] = prompt("a", f'{{"system":[{{"text":{text_of("system")}}}]}}')
    batch.texts[sha("system")] = TextRow(sha("system"), "You write.")
    write(ledger, batch)
    over(ledger)
    return made


def text_of(text: str, kind: str = "text") -> str:
    return f'{{"${kind}": "{sha(text)}"}}'


def prompt(name: str, request: str) -> PromptRow:
    return PromptRow(hash=sha(name), model="m", variant=0, request=request, created_at=DAY)


def over(ledger: Engine, **values: Any) -> None:
    with begin_write(ledger) as connection:
        connection.execute(delete(StoredLease))
        connection.execute(update(StoredRun).values({"status": "completed", "ended_at": now(), **values}))


def leave_unnamed(ledger: Engine) -> None:
    """Write rows without a reference in history: a prompt with its text and its schema, and records."""
    batch = WriteBatch()
    schema = text_of("old schema", "json")
    named = f'{{"system":{text_of("old system")},"schema":{schema}}}'
    batch.prompts[sha("old")] = prompt("old", named)
    for text in ("old system", "old schema", "nobody's"):
        batch.texts[sha(text)] = TextRow(sha(text), text)
    for record in ('{"n":1}', '{"n":2}'):
        batch.records[sha(record)] = RecordRow(sha(record), record)
    write(ledger, batch)


def hashes(ledger: Engine, table: Any) -> set[str]:
    return {row.hash for row in rows_of(ledger, select(table.hash))}


def counts(found: list[Unused]) -> dict[str, int]:
    return {each.table: each.rows for each in found}


@pytest.mark.usefixtures("book")
def test_rows_without_a_reference_are_removed_and_all_others_stay(ledger: Engine) -> None:
    before = {table: hashes(ledger, table) for table in (SharedText, StoredPrompt, StoredRecord)}
    assert counts(find_unused(ledger)) == {"working_rows": 0, "records": 0, "prompts": 0, "texts": 0}
    leave_unnamed(ledger)
    would_go = find_unused(ledger)
    assert counts(would_go) == {"working_rows": 0, "records": 2, "prompts": 1, "texts": 3}
    assert counts(find_unused(ledger)) == counts(would_go)

    assert prune(ledger) == would_go
    assert {table: hashes(ledger, table) for table in before} == before
    assert {sha("a"), sha("lost in a crash")} <= before[StoredPrompt]


@pytest.mark.parametrize(
    ("status", "days", "due", "goes"),
    [
        ("completed", 0, None, True),
        ("cancelled", 0, None, True),
        ("crashed", 6, None, False),
        ("crashed", 8, None, True),
        ("suspended", 30, 2, False),
        ("suspended", 30, -6, False),
        ("suspended", 30, -8, True),
        ("running", 30, None, False),
    ],
)
def test_working_rows_of_ended_and_long_suspended_runs_are_removed(
    ledger: Engine, book: Book, status: str, days: int, due: int | None, goes: bool
) -> None:
    ended = None if status in {"suspended", "running"} else now() - timedelta(days=days)
    over(ledger, status=status, ended_at=ended, due_at=None if due is None else now() + timedelta(days=due))
    with begin_write(ledger) as connection:
        place = {"run_id": book.run_id, "step": "product_copy"}
        connection.execute(insert(WorkingRow), [{**place, "record_key": key} for key in "ab"])
        connection.execute(insert(StoredStep).values(**place, position=1, state="open", unchanged=3))
    expected = {"working_rows": 2 if goes else 0, "records": 0, "prompts": 0, "texts": 0}
    assert counts(find_unused(ledger)) == expected

    assert counts(prune(ledger)) == expected
    assert len(rows_of(ledger, select(WorkingRow.record_key))) == (0 if goes else 2)
    assert [row.unchanged for row in rows_of(ledger, select(StoredStep.unchanged))] == [3]


@pytest.mark.usefixtures("book")
def test_nothing_is_pruned_while_a_run_is_active(ledger: Engine) -> None:
    leave_unnamed(ledger)
    Book(ledger)

    with pytest.raises(LedgerInUseError, match="is active"):
        prune(ledger)
    assert counts(find_unused(ledger))["records"] == 2
