"""Content is rebuilt from history: differences are reported and corrected, and counts that history lacks are kept."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, delete, insert, select, update

from db.database_errors import LedgerInUseError
from db.session import begin_write, rows_of
from db.tables import StandingContent, StoredLease
from db.upkeep import parts
from db.upkeep.rebuilding import Differences, compare, rebuild
from tests.db.rows import Book


@pytest.fixture
def history(ledger: Engine) -> Engine:
    """Records a to e and g with content; b, c and g failed afterwards, c has content again, f never had any."""
    for number in range(2):
        book = Book(ledger)
        for key in "abcdeg":
            book.add(key, record=f'{{"n":{number}}}')
    failing: dict[str, Any] = {"status": "failed", "output": None, "output_hash": None, "error_kind": "timeout"}
    book = Book(ledger)
    for key in "bcfg":
        book.add(key, **failing)
    Book(ledger).add("c", record='{"n":2}')
    with begin_write(ledger) as connection:
        connection.execute(delete(StoredLease))
        connection.execute(
            update(StandingContent).where(StandingContent.generation_id.is_not(None)).values(confirmed=5)
        )
        connection.execute(update(StandingContent).where(StandingContent.failing_id.is_not(None)).values(failing=2))
    return ledger


def content(ledger: Engine) -> dict[str, dict[str, Any]]:
    return {row.record_key: dict(row._mapping) for row in rows_of(ledger, select(StandingContent.__table__))}


def change(ledger: Engine, key: str, **values: Any) -> None:
    with begin_write(ledger) as connection:
        connection.execute(update(StandingContent).where(StandingContent.record_key == key).values(values))


@pytest.mark.parametrize("at_once", [1, 20_000])
def test_wrong_rows_are_counted_and_corrected(history: Engine, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", at_once)
    before = content(history)
    assert compare(history) == rebuild(history) == Differences(records=7)
    assert content(history) == before

    with begin_write(history) as connection:
        connection.execute(delete(StandingContent).where(StandingContent.record_key == "f"))
        gone = before["a"] | {"record_key": "gone", "generation_id": "0"}
        connection.execute(insert(StandingContent), gone)
    change(history, "b", failing_id=None, failing_run_id=None, failing_at=None, failing=0)
    for key in "dg":
        change(history, key, generation_id=before["e"]["generation_id"])
    first = [("product_copy", key) for key in ("b", "d", "f", "g", "gone")]
    wrong = Differences(records=8, missing=1, unknown=1, standing=2, failing=1, first=first)
    assert (compare(history), wrong.wrong) == (wrong, 5)

    assert rebuild(history) == wrong
    assert compare(history) == Differences(records=7)
    counted_again = {"b": {"failing": 0}, "d": {"confirmed": 0}, "f": {"failing": 0}, "g": {"confirmed": 0}}
    assert content(history) == {key: row | counted_again.get(key, {}) for key, row in before.items()}


def test_nothing_is_rebuilt_while_a_run_is_active(history: Engine) -> None:
    change(history, "a", generation_id=None)
    Book(history)

    with pytest.raises(LedgerInUseError):
        rebuild(history)
    assert compare(history).standing == 1
