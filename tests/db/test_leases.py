"""Leases: an expired one gives claims away; `crashed` is said of what is gone or can't be seen, and taken back."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select, update

from db.identity import boot_id, boot_time_s, this_process
from db.ledger import claims, leases
from db.ledger.clock import new_id, now
from db.ledger.leases import Lease, LeaseLostError, SupersededError
from db.ledger.rows import WriteBatch
from db.ledger.tables import Attempt, Claim, StoredRun
from db.ledger.writing import close_run, write
from tests.db.rows import Book, settled_row, sha

HASHES = {sha(word) for word in ("one", "two", "three")}
HOST, PID, STARTED, BOOT, NAMESPACE = this_process().split("/")
ELSEWHERE = f"another-host/1/1/{BOOT}/1"
"""A process in another container of this machine, which can't be seen from here."""


def run_out(ledger: Engine, run_id: str) -> None:
    """Let a run's lease have ended a second ago."""
    lapsed = {
        "alive_until": now() - timedelta(seconds=1),
        "lease_until_s": boot_time_s() - 1,
    }
    with ledger.begin() as connection:
        connection.execute(update(StoredRun).where(StoredRun.id == run_id).values(lapsed))


def open_attempts(ledger: Engine, run_id: str) -> int:
    with ledger.connect() as connection:
        statement = select(func.count()).where(Attempt.run_id == run_id, Attempt.ended_at.is_(None))
        return connection.scalar(statement) or 0


def status_of(ledger: Engine, run_id: str) -> tuple[str, bool, int]:
    with ledger.connect() as connection:
        row = connection.execute(
            select(StoredRun.status, StoredRun.ended_at, StoredRun.epoch).where(StoredRun.id == run_id)
        ).one()
    return row.status, row.ended_at is not None, row.epoch


def claimed(ledger: Engine) -> set[str]:
    with ledger.connect() as connection:
        return set(connection.scalars(select(Claim.prompt_hash)))


