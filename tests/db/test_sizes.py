"""What takes the room of a ledger is told by table; where SQLite does not tell it, it is estimated."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, insert, update
from sqlalchemy.exc import OperationalError

from db.ledger.tables import Generation, StoredRun, WorkingRow
from db.session import begin_write
from db.upkeep import sizes
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
        connection.execute(update(StoredRun).values(status="completed"))
        connection.execute(insert(WorkingRow), {"run_id": first.run_id, "step": "product_copy", "record_key": "a"})
    return ledger


def test_each_table_is_told_with_what_it_holds() -> None:
    assert set(HOLDS) == set(Generation.metadata.tables)


@pytest.mark.parametrize("told", [True, False])
def test_room_is_told_by_table_the_largest_first(filled: Engine, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_connection: object) -> dict[str, int]:
        raise OperationalError("", {}, Exception("no such table: dbstat"))

    if not told:
        monkeypatch.setattr(sizes, "_sqlite_sizes", fail)
    found = measure(filled)

    assert found.estimated == (not told and filled.dialect.name == "sqlite")
    assert found.tables[0].table == "generations" or filled.dialect.name == "postgresql"
    rows = {each.table: each.rows for each in found.tables}
    assert (rows["generations"], rows["attempts"], rows["content"], rows["runs"]) == (120, 30, 30, 4)
    assert 0 < sum(each.bytes for each in found.tables) <= found.bytes
    assert [each.bytes for each in found.tables] == sorted((each.bytes for each in found.tables), reverse=True)
    assert (found.free_bytes is None) == (filled.dialect.name == "postgresql")
    # Of four rows for each record one is the first, and one stands.
    assert (found.compactable, found.leftovers) == (60, 1)
    assert found.compactable_bytes > 0
