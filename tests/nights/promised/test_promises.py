"""Each check of a night's promises finds the night that breaks it, and accepts what the promises allow."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from db.ledger.connecting import open_ledger
from db.ledger.lifecycle import begin_step, end_step
from db.ledger.rows import StepRow
from db.rollups.marks import roll_up_ended
from db.search.indexing import index_all
from tests.db.rows import Book
from tests.nights.promised.all_ends import check_alive, check_finishes, check_nothing_left
from tests.nights.promised.caps_hold import check_caps
from tests.nights.promised.content_stands import (
    check_current,
    check_good_content,
    check_one_row,
    check_own_records,
    check_taken,
)
from tests.nights.promised.evidence import Evidence, Violation, covered
from tests.nights.promised.ledger_rows import KeptClaim, KeptLease, KeptWork, read_rows
from tests.nights.promised.made_night import STEP, MadeNight, one_run, record_of, sha
from tests.nights.promised.money_matches import check_perhaps_billed, check_served, check_settled
from tests.nights.promised.night_result import NightResult, ProcessStory, RunStory
from tests.nights.promised.paid_once import SAYS_SO, check_lost_by_kills, check_paid_once, check_told
from tests.nights.promised.promises import CHECKS, find_violations
from tests.nights.promised.requests_in_order import (
    check_bound,
    check_nothing_sent,
    check_own_attempt,
    check_registered,
    check_within_runs,
)
from tests.nights.promised.rows_add_up import (
    check_all_records,
    check_rollups,
    check_summaries,
    check_usage_by_day,
    counts_of,
    usage_of,
)
from tests.nights.promised.secrets_kept import check_errors, check_secrets
from tests.nights.promised.words_found import check_words

Check = Callable[[Evidence], Iterator[Violation]]
Change = Callable[[MadeNight], object]


class Subject(BaseModel):
    subject: str = Field(max_length=20)


def broken(check: Check, night: MadeNight) -> bool:
    return bool(list(check(night.evidence())))


def listed(cases: dict[str, Any]) -> Any:
    """Make parameters of named cases."""
    return [pytest.param(*case, id=name) for name, case in cases.items()]


def both(*changes: Change) -> Change:
    """Make one change of several."""

    def change(night: MadeNight) -> None:
        for each in changes:
            each(night)

    return change


OF_MADE_NIGHTS = [check for check in CHECKS if check is not check_usage_by_day]
"""A made night has no views: that check reads a real ledger below."""


@pytest.mark.parametrize("check", OF_MADE_NIGHTS, ids=lambda check: check.__name__)
def test_night_that_keeps_all_promises_breaks_none(check: Check) -> None:
    assert not broken(check, one_run())


# Promise 1: paid once


def lose(night: MadeNight) -> None:
    """Take the first answer out of the ledger, as if it had never been committed."""
    del night.generations[0]
    night.asked(request_id=None, output_text=None, input_tokens=None, cost_usd=None, error_type="crashed")


def commit_late(night: MadeNight) -> None:
    """Let the first answer be committed after the second run asked for it."""
    night.committed["g001"] = 290.0


def freeze(night: MadeNight) -> None:
    night.process(frozen=[(2.1, 280.0)])


def supersede(opened: float, sent: float) -> Change:
    """Let the first process continue the second one's run and answer first; the second one had an attempt open."""

    def change(night: MadeNight) -> None:
        night.told["taken_at"] = {"l1": [160.0]}
        night.story(0, run_id="r2", lease_id="l1", began_at=159.0, ended_at=400.0)
        night.served(0, at=161.0)
        night.served(2, at=sent)
        night.committed |= {"g001": 290.0, "a003": opened}

    return change


def superseded_before(taken: float) -> Change:
    """Let the later process, which began first, take the earlier one's place before that sends its request."""

    def change(night: MadeNight) -> None:
        night.told["taken_at"] = {"l2": [taken]}
        night.story(1, run_id="r1", lease_id="l2", began_at=-5.0)
        night.story(0, began_at=-4.0)
        night.asked(2, run_id="r1")
        night.committed |= {"g001": 290.0}

    return change


