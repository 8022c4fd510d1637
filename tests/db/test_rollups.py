"""Figures are the sums of the attempts whatever happens to a run: open, crashed, spilled, resumed, compacted."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, delete, event, select, update

from db.clock import new_id, now
from db.ledger import leases
from db.ledger.leases import end_lapsed, take
from db.ledger.lifecycle import begin_step, close_run, join_run, leave_run, suspend_run
from db.ledger.rows import StepRow, WriteBatch
from db.ledger.spill import find_spills, keep_batch, recover
from db.ledger.writing import write
from db.readers.audit.filters import Filter, FilterError
from db.readers.audit.overviews import FigureLine
from db.readers.audit.sums import cache_use_by, outcomes_by, sums_by
from db.readers.figures import cost_reused
from db.rollups.marks import KEPT_FOR, roll_up, roll_up_ended
from db.session import begin_write
from db.tables import Attempt, Generation, RolledUp, StoredLease, StoredRun, StoredStep, UsageRollup, WorkingRow
from db.upkeep import recounting
from db.upkeep.compacting import compact
from db.upkeep.recounting import correct_rollups, find_wrong_rollups
from db.words import PERHAPS_BILLED, UNSENT
from tests.db.rows import DAY, Book, figures_by, settled_row, sha, take_up
from tests.db.test_leases import ELSEWHERE, run_out

NO_ANSWER: dict[str, Any] = dict.fromkeys(("http_status", "model", "input_tokens", "output_tokens", "cost_usd"))
STATEMENTS_OF_A_COMMIT = {"sqlite": 12, "postgresql": 12}
"""Of a batch with one answered request and its generation, at the commit before there were rollups (ebb711c)."""
TOLD = ("requests", "input_tokens", "output_tokens", "cost_usd", "unpriced", "perhaps_billed", "likely_usd")


# What the figures must be, added up row by row


def expected_usage(ledger: Engine) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Add up all attempts by day, flow and step."""
    with ledger.connect() as connection:
        flows = dict(connection.execute(select(StoredRun.id, StoredRun.flow)).tuples().all())
        steps = dict(connection.execute(select(Generation.id, Generation.step)).tuples().all())
        attempts = connection.execute(select(Attempt.__table__)).all()
    found: defaultdict[tuple[str, str, str], list[Any]] = defaultdict(list)
    for each in attempts:
        day = each.started_at.astimezone(UTC).date().isoformat()
        found[day, flows[each.run_id], steps.get(each.generation_id, "")].append(each)
    return {alike: added(rows) for alike, rows in found.items()}


def added(rows: list[Any]) -> dict[str, Any]:
    costs = [row.cost_usd for row in rows if row.cost_usd is not None]
    lost = [row for row in rows if row.error_type in PERHAPS_BILLED]
    likely = [row.likely_cost_usd for row in lost if row.likely_cost_usd is not None]
    answered = [row for row in rows if row.input_tokens is not None or row.output_text is not None]
    unpriced = sum(row.cost_usd is None for row in answered)
    cached = ("cache_creation_5m_tokens", "cache_creation_1h_tokens", "cache_read_tokens")
    return {
        "requests": sum(row.error_type not in UNSENT for row in rows),
        "input_tokens": sum((row.input_tokens or 0) + sum(getattr(row, name) or 0 for name in cached) for row in rows),
        "output_tokens": sum(row.output_tokens or 0 for row in rows),
        "cost_usd": None if unpriced and not costs else sum(costs, Decimal(0)),
        "unpriced": unpriced,
        "perhaps_billed": len(lost),
        "likely_usd": None if lost and not likely else sum(likely, Decimal(0)),
    }


