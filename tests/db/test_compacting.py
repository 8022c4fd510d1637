"""Rows of earlier releases that repeat others are removed, and no reader sees a difference."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, delete, event, insert, inspect, select, text, update

from db.clock import new_id
from db.database_errors import LedgerInUseError
from db.ledger.rows import ParentRow, WriteBatch
from db.ledger.writing import write
from db.machine import here, wall_time_s
from db.readers.figures import count_generations_of
from db.readers.lives import read_life
from db.session import begin_write, rows_of
from db.tables import (
    Generation,
    GenerationParent,
    StandingContent,
    StoredLease,
    StoredRun,
    StoredStep,
    WorkingRow,
)
from db.upkeep import parts
from db.upkeep.compacting import compact, find_removable
from db.upkeep.rebuilding import compare, rebuild
from tests.db.rows import Book, run_lines, settled_row, sha

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = "abcdef"
INDEX = "ix_generations_source_generation_id_upkeep"
IS_REPLACED = Generation.replaced_by != ""
VIEWS = ("current_content", "usage_by_day")


@pytest.fixture(autouse=True)
def one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ids by this machine's clock: each lease measures PostgreSQL's, with an error on a busy machine."""
    monkeypatch.setattr(here().ledger_clock, "now_s", wall_time_s)


class Past:
    """Writes runs as earlier releases did: a row of history for each record, even if nothing changed."""

    def __init__(self, ledger: Engine, seed: int = 0) -> None:
        self.ledger = ledger
        self.chance = random.Random(seed)
        self.day = 0
        self.written: dict[tuple[str, str], str] = {}
        self.records = dict.fromkeys(KEYS, 0)

    def run(
        self,
        status: str = "completed",
        steps: Callable[[Past, Book, WriteBatch], None] | None = None,
        passes: int = 1,
    ) -> str:
        """Write an ended run in which each record has an outcome for each pass; return its id."""
        self.day += 1
        book = Book(self.ledger, started_at=self.now)
        for _pass in range(passes):
            batch = WriteBatch()
            (steps or Past.chain)(self, book, batch)
            # Without the counts of later releases: content is built from all rows, as the migration builds it.
            write(self.ledger, batch)
        with begin_write(self.ledger) as connection:
            connection.execute(delete(StoredLease))
            ended = {"status": status, "ended_at": self.now}
            connection.execute(update(StoredRun).where(StoredRun.id == book.run_id).values(ended))
        return book.run_id

    @property
    def now(self) -> datetime:
        return NOON + timedelta(days=self.day)

    def chain(self, book: Book, batch: WriteBatch) -> None:
        """Two steps for each record, and one that gathers all."""
        gathered = []
        for key in self.chance.sample(KEYS, len(KEYS)):
            if self.chance.random() < 0.1:
                self.records[key] += 1
            first = self.row(book, batch, "one", key, record=f'{{"n":{self.records[key]}}}')
            if first is not None:
                second = self.row(book, batch, "two", key, parents=[first], record=f'{{"n":{self.records[key]}}}')
                gathered += [second] if second is not None else []
        if gathered:
            self.row(book, batch, "all", "all", parents=gathered, record_hash=None)
        twin = self.row(book, batch, "one", "twin of a", prompt="one a", record=f'{{"n":{self.records["a"]}}}')
        assert twin is None or twin in {each.id for each in batch.generations}

    def row(
        self, book: Book, batch: WriteBatch, step: str, key: str, *, parents: list[str] | None = None, **own: Any
    ) -> str | None:
        """Write a random outcome of a record in a step; return its id if it has content."""
        fails, ends = self.chance.random(), dict[str, Any]()
        prompt = f"{own.pop('prompt', f'{step} {key}')} {own.get('record')} {self.texts(batch, parents)}"
        common = {"step": step, "created_at": self.now, "prompt_hash": sha(prompt), **own}
        without: dict[str, Any] = common | {"output": None, "output_hash": None}
        if fails < 0.08:
            ends = {"status": "failed", "error_kind": "render", "error_message": f"no {self.chance.randrange(2)}"}
        elif fails < 0.15:
            ends = {"status": "skipped", "error_kind": "cost_cap", "error_message": f"${self.chance.random()}"}
        elif fails < 0.2:
            failed = book.generation(batch, key, **without, status="failed", error_kind="timeout")
            opened = book.attempt(batch, prompt, failed)
            batch.settled.append(settled_row(opened, output_tokens=None, error_type="timeout"))
            self.parents(batch, failed, parents)
            return None
        else:
            source = self.written.get((step, prompt))
            if source is not None and fails < 0.95:
                reused: dict[str, Any] = {"origin": "cache", "source_generation_id": source, "output": None}
                made = book.generation(batch, key, **common, **reused, output_hash=sha(source))
            else:
                made = new_id()
                self.written[step, prompt] = made
                book.generation(batch, key, **common, id=made, output_hash=sha(made), output={"title": made})
                batch.settled.append(settled_row(book.attempt(batch, prompt, made)))
            self.parents(batch, made, parents)
            return made
        self.parents(batch, book.generation(batch, key, **(without | ends)), parents)
        return None

    def texts(self, batch: WriteBatch, parents: list[str] | None) -> str:
        made = {each.id: each.source_generation_id or each.id for each in batch.generations}
        return " ".join(sorted(made[parent] for parent in parents or []))

    def parents(self, batch: WriteBatch, made: str, parents: list[str] | None) -> None:
        batch.parents += [ParentRow(made, parent) for parent in parents or []]


