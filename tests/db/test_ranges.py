"""Helpers share a step's keys without overlap; what one does not finish is free for another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, update

from db.clock import new_id, now
from db.ledger import leases, ranges
from db.ledger.leases import Lease, LeaseLostError, SupersededError
from db.ledger.lifecycle import close_run, join_run, leave_run
from db.ledger.rows import ConfirmedRow, WriteBatch
from db.ledger.writing import write
from db.tables import StoredLease
from tests.db.rows import Book, count_open
from tests.db.test_leases import ELSEWHERE, dead_process, run_out

STEP = "note"
KEYS = [f"{number:04}" for number in range(1200)]


@pytest.fixture
def whole(ledger: Engine) -> Book:
    """A run whose 1,200 records are to be divided."""
    book = Book(ledger)
    ranges.divide(ledger, book.lease, STEP, [KEYS[:500], KEYS[500:1000], [], KEYS[1000:]])
    return book


def helper(book: Book, number: int = 1) -> Lease:
    return join_run(book.ledger, book.run_id, new_id(), f"helper {number}")


def test_ranges_are_taken_in_the_order_of_the_keys_until_none_is_free(whole: Book) -> None:
    mine = helper(whole)
    assert ranges.take_range(whole.ledger, mine, STEP, 700) == KEYS[:700]
    assert ranges.take_range(whole.ledger, mine, STEP, 700) == KEYS[700:]
    assert ranges.take_range(whole.ledger, mine, STEP, 700) == []
    assert count_open(whole.ledger, whole.run_id, STEP) == (0, 1200)
    ranges.finish_range(whole.ledger, mine, STEP, KEYS[:700])
    assert count_open(whole.ledger, whole.run_id, STEP) == (0, 500)


def test_helpers_that_take_at_once_share_without_overlap(whole: Book) -> None:
    helpers = [helper(whole, number) for number in range(1, 5)]

    def take_all(lease: Lease) -> list[str]:
        found: list[str] = []
        while keys := ranges.take_range(whole.ledger, lease, STEP, 50):
            found += keys
        return found

    with ThreadPoolExecutor(len(helpers)) as threads:
        taken = list(threads.map(take_all, helpers))
    assert sorted(key for keys in taken for key in keys) == KEYS


def test_keys_that_a_helper_releases_are_taken_by_another(whole: Book) -> None:
    first, second = helper(whole, 1), helper(whole, 2)
    ranges.take_range(whole.ledger, first, STEP, 100)
    ranges.finish_range(whole.ledger, first, STEP, KEYS[:10])
    leave_run(whole.ledger, first)
    assert ranges.take_range(whole.ledger, second, STEP, 1) == KEYS[10:11]


@pytest.mark.parametrize("end", ["leaves", "dies", "unseen"])
def test_keys_of_a_helper_are_free_when_it_ends(whole: Book, end: str) -> None:
    ledger, first = whole.ledger, helper(whole, 1)
    ranges.take_range(ledger, first, STEP, 1200)
    if end == "leaves":
        leave_run(ledger, first)
    else:
        process = dead_process() if end == "dies" else ELSEWHERE
        with ledger.begin() as connection:
            connection.execute(update(StoredLease).where(StoredLease.id == first.id).values(process=process))
        if end == "unseen":
            run_out(ledger, first.id)
        leases.end_lapsed(ledger, except_lease=whole.lease.id)
    assert len(ranges.take_range(ledger, helper(whole, 2), STEP, 1200)) == 1200


def test_helper_that_slept_takes_nothing_before_it_has_its_lease_back(whole: Book) -> None:
    ledger, asleep = whole.ledger, helper(whole)
    ranges.take_range(ledger, asleep, STEP, 1000)
    run_out(ledger, asleep.id)
    # Its process still runs, so only what it holds is released.
    leases.end_lapsed(ledger, except_lease=whole.lease.id)
    other = helper(whole, 2)
    assert ranges.take_range(ledger, other, STEP, 100) == KEYS[:100]
    with pytest.raises(LeaseLostError):
        ranges.take_range(ledger, asleep, STEP, 100)
    back = leases.take_back(ledger, asleep)
    assert ranges.take_range(ledger, back, STEP, 100) == KEYS[100:200]
    # It can't finish keys that another helper has taken.
    ranges.finish_range(ledger, back, STEP, KEYS[:200])
    assert count_open(ledger, whole.run_id, STEP) == (1000, 100)


def test_record_that_is_confirmed_is_not_free(whole: Book) -> None:
    mine = helper(whole)
    rows = [
        ConfirmedRow(
            run_id=whole.run_id,
            step=STEP,
            record_key=key,
            status="succeeded",
            generation_id="any",
            confirmed_at=now(),
            lease_id=mine.id,
        )
        for key in KEYS[:3]
    ]
    write(whole.ledger, WriteBatch(confirmed=rows), mine)
    assert ranges.take_range(whole.ledger, helper(whole, 2), STEP, 1) == KEYS[3:4]
    ranges.divide(whole.ledger, whole.lease, STEP, [KEYS])
    assert count_open(whole.ledger, whole.run_id, STEP) == (1196, 1)


def test_closing_the_run_ends_its_helpers_leases(whole: Book) -> None:
    mine = helper(whole)
    ranges.take_range(whole.ledger, mine, STEP, 100)
    close_run(whole.ledger, whole.lease, "completed", now())
    with pytest.raises(LeaseLostError):
        ranges.take_range(whole.ledger, mine, STEP, 100)
    with pytest.raises(SupersededError, match="completed"):
        leases.take_back(whole.ledger, mine)
    assert count_open(whole.ledger, whole.run_id, STEP) == (0, 0)