def expected_outcomes(ledger: Engine) -> Counter[tuple[str, ...]]:
    """Count all outcomes by flow, step, status and origin, with unchanged records."""
    with ledger.connect() as connection:
        flows = dict(connection.execute(select(StoredRun.id, StoredRun.flow)).tuples().all())
        counts = (Generation.run_id, Generation.step, Generation.status, Generation.origin)
        rows = connection.execute(select(*counts).where(Generation.replaced_by == "")).all()
        steps = connection.execute(select(StoredStep.__table__)).all()
    found = Counter((flows[run], *rest) for run, *rest in rows)
    for step in steps:
        found[flows[step.run_id], step.step, "succeeded", "cache"] += step.unchanged
        found[flows[step.run_id], step.step, "failed", "live"] += step.failed_again
        found[flows[step.run_id], step.step, "skipped", "live"] += step.skipped_again
    return +found


def require_equal(ledger: Engine) -> None:
    """Compare all figures with the sums of the rows, to the last digit, and the stored rollups with the live sums."""
    usage = {
        (line.alike.day, line.alike.flow, line.alike.step): {name: getattr(line.usage, name) for name in TOLD}
        for line in sums_by(ledger, ["day", "flow", "step"])
    }
    assert usage == expected_usage(ledger)
    outcomes = Counter(
        {
            (each.alike.flow, each.alike.step, each.alike.status, each.alike.origin): each.generations + each.unchanged
            for each in outcomes_by(ledger, ["flow", "step", "status", "origin"])
        }
    )
    assert +outcomes == expected_outcomes(ledger)
    assert find_wrong_rollups(ledger).first == []


def marked(ledger: Engine) -> set[str]:
    with ledger.connect() as connection:
        return set(connection.scalars(select(RolledUp.run_id)))


def total_cost(ledger: Engine) -> Decimal | None:
    return sums_by(ledger, [])[0].usage.cost_usd


@pytest.fixture
def filled(book: Book) -> Book:
    """An open run with answers, a lost one, an unpriced one, a reused one and a replaced one."""
    book.add("a", settled={"cost_usd": Decimal("0.0098257501"), "cache_read_tokens": 900, "latency_ms": 1200})
    book.add("b", settled={"cost_usd": None})
    batch = WriteBatch()
    lost = book.attempt(batch, "c", new_id(), likely_cost_usd=Decimal("0.0123456789"))
    batch.settled.append(settled_row(lost, **NO_ANSWER, error_type="timeout"))
    unsent = book.attempt(batch, "d", new_id(), started_at=datetime(2026, 3, 1, 23, 59, 59, 999999, tzinfo=UTC))
    batch.settled.append(settled_row(unsent, **NO_ANSWER, error_type="connect"))
    write(book.ledger, batch)
    source = book.add("e", step="later", prompt="e", settled={"cost_usd": Decimal("0.2")})
    book.reuse("e again", source, step="later", prompt_hash=sha("e"))
    book.add("a", settled={"cost_usd": Decimal("0.0000000001")}, created_at=DAY + timedelta(days=1))
    return book


# What happens to a run


def crash(ledger: Engine, lease: leases.Lease) -> None:
    """Let a lease expire whose process nobody sees, and settle it."""
    with begin_write(ledger) as connection:
        connection.execute(update(StoredLease).where(StoredLease.id == lease.id).values(process=ELSEWHERE))
    run_out(ledger, lease.id)
    end_lapsed(ledger, except_lease="")


def test_open_run_counts_by_live_sums_and_a_closed_one_by_its_rollups(filled: Book) -> None:
    assert marked(filled.ledger) == set()
    require_equal(filled.ledger)
    before = figures_by(filled.ledger, ["day", "flow", "step", "template", "model"])

    filled.close()

    assert marked(filled.ledger) == {filled.run_id}
    assert figures_by(filled.ledger, ["day", "flow", "step", "template", "model"]) == before
    require_equal(filled.ledger)


def test_sum_of_many_small_amounts_is_exact(ledger: Engine) -> None:
    book = Book(ledger)
    batch = WriteBatch()
    for number in range(2_000):
        attempt = book.attempt(batch, "a", new_id(), ordinal=number)
        batch.settled.append(settled_row(attempt, cost_usd=Decimal("0.00982575")))
    write(ledger, batch)
    assert total_cost(ledger) == Decimal("19.65150000")
    book.close()
    assert total_cost(ledger) == Decimal("19.65150000")


