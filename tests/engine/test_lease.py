"""A lease holds requests back while it is not confirmed; after it was lost, prompts are claimed again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError

from db.clock import new_id, now
from db.ledger import claims, leases
from db.ledger.lifecycle import begin_step, end_step, join_run
from db.ledger.ranges import divide
from db.ledger.rows import ConfirmedRow, ParentRow, StepRow, WriteBatch
from db.tables import Attempt, Generation, GenerationParent, StoredStep, WorkingRow
from db.words import MAIN
from presswork.engine.resources.lease import ClaimLostError, HeldLease
from presswork.engine.resources.writer import Writer
from tests.db.rows import Book, sha, take_up
from tests.db.test_leases import run_out, status_of
from tests.machines import SetMachine
from tests.waiting import until

ONE, TWO = sha("one"), sha("two")


class Time:
    """A clock that only the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def book(ledger: Engine) -> Book:
    return Book(ledger)


@pytest.fixture
def time(machine: SetMachine) -> Time:
    machine.boot = time = Time()
    return time


@pytest.fixture
def stopped() -> list[str]:
    return []


@pytest.fixture
def held(book: Book, time: Time) -> HeldLease:
    return HeldLease(book.ledger, book.lease)


@pytest.fixture
async def writer(ledger: Engine, book: Book) -> AsyncIterator[Writer]:
    async with Writer(ledger, lease_id=book.lease.id, interval_s=0, patience_s=0, spill_folders=[]) as writer:
        yield writer


async def test_request_is_let_go_while_heartbeats_are_confirmed(held: HeldLease, time: Time) -> None:
    await held.ready(ONE)
    time.now += leases.LEASE_S / 2
    await held.ready(ONE)