PAID_AGAIN: dict[str, tuple[tuple[Change, ...], bool]] = {
    "it was in the ledger": ((), True),
    "it was not, without a reason": ((lose,), True),
    "its process was killed before the commit": ((lose, lambda n: n.process(died_at=2.01)), False),
    "its process was killed after the commit": ((lambda n: n.process(died_at=2.5),), True),
    "the later run refreshes": ((lambda n: n.story(1, refresh=True),), False),
    "the refresh had begun before": ((lambda n: n.story(1, refresh=True, began_at=-5.0),), True),
    "the refresh that it resumes had begun before": (
        (
            lambda n: n.story(0, refresh=True, began_at=-5.0),
            lambda n: n.story(1, refresh=True),
            lambda n: n.runs.__setitem__(1, replace(n.runs[1], resumes_run_id="r1")),
        ),
        True,
    ),
    "it was lost on the way": ((lose, lambda n: n.served(delivered=False)), False),
    "it was still on the way": (
        (lose, lambda n: n.served(delivered=False, ended_at=None), lambda n: n.story(0, ended_at=None)),
        True,
    ),
    "its process froze beyond its lease": ((commit_late, freeze), False),
    "its process froze for a moment": ((commit_late, lambda n: n.process(frozen=[(2.1, 20.0)])), True),
    "its process was without the ledger beyond its lease": (
        (commit_late, lambda n: n.process(partitioned=[(2.1, 280.0)])),
        False,
    ),
    "it came back, and the other had answered": (
        (freeze, lambda n: n.story(1, began_at=150.0), lambda n: n.committed.update(g001=2.05)),
        True,
    ),
    "it was spilled": (
        (lose, lambda n: n.process(partitioned=[(2.1, 30.0)]), lambda n: n.story(0, ended_at=20.0)),
        False,
    ),
    "it ended well, and lost it": ((lose, lambda n: n.story(0, ended_at=20.0)), True),
    "the ledger refused it": ((lambda n: n.wrote(status="failed", error_kind="refused_by_ledger"),), False),
    "another process was started in its place": (
        (commit_late, lambda n: n.story(1, run_id="r1"), lambda n: n.asked(2, run_id="r1")),
        False,
    ),
    "it was sent after another process had taken its place": ((superseded_before(0.95),), False),
    "it was opened after that, and sent": ((superseded_before(0.85),), True),
    "it was opened before another process took its place": ((supersede(159.9, 174.0),), False),
    "it was opened after that": ((supersede(160.1, 174.0),), True),
    "it was opened before, but sent after a heartbeat": ((supersede(159.9, 178.0),), True),
    "it was opened before, and froze": (
        (supersede(159.9, 190.0), lambda n: n.process("p2", frozen=[(162, 185)])),
        False,
    ),
    "it froze for half a lease": ((supersede(159.9, 230.0), lambda n: n.process("p2", frozen=[(162, 229)])), True),
    "its answer was no content": ((lambda n: n.served(good=False),), False),
    "the second cost nothing": ((lambda n: n.served(2, cost_usd=Decimal(0)),), False),
    "they are variants of one request": ((lambda n: n.asked(2, prompt_hash=sha("variant")),), False),
}


@pytest.mark.parametrize(("changes", "is_broken"), listed(PAID_AGAIN))
def test_second_payment_for_a_good_answer_needs_a_reason(changes: tuple[Change, ...], is_broken: bool) -> None:
    night = one_run()
    night.run("r2", "p2", "a", began=150.0, ended=400.0)
    night.answer("a", 200.0, "r2", "p2")
    for change in changes:
        change(night)
    assert broken(check_paid_once, night) == is_broken


def lose_many(night: MadeNight, count: int) -> None:
    for number in range(count):
        night.ask(f"more {number}", 1.0, "p1")


KILLS: dict[str, tuple[tuple[Change, ...], bool]] = {
    "it was killed at once": ((lambda n: n.process(died_at=2.03),), False),
    "it was killed long after the answer": ((lambda n: n.process(died_at=30.0),), True),
    "it could not commit": ((lambda n: n.process(died_at=30.0, partitioned=[(1.5, 29.9)]),), False),
    "it was about to try again": ((lambda n: n.process(died_at=30.0, partitioned=[(1.5, 25.5)]),), False),
    "it could have tried again": ((lambda n: n.process(died_at=30.0, partitioned=[(1.5, 22.5)]),), True),
    "it did not run": ((lambda n: n.process(died_at=30.0, frozen=[(1.5, 29.9)]),), False),
    "its commit was held up": ((lambda n: n.process(died_at=30.0, held_up=[(1.5, 29.9)]),), False),
    "more answers than it may have open": (
        (lambda n: n.process(died_at=2.03), lambda n: n.story(concurrency=1), lambda n: lose_many(n, 4)),
        True,
    ),
    "as many as it may have open": (
        (lambda n: n.process(died_at=2.03), lambda n: n.story(concurrency=2), lambda n: lose_many(n, 4)),
        False,
    ),
}


@pytest.mark.parametrize(("changes", "is_broken"), listed(KILLS))
def test_kill_loses_one_commit_window_and_no_more(changes: tuple[Change, ...], is_broken: bool) -> None:
    assert broken(check_lost_by_kills, one_run(lose, *changes)) == is_broken


# One row for each record, and all records


def replaced(night: MadeNight, **own: Any) -> None:
    """Let the run have an earlier outcome of its first record, which the present one replaced."""
    night.wrote(replaced_by="")
    current = night.content["a"]
    values = {"id": "g000", "status": "failed", "replaced_by": "g001", **own}
    row = night.generation("a", "r1", **values)
    night.content["a"] = current
    night.committed[row.id] = 0.5


def look_up_between(night: MadeNight) -> None:
    """Let a look-up find the earlier of two answers, before the run's superseded process writes the other one."""
    replaced(night, status="succeeded")
    current = night.content["a"]
    night.generation("a", "r1", id="g555", origin="cache", source_generation_id="g000", replaced_by="g000")
    night.content["a"] = current


def repeat_stands(night: MadeNight) -> None:
    """Let that late answer be replaced by what the look-up found, which is newer and `content` by then."""
    look_up_between(night)
    earlier, repeat = night.generations[-2:]
    night.generations[-2] = replace(earlier, replaced_by="")
    night.wrote(replaced_by=repeat.id)


def repeat_hides_it(night: MadeNight) -> None:
    """Put the late answer behind the earlier one instead, with the repeat behind it."""
    repeat_stands(night)
    night.wrote(replaced_by="g000")
    night.generations[-1] = replace(night.generations[-1], replaced_by="g001")


def count_again(night: MadeNight, **values: Any) -> None:
    night.steps[0] = replace(night.steps[0], **values)


def crashed_and_gone_on(night: MadeNight) -> None:
    """Let a second process have read fewer records before it was killed at 50 s."""
    night.stories.append(
        replace(night.stories[0], process="p2", began_at=40.0, ended_at=None, records={STEP: {"a": record_of("a")}})
    )
    night.processes["p2"] = ProcessStory("p2", died_at=50.0)


