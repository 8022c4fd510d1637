"""Record: the one place that writes to the ledger.

What has arrived is handed over as one Batch and committed in one transaction: either all of its rows are there or
none. Content-addressed rows (templates, texts, records, prompts) are inserted where they are missing; history
(runs, generations, attempts) is only ever added to, but for an attempt's one update when it ends and a run's when
it closes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, Executable, Insert, Table, bindparam, or_, update
from sqlalchemy.dialects import postgresql, sqlite

from db.ledger import claims, leases
from db.ledger.refused_rows import Refusal, Sifter, is_refusal, storable
from db.ledger.tables import (
    Attempt,
    Base,
    Generation,
    GenerationParent,
    Run,
    SharedText,
    StoredPrompt,
    StoredRecord,
    Template,
)
from db.session import begin_write

Row = Mapping[str, Any]
"""A row as column names and values; the tables' own definitions in models.py are its contract."""
Put = Callable[[Connection, str, Executable, Sequence[Row]], None]
"""Writes rows of one part of a batch."""

_RUNS, _TEMPLATES, _TEXTS, _RECORDS, _PROMPTS, _GENERATIONS, _PARENTS, _ATTEMPTS = (
    Base.metadata.tables[model.__tablename__]
    for model in (
        Run,
        Template,
        SharedText,
        StoredRecord,
        StoredPrompt,
        Generation,
        GenerationParent,
        Attempt,
    )
)

_OPENED = "id run_id prompt_hash generation_id ordinal kind request_changes started_at likely_cost_usd".split()
SETTLED = tuple(column.name for column in _ATTEMPTS.columns if column.name not in _OPENED)
"""What an attempt's one update sets."""

_settle = (
    update(_ATTEMPTS)
    .where(
        _ATTEMPTS.c.id == bindparam("attempt_id"),
        # An attempt that others settled for it, as crashed by one who could not see its process or as not sent by a run
        # that closed while it waited in a spill file, ends by what it says itself.
        or_(
            _ATTEMPTS.c.ended_at.is_(None),
            _ATTEMPTS.c.error_type == "crashed",
            _ATTEMPTS.c.error_type == "not_sent",
        ),
    )
    .values({name: bindparam(name) for name in SETTLED})
)


@dataclass
class Batch:
    """Rows that belong in the ledger together; shared rows by their hash, so that a batch holds each once.

    `released` are the claims that these outcomes end, as (owner, prompt hash).
    """

    texts: dict[str, Row] = field(default_factory=dict)
    records: dict[str, Row] = field(default_factory=dict)
    prompts: dict[str, Row] = field(default_factory=dict)
    opened: list[Row] = field(default_factory=list)
    settled: list[Row] = field(default_factory=list)
    generations: list[Row] = field(default_factory=list)
    parents: list[Row] = field(default_factory=list)
    released: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        """Count the rows of history, which is what a commit is sized by."""
        return len(self.opened) + len(self.settled) + len(self.generations)


def write(
    engine: Engine, batch: Batch, lease: leases.Lease | None = None, *, refused: list[Refusal] | None = None
) -> None:
    """Commit a batch; SQLAlchemy's errors go up unchanged, and then nothing of it is there.

    With a `lease`, that of the run which writes, it raises LeaseLostError where the run no longer has it. With
    `refused`, rows that the ledger refuses are put into that list instead, and written as far as they can be; where it
    takes no row of history at all, it is no row's fault, and the error goes up.
    """
    try:
        _commit(engine, batch, lease, _put)
    except Exception as error:
        if refused is None or not is_refusal(error):
            raise
        refused += _write_but_refused(engine, batch, lease, error)


def _write_but_refused(engine: Engine, batch: Batch, lease: leases.Lease | None, error: Exception) -> list[Refusal]:
    sifter = Sifter()

    def check() -> None:
        if 0 < len(batch) == sifter.count_left_out("opened", "settled", "generations"):
            raise error

    _commit(engine, batch, lease, sifter.put, check)
    return sifter.found


def _commit(
    engine: Engine,
    batch: Batch,
    lease: leases.Lease | None,
    put: Put,
    check: Callable[[], None] = lambda: None,
) -> None:
    with begin_write(engine) as connection:
        if lease is not None:
            leases.check(connection, lease)
        missing = connection.dialect.name
        for table, part, shared in (
            (_TEXTS, "texts", batch.texts),
            (_RECORDS, "records", batch.records),
            (_PROMPTS, "prompts", batch.prompts),
        ):
            # In one order everywhere: two runs that add the same rows at once wait for each other, never in a circle.
            put(connection, part, _insert_missing(table, missing), [shared[found] for found in sorted(shared)])
        put(connection, "opened", _insert_missing(_ATTEMPTS, missing), batch.opened)
        put(connection, "settled", _settle, batch.settled)
        # Adding what is missing, here too: a commit whose answer was lost is simply written again.
        put(connection, "generations", _insert_missing(_GENERATIONS, missing), batch.generations)
        put(connection, "parents", _insert_missing(_PARENTS, missing), batch.parents)
        check()
        claims.release(connection, batch.released)


def _put(connection: Connection, _part: str, statement: Executable, rows: Sequence[Row]) -> None:
    if rows:
        connection.execute(statement, rows)


def open_run(engine: Engine, run: Row) -> None:
    """Write the row of a run that begins, with its first lease."""
    with begin_write(engine) as connection:
        # A parameter may hold what JSON can't, and a name be longer than its column.
        connection.execute(_insert_missing(_RUNS, connection.dialect.name), [storable(_RUNS, run)])
        if run["status"] == "running":
            leases.begin(connection, run["id"])


def add_templates(engine: Engine, templates: Sequence[Row]) -> None:
    """Write templates that a run uses, where they are missing."""
    with begin_write(engine) as connection:
        if templates:
            rows = [storable(_TEMPLATES, template) for template in templates]
            connection.execute(_insert_missing(_TEMPLATES, connection.dialect.name), rows)


def close_run(engine: Engine, run_id: str, status: str, ended_at: datetime) -> None:
    """Write how and when a run ended, release its claims, and settle what it wrote ahead and never sent."""
    with begin_write(engine) as connection:
        connection.execute(
            update(_ATTEMPTS)
            .where(_ATTEMPTS.c.run_id == run_id, _ATTEMPTS.c.ended_at.is_(None))
            .values(ended_at=ended_at, error_type="not_sent")
        )
        claims.release_all(connection, run_id)
        connection.execute(update(_RUNS).where(_RUNS.c.id == run_id).values(status=status, ended_at=ended_at))


@cache
def _insert_missing(table: Table, dialect: str) -> Insert:
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()
