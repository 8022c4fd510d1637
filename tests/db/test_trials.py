"""A trial's answers fill the cache and are kept as history, but no reader and no upkeep takes them for content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, insert, select, update

from db.clock import now
from db.identity import this_process
from db.ledger import spill
from db.ledger.leases import end_lapsed
from db.ledger.rows import ConfirmedRow, WriteBatch
from db.ledger.writing import write
from db.readers.audit.filters import Filter
from db.readers.audit.life_reasons import explain_periods
from db.readers.audit.overviews import recent_failures
from db.readers.lives import read_life
from db.readers.look_up import look_up
from db.readers.past_answers import mean_tokens, read_past
from db.readers.what_stands import read_own_outcomes, read_standing
from db.session import begin_write, rows_of
from db.tables import Attempt, Generation, StandingContent, StoredLease, StoredRun, StoredStep, WorkingRow
from db.upkeep.compacting import compact, find_removable
from db.upkeep.pruning import prune
from db.upkeep.rebuilding import Differences, compare, rebuild
from db.upkeep.recounting import find_wrong_rollups
from db.upkeep.sizes import measure
from db.words import TRY
from tests.db.rows import Book, sha

STEP = "product_copy"
FAILED: dict[str, Any] = {"status": "failed", "output": None, "output_hash": None, "error_kind": "timeout"}
INVALID: dict[str, Any] = {"status": "invalid", "output": None, "output_hash": None}


def trial_in(ledger: Engine, **own: Any) -> Book:
    return Book(ledger, trigger=TRY, **own)


def content(ledger: Engine) -> dict[str, tuple[Any, ...]]:
    c = StandingContent
    columns = (c.generation_id, c.confirmed_run_id, c.confirmed, c.failing_id, c.failing)
    return {row[0]: tuple(row[1:]) for row in rows_of(ledger, select(c.record_key, *columns))}


def confirmed(book: Book, key: str, generation_id: str, status: Any = "succeeded") -> WriteBatch:
    row = ConfirmedRow(
        run_id=book.run_id,
        step=STEP,
        record_key=key,
        status=status,
        generation_id=generation_id,
        confirmed_at=now(),
        lease_id=book.lease.id,
    )
    return WriteBatch(confirmed=[row])


def counts(book: Book) -> tuple[int, ...]:
    s = StoredStep
    columns = (s.unchanged, s.failed_again, s.skipped_again)
    return tuple(rows_of(book.ledger, select(*columns).where(s.run_id == book.run_id))[0])


def end_leases(ledger: Engine) -> None:
    with begin_write(ledger) as connection:
        connection.execute(delete(StoredLease))


# What is current


def test_trial_of_a_new_record_makes_no_content(ledger: Engine) -> None:
    trial = trial_in(ledger)
    trial.add("tea")
    trial.add("mint", **FAILED)
    assert content(ledger) == {}
    assert read_standing(ledger, STEP, STEP, "sandbox", ["tea", "mint"], with_parents=True) == {}
    trial.close()
    assert content(ledger) == {}


def test_real_run_pays_nothing_for_a_trials_answer_and_makes_it_content(ledger: Engine) -> None:
    tried = trial_in(ledger).add("tea")
    found = look_up(ledger, [sha("tea")])[sha("tea")]
    assert (found.generation_id, found.bad_outcomes) == (tried, 0)

    run = Book(ledger)
    written = run.reuse("tea", tried)

    assert content(ledger) == {"tea": (written, run.run_id, 0, None, 0)}
    standing = read_standing(ledger, STEP, STEP, "sandbox", ["tea"], with_parents=False)["tea"]
    # The next run finds it by its own record, and confirms it.
    assert (standing.generation_id, standing.written_by) == (written, tried)
    assert standing.answer is not None
    assert standing.answer.output is not None


@pytest.mark.parametrize("own", [{}, FAILED, INVALID, {"template_hash": sha("fifth version"), "prompt": "other"}])
def test_trial_changes_no_content(ledger: Engine, own: dict[str, Any]) -> None:
    run = Book(ledger)
    run.add("tea")
    run.add("mint", **FAILED)
    before = content(ledger)
    trial = trial_in(ledger)
    trial.add("tea", **own)
    trial.add("mint", **own)
    assert content(ledger) == before
    trial.close()
    assert content(ledger) == before
    # Nor does it take the confirmations from what it does not replace.
    confirmations = rows_of(ledger, select(Generation.confirmed).where(Generation.confirmed.is_not(None)))
    assert confirmations == []


def test_trial_counts_what_is_unchanged_but_confirms_nothing(ledger: Engine) -> None:
    run = Book(ledger)
    written, failed = run.add("tea"), run.add("mint", **FAILED)
    before = content(ledger)
    trial = trial_in(ledger)
    for key, generation_id, status in (("tea", written, "succeeded"), ("mint", failed, "failed")):
        for _twice in range(2):
            write(ledger, confirmed(trial, key, generation_id, status), trial.lease)
    assert content(ledger) == before
    assert counts(trial) == (1, 1, 0)
    own = read_own_outcomes(ledger, trial.run_id, STEP, ["tea", "mint"], with_parents=False)
    assert {key: (each.generation_id, each.confirmed) for key, each in own.items()} == {
        "tea": (written, True),
        "mint": (failed, True),
    }
    # Then it asks again after all: the record counts once.
    trial.add("tea")
    assert counts(trial) == (0, 1, 0)
    assert content(ledger) == before


def test_run_confirms_its_content_while_a_trial_of_it_is_open(ledger: Engine) -> None:
    written = Book(ledger).add("tea")
    trial, run = trial_in(ledger), Book(ledger)
    trial.add("tea", prompt="other")
    write(ledger, confirmed(run, "tea", written), run.lease)
    trial.add("tea", prompt="another", created_at=now())
    assert content(ledger) == {"tea": (written, run.run_id, 1, None, 0)}
    newer = run.add("tea", record='{"n": 2}')
    trial.close()
    assert content(ledger) == {"tea": (newer, run.run_id, 0, None, 0)}
    stamped = rows_of(ledger, select(Generation.confirmed).where(Generation.id == written))
    assert [row.confirmed for row in stamped] == [1]


def test_newer_trial_hides_no_older_row_of_a_run(ledger: Engine) -> None:
    """A run's row may arrive late, from a spill file, with an id below the trial's."""
    run, trial = Book(ledger), trial_in(ledger)
    late = WriteBatch()
    written = run.generation(late, "tea")
    trial.add("tea")
    write(ledger, late)
    assert content(ledger) == {"tea": (written, run.run_id, 0, None, 0)}


# Whether it is asked again


def test_bad_outcomes_of_trials_do_not_make_a_run_give_up(ledger: Engine) -> None:
    for _try in range(3):
        trial_in(ledger).add("tea", **INVALID)
        trial_in(ledger).add("mint", **FAILED)
    assert look_up(ledger, [sha("tea"), sha("mint")]) == {}
    Book(ledger).add("tea", **INVALID)
    assert look_up(ledger, [sha("tea")])[sha("tea")].bad_outcomes == 1
    tried = trial_in(ledger).add("tea")
    assert look_up(ledger, [sha("tea")])[sha("tea")].generation_id == tried


# What other readers make of it


def test_life_of_a_record_goes_on_through_a_trial(ledger: Engine) -> None:
    written = Book(ledger).add("tea")
    trial_in(ledger).add("tea", prompt="other", template_hash=sha("fifth version"))
    trial_in(ledger).add("tea", **FAILED)
    run = Book(ledger)
    write(ledger, confirmed(run, "tea", written), run.lease)

    (period,) = read_life(ledger, STEP, "tea")

    assert (period.generation_id, period.until, period.confirmed) == (written, None, 1)
    assert read_life(ledger, STEP, "only") == []
    again = Book(ledger).add("tea", record='{"n": 2}')
    first, second = explain_periods(ledger, read_life(ledger, STEP, "tea"))
    assert (first.period.generation_id, first.period.confirmed) == (written, 1)
    assert (second.period.generation_id, second.before, second.failures) == (again, written, 0)


def test_answers_of_trials_are_measured_only_without_any_of_runs(ledger: Engine) -> None:
    for _trial in range(6):
        trial_in(ledger).add("tea", settled={"input_tokens": 10, "output_tokens": 20, "latency_ms": 7})
    asked = (ledger, STEP, STEP, "sandbox", "claude-sonnet-4-6")
    assert mean_tokens(*asked) == (10, 20)
    Book(ledger).add("tea", settled={"input_tokens": 1000, "output_tokens": 2000, "latency_ms": 9})
    trial_in(ledger).add("tea", settled={"input_tokens": 10, "output_tokens": 20, "latency_ms": 7})
    assert mean_tokens(*asked) == (1000, 2000)
    past = read_past(ledger, STEP, STEP, "claude-sonnet-4-6", endpoint="sandbox", except_endpoint="")
    assert past is not None
    assert past.latencies_ms == (9,)


def test_failures_of_trials_need_nobodys_attention_unless_asked_for(ledger: Engine) -> None:
    trial = trial_in(ledger)
    tried = trial.add("tea", **FAILED)
    for _closed in range(2):
        assert recent_failures(ledger) == []
        assert [each.generation_id for each in recent_failures(ledger, Filter(trigger=TRY))] == [tried]
        trial.close()
    failed = Book(ledger).add("tea", **FAILED)
    assert [each.generation_id for each in recent_failures(ledger)] == [failed]


# What arrives after its end


def test_spilled_trial_is_imported_after_it_closed(ledger: Engine, tmp_path: Path) -> None:
    run = Book(ledger)
    written, mint = run.add("tea"), run.add("mint")
    before = content(ledger)
    trial = trial_in(ledger)
    batch = WriteBatch()
    tried = trial.generation(batch, "tea", prompt_hash=sha("other"))
    trial.generation(batch, "new")
    batch.confirmed += confirmed(trial, "mint", mint).confirmed
    path = spill.keep_batch(tmp_path, trial.run_id, batch)
    trial.close()

    assert spill.recover(ledger, path) == 2

    assert content(ledger) == before
    assert before["tea"][0] == written
    assert look_up(ledger, [sha("other")])[sha("other")].generation_id == tried
    assert rows_of(ledger, select(WorkingRow.record_key)) == []


def test_killed_trial_is_settled_as_any_run(ledger: Engine) -> None:
    host, pid, _start, *machine = this_process().split("/")
    trial = trial_in(ledger, process="/".join((host, pid, "1", *machine)))
    batch = WriteBatch()
    trial.attempt(batch, "tea", trial.generation(WriteBatch(), "tea"))
    write(ledger, batch, trial.lease)
    run = Book(ledger)

    assert end_lapsed(ledger, except_lease=run.lease.id) == [trial.run_id]

    ((status,),) = rows_of(ledger, select(StoredRun.status).where(StoredRun.id == trial.run_id))
    ((error,),) = rows_of(ledger, select(Attempt.error_type).where(Attempt.run_id == trial.run_id))
    assert (status, error) == ("crashed", "crashed")
    assert content(ledger) == {}


# Upkeep


@pytest.fixture
def mixed(ledger: Engine) -> Engine:
    """Trials before, between and after real outcomes, and records that were only tried."""
    first = trial_in(ledger)
    sources = {key: first.add(key) for key in ("tea", "mint", "only")}
    first.add("bad", **FAILED)
    run = Book(ledger)
    for key in ("tea", "mint"):
        run.reuse(key, sources[key])
    second = trial_in(ledger)
    for key in ("tea", "mint", "only"):
        second.reuse(key, sources[key])
    Book(ledger).add("mint", **FAILED)
    last = trial_in(ledger)
    last.add("tea", prompt="other")
    last.add("mint", prompt="other")
    for book in (first, run, second, last):
        book.close()
    end_leases(ledger)
    return ledger


def test_content_is_rebuilt_without_trials(mixed: Engine) -> None:
    before = content(mixed)
    assert set(before) == {"tea", "mint"}
    assert compare(mixed) == Differences(records=2)
    with begin_write(mixed) as connection:
        connection.execute(delete(StandingContent).where(StandingContent.record_key == "mint"))
    assert rebuild(mixed).missing == 1
    assert content(mixed) == before


def test_rebuilding_removes_content_that_only_a_trial_wrote(mixed: Engine) -> None:
    before = content(mixed)
    ((tried,),) = rows_of(mixed, select(Generation.id).where(Generation.record_key == "bad"))
    with begin_write(mixed) as connection:
        row = rows_of(mixed, select(StandingContent.__table__).where(StandingContent.record_key == "tea"))[0]
        wrong = row._asdict() | {"record_key": "bad", "generation_id": tried}
        connection.execute(insert(StandingContent), wrong)
    assert rebuild(mixed).unknown == 1
    assert content(mixed) == before


def test_no_row_of_a_trial_stands_in_for_one_of_a_run(mixed: Engine) -> None:
    source, other = rows_of(mixed, select(Generation.id).where(Generation.record_key == "only").order_by(Generation.id))
    # Three runs reuse a trial's answer; a trial does so before each of them.
    for _run in range(3):
        for book in (trial_in(mixed), Book(mixed)):
            book.reuse("only", source.id)
            book.close()
    end_leases(mixed)
    before, history = content(mixed), len(rows_of(mixed, select(Generation.id)))

    (counted,) = find_removable(mixed)
    assert (counted.repeats, counted.rows) == (1, 6)
    assert compact(mixed) == [counted]

    trials = select(StoredRun.id).where(StoredRun.trigger == TRY)
    of_trials = select(Generation.id).where(Generation.record_key == "only", Generation.run_id.in_(trials))
    assert len(rows_of(mixed, of_trials)) == 5
    assert len(rows_of(mixed, select(Generation.id))) == history - 1
    assert content(mixed) == before
    assert compare(mixed).wrong == 0
    assert find_wrong_rollups(mixed).wrong == 0
    assert other.id != source.id


def test_pruning_keeps_what_trials_refer_to(mixed: Engine) -> None:
    found = {each.table: each.rows for each in prune(mixed)}
    assert found == {"working_rows": 0, "records": 0, "prompts": 0, "texts": 0}
    assert measure(mixed).leftovers == 0


def test_trials_are_not_counted_as_rows_that_can_be_removed(mixed: Engine) -> None:
    with begin_write(mixed) as connection:
        connection.execute(update(StoredRun).values(trigger=TRY))
    assert measure(mixed).compactable == 0


def test_rollups_equal_the_attempts_of_trials(mixed: Engine) -> None:
    found = find_wrong_rollups(mixed)
    assert (found.runs, found.wrong) == (4, 0)


def test_replacing_works_within_a_trial(ledger: Engine) -> None:
    """A later pass of the same trial replaces the earlier one's outcome, as in any run."""
    trial = trial_in(ledger)
    first = trial.add("tea", **INVALID)
    second = trial.add("tea")
    rows = rows_of(ledger, select(Generation.id, Generation.replaced_by).order_by(Generation.id))
    assert [tuple(row) for row in rows] == [(first, second), (second, "")]
    assert content(ledger) == {}