def stopped_after_its_step(night: MadeNight) -> None:
    night.runs[0] = replace(night.runs[0], status="cancelled")
    count_again(night, state="open")


ROWS: dict[str, tuple[Check, Change, bool]] = {
    "a replaced row": (check_one_row, replaced, False),
    "two rows that count": (check_one_row, lambda n: replaced(n, replaced_by=""), True),
    "no row that counts": (check_one_row, lambda n: n.wrote(replaced_by="g777"), True),
    "a replaced row that leads nowhere": (check_one_row, lambda n: replaced(n, replaced_by="g777"), True),
    "two rows replaced by one": (check_one_row, both(replaced, lambda n: replaced(n, id="g0000")), True),
    "an older row that counts": (check_one_row, lambda n: replaced(n, id="g555"), True),
    "a later look-up that found the run's own answer": (
        check_one_row,
        lambda n: replaced(n, id="g555", status="succeeded", origin="cache", source_generation_id="g001"),
        False,
    ),
    "a later look-up that found it for another record": (
        check_one_row,
        lambda n: replaced(n, id="g555", origin="cache", source_generation_id="g001", record_hash="another"),
        True,
    ),
    "a late answer that counts, after a look-up that found an earlier one": (check_one_row, look_up_between, True),
    "a late answer that the repeat of an earlier one replaces": (check_one_row, repeat_stands, False),
    "an answer that an earlier one replaced before it was repeated": (check_one_row, repeat_hides_it, True),
    "a record without a row": (check_all_records, lambda n: n.generations.pop(), True),
    "an unchanged record": (
        check_all_records,
        both(lambda n: n.generations.pop(), lambda n: count_again(n, unchanged=1)),
        False,
    ),
    "a repeated failure": (
        check_all_records,
        both(lambda n: n.generations.pop(), lambda n: count_again(n, failed_again=1)),
        False,
    ),
    "a record counted twice": (check_all_records, lambda n: count_again(n, skipped_again=1), True),
    "fewer records than its process read": (
        check_all_records,
        lambda n: n.story(records={STEP: {"a": record_of("a")}}),
        True,
    ),
    "other records than a process read that crashed before": (
        check_all_records,
        both(crashed_and_gone_on, lambda n: n.told.update(completed_at={"r1": [99.0]})),
        False,
    ),
    "other records than the process read that completed the run": (
        check_all_records,
        both(crashed_and_gone_on, lambda n: n.told.update(completed_at={"r1": [49.0]})),
        True,
    ),
    "a step that is not done": (check_all_records, lambda n: count_again(n, state="open"), True),
    "a step that is not done before the next one": (check_all_records, stopped_after_its_step, True),
    "a step that another process may have begun again": (
        check_all_records,
        both(stopped_after_its_step, lambda n: n.told.update(main_taken_at={"r1": [0.0, 50.0]})),
        False,
    ),
    "a run that was stopped": (
        check_all_records,
        both(lambda n: n.generations.pop(), lambda n: n.runs.__setitem__(0, replace(n.runs[0], status="cancelled"))),
        False,
    ),
    "a step in which a run was stopped": (
        check_all_records,
        both(stopped_after_its_step, lambda n: n.story(records={})),
        False,
    ),
}


@pytest.mark.parametrize(("check", "change", "is_broken"), listed(ROWS))
def test_each_record_of_a_completed_run_has_one_outcome(check: Check, change: Change, is_broken: bool) -> None:
    assert broken(check, one_run(change)) == is_broken


# Promise 3: content


def reuse(night: MadeNight, **own: Any) -> None:
    """Let a second run reuse the first run's answer."""
    night.run("r2", "p2", "a", began=150.0, ended=400.0)
    values = {"origin": "cache", "source_generation_id": "g001", **own}
    night.generation("a", "r2", at=200.0, **values)


def say(night: MadeNight, text: str) -> None:
    night.served(text=text)
    night.wrote(output=text)


def judge(night: MadeNight) -> None:
    night.told["output_classes"] = {STEP: Subject}


def unread(night: MadeNight) -> None:
    night.stories.insert(0, RunStory("p0", "r1"))


CONTENT: dict[str, tuple[Check, Change, bool]] = {
    "a reused answer": (check_good_content, reuse, False),
    "a reused answer of another prompt": (check_good_content, lambda n: reuse(n, source_generation_id="g002"), True),
    "a reused answer that is missing": (check_good_content, lambda n: reuse(n, source_generation_id="g777"), True),
    "a reused failure": (check_good_content, both(reuse, lambda n: n.wrote(status="refused", output=None)), True),
    "a cached row without a source": (check_good_content, lambda n: reuse(n, source_generation_id=None), True),
    "a truncated answer": (check_good_content, lambda n: n.served(good=False, text='{"subject": "Abo'), True),
    "an answer that never came": (check_good_content, lambda n: n.served(delivered=False), True),
    "another answer": (check_good_content, lambda n: n.served(text='{"subject": "Else"}'), True),
    "an answer to another request": (check_good_content, lambda n: n.asked(request_id="req_2"), True),
    "an output of a failure": (check_good_content, lambda n: n.wrote(status="invalid"), True),
    "an output that the class refuses": (
        check_good_content,
        both(lambda n: say(n, '{"subject": "A line of more than twenty"}'), judge),
        True,
    ),
    "an output that the class accepts": (check_good_content, judge, False),
    "an output that the class completes": (
        check_good_content,
        both(lambda n: n.served(text='{"subject": "About a", "more": 1}'), judge),
        False,
    ),
    "a good answer that is not taken": (check_taken, lambda n: n.wrote(status="invalid", output=None), True),
    "a good answer without a row": (check_taken, lambda n: n.generations.pop(), True),
    "a good answer that the ledger refused": (
        check_taken,
        lambda n: n.wrote(status="failed", output=None, error_kind="refused_by_ledger"),
        False,
    ),
    "the record of another key": (check_own_records, lambda n: n.wrote(record_hash=sha(record_of("b"))), True),
    "a record that is missing": (check_own_records, lambda n: n.wrote(record_hash=sha("gone")), True),
    "a record that differs from its hash": (
        check_own_records,
        lambda n: n.records.update({sha(record_of("a")): "{}"}),
        True,
    ),
    "the prompt of another key": (check_own_records, lambda n: n.wrote(prompt_hash=sha("prompt b")), True),
    "a record that a killed process read": (
        check_own_records,
        both(
            lambda n: n.records.update({sha("{}"): "{}"}),
            lambda n: n.wrote(record_hash=sha("{}"), prompt_hash=None),
            unread,
        ),
        False,
    ),
}