def seen(ledger: Engine) -> dict[str, Any]:
    """All that readers see: views, figures, lives, and the parents of each kept row."""
    runs = run_lines(ledger, limit=1000)
    counted = count_generations_of(ledger, [line.id for line in runs])
    with ledger.connect() as connection:
        views = {
            view: sorted(
                (repr({name: value for name, value in row.items() if name != "age_days"}))
                for row in connection.execute(text(f"SELECT * FROM {view}")).mappings()
            )
            for view in VIEWS
        }
    return {
        **views,
        "runs": [asdict(line) for line in runs],
        "counts": {run: sorted(map(repr, counts)) for run, counts in counted.items()},
        "lives": {key: read_life(ledger, "product_copy", key) for key in (*KEYS, "all", "twin of a")},
        "content": rows_of(
            ledger, select(StandingContent.__table__).order_by(StandingContent.step, StandingContent.record_key)
        ),
    }


def lineage(ledger: Engine) -> dict[str, Any]:
    """The texts that each generation was made from, and those that these were made from."""
    texts = {
        row.id: (row.step, row.record_key, row.source_generation_id or row.id, row.record_hash)
        for row in rows_of(ledger, select(Generation.__table__))
    }
    parents: dict[str, set[str]] = {}
    for row in rows_of(ledger, select(GenerationParent.__table__)):
        parents.setdefault(row.generation_id, set()).add(row.parent_id)

    def walk(generation: str) -> Any:
        return texts[generation], frozenset(walk(parent) for parent in parents.get(generation, ()))

    return {generation: walk(generation) for generation in texts}


def count(ledger: Engine) -> int:
    return len(rows_of(ledger, select(Generation.id)))


