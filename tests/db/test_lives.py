"""A record's life is a list of changes: when each content was current, and how often it was confirmed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine

from db.clock import new_id
from db.readers.lives import LifePeriod, read_life
from tests.db.rows import Book, sha

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(day: int) -> datetime:
    return NOON + timedelta(days=day)


def told(periods: list[LifePeriod]) -> list[tuple[str, int, int | None, int, int | None]]:
    """Status, and the days: since, until, how often it was confirmed, and when last."""

    def day(moment: datetime | None) -> int | None:
        return None if moment is None else (moment - NOON).days

    return [
        (each.status, (each.since - NOON).days, day(each.until), each.confirmed, day(each.confirmed_at))
        for each in periods
    ]


def fail(ledger: Engine, day: int, **own: Any) -> str:
    return Book(ledger).add("a", status="failed", output=None, error_kind="render", created_at=at(day), **own)


def test_life_is_the_sequence_of_current_contents(ledger: Engine) -> None:
    first = Book(ledger).add("a", created_at=at(0))
    Book(ledger).confirm("a", first, confirmed_at=at(1))
    Book(ledger).confirm("a", first, confirmed_at=at(2))
    second = Book(ledger).add("a", record='{"n":2}', created_at=at(3))
    Book(ledger).confirm("a", second, confirmed_at=at(4))
    Book(ledger).add("b", created_at=at(0))

    found = read_life(ledger, "product_copy", "a")

    assert told(found) == [("succeeded", 0, 3, 2, 2), ("succeeded", 3, None, 1, 4)]
    assert [each.generation_id for each in found] == [each.written_by for each in found] == [first, second]
    assert [each.record_hash for each in found] == [sha("{}"), sha('{"n":2}')]
    assert {each.template_hash for each in found} == {sha("template")}


def test_equal_rows_of_earlier_releases_are_one_period(ledger: Engine) -> None:
    source = Book(ledger).add("a", created_at=at(0))
    for day in (1, 2):
        Book(ledger).reuse("a", source, created_at=at(day))
    # The same text, but from a record that has changed.
    changed = Book(ledger).reuse("a", source, record='{"n":2}', created_at=at(3))

    found = read_life(ledger, "product_copy", "a")

    assert told(found) == [("succeeded", 0, 3, 2, 2), ("succeeded", 3, None, 0, None)]
    assert [(each.generation_id, each.written_by) for each in found] == [(source, source), (changed, source)]


def test_failure_ends_no_content_and_is_ended_by_what_succeeds(ledger: Engine) -> None:
    source = Book(ledger).add("a", created_at=at(0))
    failed = fail(ledger, 1, error_message="line 3")
    Book(ledger).confirm("a", failed, confirmed_at=at(2), status="failed")
    fail(ledger, 3, error_message="line 4")
    Book(ledger).reuse("a", source, created_at=at(4))

    assert told(read_life(ledger, "product_copy", "a")) == [
        ("succeeded", 0, None, 1, 4),
        ("failed", 1, 3, 1, 2),
        ("failed", 3, 4, 0, None),
    ]


@pytest.mark.parametrize(("kind", "periods"), [("cost_cap", 1), ("render", 2)])
def test_skips_for_a_cap_are_equal_whatever_was_spent(ledger: Engine, kind: str, periods: int) -> None:
    for day in (0, 1):
        ended = partial(Book(ledger).add, "a", status="skipped", output=None, created_at=at(day))
        ended(error_kind=kind, error_message=f"${day} were spent")

    assert len(read_life(ledger, "product_copy", "a")) == periods


def test_life_is_read_by_flow_or_step_and_for_each_endpoint(ledger: Engine) -> None:
    for flow, step, endpoint in (("f", "f", "sandbox"), ("f", "g", "sandbox"), ("h", "g", "anthropic")):
        Book(ledger, flow=flow, endpoint=endpoint).add("a", step=step, created_at=at(0))

    def places(name: str, endpoint: str | None = None) -> list[tuple[str, str, str]]:
        return [(each.flow, each.step, each.endpoint) for each in read_life(ledger, name, "a", endpoint)]

    assert places("f") == [("f", "f", "sandbox"), ("f", "g", "sandbox")]
    assert places("g") == [("f", "g", "sandbox"), ("h", "g", "anthropic")]
    assert places("g", "anthropic") == [("h", "g", "anthropic")]
    assert read_life(ledger, "f", new_id()) == []


def test_outcome_that_its_run_replaced_was_current_until_then(ledger: Engine) -> None:
    book = Book(ledger)
    first = book.add("a", created_at=at(0))
    second = book.add("a", record='{"n":2}', created_at=at(1))
    failing = book.add("a", status="failed", output=None, error_kind="timeout", created_at=at(2))

    found = read_life(ledger, "product_copy", "a")

    assert [(each.generation_id, each.run_id) for each in found] == [
        (row, book.run_id) for row in (first, second, failing)
    ]
    assert told(found) == [("succeeded", 0, 1, 0, None), ("succeeded", 1, None, 0, None), ("failed", 2, None, 0, None)]


def test_failure_that_occurs_twice_in_a_run_is_confirmed_by_the_second(ledger: Engine) -> None:
    book = Book(ledger)
    for day in (0, 1):
        book.add("a", status="failed", output=None, error_kind="timeout", created_at=at(day))

    assert told(read_life(ledger, "product_copy", "a")) == [("failed", 0, None, 1, 1)]
