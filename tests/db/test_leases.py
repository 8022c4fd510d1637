"""Expired leases lose their claims; a run counts as crashed if its process is gone or not visible, until it returns."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select, update

from db.clock import new_id, now
from db.identity import this_process
from db.ledger import claims, leases
from db.ledger.leases import Lease, LeaseLostError, SupersededError
from db.ledger.lifecycle import close_run, join_run, leave_run, suspend_run
from db.ledger.rows import WriteBatch
from db.ledger.writing import write
from db.machine import Machine, boot_time_s, here
from db.tables import Attempt, Claim, StoredLease, StoredRun
from tests.db.rows import Book, settled_row, sha, take_up
from tests.machines import SetMachine

HASHES = {sha(word) for word in ("one", "two", "three")}
HOST, PID, STARTED, BOOT, NAMESPACE = this_process().split("/")
ELSEWHERE = f"another-host/1/1/{BOOT}/1"
"""A process in another container of this machine, not visible from here."""


def run_out(ledger: Engine, lease_id: str) -> None:
    """Make a lease expire a second ago."""
    lapsed = {
        "alive_until": now() - timedelta(seconds=1),
        "until_s": boot_time_s() - 1,
    }
    with ledger.begin() as connection:
        connection.execute(update(StoredLease).where(StoredLease.id == lease_id).values(lapsed))


def open_attempts(ledger: Engine, run_id: str) -> int:
    with ledger.connect() as connection:
        statement = select(func.count()).where(Attempt.run_id == run_id, Attempt.ended_at.is_(None))
        return connection.scalar(statement) or 0


def status_of(ledger: Engine, lease: Lease) -> tuple[str, bool, int | None]:
    """The run's status, whether it has ended, and the lease's epoch if there is a lease."""
    with ledger.connect() as connection:
        row = connection.execute(select(StoredRun.status, StoredRun.ended_at).where(StoredRun.id == lease.run_id)).one()
        epoch = connection.scalar(select(StoredLease.epoch).where(StoredLease.id == lease.id))
    return row.status, row.ended_at is not None, epoch


def claimed(ledger: Engine) -> set[str]:
    with ledger.connect() as connection:
        return set(connection.scalars(select(Claim.prompt_hash)))


def dead_process() -> str:
    """The identity of a process of this machine that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    return f"{HOST}/{ended.pid}/1/{BOOT}/{NAMESPACE}"


def at_work(ledger: Engine, process: str, **run: object) -> Lease:
    """Write a run that has claims and a request in flight; return its lease."""
    book = Book(ledger, process=process, **run)
    batch = WriteBatch()
    book.attempt(batch, "one", new_id())
    write(ledger, batch)
    claims.take(ledger, book.lease.id, HASHES)
    return book.lease


def test_run_whose_process_is_gone_is_crashed_at_once(ledger: Engine) -> None:
    dead = at_work(ledger, dead_process())
    assert leases.end_lapsed(ledger, except_lease="") == [dead.run_id]
    assert status_of(ledger, dead) == ("crashed", True, None)
    assert (open_attempts(ledger, dead.run_id), claimed(ledger)) == (0, set())
    with ledger.connect() as connection:
        assert connection.scalars(select(Attempt.error_type)).all() == ["crashed"]
    assert leases.end_lapsed(ledger, except_lease="") == []


def test_run_whose_pid_was_reused_is_crashed_too(ledger: Engine) -> None:
    dead = at_work(ledger, f"{HOST}/{PID}/1/{BOOT}/{NAMESPACE}")
    assert leases.end_lapsed(ledger, except_lease="") == [dead.run_id]


@pytest.mark.parametrize(
    "process", [this_process(), ELSEWHERE, "odd", f"{socket.gethostname()}/1/1"], ids=["here", "hidden", "odd", "old"]
)
def test_run_with_a_lease_is_left_alone(ledger: Engine, process: str) -> None:
    alive = at_work(ledger, process)
    assert leases.end_lapsed(ledger, except_lease="") == []
    assert status_of(ledger, alive) == ("running", False, 1)
    assert (open_attempts(ledger, alive.run_id), claimed(ledger)) == (1, HASHES)


def test_run_that_is_not_visible_is_crashed_when_its_lease_expires(ledger: Engine) -> None:
    unseen = at_work(ledger, ELSEWHERE)
    run_out(ledger, unseen.id)
    assert leases.end_lapsed(ledger, except_lease="") == [unseen.run_id]
    assert status_of(ledger, unseen) == ("crashed", True, None)
    assert claimed(ledger) == set()


def test_run_that_is_seen_to_live_loses_its_claims_with_its_lease_and_nothing_else(ledger: Engine) -> None:
    asleep = at_work(ledger, this_process())
    run_out(ledger, asleep.id)
    assert leases.end_lapsed(ledger, except_lease="") == []
    assert status_of(ledger, asleep) == ("running", False, 2)
    assert (open_attempts(ledger, asleep.run_id), claimed(ledger)) == (1, set())
    # Once for each sleep, no matter how many processes check.
    assert leases.end_lapsed(ledger, except_lease="") == []
    assert status_of(ledger, asleep) == ("running", False, 2)