def test_run_closes_whatever_an_endpoint_reports(ledger: Engine) -> None:
    # PostgreSQL adds no small integers beyond their size, and refuses a row whose key is too long.
    words = iter(chr(code) for code in range(0x20000, 0x2A000))
    reported = ("model", "service_tier", "inference_geo", "speed")
    most = dict.fromkeys(("input_tokens", "cache_creation_1h_tokens", "cache_read_tokens"), 2**31 - 1)
    book = Book(ledger)
    book.add("hat", settled={name: "".join(islice(words, 200)) for name in reported} | most)
    open_figures = figures_by(ledger, ["model"]), cache_use_by(ledger, ["model"])
    book.close()

    assert (figures_by(ledger, ["model"]), cache_use_by(ledger, ["model"])) == open_figures
    assert figures_by(ledger, [])[0].usage.input_tokens == 3 * (2**31 - 1)


def test_rollup_of_a_run_without_any_row_is_empty(book: Book) -> None:
    book.close()
    assert marked(book.ledger) == {book.run_id}
    assert sums_by(book.ledger, [])[0].usage.cost_usd == 0
    assert sums_by(book.ledger, ["day"]) == []


def test_spill_imported_after_the_close_counts(filled: Book, tmp_path: Path) -> None:
    batch = WriteBatch()
    kept = new_id()
    batch.settled.append(settled_row(filled.attempt(batch, "late", kept), cost_usd=Decimal("0.5")))
    filled.generation(batch, "late", id=kept)
    filled.close()
    before = total_cost(filled.ledger)
    keep_batch(tmp_path, filled.run_id, batch)

    (file,) = find_spills(tmp_path)
    recover(filled.ledger, file)

    assert marked(filled.ledger) == set()
    assert total_cost(filled.ledger) == (before or 0) + Decimal("0.5")
    require_equal(filled.ledger)
    assert roll_up_ended(filled.ledger) == 1
    assert marked(filled.ledger) == {filled.run_id}
    assert total_cost(filled.ledger) == (before or 0) + Decimal("0.5")
    require_equal(filled.ledger)


def test_attempt_that_a_spill_settles_after_the_close_counts(filled: Book, tmp_path: Path) -> None:
    opened, batch = WriteBatch(), WriteBatch()
    attempt = filled.attempt(opened, "late", new_id())
    write(filled.ledger, opened, filled.lease)
    filled.close()
    batch.settled.append(settled_row(attempt, cost_usd=Decimal("0.7")))
    keep_batch(tmp_path, filled.run_id, batch)
    recover(filled.ledger, find_spills(tmp_path)[0])
    require_equal(filled.ledger)
    roll_up_ended(filled.ledger)
    require_equal(filled.ledger)


def test_crashed_run_is_rolled_up_when_it_is_settled(filled: Book) -> None:
    batch = WriteBatch()
    filled.attempt(batch, "in flight", new_id(), likely_cost_usd=Decimal("0.3"))
    write(filled.ledger, batch, filled.lease)
    assert roll_up_ended(filled.ledger) == 0
    crash(filled.ledger, filled.lease)
    require_equal(filled.ledger)

    assert roll_up_ended(filled.ledger) == 1

    assert marked(filled.ledger) == {filled.run_id}
    assert sums_by(filled.ledger, [])[0].usage.likely_usd == Decimal("0.3123456789")
    require_equal(filled.ledger)


def test_crashed_run_that_is_resumed_counts_live_again(filled: Book) -> None:
    crash(filled.ledger, filled.lease)
    roll_up_ended(filled.ledger)

    lease = take_up(filled.ledger, filled.run_id, new_id())

    assert marked(filled.ledger) == set()
    batch = WriteBatch()
    batch.settled.append(settled_row(filled.attempt(batch, "more", new_id()), cost_usd=Decimal("0.4")))
    write(filled.ledger, batch, lease)
    require_equal(filled.ledger)
    close_run(filled.ledger, lease, "completed", now())
    require_equal(filled.ledger)


