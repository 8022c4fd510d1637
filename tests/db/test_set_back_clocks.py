"""On a SQLite ledger, rows stay in the order of their making if somebody sets the machine's clock back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, select, update

from db.clock import agree, new_id, now
from db.ledger import leases
from db.ledger.connecting import open_ledger
from db.ledger.leases import LEASE_S
from db.machine import MOST_BEHIND_S
from db.tables import StandingContent, StoredLease
from tests.db.rows import Book
from tests.db.test_leases import ELSEWHERE
from tests.machines import SetMachine, using

NOON = 1_772_366_400.0  # 2026-03-01 12:00 UTC
HOUR = 3600.0


class Time:
    """The true time, and how much the wall clock of the only machine is ahead of it."""

    def __init__(self) -> None:
        self.passed_s = self.ahead_s = 0.0

    def process(self) -> SetMachine:
        """Return the machine as a new process sees it."""
        made = StoppingMachine()
        made.wall = lambda: NOON + self.passed_s + self.ahead_s
        made.boot = made.monotonic = lambda: 500.0 + self.passed_s
        return made


class StoppingMachine(SetMachine):
    """Makes ids as the library does: their time stops while the clock is behind an id that it has made."""

    last_ms = 0

    def uuid7(self) -> int:
        made = super().uuid7()
        self.last_ms = max(self.last_ms, made >> 80)
        return made + (self.last_ms - (made >> 80) << 80)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def machine(time: Time) -> Iterator[SetMachine]:
    with using(time.process()) as machine:
        yield machine


@pytest.fixture
def ledger(machine: SetMachine, sqlite_ledger_url: str) -> Iterator[Engine]:
    engine = open_ledger(sqlite_ledger_url)
    yield engine
    engine.dispose()


def moment_of(identifier: str) -> float:
    return (UUID(identifier).int >> 80) / 1000


def executed(ledger: Engine) -> list[str]:
    """Return a list of the statements from now on."""
    statements: list[str] = []
    event.listen(ledger, "before_cursor_execute", lambda *given: statements.append(given[2]))
    return statements


def test_content_of_a_run_after_the_clock_was_set_back_replaces_the_content_before(ledger: Engine, time: Time) -> None:
    Book(ledger).add("key")
    time.passed_s, time.ahead_s = 60.0, -HOUR
    with using(time.process()):
        agree(ledger)
        newer = Book(ledger).add("key", output={"title": "newer"})
    with ledger.connect() as connection:
        assert connection.scalar(select(StandingContent.generation_id)) == newer


def test_times_and_ids_continue_from_the_newest_row(ledger: Engine, time: Time) -> None:
    newest = Book(ledger).add("key")
    time.passed_s, time.ahead_s = 60.0, -HOUR
    with using(time.process()):
        agree(ledger)
        time.passed_s += 5
        assert now().timestamp() == pytest.approx(NOON + 5, abs=0.1)
        assert newest < new_id()
        assert moment_of(new_id()) == pytest.approx(NOON + 5, abs=0.1)
        time.ahead_s = 0  # the clock is put right again
        assert now().timestamp() == pytest.approx(NOON + 65, abs=0.1)
        assert moment_of(new_id()) == pytest.approx(NOON + 65, abs=0.1)


def test_process_that_meets_a_clock_set_back_goes_on_in_order(ledger: Engine, time: Time) -> None:
    with using(time.process()):
        made, times = [new_id()], [now()]
        agree(ledger)
        for ahead_s in (0.0, -HOUR, -HOUR, -10.0, 5.0, 5.0, -HOUR, 0.0):
            time.ahead_s = ahead_s
            for _number in range(3):
                time.passed_s += 0.4
                made.append(new_id())
                times.append(now())
        assert made == sorted(made)
        assert times == sorted(times)
        # Ids show the ledger's time, although their library's clock has stopped meanwhile.
        assert moment_of(made[-1]) == pytest.approx(times[-1].timestamp(), abs=0.1)
        assert times[-1].timestamp() == pytest.approx(NOON + time.passed_s + 5, abs=0.1)


def test_heartbeat_learns_of_newer_rows_without_a_statement_of_its_own(ledger: Engine, time: Time) -> None:
    other = time.process()
    with using(other):
        agree(ledger)
        book = Book(ledger)
    time.passed_s, time.ahead_s = 60.0, -HOUR
    with using(time.process()):
        agree(ledger)
        lease = Book(ledger).lease
        with using(other):
            newest = book.add("key")
        statements = executed(ledger)
        leases.renew(ledger, lease)
        assert [each.split()[0] for each in statements] == ["BEGIN", "UPDATE"]
        assert newest < new_id()


def test_row_of_a_time_that_no_mistake_explains_is_ignored_and_reported_once(
    ledger: Engine, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    time.ahead_s = MOST_BEHIND_S + HOUR
    with using(time.process()):
        Book(ledger)
    time.ahead_s = 0
    with using(time.process()), caplog.at_level(logging.WARNING):
        for _number in range(3):
            agree(ledger)
            assert now().timestamp() == pytest.approx(NOON, abs=0.1)
            assert moment_of(new_id()) == pytest.approx(NOON, abs=0.1)
    (message,) = caplog.messages
    assert "newest row is of 2026-03-02 13:00+00:00, but the machine's clock shows 2026-03-01 12:00+00:00" in message


@pytest.mark.parametrize(("behind_s", "told"), [(30.0, 0), (HOUR, 1)])
def test_rows_that_are_dated_after_the_clock_are_reported_once(
    ledger: Engine, time: Time, caplog: pytest.LogCaptureFixture, behind_s: float, told: int
) -> None:
    Book(ledger)
    time.ahead_s = -behind_s
    with using(time.process()), caplog.at_level(logging.WARNING):
        for _number in range(3):
            agree(ledger)
    assert len(caplog.messages) == told
    for message in caplog.messages:
        assert "clock shows 2026-03-01 11:00+00:00, but the ledger's newest row is of 2026-03-01 12:00+00:00" in message


def test_clock_that_was_days_ahead_and_is_put_right_is_followed(ledger: Engine, time: Time) -> None:
    time.ahead_s = 3 * MOST_BEHIND_S
    with using(time.process()):
        agree(ledger)
        new_id()
        time.ahead_s = 0
        assert now().timestamp() == pytest.approx(NOON, abs=0.1)


@pytest.mark.parametrize("odd", ["~", "ffffffff-ffff-4fff-bfff-ffffffffffff"])
def test_ids_that_hold_no_time_are_ignored(ledger: Engine, odd: str) -> None:
    Book(ledger, id=odd)
    agree(ledger)
    assert now().timestamp() == pytest.approx(NOON, abs=0.1)


def test_lease_of_an_earlier_release_expires_although_the_clock_was_set_back(ledger: Engine, time: Time) -> None:
    crashed = Book(ledger, process=ELSEWHERE)
    with ledger.begin() as connection:
        connection.execute(update(StoredLease).values(boot=None, until_s=None))
    time.ahead_s = -HOUR
    with using(time.process()):
        agree(ledger)
        time.passed_s = LEASE_S + 1
        assert leases.end_lapsed(ledger, except_lease="") == [crashed.run_id]


def test_measuring_a_ledgers_clock_costs_one_statement(ledger: Engine) -> None:
    statements = executed(ledger)
    agree(ledger)
    assert [each.split()[0] for each in statements] == ["BEGIN", "SELECT"]
