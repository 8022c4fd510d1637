"""Rows of earlier releases that say nothing new are removed, and nobody who looks back sees a difference."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, delete, event, insert, select, text, update

from db.database_errors import LedgerInUseError
from db.ledger.clock import new_id
from db.ledger.rows import ParentRow, RunRow, WriteBatch, values_of
from db.ledger.tables import Generation, GenerationParent, StandingContent, StoredLease, StoredRun, StoredStep
from db.ledger.writing import write
from db.readers.figures import count_generations, list_runs
from db.readers.lives import read_life
from db.session import begin_write, rows_of
from db.upkeep import compacting
from db.upkeep.compacting import compact, find_removable
from tests.db.rows import Book, run_row, settled_row, sha

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = "abcdef"
VIEWS = ("current_content", "usage_by_day")


class Past:
    """Writes runs as earlier releases did: a row of history for each record, whatever it says."""

    def __init__(self, ledger: Engine, seed: int = 0) -> None:
        self.ledger = ledger
        self.chance = random.Random(seed)
        self.day = 0
        self.written: dict[tuple[str, str], str] = {}
        self.records = dict.fromkeys(KEYS, 0)

    def run(self, status: str = "completed", steps: Callable[[Past, Book, WriteBatch], None] | None = None) -> str:
        """Write a run that is over; its id."""
        self.day += 1
        book, batch = Book(self.ledger, started_at=self.now), WriteBatch()
        (steps or Past.chain)(self, book, batch)
        # Without what later releases keep besides: content is made of all rows, as the migration makes it.
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

    def row(self, book: Book, batch: WriteBatch, step: str, key: str, *, parents: list[str] | None = None, **own: Any) -> str | None:
        """Write how a record ended in a step, as chance has it; its id where it has content."""
        fails = self.chance.random()
        prompt = f"{own.pop('prompt', f'{step} {key}')} {own.get('record')} {self.texts(batch, parents)}"
        common = {"step": step, "created_at": self.now, "prompt_hash": sha(prompt), **own}
        without = common | {"output": None, "output_hash": None}
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
                reused = {"origin": "cache", "source_generation_id": source, "output": None}
                made = book.generation(batch, key, **common, **reused, output_hash=sha(source))
            else:
                made = new_id()
                self.written[step, prompt] = made
                book.generation(batch, key, **common, id=made, output_hash=sha(made), output={"title": made})
                batch.settled.append(settled_row(book.attempt(batch, prompt, made)))
            self.parents(batch, made, parents)
            return made
        self.parents(batch, book.generation(batch, key, **without, **ends), parents)
        return None

    def texts(self, batch: WriteBatch, parents: list[str] | None) -> str:
        made = {each.id: each.source_generation_id or each.id for each in batch.generations}
        return " ".join(sorted(made[parent] for parent in parents or []))

    def parents(self, batch: WriteBatch, made: str, parents: list[str] | None) -> None:
        batch.parents += [ParentRow(made, parent) for parent in parents or []]


def seen(ledger: Engine) -> dict[str, Any]:
    """All that anyone sees who looks back: views, figures, lives, and what each kept row was made from."""
    runs = list_runs(ledger, limit=1000)
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
        "counts": {line.id: sorted(map(repr, count_generations(ledger, line.id))) for line in runs},
        "lives": {key: read_life(ledger, "product_copy", key) for key in (*KEYS, "all", "twin of a")},
        "content": rows_of(ledger, select(StandingContent.__table__).order_by(StandingContent.step, StandingContent.record_key)),
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
    """Have the process die at one of its commits."""
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


@pytest.mark.parametrize("seed", range(6))
def test_nobody_who_looks_back_sees_a_difference(ledger: Engine, seed: int) -> None:
    past = Past(ledger, seed)
    for number in range(12):
        past.run("crashed" if number == 5 and seed % 2 else "completed")
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
    assert sum(each.repeats for each in compact(ledger)) == 0