@pytest.mark.parametrize(("check", "change", "is_broken"), listed(CONTENT))
def test_only_good_answers_to_their_own_record_are_content(check: Check, change: Change, is_broken: bool) -> None:
    assert broken(check, one_run(change)) == is_broken


def fail(night: MadeNight, **own: Any) -> None:
    """Let a second run fail for the first run's record."""
    night.run("r2", "p2", "a", began=150.0, ended=400.0)
    night.generation("a", "r2", at=200.0, status="refused", **own)


def content(night: MadeNight, **values: Any) -> None:
    night.content["a"] = replace(night.content["a"], **values)


def change_run(night: MadeNight, number: int, **values: Any) -> None:
    night.runs[number] = replace(night.runs[number], **values)


CURRENT: dict[str, tuple[Change, bool]] = {
    "newer content": (reuse, False),
    "newer content that is not current": ((both(reuse, lambda n: content(n, generation_id="g001"))), True),
    "a later failure": (fail, False),
    "a later failure that is not known": (both(fail, lambda n: content(n, failing_id=None)), True),
    "a later failure that hides content": (both(fail, lambda n: content(n, generation_id=None)), True),
    "an older failure": (
        both(lambda n: fail(n, id="g000"), lambda n: content(n, failing_id=None, failing_run_id=None)),
        False,
    ),
    "an older failure that is current": (lambda n: fail(n, id="g000"), True),
    "no row": (lambda n: n.content.pop("a"), True),
    "a row without history": (lambda n: n.generations.pop(0), True),
    "content of a trial": (both(reuse, lambda n: change_run(n, 1, trigger="try")), True),
    "a trial that changes nothing": (
        both(
            reuse,
            lambda n: change_run(n, 1, trigger="try"),
            lambda n: content(n, generation_id="g001", confirmed_run_id="r1"),
        ),
        False,
    ),
    "another time": (lambda n: content(n, since="2020-01-01 00:00:00.000000"), True),
    "a confirmation that was not counted": (both(fail, lambda n: content(n, confirmed_run_id="r2")), True),
    "a confirmation": (both(fail, lambda n: content(n, confirmed_run_id="r2", confirmed=1)), False),
    "a confirmation by a trial": (
        both(fail, lambda n: change_run(n, 1, trigger="try"), lambda n: content(n, confirmed_run_id="r2", confirmed=1)),
        True,
    ),
}


@pytest.mark.parametrize(("change", "is_broken"), listed(CURRENT))
def test_newest_outcome_that_counts_is_current(change: Change, is_broken: bool) -> None:
    assert broken(check_current, one_run(change)) == is_broken


# Promise 6: figures


def bill_lost(night: MadeNight, error: str | None, **own: Any) -> None:
    """Let the endpoint bill an answer that did not arrive, for an attempt that ended with this error."""
    exchange = night.ask("c", 5.0, "p1", delivered=False, good=False, request_id=None, status=None, text=None)
    lost = {"request_id": None, "output_text": None, "input_tokens": None, "cost_usd": None, "generation_id": "g777"}
    night.attempt(exchange, "r1", error_type=error, **{**lost, **own})


def refuse(night: MadeNight, **own: Any) -> None:
    night.served(usage=None, text=None, cost_usd=Decimal(0), status=529, good=False)
    night.asked(**{"input_tokens": None, "cost_usd": None, "output_text": None, **own})