def test_run_is_never_ended_by_itself(ledger: Engine) -> None:
    mine = at_work(ledger, ELSEWHERE)
    run_out(ledger, mine.id)
    assert leases.end_lapsed(ledger, except_lease=mine.id) == []
    assert claims.take(ledger, mine.id, HASHES) == HASHES
    assert status_of(ledger, mine) == ("running", False, 1)


@pytest.mark.parametrize("process", [ELSEWHERE, this_process()], ids=["unseen", "seen"])
def test_run_that_returns_can_not_commit_before_it_has_its_lease_back(ledger: Engine, process: str) -> None:
    lost = at_work(ledger, process)
    run_out(ledger, lost.id)
    leases.end_lapsed(ledger, except_lease="")
    with pytest.raises(LeaseLostError):
        write(ledger, WriteBatch(), lost)
    with pytest.raises(LeaseLostError):
        leases.renew(ledger, lost)

    back = leases.take_back(ledger, lost)
    assert back == Lease(lost.id, lost.run_id, "main", 2)
    assert status_of(ledger, lost) == ("running", False, 2)
    write(ledger, WriteBatch(), back)
    leases.renew(ledger, back)
    assert leases.end_lapsed(ledger, except_lease="") == []
    with pytest.raises(LeaseLostError):
        write(ledger, WriteBatch(), lost)


def test_attempt_that_was_called_crashed_gets_the_end_that_the_returning_run_writes(ledger: Engine) -> None:
    book = Book(ledger, process=ELSEWHERE)
    batch = WriteBatch()
    attempt = book.attempt(batch, "one", new_id())
    write(ledger, batch, book.lease)
    run_out(ledger, book.lease.id)
    leases.end_lapsed(ledger, except_lease="")
    back = leases.take_back(ledger, book.lease)
    write(ledger, WriteBatch(settled=[settled_row(attempt)]), back)
    with ledger.connect() as connection:
        row = connection.execute(select(Attempt.error_type, Attempt.output_tokens)).one()
    assert tuple(row) == (None, 100)


@pytest.mark.parametrize("lapsed", [True, False])
def test_process_whose_run_another_has_resumed_changes_nothing_of_it(ledger: Engine, lapsed: bool) -> None:
    away = at_work(ledger, ELSEWHERE)
    if lapsed:
        run_out(ledger, away.id)
        leases.end_lapsed(ledger, except_lease="")
    newer = take_up(ledger, away.run_id, new_id())
    assert (newer.run_id, newer.worker, newer.epoch) == (away.run_id, "main", 1)
    assert (open_attempts(ledger, away.run_id), claimed(ledger)) == (0, set())
    with pytest.raises(LeaseLostError):
        write(ledger, WriteBatch(), away)
    with pytest.raises(SupersededError, match="another process"):
        leases.take_back(ledger, away)
    close_run(ledger, away, "cancelled", now())
    assert status_of(ledger, newer) == ("running", False, 1)
    suspend_run(ledger, away, "a reason", now())
    assert status_of(ledger, newer) == ("running", False, 1)
    close_run(ledger, newer, "completed", now())
    assert status_of(ledger, newer) == ("completed", True, None)
    with pytest.raises(SupersededError, match="completed"):
        leases.take_back(ledger, away)
    close_run(ledger, away, "cancelled", now())
    assert status_of(ledger, newer) == ("completed", True, None)


def test_suspended_run_holds_nothing_and_any_process_may_resume_it(ledger: Engine) -> None:
    left = at_work(ledger, this_process())
    suspend_run(ledger, left, "waits for spring", now())
    assert status_of(ledger, left) == ("suspended", False, None)
    assert (open_attempts(ledger, left.run_id), claimed(ledger)) == (0, set())
    assert leases.end_lapsed(ledger, except_lease="") == []
    with pytest.raises(SupersededError, match="suspended"):
        leases.take_back(ledger, left)
    newer = take_up(ledger, left.run_id, new_id())
    assert status_of(ledger, newer) == ("running", False, 1)
    with ledger.connect() as connection:
        assert connection.execute(select(StoredRun.suspended_for, StoredRun.due_at)).one() == (None, None)


def test_helpers_lease_is_its_own(ledger: Engine) -> None:
    main = at_work(ledger, this_process())
    first, second = (join_run(ledger, main.run_id, new_id(), f"helper {number}") for number in (1, 2))
    claims.take(ledger, first.id, {sha("first")})
    claims.take(ledger, second.id, {sha("second")})
    leave_run(ledger, first)
    assert claimed(ledger) == HASHES | {sha("second")}
    assert open_attempts(ledger, main.run_id) == 1
    with ledger.begin() as connection:
        connection.execute(update(StoredLease).where(StoredLease.id == second.id).values(process=dead_process()))
    assert leases.end_lapsed(ledger, except_lease="") == []
    assert (claimed(ledger), status_of(ledger, main)) == (HASHES, ("running", False, 1))
    # One that is started again takes the place of the one before.
    again = join_run(ledger, main.run_id, new_id(), "helper 1")
    newest = join_run(ledger, main.run_id, new_id(), "helper 1")
    with pytest.raises(SupersededError):
        leases.take_back(ledger, again)
    with ledger.connect() as connection:
        assert [lease.id for lease in leases.living(connection)] == [main.id, newest.id]