async def test_silence_sends_nothing_until_a_heartbeat_is_confirmed(
    held: HeldLease, time: Time, writer: Writer, stopped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presswork.engine.resources.lease.RETRY_S", 0.01)
    is_away = True
    renew = leases.renew

    def sometimes(ledger: Engine, lease: leases.Lease) -> None:
        if is_away:
            raise OperationalError("", None, Exception("gone"))
        renew(ledger, lease)

    monkeypatch.setattr("db.ledger.leases.renew", sometimes)
    async with held.kept(writer, stopped.append):
        time.now += leases.LEASE_S / 2 + 1
        waiting = asyncio.create_task(held.ready(ONE))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        is_away = False
        await asyncio.wait_for(waiting, 60)


async def test_heartbeat_that_failed_is_retried_soon_although_nothing_waits_to_be_sent(
    held: HeldLease, time: Time, writer: Writer, stopped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presswork.engine.resources.lease.RETRY_S", 0.1)
    monkeypatch.setattr(leases, "HEARTBEAT_S", 3600)
    failed, renewed = asyncio.Event(), asyncio.Event()
    loop, renew = asyncio.get_running_loop(), leases.renew

    def second_time(ledger: Engine, lease: leases.Lease) -> None:
        if not failed.is_set():
            loop.call_soon_threadsafe(failed.set)
            raise OperationalError("", None, Exception("gone"))
        renew(ledger, lease)
        loop.call_soon_threadsafe(renewed.set)

    monkeypatch.setattr("db.ledger.leases.renew", second_time)
    async with held.kept(writer, stopped.append), asyncio.timeout(30):
        time.now += leases.LEASE_S / 2 + 1
        waiting = asyncio.create_task(held.ready(ONE))
        await failed.wait()
        waiting.cancel()
        await renewed.wait()


def test_claims_of_before_an_absence_are_claimed_again_but_looked_up_first(
    book: Book, held: HeldLease, ledger: Engine
) -> None:
    held.take({ONE, TWO})
    run_out(ledger, book.lease.id)
    other = Book(ledger).lease.id
    assert claims.take(ledger, other, {ONE}) == {ONE}
    held.write(WriteBatch(), [])
    assert status_of(ledger, book.lease) == ("running", False, 2)
    for prompt_hash in (ONE, TWO):
        with pytest.raises(ClaimLostError):
            asyncio.run(held.ready(prompt_hash))
    # The claim is its own again, so that no other run takes a request in flight.
    assert claims.take(ledger, other, {TWO}) == set()
    assert held.take({ONE, TWO}) == {TWO}
    asyncio.run(held.ready(TWO))


async def test_run_that_is_superseded_keeps_what_it_paid_for_and_stops(
    book: Book, held: HeldLease, ledger: Engine, writer: Writer, stopped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.ledger.leases.HEARTBEAT_S", 0.01)
    held.take({ONE})
    run_out(ledger, book.lease.id)
    leases.end_lapsed(ledger, except_lease="")
    claims.take(ledger, take_up(ledger, book.run_id, new_id()).id, {ONE})
    batch = WriteBatch()
    generation_id = book.generation(batch, "key")
    # The newer process now confirms current content.
    batch.confirmed.append(
        ConfirmedRow(
            run_id=book.run_id,
            step="product_copy",
            record_key="other",
            status="succeeded",
            generation_id=generation_id,
            confirmed_at=now(),
        )
    )
    held.write(batch, [])
    with ledger.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM generations").scalar() == 1
        assert connection.exec_driver_sql("SELECT count(*) FROM working_rows").scalar() == 0
    assert "another process" in str(held.superseded_by)
    async with held.kept(writer, stopped.append):
        await until(lambda: stopped)
    assert "another process" in stopped[0]
    with pytest.raises(ClaimLostError):
        await held.ready(ONE)


def test_run_that_is_superseded_leaves_no_attempt_open_that_it_will_not_send(
    book: Book, held: HeldLease, ledger: Engine
) -> None:
    take_up(ledger, book.run_id, new_id())
    batch = WriteBatch()
    book.attempt(batch, "prompt", new_id(), lease_id=book.lease.id)
    held.write(batch, [])
    with ledger.connect() as connection:
        ends = connection.execute(select(Attempt.ended_at.is_not(None), Attempt.error_type)).all()
    assert [tuple(end) for end in ends] == [(True, "not_sent")]


def test_run_that_is_superseded_leaves_what_it_did_not_pay_for_to_the_newer_process(
    book: Book, held: HeldLease, ledger: Engine
) -> None:
    source, parent = Book(ledger).add("source"), Book(ledger).add("parent")
    take_up(ledger, book.run_id, new_id())
    batch = WriteBatch()
    book.generation(batch, "found", origin="cache", output=None, source_generation_id=source)
    paid = book.generation(batch, "paid")
    batch.parents += [ParentRow(row.id, parent) for row in batch.generations]
    held.write(batch, [])
    with ledger.connect() as connection:
        of_run = select(Generation.id).where(Generation.run_id == book.run_id)
        assert connection.scalars(of_run).all() == [paid]
        assert connection.scalars(select(GenerationParent.generation_id)).all() == [paid]


def test_run_that_is_superseded_claims_nothing_more(book: Book, held: HeldLease, ledger: Engine) -> None:
    take_up(ledger, book.run_id, new_id())
    assert held.take({ONE}) == set()
    assert "another process" in str(held.superseded_by)
    with ledger.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM claims").scalar() == 0


def test_helper_that_is_superseded_releases_no_claim_of_the_newer_process(book: Book, ledger: Engine) -> None:
    flow_run, worker = new_id(), "helper 1"
    held = HeldLease(ledger, join_run(ledger, book.run_id, flow_run, worker))
    with ledger.begin() as connection:
        leases.take(connection, book.run_id, worker, flow_run, process="elsewhere/1/1/-/-")
    claims.take(ledger, flow_run, {ONE})
    held.write(WriteBatch(released=[(flow_run, ONE)]), [])
    assert "another process" in str(held.superseded_by)
    assert claims.take(ledger, Book(ledger).lease.id, {ONE}) == set()


def test_lease_that_is_lost_again_at_once_is_taken_back_again(
    book: Book, held: HeldLease, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.take({ONE})
    take, calls = claims.take, iter(range(10))

    def lost_before(engine: Engine, owner: str, hashes: Iterable[str]) -> set[str]:
        if next(calls) < 2:
            with engine.begin() as connection:
                leases.end(connection, book.lease)
        return take(engine, owner, hashes)

    monkeypatch.setattr("db.ledger.claims.take", lost_before)
    assert held.take({TWO}) == {TWO}
    assert status_of(ledger, book.lease) == ("running", False, 3)


def test_run_whose_lease_has_run_out_takes_it_back_before_it_claims(
    book: Book, held: HeldLease, ledger: Engine
) -> None:
    run_out(ledger, book.lease.id)
    leases.end_lapsed(ledger, except_lease="")
    assert held.take({ONE}) == {ONE}
    assert status_of(ledger, book.lease) == ("running", False, 2)


def test_run_that_is_superseded_changes_no_step_of_the_newer_process(
    book: Book, held: HeldLease, ledger: Engine
) -> None:
    newer = take_up(ledger, book.run_id, new_id())
    begin_step(ledger, book.run_id, StepRow("note", total=3), lease=newer)
    end_step(ledger, book.run_id, StepRow("note", total=3), lease=newer)
    held.begin_step(StepRow("note", made_from="other", total=0, left_out=1))
    held.led(lambda lease: divide(ledger, lease, "note", [["a"]]))
    assert "another process" in str(held.superseded_by)
    held.end_step(StepRow("note", made_from="other", total=0, left_out=1))
    assert steps_in(ledger) == [("done", None, 3, 0)]
    with ledger.connect() as connection:
        assert connection.execute(select(WorkingRow.step)).all() == []


def crash_after_beginning(ledger: Engine, run_id: str, row: StepRow) -> None:
    """Have a process take over a run, begin a step of it, and crash."""
    with ledger.begin() as connection:
        newer = leases.take(connection, run_id, MAIN, new_id(), process="elsewhere/1/1/-/-")
    begin_step(ledger, run_id, row, lease=newer)
    run_out(ledger, newer.id)
    leases.end_lapsed(ledger, except_lease="")


def steps_in(ledger: Engine) -> list[tuple[str, str | None, int | None, int]]:
    columns = (StoredStep.state, StoredStep.made_from, StoredStep.total, StoredStep.left_out)
    with ledger.connect() as connection:
        return list(connection.execute(select(*columns).order_by(StoredStep.position)).tuples())


@pytest.mark.parametrize("status", ["completed", "cancelled"])
@pytest.mark.parametrize("while_it_closes", [False, True])
def test_step_that_another_process_began_again_before_it_crashed_is_done_in_the_run_that_goes_on(
    book: Book, held: HeldLease, ledger: Engine, monkeypatch: pytest.MonkeyPatch, while_it_closes: bool, status: str
) -> None:
    held.begin_step(StepRow("note", total=3, left_out=1))
    held.end_step(StepRow("note", total=3, left_out=1))
    if while_it_closes:

        def unavailable(*_arguments: object, **_options: object) -> None:
            raise OperationalError("", {}, Exception())

        with monkeypatch.context() as away:
            away.setattr("db.ledger.lifecycle.close_run", unavailable)
            with pytest.raises(OperationalError):
                held.close(status)
    # The other process read a record more, and left none out.
    crash_after_beginning(ledger, book.run_id, StepRow("note", total=5))
    held.close(status)
    assert steps_in(ledger) == [("done", None, 3, 1)]
    assert status_of(ledger, book.lease) == (status, True, None)


def test_step_that_another_process_began_meanwhile_ends_as_the_process_that_goes_on_had_begun_it(
    book: Book, held: HeldLease, ledger: Engine
) -> None:
    row = StepRow("title", made_from="note", total=2, left_out=1)
    held.begin_step(row)
    crash_after_beginning(ledger, book.run_id, StepRow("title", made_from="note", total=3))
    held.end_step(row)
    assert steps_in(ledger) == [("done", "note", 2, 1)]


def test_suspended_run_shows_no_step_as_open_that_a_crashed_process_began_again(
    book: Book, held: HeldLease, ledger: Engine
) -> None:
    held.begin_step(StepRow("note", total=3))
    held.end_step(StepRow("note", total=3))
    crash_after_beginning(ledger, book.run_id, StepRow("note", total=5))
    held.suspend("a person reviews", now())
    assert steps_in(ledger) == [("done", None, 3, 0)]
    assert status_of(ledger, book.lease)[0] == "suspended"


async def test_run_that_is_superseded_stops_at_its_next_request(
    book: Book, held: HeldLease, ledger: Engine, writer: Writer, stopped: list[str]
) -> None:
    run_out(ledger, book.lease.id)
    leases.end_lapsed(ledger, except_lease="")
    take_up(ledger, book.run_id, new_id())
    held.write(WriteBatch(), [])
    async with held.kept(writer, stopped.append), asyncio.timeout(leases.HEARTBEAT_S / 3):
        await asyncio.sleep(0)
        with pytest.raises(ClaimLostError):
            await held.ready(ONE)
        await until(lambda: stopped)


def test_run_that_has_closed_takes_nothing_back(book: Book, held: HeldLease, ledger: Engine) -> None:
    held.take({ONE})
    held.close("completed")
    held.write(WriteBatch(), [])
    held.confirm()
    assert status_of(ledger, book.lease) == ("completed", True, None)
    assert claims.take(ledger, Book(ledger).lease.id, {ONE}) == {ONE}


def test_end_whose_answer_was_lost_is_written_again_and_is_its_own(book: Book, held: HeldLease, ledger: Engine) -> None:
    held.close("completed")
    held.close("completed")
    assert (held.superseded_by, status_of(ledger, book.lease)) == (None, ("completed", True, None))


def test_run_that_another_has_taken_up_is_not_ended_by_the_one_before(
    book: Book, held: HeldLease, ledger: Engine
) -> None:
    newer = take_up(ledger, book.run_id, new_id())
    held.close("completed")
    assert "another process" in str(held.superseded_by)
    assert status_of(ledger, newer) == ("running", False, 1)


def test_lease_that_ran_out_and_that_nobody_took_ends_its_run_all_the_same(
    book: Book, held: HeldLease, ledger: Engine
) -> None:
    run_out(ledger, book.lease.id)
    leases.end_lapsed(ledger, except_lease="")
    held.close("completed")
    assert (held.superseded_by, status_of(ledger, book.lease)) == (None, ("completed", True, None))


def test_run_that_is_suspended_gives_its_claims_back_and_is_taken_up(
    book: Book, held: HeldLease, ledger: Engine
) -> None:
    held.take({ONE})
    held.suspend("waits for approval", now())
    assert status_of(ledger, book.lease) == ("suspended", False, None)
    assert claims.take(ledger, Book(ledger).lease.id, {ONE}) == {ONE}
    newer = take_up(ledger, book.run_id, new_id())
    assert status_of(ledger, newer) == ("running", False, 1)


def test_helper_that_ends_leaves_the_run_as_it_is(book: Book, ledger: Engine) -> None:
    helper = HeldLease(ledger, join_run(ledger, book.run_id, new_id(), "helper 1"))
    assert helper.is_helper
    helper.take({ONE})
    helper.close("completed")
    assert status_of(ledger, book.lease) == ("running", False, 1)
    assert claims.take(ledger, book.lease.id, {ONE}) == {ONE}