MONEY: dict[str, tuple[Check, Change, bool]] = {
    "an answer with other tokens": (check_settled, lambda n: n.asked(output_tokens=99), True),
    "an answer with another price": (check_settled, lambda n: n.asked(cost_usd=1), True),
    "an answer without usage": (
        check_settled,
        both(
            lambda n: n.served(tells_usage=False),
            lambda n: n.asked(input_tokens=None, output_tokens=None, cost_usd=None),
        ),
        False,
    ),
    "an answer that is missing": (check_settled, lambda n: n.attempts.pop(0), True),
    "an answer that is missing after a kill": (
        check_settled,
        both(lambda n: n.attempts.pop(0), lambda n: n.process(died_at=2.01)),
        False,
    ),
    "an answer that the ledger refused": (
        check_settled,
        both(lambda n: n.asked(request_id=None), lambda n: n.told.update(refused_ids=frozenset({"a001"}))),
        False,
    ),
    "an answer that is there twice": (
        check_settled,
        lambda n: n.attempts.append(replace(n.attempts[0], id="a9")),
        True,
    ),
    "an error that arrived": (check_settled, lambda n: refuse(n, error_type="overloaded_error"), False),
    "an error that is stored as an answer": (check_settled, refuse, True),
    "an answer that nobody served": (check_served, lambda n: n.exchanges.pop(), True),
    "an answer of a request without one": (check_served, lambda n: n.served(usage=None), True),
    "an answer with another text": (check_served, lambda n: n.asked(output_text="Else"), True),
    "a lost answer": (check_perhaps_billed, lambda n: bill_lost(n, "timeout"), False),
    "a lost answer of an attempt in flight": (check_perhaps_billed, lambda n: bill_lost(n, None, ended_at=None), False),
    "a lost answer that is known as not sent": (check_perhaps_billed, lambda n: bill_lost(n, "not_sent"), True),
    "a lost answer without a likely price": (
        check_perhaps_billed,
        lambda n: bill_lost(n, "timeout", likely_cost_usd=None),
        True,
    ),
    "an answer that is known as free": (
        check_perhaps_billed,
        lambda n: n.asked(error_type="http_403", input_tokens=None),
        True,
    ),
}


@pytest.mark.parametrize(("check", "change", "is_broken"), listed(MONEY))
def test_ledger_has_each_answer_and_its_price_once(check: Check, change: Change, is_broken: bool) -> None:
    assert broken(check, one_run(change)) == is_broken


def summarize(night: MadeNight, **wrong: Any) -> None:
    """Give the run the summary that its rows add up to, but for some figures."""
    evidence = night.evidence()
    told = {**counts_of(evidence, "r1"), **usage_of(night.attempts)}
    dollars = {name: float(Decimal(told[name] or 0).scaleb(-10)) for name in ("cost_usd", "likely_usd")}
    night.story(summary={**told, **dollars, **wrong})


@pytest.mark.parametrize("wrong", [{"succeeded": 1}, {"requests": 3}, {"cost_usd": 0.0036000001}, {"cached": 1}])
def test_summary_that_differs_from_its_rows_is_found(wrong: dict[str, Any]) -> None:
    assert not broken(check_summaries, one_run(summarize))
    assert broken(check_summaries, one_run(lambda night: summarize(night, **wrong)))


def test_summary_of_before_the_last_write_is_not_compared() -> None:
    assert not broken(
        check_summaries, one_run(lambda n: summarize(n, succeeded=1), lambda n: n.settled.update(a001=101.0))
    )


@pytest.mark.parametrize(("lease", "is_broken"), [("l1", True), ("l0", False)])
def test_summary_lacks_only_what_another_process_writes_before_the_run_has_closed(lease: str, is_broken: bool) -> None:
    def written_while_it_closes(night: MadeNight) -> None:
        summarize(night, succeeded=1)
        night.story(summed_up_at=98.0, lease_id="l1")
        night.steps_done["r1"] = [50.0, 96.0, 99.0]
        night.settled.update(a001=97.0)
        night.asked(lease_id=lease)

    assert broken(check_summaries, one_run(written_while_it_closes)) == is_broken


# Promise 9: caps


def cap(night: MadeNight, dollars: str) -> None:
    for number in range(len(night.stories)):
        night.story(number, max_cost=Decimal(dollars), concurrency=1)


def resume(night: MadeNight, began: float = 150.0) -> None:
    night.run("r2", "p2", "a", began=began, ended=400.0)
    change_run(night, 1, resumes_run_id="r1")
    for number in range(10):
        night.answer(f"more {number}", 200.0 + number, "r2", "p2")


CAPS: dict[str, tuple[tuple[Change, ...], bool]] = {
    "it holds": ((lambda n: cap(n, "0.0036"),), False),
    "it does not": ((lambda n: cap(n, "0.0035"),), True),
    "an answer was dearer than expected": (
        (lambda n: cap(n, "0.0035"), lambda n: n.asked(likely_cost_usd=17_000_000)),
        False,
    ),
    "lost requests count": ((lambda n: cap(n, "0.0037"), lambda n: bill_lost(n, "timeout")), True),
    "requests that were not sent do not": ((lambda n: cap(n, "0.0036"), lambda n: bill_lost(n, "not_sent")), False),
    "the runs that resume it count": ((resume, lambda n: cap(n, "0.02")), True),
    "another job does not": (
        (resume, lambda n: change_run(n, 1, resumes_run_id=None), lambda n: cap(n, "0.019")),
        False,
    ),
    "two resume it at once": ((lambda n: resume(n, began=50.0), lambda n: cap(n, "0.02")), False),
    "one of them has none": ((resume, lambda n: cap(n, "0.02"), lambda n: n.story(0, max_cost=None)), False),
}


@pytest.mark.parametrize(("changes", "is_broken"), listed(CAPS))
def test_job_spends_no_more_than_its_cap(changes: tuple[Change, ...], is_broken: bool) -> None:
    assert broken(check_caps, one_run(*changes)) == is_broken


def test_many_misjudged_prices_do_not_excuse_more_than_what_was_in_flight() -> None:
    night = one_run(resume)
    for number in range(len(night.attempts)):
        night.asked(number, likely_cost_usd=1)
    cap(night, "0.0036")
    assert broken(check_caps, night)


# Promise 7: everything ends


def leave(night: MadeNight, kind: str) -> None:
    match kind:
        case "lease":
            night.leases.append(KeptLease("l1", "r1", "main"))
        case "claim":
            night.claims.append(KeptClaim(sha("prompt a"), "l1"))
        case "attempt":
            night.asked(ended_at=None)
        case "working":
            night.working.append(KeptWork("r1", STEP, "a", "succeeded"))
        case _:
            change_run(night, 0, status=kind)