@contextmanager
def failing_at(ledger: Engine, commit: int) -> Iterator[None]:
    """Stop the process at one of its commits."""
    left = [commit]

    def die(_connection: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    event.listen(ledger, "commit", die)
    try:
        yield
    finally:
        event.remove(ledger, "commit", die)


@pytest.mark.parametrize("seed", range(3))
def test_no_reader_sees_a_difference(ledger: Engine, seed: int) -> None:
    past = Past(ledger, seed)
    for number in range(12):
        past.run("crashed" if number == 5 and seed % 2 else "completed", passes=2 if number in {3, 8} else 1)
    outcomes = several_outcomes(ledger)
    assert outcomes
    assert not compare(ledger).wrong
    before, made_from, rows = seen(ledger), lineage(ledger), count(ledger)
    would_go = find_removable(ledger)
    assert count(ledger) == rows
    assert seen(ledger) == before

    gone = compact(ledger)

    assert gone == would_go
    assert sum(each.repeats for each in gone) == rows - count(ledger) > rows * 0.2
    assert seen(ledger) == before
    kept = lineage(ledger)
    assert kept == {generation: made_from[generation] for generation in kept}
    assert several_outcomes(ledger) == outcomes
    assert not compare(ledger).wrong
    assert sum(each.repeats for each in compact(ledger)) == 0

    with begin_write(ledger) as connection:
        connection.execute(delete(StandingContent))
    rebuild(ledger)
    assert seen(ledger) == before


def several_outcomes(ledger: Engine) -> set[tuple[str, str]]:
    """The generations that were replaced in their run, each with the one that counts instead and is still there."""
    replaced = dict(map(tuple, rows_of(ledger, select(Generation.id, Generation.replaced_by).where(IS_REPLACED))))
    there = {row.id for row in rows_of(ledger, select(Generation.id))}
    return {(row, by) for row, by in replaced.items() if by in there}


def test_stopped_at_any_commit_it_continues_to_the_same_result(ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 5)
    past = Past(ledger, 7)
    for _run in range(6):
        past.run()
    before, made_from, would_go = seen(ledger), lineage(ledger), find_removable(ledger)
    rows, stops = count(ledger), 0
    for commit in (1, 2, 3, 5, 9):
        with failing_at(ledger, commit), pytest.raises(KeyboardInterrupt):
            compact(ledger)
        stops += count(ledger) < rows
        assert seen(ledger) == before
    compact(ledger)

    assert stops
    assert rows - count(ledger) == sum(each.repeats for each in would_go)
    assert seen(ledger) == before
    kept = lineage(ledger)
    assert kept == {generation: made_from[generation] for generation in kept}
    assert indexes(ledger) == set()


def indexes(ledger: Engine) -> set[str | None]:
    return {index["name"] for index in inspect(ledger).get_indexes("generations")} & {INDEX}


def test_index_that_a_killed_process_left_is_dropped(ledger: Engine) -> None:
    with ledger.begin() as connection:
        connection.execute(text(f"CREATE INDEX {INDEX} ON generations (source_generation_id)"))

    compact(ledger)

    assert indexes(ledger) == set()


def steady(past: Past, book: Book, batch: WriteBatch) -> None:
    """The same answer each time, one record that fails in the same way, and one that is skipped."""
    source = past.written.get(("one", "a"))
    common: dict[str, Any] = {"step": "one", "created_at": past.now}
    if source is None:
        past.written["one", "a"] = source = book.generation(batch, "a", **common)
        batch.settled.append(settled_row(book.attempt(batch, "a", source)))
    else:
        cached = {"origin": "cache", "output": None, "source_generation_id": source}
        book.generation(batch, "a", **(common | cached))
    without = common | {"output": None, "output_hash": None}
    book.generation(batch, "b", **without, status="failed", error_kind="render", error_message="no name")
    book.generation(batch, "c", **without, status="skipped", error_kind="given_up", error_message="3 times")


def test_what_goes_is_counted_for_its_run_and_its_record(ledger: Engine) -> None:
    past = Past(ledger)
    runs = [past.run(steps=steady) for _run in range(5)]

    (found,) = compact(ledger)

    # The first of each, which is new, and the last, to which content refers.
    assert (found.rows, found.repeats, count(ledger)) == (15, 9, 6)
    steps = {row.run_id: row for row in rows_of(ledger, select(StoredStep.__table__))}
    counts = [(steps[run].unchanged, steps[run].failed_again, steps[run].skipped_again) for run in runs]
    assert counts == [(0, 0, 0), (1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0)]
    first = rows_of(ledger, select(Generation.__table__).where(Generation.run_id == runs[0]))
    assert {(row.confirmed, row.confirmed_at) for row in first} == {(3, NOON + timedelta(days=4))}


def changed(past: Past, book: Book, batch: WriteBatch) -> None:
    """Another answer than `steady` has, for a record that has changed."""
    book.generation(batch, "a", step="one", created_at=past.now, record='{"n":1}')


def test_last_confirmation_is_the_newest_even_if_clocks_were_apart(
    ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Past(ledger)
    # The ids of the third run sort before those of the second.
    for ahead_ms, steps in ((0, steady), (4000, steady), (2000, steady), (6000, changed)):
        monkeypatch.setattr(here().ledger_clock, "now_s", lambda late=ahead_ms: wall_time_s() + late / 1000)
        past.run(steps=steps)
    before = seen(ledger)
    first = before["lives"]["a"][0]
    assert (first.confirmed, first.confirmed_at) == (2, NOON + timedelta(days=3))

    assert sum(each.repeats for each in compact(ledger))
    assert seen(ledger) == before


def test_rows_of_a_run_that_may_be_resumed_stay(ledger: Engine) -> None:
    past = Past(ledger)
    for status in ("completed", "suspended", "crashed", "completed", "completed"):
        past.run(status, steady)
    compact(ledger)

    # Only the fourth run's rows are removed.
    assert count(ledger) == 12
    states = [row.state for row in rows_of(ledger, select(StoredStep.state).order_by(StoredStep.run_id))]
    assert states == ["done", "open", "open", "done", "done"]


def test_rows_that_a_suspended_run_works_with_stay(ledger: Engine) -> None:
    past = Past(ledger)
    for _run in range(2):
        past.run(steps=steady)
    standing = rows_of(ledger, select(StandingContent.generation_id).where(StandingContent.record_key == "a"))[0][0]
    left = past.run("suspended", lambda _past, _book, _batch: None)
    row = {"run_id": left, "step": "one", "record_key": "a", "status": "succeeded", "generation_id": standing}
    with begin_write(ledger) as connection:
        connection.execute(insert(WorkingRow), row)
    for _run in range(2):
        past.run(steps=steady)
    compact(ledger)

    assert standing in {row.id for row in rows_of(ledger, select(Generation.id))}


def test_outcomes_that_a_run_replaced_stay_with_what_counts_instead(ledger: Engine) -> None:
    past = Past(ledger)
    for passes in (1, 3, 1, 1):
        past.run(steps=steady, passes=passes)
    before = seen(ledger)

    # Only the third run's: the last one's is current.
    assert sum(each.repeats for each in compact(ledger)) == 3
    assert (count(ledger), len(several_outcomes(ledger))) == (15, 6)
    assert seen(ledger) == before


def test_rows_of_runs_that_were_spread_over_shards_stay(ledger: Engine) -> None:
    past = Past(ledger)
    runs = [past.run(steps=steady) for _run in range(4)]
    with begin_write(ledger) as connection:
        shard = {"parent_run_id": runs[1]}
        connection.execute(update(StoredRun).where(StoredRun.id == runs[2]).values(shard))

    assert [each.repeats for each in compact(ledger)] == [0]


def test_current_rows_by_history_stay_even_if_content_is_behind(ledger: Engine) -> None:
    past = Past(ledger)
    past.run(steps=steady)
    behind = rows_of(ledger, select(StandingContent.__table__))
    for _run in range(3):
        past.run(steps=steady)
    before = seen(ledger)
    with begin_write(ledger) as connection:
        connection.execute(delete(StandingContent))
        connection.execute(insert(StandingContent), [dict(row._mapping) for row in behind])
    compact(ledger)
    rebuild(ledger)

    assert count(ledger) == 6
    assert seen(ledger) == before


def test_nothing_is_changed_while_a_run_is_active(ledger: Engine) -> None:
    past = Past(ledger)
    for _run in range(3):
        past.run(steps=steady)
    book = Book(ledger)

    with pytest.raises(LedgerInUseError, match=rf"the run {book.run_id} of product_copy is active\. Stop it"):
        compact(ledger)
    assert count(ledger) == 9
    assert sum(each.repeats for each in find_removable(ledger)) == 3


def test_a_run_that_begins_meanwhile_stops_it_between_two_parts(
    ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 1)
    past = Past(ledger)
    for _run in range(4):
        past.run(steps=steady)

    with pytest.raises(LedgerInUseError):
        compact(ledger, lambda _done, _all: None if rows_of(ledger, select(StoredLease.id)) else void(Book(ledger)))
    assert count(ledger) == 10
    assert indexes(ledger) == set()


def void(_made: object) -> None:
    return None
