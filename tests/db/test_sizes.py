"""The size of a ledger is reported by table, as far as the database reports it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, delete, event, insert, update

from db.clock import now
from db.session import begin_write
from db.tables import Generation, StoredLease, StoredRun, WorkingRow
from db.upkeep.pruning import find_unused
from db.upkeep.sizes import HOLDS, measure
from tests.db.rows import Book


@pytest.fixture
def filled(ledger: Engine) -> Engine:
    first = Book(ledger)
    sources = {f"key {number}": first.add(f"key {number}") for number in range(30)}
    for _run in range(3):
        book = Book(ledger)
        for key, source in sources.items():
            book.reuse(key, source)
    with begin_write(ledger) as connection:
        connection.execute(delete(StoredLease))
        connection.execute(update(StoredRun).values(status="completed"))
        connection.execute(insert(WorkingRow), {"run_id": first.run_id, "step": "product_copy", "record_key": "a"})
    return ledger


def test_each_table_has_a_description() -> None:
    assert set(HOLDS) == set(Generation.metadata.tables)


def test_sizes_are_listed_by_table_the_largest_first(filled: Engine) -> None:
    found = measure(filled)

    assert found.tables[0].table == "generations" or filled.dialect.name == "postgresql"
    rows = {each.table: each.rows for each in found.tables}
    assert (rows["generations"], rows["attempts"], rows["content"], rows["runs"]) == (120, 30, 30, 4)
    sizes = [each.bytes or 0 for each in found.tables]
    assert 0 < sum(sizes) <= found.bytes
    assert sizes == sorted(sizes, reverse=True)
    assert (found.free_bytes is None) == (filled.dialect.name == "postgresql")
    # Of four rows for each record, one is the first and one is current.
    assert (found.compactable, found.leftovers) == (60, 1)
    assert found.compactable_bytes


def test_sizes_are_unknown_if_sqlite_does_not_report_them(filled: Engine) -> None:
    if filled.dialect.name != "sqlite":
        pytest.skip("PostgreSQL always reports them")

    @event.listens_for(filled, "before_cursor_execute", retval=True)
    def ask_a_build_without(*told: Any) -> tuple[str, Any]:
        return told[2].replace("dbstat", "no_dbstat"), told[3]

    found = measure(filled)

    assert {each.bytes for each in found.tables} == {None}
    assert (found.tables[0].table, found.compactable_bytes, found.compactable) == ("generations", None, 60)
    assert found.bytes > 0


def test_working_rows_that_pruning_would_remove_are_counted_and_no_others(filled: Engine) -> None:
    (unused, *_others) = find_unused(filled)
    assert measure(filled).leftovers == unused.rows == 1
    with begin_write(filled) as connection:
        connection.execute(update(StoredRun).values(status="crashed", ended_at=now()))
    (unused, *_others) = find_unused(filled)
    assert measure(filled).leftovers == unused.rows == 0