@pytest.mark.parametrize("kind", ["lease", "claim", "attempt", "working", "running", "suspended"])
def test_what_is_left_open_is_found(kind: str) -> None:
    assert broken(check_nothing_left, one_run(lambda night: leave(night, kind)))


@pytest.mark.parametrize("kind", ["lease", "claim", "attempt", "running", "suspended"])
def test_open_rows_are_fine_before_the_night_is_over(kind: str) -> None:
    night = one_run(lambda night: leave(night, kind))
    night.told["is_over"] = False
    assert not broken(check_nothing_left, night)


def test_crashed_run_keeps_its_working_rows_and_a_suspended_one_may_be_left() -> None:
    night = one_run(lambda night: leave(night, "working"), lambda night: leave(night, "crashed"))
    assert not broken(check_nothing_left, night)
    leave(night, "suspended")
    night.told["left_suspended"] = frozenset({"r1"})
    assert not broken(check_nothing_left, night)


def test_spill_file_that_nobody_imported_is_found(tmp_path: Path) -> None:
    night = one_run()
    night.told["spill_folders"] = [tmp_path]
    assert not broken(check_nothing_left, night)
    (tmp_path / "machine A").mkdir()
    path = tmp_path / "machine A" / "r1.spill"
    for left in ("", "a line\n", "a line\nhalf a li", "half a li"):
        path.write_text(left)
        assert broken(check_nothing_left, night)
    night.told["cut_spills"] = frozenset({path})
    assert not broken(check_nothing_left, night)
    for left in ("", "a line\nhalf a li"):
        path.write_text(left)
        assert broken(check_nothing_left, night)


def test_records_that_no_sweep_removed_are_found(tmp_path: Path) -> None:
    night = one_run(lambda night: night.told.update(swept_folders=[tmp_path]))
    (tmp_path / "r1").mkdir()
    assert not broken(check_nothing_left, night)
    (tmp_path / "r1" / "a.spool").touch()
    assert broken(check_nothing_left, night)


def give_up(night: MadeNight, failures: int) -> None:
    """Let the last run skip a record whose prompt failed this many times before."""
    night.run("r2", "p2", "a", began=150.0, ended=400.0)
    for number in range(failures):
        night.generation("a", "r1", id=f"g0{number}", status="invalid", replaced_by="x")
    night.generation("a", "r2", status="skipped", error_kind="given_up")
    night.story(1, exit_status=1)


FINISHES: dict[str, tuple[Change, bool]] = {
    "it completed": (lambda n: None, False),
    "it failed": (lambda n: change_run(n, 0, status="failed"), True),
    "it has no row": (lambda n: n.story(run_id=None), True),
    "it has another exit status": (lambda n: n.story(exit_status=1), True),
    "a record failed": (both(lambda n: fail(n, error_kind="refusal"), lambda n: n.story(1, exit_status=1)), False),
    "a record failed, and its exit status is 0": (lambda n: fail(n, error_kind="refusal"), True),
    "a record has no content": (lambda n: n.content.pop("a"), True),
    "a record has the content of an older version": (lambda n: n.story(records={STEP: {"a": "{}"}}), True),
    "a record was skipped for its failures": (lambda n: give_up(n, 3), False),
    "a record was skipped for fewer": (lambda n: give_up(n, 2), True),
}


@pytest.mark.parametrize(("change", "is_broken"), listed(FINISHES))
def test_last_run_finishes_with_content_or_a_reason_for_each_record(change: Change, is_broken: bool) -> None:
    night = one_run(change)
    night.story(len(night.stories) - 1, must_finish=True)
    assert broken(check_finishes, night) == is_broken


def leased(night: MadeNight, taken: Sequence[float], let_go: Sequence[float] = ()) -> None:
    """Say when the run's lease was taken and deleted."""
    night.story(lease_id="l1")
    night.told |= {"taken_at": {"l1": taken}, "let_go_at": {"l1": let_go}}


ALIVE: dict[str, tuple[Change, bool]] = {
    "it was alive": (lambda n: None, True),
    "it had been killed": (lambda n: n.process(died_at=30.0), False),
    "it had ended": (lambda n: n.story(ended_at=30.0), False),
    "it slept beyond its lease": (lambda n: n.process(frozen=[(-100.0, 60.0)]), False),
    "it slept for a moment": (lambda n: n.process(frozen=[(20.0, 60.0)]), True),
    "its heartbeat was held up for a moment": (lambda n: n.process(held_up=[(20.0, 23.0)]), True),
    "it had just begun, and found the crash": (lambda n: leased(n, [50.0]), False),
    "it had just taken its lease": (lambda n: leased(n, [49.0]), True),
    "another process had taken its place, and was killed": (lambda n: leased(n, [1.0], [40.0]), False),
    "it had taken its lease back": (lambda n: leased(n, [1.0, 45.0], [40.0]), True),
    "its lease was ended with it": (lambda n: leased(n, [1.0], [50.0]), True),
}


@pytest.mark.parametrize(("change", "is_broken"), listed(ALIVE))
def test_run_that_is_seen_to_live_is_not_called_crashed(change: Change, is_broken: bool) -> None:
    night = one_run(lambda night: leased(night, [1.0]), change)
    night.told["crashed_at"] = {"r1": [50.0]}
    assert broken(check_alive, night) == is_broken


# Requests