def dead_process() -> str:
    """The identity of a process of this machine that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    return f"{HOST}/{ended.pid}/1/{BOOT}/{NAMESPACE}"


def at_work(ledger: Engine, process: str, **run: object) -> str:
    """Write a run that has claims and a request in flight; its id."""
    book = Book(ledger, process=process, **run)
    batch = WriteBatch()
    book.attempt(batch, "one", new_id())
    write(ledger, batch)
    claims.take(ledger, book.run_id, HASHES)
    return book.run_id


def test_run_whose_process_is_gone_is_crashed_at_once(ledger: Engine) -> None:
    dead = at_work(ledger, dead_process())
    assert leases.end_lapsed(ledger, but="") == [dead]
    assert status_of(ledger, dead) == ("crashed", True, 2)
    assert (open_attempts(ledger, dead), claimed(ledger)) == (0, set())
    with ledger.connect() as connection:
        assert connection.scalars(select(Attempt.error_type)).all() == ["crashed"]
    assert leases.end_lapsed(ledger, but="") == []


def test_run_whose_number_another_process_got_is_crashed_too(ledger: Engine) -> None:
    dead = at_work(ledger, f"{HOST}/{PID}/1/{BOOT}/{NAMESPACE}")
    assert leases.end_lapsed(ledger, but="") == [dead]


@pytest.mark.parametrize(
    "process", [this_process(), ELSEWHERE, "odd", f"{socket.gethostname()}/1/1"], ids=["here", "hidden", "odd", "old"]
)
def test_run_with_a_lease_is_left_alone(ledger: Engine, process: str) -> None:
    alive = at_work(ledger, process)
    assert leases.end_lapsed(ledger, but="") == []
    assert status_of(ledger, alive) == ("running", False, 1)
    assert (open_attempts(ledger, alive), claimed(ledger)) == (1, HASHES)


def test_run_that_can_not_be_seen_is_crashed_when_its_lease_runs_out(ledger: Engine) -> None:
    unseen = at_work(ledger, ELSEWHERE)
    run_out(ledger, unseen)
    assert leases.end_lapsed(ledger, but="") == [unseen]
    assert status_of(ledger, unseen) == ("crashed", True, 2)
    assert claimed(ledger) == set()


def test_run_that_is_seen_to_live_loses_its_claims_with_its_lease_and_nothing_else(ledger: Engine) -> None:
    asleep = at_work(ledger, this_process())
    run_out(ledger, asleep)
    assert leases.end_lapsed(ledger, but="") == []
    assert status_of(ledger, asleep) == ("running", False, 2)
    assert (open_attempts(ledger, asleep), claimed(ledger)) == (1, set())
    # Once for each time that it sleeps, however many look.
    assert leases.end_lapsed(ledger, but="") == []
    assert status_of(ledger, asleep) == ("running", False, 2)


def test_run_is_never_ended_by_itself(ledger: Engine) -> None:
    mine = at_work(ledger, ELSEWHERE)
    run_out(ledger, mine)
    assert leases.end_lapsed(ledger, but=mine) == []
    assert claims.take(ledger, mine, HASHES) == HASHES
    assert status_of(ledger, mine) == ("running", False, 1)


@pytest.mark.parametrize("process", [ELSEWHERE, this_process()], ids=["unseen", "seen"])
def test_run_that_returns_can_not_commit_before_it_has_its_lease_back(ledger: Engine, process: str) -> None:
    away = at_work(ledger, process)
    run_out(ledger, away)
    leases.end_lapsed(ledger, but="")
    lost = Lease(away, 1)
    with pytest.raises(LeaseLostError):
        write(ledger, WriteBatch(), lost)
    with pytest.raises(LeaseLostError):
        leases.renew(ledger, lost)

    back = leases.take_back(ledger, lost)
    assert back == Lease(away, 2)
    assert status_of(ledger, away) == ("running", False, 2)
    write(ledger, WriteBatch(), back)
    leases.renew(ledger, back)
    assert leases.end_lapsed(ledger, but="") == []
    with pytest.raises(LeaseLostError):
        write(ledger, WriteBatch(), lost)


def test_attempt_that_was_called_crashed_ends_by_what_the_run_says_when_it_returns(ledger: Engine) -> None:
    book = Book(ledger, process=ELSEWHERE)
    batch = WriteBatch()
    attempt = book.attempt(batch, "one", new_id())
    write(ledger, batch, Lease(book.run_id, 1))
    run_out(ledger, book.run_id)
    leases.end_lapsed(ledger, but="")
    back = leases.take_back(ledger, Lease(book.run_id, 1))
    write(ledger, WriteBatch(settled=[settled_row(attempt)]), back)
    with ledger.connect() as connection:
        row = connection.execute(select(Attempt.error_type, Attempt.output_tokens)).one()
    assert tuple(row) == (None, 100)


def test_run_that_returns_ends_where_a_newer_one_has_its_flow_run(ledger: Engine) -> None:
    away = at_work(ledger, ELSEWHERE, prefect_flow_run_id="flow run")
    run_out(ledger, away)
    leases.end_lapsed(ledger, but="")
    newer = Book(ledger, prefect_flow_run_id="flow run").run_id
    Book(ledger, prefect_flow_run_id="another flow run")
    with pytest.raises(SupersededError, match=newer):
        leases.take_back(ledger, Lease(away, 1))
    close_run(ledger, away, "cancelled", now())
    assert status_of(ledger, away) == ("cancelled", True, 2)


def test_runs_of_no_flow_run_do_not_end_each_other(ledger: Engine) -> None:
    away = at_work(ledger, ELSEWHERE)
    run_out(ledger, away)
    Book(ledger)
    assert leases.take_back(ledger, Lease(away, 1)) == Lease(away, 1)


def test_lease_that_was_never_lost_is_taken_back_as_it_is(book: Book) -> None:
    run_out(book.ledger, book.run_id)
    assert leases.take_back(book.ledger, Lease(book.run_id, 1)) == Lease(book.run_id, 1)
    assert leases.end_lapsed(book.ledger, but="") == []


@pytest.mark.postgres
def test_writers_clock_that_is_ahead_or_behind_ends_no_lease_on_postgres(
    ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ledger.dialect.name != "postgresql":
        pytest.skip("SQLite has one machine, and so one clock")
    alive = at_work(ledger, ELSEWHERE)
    for minutes in (-5, 5):
        monkeypatch.setattr("db.ledger.leases.now", lambda minutes=minutes: now() + timedelta(minutes=minutes))
        assert leases.end_lapsed(ledger, but="") == []
        leases.renew(ledger, Lease(alive, 1))


def test_time_of_day_that_jumps_ends_no_lease_on_sqlite(
    sqlite_ledger_url: str, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ledger.dialect.name != "sqlite":
        pytest.skip("PostgreSQL has a clock of its own")
    at_work(ledger, ELSEWHERE)
    monkeypatch.setattr("db.ledger.leases.now", lambda: now() + timedelta(hours=5))
    assert leases.end_lapsed(ledger, but="") == []
    monkeypatch.setattr("db.ledger.leases.boot_time_s", lambda: boot_time_s() + leases.LEASE_S + 1)
    assert len(leases.end_lapsed(ledger, but="")) == 1


def test_lease_of_another_boot_is_over_on_sqlite(ledger: Engine) -> None:
    other_boot = this_process().replace(BOOT, "11111111-0000-0000-0000-000000000000")
    before = at_work(ledger, other_boot)
    with ledger.begin() as connection:
        connection.execute(update(StoredRun).where(StoredRun.lease_boot == boot_id()).values(lease_boot="another"))
    ended = leases.end_lapsed(ledger, but="")
    # Another machine may still be at work on a PostgreSQL ledger.
    assert ended == ([before] if ledger.dialect.name == "sqlite" else [])


def test_lease_of_an_earlier_presswork_ends_by_its_time(ledger: Engine) -> None:
    old = at_work(ledger, f"{HOST}/{PID}/{STARTED}")
    with ledger.begin() as connection:
        connection.execute(update(StoredRun).where(StoredRun.id == old).values(lease_boot=None, lease_until_s=None))
    assert leases.end_lapsed(ledger, but="") == []
    run_out(ledger, old)
    assert leases.end_lapsed(ledger, but="") == [old]


def test_several_that_end_a_lease_at_once_do_it_once(ledger: Engine) -> None:
    dead = at_work(ledger, dead_process())
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _number: leases.end_lapsed(ledger, but=""), range(4)))
    assert [run_id for ended in found for run_id in ended] == [dead]
    assert status_of(ledger, dead) == ("crashed", True, 2)


def test_run_that_ended_while_it_was_taken_for_crashed_stays_as_it_ended(book: Book) -> None:
    run_out(book.ledger, book.run_id)
    close_run(book.ledger, book.run_id, "completed", now())
    assert leases.end_lapsed(book.ledger, but="") == []
    assert status_of(book.ledger, book.run_id) == ("completed", True, 1)