def test_process_that_takes_its_lease_back_takes_the_mark_away(filled: Book) -> None:
    crash(filled.ledger, filled.lease)
    roll_up_ended(filled.ledger)
    lease = leases.take_back(filled.ledger, filled.lease)
    assert marked(filled.ledger) == set()
    write(filled.ledger, WriteBatch(), lease)
    require_equal(filled.ledger)


def test_helper_that_joins_a_crashed_run_takes_the_mark_away(filled: Book) -> None:
    crash(filled.ledger, filled.lease)
    roll_up_ended(filled.ledger)
    late = join_run(filled.ledger, filled.run_id, new_id(), "helper 1")
    assert marked(filled.ledger) == set()
    assert roll_up_ended(filled.ledger) == 0
    leave_run(filled.ledger, late)
    assert roll_up_ended(filled.ledger) == 1
    require_equal(filled.ledger)


def test_helper_does_not_join_a_run_that_has_just_closed(filled: Book) -> None:
    filled.close()
    with pytest.raises(leases.SupersededError, match=r"ended \(completed\)"):
        join_run(filled.ledger, filled.run_id, new_id(), "helper 1")
    assert marked(filled.ledger) == {filled.run_id}
    with filled.ledger.connect() as connection:
        assert connection.execute(select(StoredLease.id)).all() == []


def test_process_that_closes_a_run_late_settles_what_it_opened_and_counts_it(filled: Book) -> None:
    crash(filled.ledger, filled.lease)
    newer = take_up(filled.ledger, filled.run_id, new_id())
    close_run(filled.ledger, newer, "completed", now())
    batch = WriteBatch()
    filled.attempt(batch, "late", new_id(), likely_cost_usd=Decimal("0.3"))
    write(filled.ledger, batch)
    roll_up_ended(filled.ledger)

    close_run(filled.ledger, filled.lease, "cancelled", now())

    require_equal(filled.ledger)


@pytest.mark.parametrize("crashed", [False, True], ids=["alive", "crashed before"])
def test_run_that_was_just_suspended_is_not_rolled_up(filled: Book, crashed: bool) -> None:
    if crashed:
        crash(filled.ledger, filled.lease)
        roll_up_ended(filled.ledger)
    suspend_run(filled.ledger, filled.lease, "a batch", now())
    assert roll_up_ended(filled.ledger) == 0
    assert marked(filled.ledger) == set()
    require_equal(filled.ledger)


def test_savings_of_a_crashed_run_stay_when_its_working_rows_are_pruned(ledger: Engine, tmp_path: Path) -> None:
    first = Book(ledger)
    made = [first.add(f"key {number}", settled={"cost_usd": Decimal("0.1")}) for number in range(3)]
    first.close()
    later = Book(ledger)
    begin_step(ledger, later.run_id, StepRow("product_copy", total=3))
    for number, source in enumerate(made[:2]):
        later.confirm(f"key {number}", source)
    later.reuse("key 2", made[2], created_at=DAY + timedelta(days=1))
    crash(ledger, later.lease)
    roll_up_ended(ledger)
    assert cost_reused(ledger, later.run_id) == Decimal("0.3")

    with begin_write(ledger) as connection:
        connection.execute(delete(WorkingRow))
    assert cost_reused(ledger, later.run_id) == Decimal("0.3")
    batch = WriteBatch()
    later.generation(batch, "late")
    keep_batch(tmp_path, later.run_id, batch)
    recover(ledger, find_spills(tmp_path)[0])
    assert cost_reused(ledger, later.run_id) == Decimal("0.3")
    assert roll_up_ended(ledger) == 1
    assert cost_reused(ledger, later.run_id) == Decimal("0.3")