def pay_often(night: MadeNight, most: int) -> None:
    night.story(max_paid_requests=most)
    night.attempts += [replace(night.attempts[0], id=f"a9{number}") for number in range(2)]


def pay_again(written: float, worker: str = "main") -> Change:
    """Let another process pay for a prompt at 12 s in the same run, under a lease that it took at 10 s."""

    def change(night: MadeNight) -> None:
        night.told["taken_at"] = {"l2": [10.0]}
        night.story(lease_id="l1", max_paid_requests=1)
        night.asked(lease_id="l1")
        night.stories.append(RunStory("p2", "r1", lease_id="l2", worker=worker, began_at=9.0, max_paid_requests=1))
        night.generation("a", "r1", id=night.attempt(night.ask("a", 12.0, "p2"), "r1", lease_id="l2").generation_id)
        night.committed["g001"] = written

    return change


REQUESTS: dict[str, tuple[Check, Change, bool]] = {
    "an attempt that was committed later": (check_own_attempt, lambda n: n.committed.update(a001=1.2), True),
    "a request without an attempt": (check_registered, lambda n: n.ask("a", 8.0, "p1"), True),
    "a request of a prompt without a row": (check_registered, lambda n: n.ask("z", 8.0, "p1"), True),
    "a request of an attempt that says it was not sent": (
        check_registered,
        lambda n: n.asked(error_type="not_sent"),
        True,
    ),
    "an attempt that was committed when a request was under way": (
        check_registered,
        lambda n: n.committed.update(a001=1.2),
        True,
    ),
    "an attempt that was never sent": (check_registered, lambda n: bill_lost(n, "timeout"), False),
    "a request after the run": (check_within_runs, lambda n: n.story(ended_at=2.5), True),
    "a request before the run": (check_within_runs, lambda n: n.story(began_at=2.5), True),
    "a request of a killed process": (check_within_runs, lambda n: n.process(died_at=2.5), True),
    "a request of a run whose template is wrong": (
        check_nothing_sent,
        lambda n: n.story(error="TemplateError: note.md.j2: it ends too early"),
        True,
    ),
    "a request of a run that failed later": (check_nothing_sent, lambda n: n.story(error="LedgerAwayError: x"), False),
    "as many requests as a run may pay for": (check_bound, lambda n: pay_often(n, 3), False),
    "more requests than a run may pay for": (check_bound, lambda n: pay_often(n, 2), True),
    "one more request of a process that took over what was written": (check_bound, pay_again(9.9), True),
    "one more request of a process that took over before it was written": (check_bound, pay_again(10.1), False),
    "one more request of a helper, when it was written": (check_bound, pay_again(11.8, "helper 1"), True),
    "one more request of a helper, before it was written": (check_bound, pay_again(12.1, "helper 1"), False),
    "one more request of a helper that took what an expired lease had held": (
        check_bound,
        both(pay_again(11.8, "helper 1"), lambda n: n.process(frozen=[(-110.0, 11.0)])),
        False,
    ),
    "free requests": (
        check_bound,
        both(
            lambda n: pay_often(n, 1),
            lambda n: n.asked(2, error_type="rate_limit_error", input_tokens=None, output_text=None),
            lambda n: n.asked(3, error_type="overloaded_error", input_tokens=None, output_text=None),
        ),
        False,
    ),
    "requests that a crash has lost": (
        check_bound,
        both(
            lambda n: pay_often(n, 1),
            lambda n: n.asked(2, generation_id="g777"),
            lambda n: n.asked(3, generation_id="g778"),
        ),
        False,
    ),
}


@pytest.mark.parametrize(("check", "change", "is_broken"), listed(REQUESTS))
def test_requests_are_registered_bounded_and_within_their_run(check: Check, change: Change, is_broken: bool) -> None:
    assert broken(check, one_run(change)) == is_broken


@pytest.mark.parametrize(("lost", "is_broken"), [(4.0, False), (8.5, True)])
def test_answer_that_no_disk_took_is_paid_for_again_only_after_that(lost: float, is_broken: bool) -> None:
    night = one_run()
    night.attempts.pop(0)
    night.generations.pop(0)
    night.attempt(night.ask("a", 8.0, "p1"), "r1")
    night.told["unkept_at"] = {"req_1": lost}
    assert broken(check_paid_once, night) == is_broken
    assert not broken(check_settled, night)
    night.told["unkept_at"] = {}
    assert broken(check_settled, night)


def test_answer_that_no_disk_took_is_not_lost_by_a_kill() -> None:
    night = one_run(lambda night: night.process(died_at=50.0))
    night.attempts.pop(0)
    assert broken(check_lost_by_kills, night)
    night.told["unkept_at"] = {"req_1": 4.0}
    assert not broken(check_lost_by_kills, night)


UNKEPT: dict[str, tuple[Change, bool]] = {
    "nobody says so": (lambda n: None, True),
    "it logs so": (lambda n: n.told.update(logged=[f"   12.000  p1 logs: {SAYS_SO}."]), False),
    "another process logs so": (lambda n: n.told.update(logged=[f"   12.000  p11 logs: {SAYS_SO}."]), True),
    "it logs something else": (lambda n: n.told.update(logged=["   12.000  p1 logs: The ledger is away."]), True),
    "it fails so": (lambda n: n.story(error=f"LedgerAwayError: {SAYS_SO}."), False),
    "it was killed at once": (lambda n: n.process(died_at=4.1), False),
    "it was killed later": (lambda n: n.process(died_at=5.0), True),
    "it froze, and was killed": (lambda n: n.process(died_at=50.0, frozen=[(4.1, 50.0)]), False),
}


