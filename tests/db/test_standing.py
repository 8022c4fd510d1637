"""A record's current outcome follows all writes and confirmations, in any order of arrival, each counted once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text, update

from db.clock import new_id, now
from db.ledger.lifecycle import begin_step, close_run, end_step, suspend_run
from db.ledger.rows import ConfirmedRow, GenerationRow, ParentRow, StepRow, WriteBatch, values_of
from db.ledger.writing import write
from db.session import begin_write
from db.tables import Generation, GenerationParent, StandingContent, StoredRun, StoredStep, WorkingRow
from tests.db.rows import Book, take_up

STEP = "product_copy"


def content_of(ledger: Engine, key: str) -> Any:
    with ledger.connect() as connection:
        return connection.execute(select(StandingContent.__table__).where(StandingContent.record_key == key)).one()


def stands(ledger: Engine, key: str) -> tuple[Any, ...]:
    row = content_of(ledger, key)
    return row.generation_id, row.confirmed_run_id, row.confirmed, row.failing_id, row.failing


def steps(ledger: Engine) -> dict[str, tuple[int, int, int]]:
    with ledger.connect() as connection:
        rows = connection.execute(select(StoredStep.__table__).order_by(StoredStep.position)).all()
    return {row.step: (row.unchanged, row.failed_again, row.skipped_again) for row in rows}


def count_working(ledger: Engine) -> int:
    with ledger.connect() as connection:
        return len(connection.execute(select(WorkingRow.record_key)).all())


def confirmed(book: Book, key: str, generation_id: str, status: Any = "succeeded") -> ConfirmedRow:
    return ConfirmedRow(
        run_id=book.run_id,
        step=STEP,
        record_key=key,
        status=status,
        generation_id=generation_id,
        confirmed_at=now(),
        lease_id=book.lease.id,
    )


def confirm(book: Book, key: str, generation_id: str, status: Any = "succeeded") -> None:
    write(book.ledger, WriteBatch(confirmed=[confirmed(book, key, generation_id, status)]), book.lease)


def test_newest_content_is_current_whatever_arrives_last(ledger: Engine) -> None:
    book = Book(ledger)
    older, newer = new_id(), new_id()
    Book(ledger).add("tea", id=newer)
    book.add("tea", id=older)
    assert stands(ledger, "tea")[0] == newer
    assert content_of(ledger, "tea").since is not None


def test_failure_keeps_the_current_content_and_content_ends_the_failure(ledger: Engine) -> None:
    first = Book(ledger)
    written = first.add("tea")
    failed = Book(ledger).add("tea", status="refused", output=None, output_hash=None, error_kind="refusal")
    assert stands(ledger, "tea") == (written, first.run_id, 0, failed, 0)
    last = Book(ledger)
    again = last.reuse("tea", written)
    assert stands(ledger, "tea") == (again, last.run_id, 0, None, 0)


def test_older_failure_does_not_come_after_newer_content(ledger: Engine) -> None:
    failed, written = new_id(), new_id()
    book = Book(ledger)
    book.add("tea", id=written)
    Book(ledger).add("tea", id=failed, status="failed", output=None, output_hash=None)
    assert stands(ledger, "tea") == (written, book.run_id, 0, None, 0)


def test_confirmation_writes_no_history_and_is_counted_once(ledger: Engine) -> None:
    written = Book(ledger).add("tea")
    before = content_of(ledger, "tea")
    book = Book(ledger)
    batch = WriteBatch(confirmed=[confirmed(book, "tea", written)])
    write(ledger, batch, book.lease)
    # A commit whose reply was lost is repeated.
    write(ledger, batch, book.lease)
    assert stands(ledger, "tea") == (written, book.run_id, 1, None, 0)
    assert content_of(ledger, "tea").confirmed_at > before.confirmed_at
    assert content_of(ledger, "tea").since == before.since
    assert steps(ledger) == {STEP: (1, 0, 0)}
    with ledger.connect() as connection:
        assert len(connection.execute(select(Generation.id)).all()) == 1


def test_repeated_failures_and_skips_are_counted_separately(ledger: Engine) -> None:
    book = Book(ledger)
    failed = book.add("tea", status="failed", output=None, output_hash=None)
    skipped = book.add("mint", status="skipped", output=None, output_hash=None)
    later = Book(ledger)
    confirm(later, "tea", failed, "failed")
    confirm(later, "mint", skipped, "skipped")
    assert steps(ledger) == {STEP: (0, 1, 1)}
    assert stands(ledger, "tea") == (None, None, 0, failed, 1)
    assert content_of(ledger, "mint").failing_run_id == later.run_id


def test_confirmations_are_written_on_the_replaced_generation(ledger: Engine) -> None:
    written = Book(ledger).add("tea")
    for _run in range(3):
        confirm(Book(ledger), "tea", written)
    last = content_of(ledger, "tea").confirmed_at
    Book(ledger).add("tea")
    with ledger.connect() as connection:
        row = connection.execute(select(Generation.__table__).where(Generation.id == written)).one()
    assert (row.confirmed, row.confirmed_at) == (3, last)
    assert content_of(ledger, "tea").confirmed == 0


def test_confirmation_of_replaced_content_changes_only_the_counts_of_its_run(ledger: Engine) -> None:
    written = Book(ledger).add("tea")
    slow, quick = Book(ledger), Book(ledger)
    newer = quick.add("tea")
    confirm(slow, "tea", written)
    assert stands(ledger, "tea") == (newer, quick.run_id, 0, None, 0)
    assert steps(ledger) == {STEP: (1, 0, 0)}


def test_late_confirmation_does_not_hide_a_later_one(ledger: Engine) -> None:
    written = Book(ledger).add("tea")
    spilled, prompt = Book(ledger), Book(ledger)
    late = WriteBatch(confirmed=[confirmed(spilled, "tea", written)])
    confirm(prompt, "tea", written)
    at = content_of(ledger, "tea").confirmed_at
    write(ledger, late)
    row = content_of(ledger, "tea")
    assert (row.confirmed_run_id, row.confirmed_at, row.confirmed) == (prompt.run_id, at, 2)


def counting(ledger: Engine) -> list[str]:
    """The generations that count in their runs."""
    with ledger.connect() as connection:
        return list(connection.scalars(select(Generation.id).where(Generation.replaced_by == "")))


def replaced(ledger: Engine) -> dict[str, str]:
    """What replaces each generation that does not count."""
    with ledger.connect() as connection:
        by_id = select(Generation.id, Generation.replaced_by).where(Generation.replaced_by != "")
        return dict(connection.execute(by_id).tuples().all())


def test_newest_outcome_of_a_run_counts_and_the_others_stay(ledger: Engine) -> None:
    book = Book(ledger)
    failed = book.add("tea", status="failed", output=None, output_hash=None, error_kind="timeout")
    written = book.add("tea")
    assert counting(ledger) == [written]
    assert stands(ledger, "tea") == (written, book.run_id, 0, None, 0)
    with ledger.connect() as connection:
        replaced = select(Generation.id).where(Generation.replaced_by == written)
        assert connection.scalars(replaced).all() == [failed]
    gathered = book.add("tea")
    assert counting(ledger) == [gathered]


def test_late_outcome_of_a_run_is_kept_and_does_not_count(ledger: Engine) -> None:
    # From a superseded process or a spill file.
    book, late = Book(ledger), [new_id(), new_id()]
    failed = book.add("tea", status="failed", output=None, output_hash=None)
    first = Book(ledger).add("first")
    batch = WriteBatch()
    twin = book.generation(batch, "twin", origin="cache", output=None, source_generation_id=late[0], id=late[1])
    batch.generations.insert(
        0,
        replace(
            batch.generations[0],
            id=late[0],
            record_key="tea",
            origin="live",
            output={"title": "Late"},
            source_generation_id=None,
        ),
    )
    batch.parents = [ParentRow(late[0], first)]
    for _written_twice in range(2):
        write(ledger, batch)
    assert set(counting(ledger)) == {failed, first, twin}
    # It was paid for and is the newest content.
    assert stands(ledger, "tea") == (late[0], book.run_id, 0, failed, 0)
    with ledger.connect() as connection:
        assert connection.scalars(select(GenerationParent.parent_id)).all() == [first]


def test_answer_that_comes_after_its_run_has_closed_is_kept_and_not_counted_if_the_run_had_confirmed_the_record(
    ledger: Engine,
) -> None:
    # From a superseded process: the one that took its place found content, confirmed it, and closed the run.
    book, late = Book(ledger), WriteBatch()
    slow = book.generation(late, "tea", id=new_id())
    current = Book(ledger).add("tea")
    confirm(book, "tea", current)
    mint = book.add("mint")
    book.close()
    for _written_twice in range(2):
        write(ledger, late)
    assert set(counting(ledger)) == {current, mint}
    assert steps(ledger) == {STEP: (1, 0, 0)}
    assert stands(ledger, "tea") == (current, book.run_id, 1, None, 0)
    assert replaced(ledger) == {slow: current}


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_answer_that_comes_after_its_run_and_a_later_one_have_confirmed_the_record_is_not_counted(
    ledger: Engine, status: Any
) -> None:
    book, late, later_still = Book(ledger), WriteBatch(), WriteBatch()
    slow = [book.generation(batch, "tea", id=new_id()) for batch in (late, later_still)]
    begin_step(ledger, book.run_id, StepRow(STEP, total=2))
    own = {} if status == "succeeded" else {"output": None, "output_hash": None}
    current = Book(ledger).add("tea", status=status, **own)
    confirm(book, "tea", current, status)
    mint = book.add("mint")
    end_step(ledger, book.run_id, StepRow(STEP, total=2))
    book.close()
    confirm(Book(ledger), "tea", current, status)
    for batch in (late, late, later_still, later_still):
        write(ledger, batch)
    assert set(counting(ledger)) == {current, mint}
    assert replaced(ledger) == {slow[0]: current, slow[1]: slow[0]}


def test_several_answers_that_come_late_in_one_batch_are_all_kept(ledger: Engine) -> None:
    book, batch, parent = Book(ledger), WriteBatch(), Book(ledger).add("mint")
    slow = [book.generation(batch, "tea", id=new_id()) for _process in range(3)]
    current = Book(ledger).add("tea")
    confirm(book, "tea", current)
    book.close()
    batch.generations.reverse()
    batch.parents = [ParentRow(row, parent) for row in slow]
    for _written_twice in range(2):
        write(ledger, batch)
    assert set(counting(ledger)) == {parent, current}
    assert replaced(ledger) == {slow[0]: current, slow[1]: slow[0], slow[2]: slow[1]}
    with ledger.connect() as connection:
        assert set(connection.scalars(select(GenerationParent.generation_id))) == set(slow)


def test_answer_that_comes_after_its_run_has_stopped_counts_in_a_step_that_had_not_come_to_the_record(
    ledger: Engine,
) -> None:
    book, late = Book(ledger), WriteBatch()
    slow = book.generation(late, "tea", id=new_id())
    begin_step(ledger, book.run_id, StepRow(STEP, total=2))
    current = Book(ledger).add("tea")
    book.close()
    write(ledger, late)
    assert set(counting(ledger)) == {current, slow}


def waits_for_a_lock(ledger: Engine) -> bool:
    with ledger.connect() as connection:
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(connection.scalar(waiting))


def write_at_once(ledger: Engine, first: GenerationRow, second: WriteBatch) -> None:
    """Write a batch while a generation that another process has written is not committed."""
    with ThreadPoolExecutor(1) as other:
        with begin_write(ledger) as connection:
            connection.execute(insert(Generation).values(values_of(first)))
            written = other.submit(write, ledger, second)
            # It has looked for the record's generations, and waits for the one that is not committed yet.
            while not waits_for_a_lock(ledger) and not written.done():
                time.sleep(0.01)
        written.result(30)


@pytest.mark.postgres
def test_two_processes_of_a_run_that_write_a_record_at_once_both_keep_what_they_have(ledger: Engine) -> None:
    if ledger.dialect.name != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    book, parent = Book(ledger), Book(ledger).add("parent")
    batches = [WriteBatch(), WriteBatch()]
    older, newer = (book.generation(batch, "tea") for batch in batches)
    for batch, row in zip(batches, (older, newer), strict=True):
        batch.parents.append(ParentRow(row, parent))
    write_at_once(ledger, batches[0].generations[0], batches[1])
    assert counting(ledger) == [parent, newer]
    assert replaced(ledger) == {older: newer}
    with ledger.connect() as connection:
        assert connection.scalars(select(GenerationParent.generation_id)).all() == [newer]


@pytest.mark.postgres
def test_two_processes_that_write_late_answers_to_a_record_at_once_both_keep_what_they_have(ledger: Engine) -> None:
    if ledger.dialect.name != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    book, batches = Book(ledger), [WriteBatch(), WriteBatch()]
    slow = [book.generation(batch, "tea", id=new_id()) for batch in batches]
    current = Book(ledger).add("tea")
    confirm(book, "tea", current)
    book.close()
    write_at_once(ledger, replace(batches[0].generations[0], replaced_by=current), batches[1])
    assert replaced(ledger) == {slow[0]: current, slow[1]: slow[0]}


def test_answer_of_the_run_itself_that_is_looked_up_late_does_not_count(ledger: Engine) -> None:
    # From a helper that looked the record up before another had its answer.
    book = Book(ledger)
    written = book.add("tea")
    book.reuse("tea", written)
    assert counting(ledger) == [written]
    # Made from another record, it is a different outcome.
    changed = book.reuse("tea", written, record='{"name": "Green tea"}')
    assert counting(ledger) == [changed]


def test_answer_that_comes_after_a_look_up_of_an_earlier_one_counts_neither_in_its_run_nor_as_content(
    ledger: Engine,
) -> None:
    # From a superseded process. The one that took its place found the earlier answer, which has confirmed it.
    book, late = Book(ledger), WriteBatch()
    written = book.add("tea")
    slow = book.generation(late, "tea")
    found = book.reuse("tea", written)
    write(ledger, late)
    assert counting(ledger) == [written]
    assert replaced(ledger) == {found: written, slow: found}
    assert stands(ledger, "tea") == (found, book.run_id, 0, None, 0)


def test_one_batch_may_hold_several_outcomes_of_a_record(ledger: Engine) -> None:
    # A helper that lost its lease took its own range again before the first outcomes were committed.
    book, batch, first = Book(ledger), WriteBatch(), Book(ledger).add("mint")
    failed = book.generation(batch, "tea", status="failed", output=None, output_hash=None, error_kind="timeout")
    written = book.generation(batch, "tea")
    repeated = book.generation(batch, "tea", origin="cache", output=None, source_generation_id=written)
    asked = book.generation(batch, "mint")
    asked_again = book.generation(batch, "mint")
    # Two processes commit their outcomes in any order.
    batch.generations[-2:] = reversed(batch.generations[-2:])
    for _written_twice in range(2):
        write(ledger, batch)
    assert set(counting(ledger)) == {first, written, asked_again}
    assert replaced(ledger) == {failed: written, repeated: failed, asked: asked_again}
    assert stands(ledger, "tea") == (repeated, book.run_id, 0, None, 0)
    assert stands(ledger, "mint") == (asked_again, book.run_id, 0, None, 0)


def test_every_outcome_that_comes_late_is_kept(ledger: Engine) -> None:
    book, late = Book(ledger), [new_id() for _outcome in range(3)]
    counts = book.add("tea")
    for generation_id in (late[1], late[0], late[2]):
        book.add("tea", id=generation_id)
    assert counting(ledger) == [counts]
    with ledger.connect() as connection:
        assert set(connection.scalars(select(Generation.id))) == {counts, *late}


def test_record_is_not_confirmed_that_the_run_has_written(ledger: Engine) -> None:
    book = Book(ledger)
    written = book.add("tea")
    confirm(book, "tea", written)
    assert (steps(ledger), count_working(ledger), stands(ledger, "tea")[2]) == ({}, 0, 0)


def test_confirmation_that_arrives_after_the_close_is_counted_once_and_leaves_nothing(ledger: Engine) -> None:
    written = Book(ledger).add("tea")
    book = Book(ledger)
    late = WriteBatch(confirmed=[confirmed(book, "tea", written)])
    close_run(ledger, book.lease, "failed", now())
    for _written_twice in range(2):
        write(ledger, late)
    assert (steps(ledger), count_working(ledger)) == ({STEP: (1, 0, 0)}, 0)
    assert stands(ledger, "tea") == (written, book.run_id, 1, None, 0)


def test_record_that_a_run_has_confirmed_and_then_writes_is_counted_once(ledger: Engine) -> None:
    skipped = Book(ledger).add("tea", status="skipped", output=None, output_hash=None)
    book = Book(ledger)
    confirm(book, "tea", skipped, "skipped")
    assert steps(ledger) == {STEP: (0, 0, 1)}
    book.add("tea")
    assert steps(ledger) == {STEP: (0, 0, 0)}
    assert count_working(ledger) == 0


def test_closing_deletes_working_rows_and_keeps_the_counts(ledger: Engine) -> None:
    written = Book(ledger).add("tea")
    book = Book(ledger)
    begin_step(ledger, book.run_id, StepRow(STEP, total=1))
    confirm(book, "tea", written)
    end_step(ledger, book.run_id, StepRow(STEP, total=1))
    assert count_working(ledger) == 1
    close_run(ledger, book.lease, "completed", now())
    assert count_working(ledger) == 0
    with ledger.connect() as connection:
        row = connection.execute(select(StoredStep.__table__)).one()
    assert (row.state, row.position, row.total, row.unchanged) == ("done", 1, 1, 1)


def test_resumed_run_counts_each_record_once(ledger: Engine) -> None:
    written = Book(ledger).add("tea")
    book = Book(ledger)
    confirm(book, "tea", written)
    # Suspended and resumed, it keeps its confirmations.
    suspend_run(ledger, book.lease, "a reason", now() + timedelta(days=1))
    book.lease = take_up(ledger, book.run_id, new_id())
    confirm(book, "tea", written)
    assert steps(ledger) == {STEP: (1, 0, 0)}
    # Closed and resumed, it confirms all of them again.
    close_run(ledger, book.lease, "cancelled", now())
    book.lease = take_up(ledger, book.run_id, new_id())
    begin_step(ledger, book.run_id, StepRow(STEP, total=1))
    assert steps(ledger) == {STEP: (0, 0, 0)}
    confirm(book, "tea", written)
    assert steps(ledger) == {STEP: (1, 0, 0)}


def test_resumed_crashed_run_keeps_its_counts(ledger: Engine) -> None:
    written = Book(ledger).add("tea")
    book = Book(ledger)
    confirm(book, "tea", written)
    with ledger.begin() as connection:
        connection.execute(
            update(StoredRun).where(StoredRun.id == book.run_id).values(status="crashed", ended_at=now())
        )
    book.lease = take_up(ledger, book.run_id, new_id())
    confirm(book, "tea", written)
    assert steps(ledger) == {STEP: (1, 0, 0)}


def test_a_thousand_records_are_confirmed_in_one_batch(ledger: Engine) -> None:
    book = Book(ledger)
    batch = WriteBatch()
    ids = {key: book.generation(batch, key) for key in (f"{number:04}" for number in range(1200))}
    write(ledger, batch, book.lease)
    later = Book(ledger)
    write(ledger, WriteBatch(confirmed=[confirmed(later, key, found) for key, found in ids.items()]), later.lease)
    assert steps(ledger) == {STEP: (1200, 0, 0)}
    with ledger.connect() as connection:
        rows = connection.execute(select(StandingContent.confirmed, StandingContent.confirmed_run_id)).all()
    assert {tuple(row) for row in rows} == {(1, later.run_id)}