def test_suspended_run_that_nobody_resumes_is_rolled_up(filled: Book) -> None:
    suspend_run(filled.ledger, filled.lease, "a batch", now() - KEPT_FOR + timedelta(hours=1))
    assert roll_up_ended(filled.ledger) == 0
    with begin_write(filled.ledger) as connection:
        connection.execute(update(StoredRun).values(due_at=now() - KEPT_FOR))

    assert roll_up_ended(filled.ledger) == 1

    assert marked(filled.ledger) == {filled.run_id}
    require_equal(filled.ledger)
    lease = take_up(filled.ledger, filled.run_id, new_id())
    assert marked(filled.ledger) == set()
    batch = WriteBatch()
    batch.settled.append(settled_row(filled.attempt(batch, "more", new_id()), cost_usd=Decimal("0.4")))
    write(filled.ledger, batch, lease)
    require_equal(filled.ledger)


def test_compacted_runs_are_rolled_up_again(ledger: Engine) -> None:
    first = Book(ledger)
    sources = {f"key {number}": first.add(f"key {number}") for number in range(5)}
    first.close()
    for _run in range(3):
        book = Book(ledger)
        for key, source in sources.items():
            book.reuse(key, source)
        book.close()
    before = {line.alike: line.ended.records for line in figures_by(ledger, ["flow", "step"])}

    assert sum(each.repeats for each in compact(ledger)) == 10

    assert len(marked(ledger)) == 4
    assert {line.alike: line.ended.records for line in figures_by(ledger, ["flow", "step"])} == before
    require_equal(ledger)


# Writers


def test_commit_under_a_lease_runs_as_many_statements_as_before(filled: Book) -> None:
    batch, made = WriteBatch(), new_id()
    batch.settled.append(settled_row(filled.attempt(batch, "x", made)))
    filled.generation(batch, "x", id=made)
    with statements(filled.ledger) as found:
        write(filled.ledger, batch, filled.lease)
    assert len(found) == STATEMENTS_OF_A_COMMIT[filled.ledger.dialect.name], found
    assert not any("rolled_up" in each for each in found)


@contextmanager
def statements(ledger: Engine) -> Iterator[list[str]]:
    """Collect the statements while the context is open, without BEGIN and SET."""
    found: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        found.extend([] if statement.startswith(("BEGIN", "SET LOCAL")) else [statement])

    event.listen(ledger, "before_cursor_execute", hear)
    yield found
    event.remove(ledger, "before_cursor_execute", hear)


def test_two_that_close_a_run_at_once_write_its_rollups_once(filled: Book) -> None:
    def close(status: str) -> None:
        close_run(filled.ledger, filled.lease, status, now())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(close, ["completed", "failed", "completed", "failed"]))

    assert marked(filled.ledger) == {filled.run_id}
    require_equal(filled.ledger)


def test_rows_written_while_the_run_is_rolled_up_are_never_lost(ledger: Engine) -> None:
    books = [Book(ledger) for _number in range(8)]

    def write_late(book: Book) -> None:
        for number in range(6):
            book.add(f"key {number}")

    def roll_up_again(_number: int) -> None:
        roll_up_ended(ledger)

    for book in books:
        book.close()
    with ThreadPoolExecutor(6) as pool:
        writing = [pool.submit(write_late, book) for book in books]
        list(pool.map(roll_up_again, range(12)))
        for each in writing:
            each.result()
    require_equal(ledger)
    roll_up_ended(ledger)
    assert marked(ledger) == {book.run_id for book in books}
    require_equal(ledger)


def test_writer_without_a_lease_and_the_closing_transaction_wait_for_each_other(ledger: Engine) -> None:
    if ledger.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer")
    book = Book(ledger)
    book.close()
    with ThreadPoolExecutor(1) as pool:
        with begin_write(ledger) as connection:
            connection.execute(select(StoredRun.id).where(StoredRun.id == book.run_id).with_for_update(key_share=True))
            late = pool.submit(book.add, "late")
            with pytest.raises(TimeoutError):
                late.result(0.3)
        late.result(30)
    assert marked(ledger) == set()