def test_runs_do_not_end_each_other(ledger: Engine) -> None:
    away = at_work(ledger, ELSEWHERE)
    run_out(ledger, away.id)
    Book(ledger)
    assert leases.take_back(ledger, away) == away


def test_lease_that_was_never_lost_is_taken_back_as_it_is(book: Book) -> None:
    run_out(book.ledger, book.lease.id)
    assert leases.take_back(book.ledger, book.lease) == book.lease
    assert leases.end_lapsed(book.ledger, except_lease="") == []


@pytest.mark.postgres
def test_writers_clock_that_is_ahead_or_behind_ends_no_lease_on_postgres(
    ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ledger.dialect.name != "postgresql":
        pytest.skip("SQLite has one machine, and so one clock")
    alive = at_work(ledger, ELSEWHERE)
    for minutes in (-5, 5):
        monkeypatch.setattr("db.ledger.leases.now", lambda minutes=minutes: now() + timedelta(minutes=minutes))
        assert leases.end_lapsed(ledger, except_lease="") == []
        leases.renew(ledger, alive)


def test_time_of_day_that_jumps_ends_no_lease_on_sqlite(
    sqlite_ledger_url: str, ledger: Engine, machine: SetMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ledger.dialect.name != "sqlite":
        pytest.skip("PostgreSQL has its own clock")
    at_work(ledger, ELSEWHERE)
    monkeypatch.setattr("db.ledger.leases.now", lambda: now() + timedelta(hours=5))
    assert leases.end_lapsed(ledger, except_lease="") == []
    machine.boot = lambda: Machine.boot_time_s(machine) + leases.LEASE_S + 1
    assert len(leases.end_lapsed(ledger, except_lease="")) == 1


def test_lease_of_another_boot_is_over_on_sqlite(ledger: Engine) -> None:
    other_boot = this_process().replace(BOOT, "11111111-0000-0000-0000-000000000000")
    before = at_work(ledger, other_boot)
    with ledger.begin() as connection:
        connection.execute(update(StoredLease).where(StoredLease.boot == here().boot_id).values(boot="another"))
    ended = leases.end_lapsed(ledger, except_lease="")
    # Another machine may still work on a PostgreSQL ledger.
    assert ended == ([before.run_id] if ledger.dialect.name == "sqlite" else [])


def test_lease_of_an_earlier_presswork_ends_by_its_time(ledger: Engine) -> None:
    old = at_work(ledger, f"{HOST}/{PID}/{STARTED}")
    with ledger.begin() as connection:
        connection.execute(update(StoredLease).where(StoredLease.id == old.id).values(boot=None, until_s=None))
    assert leases.end_lapsed(ledger, except_lease="") == []
    run_out(ledger, old.id)
    assert leases.end_lapsed(ledger, except_lease="") == [old.run_id]


def test_several_that_end_a_lease_at_once_do_it_once(ledger: Engine) -> None:
    dead = at_work(ledger, dead_process())
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _number: leases.end_lapsed(ledger, except_lease=""), range(4)))
    assert [run_id for ended in found for run_id in ended] == [dead.run_id]
    assert status_of(ledger, dead) == ("crashed", True, None)


def test_run_that_ended_while_it_counted_as_crashed_keeps_its_status(book: Book) -> None:
    run_out(book.ledger, book.lease.id)
    close_run(book.ledger, book.lease, "completed", now())
    assert leases.end_lapsed(book.ledger, except_lease="") == []
    assert status_of(book.ledger, book.lease) == ("completed", True, None)


def test_run_that_counted_as_crashed_ends_with_its_own_status(ledger: Engine) -> None:
    away = at_work(ledger, ELSEWHERE)
    run_out(ledger, away.id)
    leases.end_lapsed(ledger, except_lease="")
    close_run(ledger, away, "completed", now())
    assert status_of(ledger, away) == ("completed", True, None)


def test_helper_whose_flow_run_another_process_has_begun_again_finds_out(
    ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its lease has the id of the flow run: the same one for both.
    book, flow_run = Book(ledger), new_id()
    with monkeypatch.context() as frozen:
        frozen.setattr(leases, "this_process", lambda: ELSEWHERE)
        first = join_run(ledger, book.run_id, flow_run, "helper 1")
    second = join_run(ledger, book.run_id, flow_run, "helper 1")
    assert (first.id, first.epoch, second.epoch) == (second.id, 1, 2)

    with pytest.raises(LeaseLostError):
        leases.renew(ledger, first)
    assert leases.take_back(ledger, second) == second
    monkeypatch.setattr(leases, "this_process", lambda: ELSEWHERE)
    with pytest.raises(SupersededError):
        leases.take_back(ledger, first)
