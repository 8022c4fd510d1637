"""Content is made again from history: what differs is told and put right, and counts that history lacks are kept."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, delete, insert, select, update

from db.database_errors import LedgerInUseError
from db.ledger.tables import StandingContent, StoredLease
from db.session import begin_write, rows_of
from db.upkeep import rebuilding
from db.upkeep.rebuilding import Differences, compare, rebuild
from tests.db.rows import Book


@pytest.fixture
def history(ledger: Engine) -> Engine:
    """Records a to e with content; b and c failed afterwards, c has content again, f never had any."""
    for number in range(2):
        book = Book(ledger)
        for key in "abcde":
            book.add(key, record=f'{{"n":{number}}}')
    failing: dict[str, Any] = {"status": "failed", "output": None, "output_hash": None, "error_kind": "timeout"}
    book = Book(ledger)
    for key in "bcf":
        book.add(key, **failing)
    Book(ledger).add("c", record='{"n":2}')
    with begin_write(ledger) as connection:
        connection.execute(delete(StoredLease))
        connection.execute(update(StandingContent).values(confirmed=5, failing=2))
    return ledger


def content(ledger: Engine) -> dict[str, dict[str, Any]]:
    return {row.record_key: dict(row._mapping) for row in rows_of(ledger, select(StandingContent.__table__))}


def change(ledger: Engine, key: str, **values: Any) -> None:
    with begin_write(ledger) as connection:
        connection.execute(update(StandingContent).where(StandingContent.record_key == key).values(values))


@pytest.mark.parametrize("at_once", [1, 20_000])
def test_what_is_wrong_is_counted_and_put_right(history: Engine, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "ROWS_TO_COMPARE", at_once)
    before = content(history)
    assert compare(history) == rebuild(history) == Differences(records=6)
    assert content(history) == before

    with begin_write(history) as connection:
        connection.execute(delete(StandingContent).where(StandingContent.record_key == "f"))
        gone = before["a"] | {"record_key": "gone", "generation_id": "0"}
        connection.execute(insert(StandingContent), gone)
    change(history, "b", failing_id=None, failing_run_id=None, failing_at=None, failing=0)
    change(history, "d", generation_id=before["e"]["generation_id"])
    wrong = Differences(records=7, missing=1, unknown=1, standing=1, failing=1)
    assert (compare(history), wrong.wrong) == (wrong, 4)

    assert rebuild(history) == wrong
    assert compare(history) == Differences(records=6)
    counted_again = {key: {"confirmed": 0, "failing": 0} for key in "df"} | {"b": {"failing": 0}}
    counted_again["d"].pop("failing")
    assert content(history) == {key: row | counted_again.get(key, {}) for key, row in before.items()}


def test_nothing_is_rebuilt_while_a_run_is_at_work(history: Engine) -> None:
    change(history, "a", generation_id=None)
    Book(history)

    with pytest.raises(LedgerInUseError):
        rebuild(history)
    assert compare(history).standing == 1