@pytest.mark.parametrize("seed", range(3))
def test_figures_hold_whatever_happens_in_whatever_order(ledger: Engine, seed: int, tmp_path: Path) -> None:
    draw, story = random.Random(seed), Story(ledger, tmp_path)
    for number in range(25):
        happening: Callable[[random.Random, int], None] = draw.choice(story.happenings)
        happening(draw, number)
        if number % 5 == 4:
            require_equal(ledger)
    require_equal(ledger)
    roll_up_ended(ledger)
    require_equal(ledger)


class Story:
    """Runs to which things happen at random."""

    def __init__(self, ledger: Engine, folder: Path) -> None:
        self.ledger, self.folder = ledger, folder
        self.books: list[Book] = []
        self.happenings = [
            *[self.begin, self.write, self.write, self.write, self.close],
            *[self.crash, self.resume, self.spill, self.write_late, self.roll_up, self.reuse],
        ]

    def begin(self, _draw: random.Random, number: int) -> None:
        self.books.append(Book(self.ledger, flow=f"flow {number % 2}", prefect_flow_run_id=new_id()))

    def write(self, draw: random.Random, number: int) -> None:
        for book in self._leased():
            self._write(book, self._batch(book, draw, number), book.lease)

    def write_late(self, draw: random.Random, number: int) -> None:
        for book in self.books[-2:]:
            self._write(book, self._batch(book, draw, number), None)

    def spill(self, draw: random.Random, number: int) -> None:
        for book in self.books[:2]:
            keep_batch(self.folder, book.run_id, self._batch(book, draw, number))
        for file in find_spills(self.folder):
            recover(self.ledger, file)

    def reuse(self, _draw: random.Random, number: int) -> None:
        for book in self._leased():
            source = book.add(f"source {number}")
            book.reuse(f"reused {number}", source)

    def close(self, draw: random.Random, _number: int) -> None:
        for book in self._leased()[:1]:
            close_run(self.ledger, book.lease, draw.choice(["completed", "failed", "capped"]), now())

    def crash(self, _draw: random.Random, _number: int) -> None:
        for book in self._leased()[-1:]:
            crash(self.ledger, book.lease)

    def resume(self, draw: random.Random, _number: int) -> None:
        if self.books:
            book = draw.choice(self.books)
            book.lease = take_up(self.ledger, book.run_id, new_id())

    def roll_up(self, _draw: random.Random, _number: int) -> None:
        roll_up_ended(self.ledger)

    def _leased(self) -> list[Book]:
        with self.ledger.connect() as connection:
            held = set(connection.scalars(select(StoredLease.id)))
        return [book for book in self.books if book.lease.id in held]

    def _write(self, _book: Book, batch: WriteBatch, lease: leases.Lease | None) -> None:
        write(self.ledger, batch, lease)

    def _batch(self, book: Book, draw: random.Random, number: int) -> WriteBatch:
        batch = WriteBatch()
        for key in range(draw.randrange(1, 4)):
            generation = new_id()
            began = DAY + timedelta(hours=draw.randrange(48))
            likely = draw.choice([None, Decimal("0.0100000001")])
            attempt = book.attempt(batch, f"{number}", generation, started_at=began, likely_cost_usd=likely)
            batch.opened[-1] = replace(batch.opened[-1], lease_id=book.lease.id)
            end = draw.choice(
                [
                    {"cost_usd": Decimal(draw.randrange(10**9)).scaleb(-10)},
                    {"cost_usd": None},
                    NO_ANSWER | {"error_type": draw.choice(["timeout", "connect", "not_sent", "overloaded_error"])},
                    None,
                ]
            )
            if end is not None:
                batch.settled.append(settled_row(attempt, **end))
                status = "succeeded" if "error_type" not in end else "failed"
                book.generation(batch, f"{number} {key % 2}", id=generation, status=status, step=f"step {number % 3}")
        return batch


# Filters, and what was saved