@pytest.mark.parametrize(("change", "is_broken"), listed(UNKEPT))
def test_process_says_that_no_disk_took_its_answers(change: Change, is_broken: bool) -> None:
    night = one_run(lambda night: night.told.update(unkept_at={"req_1": 4.0}), change)
    assert broken(check_told, night) == is_broken


# Promise 4, and what nobody expects


def test_secret_in_a_file_an_error_or_a_log_is_found(tmp_path: Path) -> None:
    night = one_run(lambda night: night.told.update(secrets=["sk-1"], spill_folders=[tmp_path]))
    (tmp_path / "r1.spill").write_text("nothing")
    assert not broken(check_secrets, night)
    night.story(error="FinalCallError: sk-1")
    assert broken(check_secrets, night)
    night.story(error=None)
    night.told["logged"] = ["p1 logs: sk-1"]
    assert broken(check_secrets, night)
    night.told["logged"] = []
    (tmp_path / "r1.spill").write_text("a key: sk-1")
    assert broken(check_secrets, night)


def test_error_that_nobody_handled_is_found() -> None:
    assert broken(check_errors, one_run(lambda night: night.told.update(errors=["p1: KeyError('a')"])))


# A real ledger


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger that the product wrote: a run with an answer and a lost one, and a run that reuses the first."""
    file = tmp_path_factory.mktemp("written") / "ledger.sqlite"
    ledger = open_ledger(f"sqlite:///{file}")
    first = Book(ledger)
    begin_step(ledger, first.run_id, StepRow("product_copy", total=2))
    tea = first.add("tea", settled={"cache_creation_5m_tokens": 30, "latency_ms": 1200})
    first.add(
        "cup", settled={"error_type": "timeout", "input_tokens": None, "cost_usd": None}, status="failed", output=None
    )
    end_step(ledger, first.run_id, StepRow("product_copy", total=2))
    first.close()
    second = Book(ledger)
    begin_step(ledger, second.run_id, StepRow("product_copy", total=1))
    second.reuse("tea", tea)
    end_step(ledger, second.run_id, StepRow("product_copy", total=1))
    second.close()
    ledger.dispose()
    return file


@pytest.fixture
def real(written: Path, tmp_path: Path) -> Path:
    """A copy of that ledger."""
    return Path(shutil.copy(written, tmp_path))


OF_ROWS: tuple[Check, ...] = (
    check_one_row,
    check_all_records,
    check_current,
    check_rollups,
    check_usage_by_day,
    check_nothing_left,
)


def violations(file: Path) -> list[Violation]:
    night = NightResult(file, exchanges=(), processes=(), runs=(), committed_at={})
    evidence = Evidence(night, read_rows(file))
    return [found for check in OF_ROWS for found in check(evidence)]


def test_ledger_of_the_product_keeps_the_promises_about_rows(real: Path) -> None:
    rows = read_rows(real)
    assert len(rows.attempts) == 2
    assert len(rows.rolled_up) == 2
    assert all(rows.rollups.values())
    assert rows.attempts[0].cost_usd == 100_000_000
    assert violations(real) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE usage_rollup SET cost_e10 = cost_e10 + 1",
        "UPDATE usage_rollup SET perhaps_billed = 0",
        "DELETE FROM outcome_rollup",
        "UPDATE prompt_cache_rollup SET written_5m = 31",
        "UPDATE attempts SET output_tokens = 101",
        "UPDATE attempts SET cost_usd = 0.0100000001 WHERE cost_usd IS NOT NULL",
        "UPDATE content SET generation_id = (SELECT min(id) FROM generations) WHERE record_key = 'tea'",
        "UPDATE run_steps SET unchanged = 1",
        "DELETE FROM content",
        "INSERT INTO claims VALUES ('p', 'l', '2026-01-01 00:00:00')",
    ],
)
def test_changed_ledger_is_found(real: Path, change: str) -> None:
    with closing(sqlite3.connect(real)) as connection:
        connection.execute(change)
        connection.commit()
    assert violations(real) != []


def test_answers_that_an_index_lacks_are_found(real: Path) -> None:
    ledger = open_ledger(f"sqlite:///{real}")
    roll_up_ended(ledger, 10.0)
    night = NightResult(real, (), (), (), {}, indexed=True)
    evidence = Evidence(night, read_rows(real))
    assert list(check_words(evidence))  # there is none
    assert not list(check_words(Evidence(replace(night, indexed=False), evidence.rows)))
    index_all(ledger)
    assert not list(check_words(evidence))
    with closing(sqlite3.connect(f"{real}.search.sqlite")) as index, index:
        (month,) = index.execute("SELECT month FROM search_months").fetchone()
        index.execute(f"DELETE FROM texts_{month}")
    assert list(check_words(evidence))
    index_all(ledger)
    with closing(sqlite3.connect(f"{real}.search.sqlite")) as index, index:
        index.execute("DELETE FROM search_runs")
    assert list(check_words(evidence))
    ledger.dispose()


def test_all_checks_read_a_ledger_without_a_night(real: Path) -> None:
    night = NightResult(real, exchanges=(), processes=(), runs=(), committed_at={})
    assert {found.promise for found in find_violations(night)} >= {"each answer in the ledger was served"}


def test_time_in_overlapping_intervals_counts_once() -> None:
    assert covered([(5, 8), (0, 2), (1, 3)], 1, 7) == 4
    assert covered([(0, 10)], 2, 3) == 1
    assert covered([], 0, 10) == 0