def test_period_counts_as_the_whole_days_that_it_touches(filled: Book) -> None:
    since, until = DAY.replace(hour=23), DAY.replace(hour=23, minute=30)
    assert total_cost(filled.ledger) == _cost(filled.ledger, Filter(since=since, until=until))
    assert _cost(filled.ledger, Filter(until=DAY.replace(hour=0))) == 0
    assert _cost(filled.ledger, Filter(since=DAY.replace(hour=0) + timedelta(days=1))) == 0


def _cost(ledger: Engine, chosen: Filter) -> Decimal | None:
    return sums_by(ledger, [], chosen)[0].usage.cost_usd


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_figures_can_be_filtered(filled: Book, closed: bool) -> None:
    Book(filled.ledger, flow="another").add("a", settled={"cost_usd": Decimal(5)})
    if closed:
        filled.close()

    def costs(**chosen: Any) -> Decimal | None:
        return _cost(filled.ledger, Filter(**chosen))

    assert costs(flow="another") == 5
    assert costs(flow="product_copy") == Decimal("0.2098257502")
    assert costs(run=filled.run_id) == Decimal("0.2098257502")
    assert costs(step="later") == Decimal("0.2")
    assert costs(endpoint="anthropic") == 0
    assert costs(template=sha("template")[:9], flow="another") == 5
    assert costs(template="%") == 0


def test_filter_by_what_figures_are_not_kept_by_is_refused(ledger: Engine) -> None:
    with pytest.raises(FilterError, match=r"not kept by key\. Available: day, endpoint"):
        sums_by(ledger, [], Filter(key="a"))
    with pytest.raises(FilterError, match="not kept by status"):
        sums_by(ledger, [], Filter(status="failed"))
    with pytest.raises(FilterError, match="'colour' is nothing to group usage by"):
        sums_by(ledger, ["colour"])


def test_figures_of_nothing_are_zero_not_unknown(ledger: Engine) -> None:
    (line,) = figures_by(ledger, [])
    assert isinstance(line, FigureLine)
    assert line.usage.cost_usd == line.usage.likely_usd == Decimal(0)
    assert line.ended.records == 0


def test_recount_finds_and_corrects_wrong_rollups(filled: Book) -> None:
    filled.close()
    other = Book(filled.ledger)
    other.add("a")
    other.close()
    with begin_write(filled.ledger) as connection:
        its_rows = update(UsageRollup).where(UsageRollup.run_id == filled.run_id)
        connection.execute(its_rows.values(cost_e10=UsageRollup.cost_e10 + 1))
    found = find_wrong_rollups(filled.ledger)
    assert (found.runs, found.wrong, found.first) == (2, 1, [filled.run_id])
    assert correct_rollups(filled.ledger) == found
    require_equal(filled.ledger)
    with begin_write(filled.ledger) as connection:
        connection.execute(delete(UsageRollup).where(UsageRollup.run_id == other.run_id))
    assert find_wrong_rollups(filled.ledger).first == [other.run_id]


def test_row_written_while_rollups_are_corrected_is_never_lost(filled: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    if filled.ledger.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer")
    filled.close()
    with begin_write(filled.ledger) as connection:
        connection.execute(delete(UsageRollup))
    late: list[Future[str]] = []

    def roll_up_slowly(connection: Connection, run_id: str) -> None:
        roll_up(connection, run_id)
        late.append(pool.submit(filled.add, "late"))
        with pytest.raises(TimeoutError):
            late[0].result(0.3)

    monkeypatch.setattr(recounting, "roll_up", roll_up_slowly)
    with ThreadPoolExecutor(1) as pool:
        assert correct_rollups(filled.ledger).wrong == 1
        late[0].result(30)
    require_equal(filled.ledger)


def test_rows_of_a_run_whose_mark_is_gone_do_not_count_twice(filled: Book) -> None:
    filled.close()
    before = total_cost(filled.ledger)
    with begin_write(filled.ledger) as connection:
        take(connection, filled.run_id, "main", new_id())
    assert total_cost(filled.ledger) == before
