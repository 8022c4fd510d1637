"""Record: the one place that writes to the ledger.

What has arrived is handed over as one WriteBatch and committed in one transaction: either all of its rows are there or
none. Content-addressed rows (templates, texts, records, prompts) are inserted where they are missing; history
(runs, generations, attempts) is only ever added to, but for an attempt's one update when it ends and a run's when
it closes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, Engine, Executable, bindparam, or_, update
from sqlalchemy.dialects import postgresql, sqlite

from db.ledger import claims, leases
from db.ledger.refused_rows import RefusedRow, Sifter, is_refusal, storable
from db.ledger.rows import (
    GenerationRow,
    OpenedRow,
    ParentRow,
    PromptRow,
    RecordRow,
    Row,
    RunRow,
    SettledRow,
    TemplateRow,
    TextRow,
    names_of,
    values_of,
)
from db.ledger.tables import Base
from db.session import begin_write
from db.words import CRASHED, NOT_SENT, RUNNING

Put = Callable[[Connection, Executable, Sequence[Row]], None]
"""Writes rows of one kind."""

_RUNS, _ATTEMPTS = (Base.metadata.tables[kind.table] for kind in (RunRow, OpenedRow))
_settle = (
    update(_ATTEMPTS)
    .where(
        _ATTEMPTS.c.id == bindparam("attempt_id"),
        # An attempt that others settled for it, as crashed by one who could not see its process or as not sent by a run
        # that closed while it waited in a spill file, ends by what it says itself.
        or_(
            _ATTEMPTS.c.ended_at.is_(None),
            _ATTEMPTS.c.error_type == CRASHED,
            _ATTEMPTS.c.error_type == NOT_SENT,
        ),
    )
    .values({name: bindparam(name) for name in names_of(SettledRow) if name in _ATTEMPTS.c})
)


@dataclass
class WriteBatch:
    """Rows that belong in the ledger together; shared rows by their hash, so that a batch holds each once.

    `released` are the claims that these outcomes end, as (owner, prompt hash).
    """

    texts: dict[str, TextRow] = field(default_factory=dict)
    records: dict[str, RecordRow] = field(default_factory=dict)
    prompts: dict[str, PromptRow] = field(default_factory=dict)
    opened: list[OpenedRow] = field(default_factory=list)
    settled: list[SettledRow] = field(default_factory=list)
    generations: list[GenerationRow] = field(default_factory=list)
    parents: list[ParentRow] = field(default_factory=list)
    released: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        """Count the rows of history, which is what a commit is sized by."""
        return len(self.opened) + len(self.settled) + len(self.generations)


def write(
    engine: Engine, batch: WriteBatch, lease: leases.Lease | None = None, *, refused: list[RefusedRow] | None = None
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


def _write_but_refused(
    engine: Engine, batch: WriteBatch, lease: leases.Lease | None, error: Exception
) -> list[RefusedRow]:
    sifter = Sifter()

    def check() -> None:
        if 0 < len(batch) == sifter.count_left_out(OpenedRow, SettledRow, GenerationRow):
            raise error

    _commit(engine, batch, lease, sifter.put, check)
    return sifter.found


def _commit(
    engine: Engine,
    batch: WriteBatch,
    lease: leases.Lease | None,
    put: Put,
    check: Callable[[], None] = lambda: None,
) -> None:
    # Shared rows in one order everywhere: two runs that add the same ones wait for each other, never in a circle.
    parts: tuple[Sequence[Row], ...] = (
        [row for _hash, row in sorted(batch.texts.items())],
        [row for _hash, row in sorted(batch.records.items())],
        [row for _hash, row in sorted(batch.prompts.items())],
        batch.opened,
        batch.settled,
        batch.generations,
        batch.parents,
    )
    with begin_write(engine) as connection:
        if lease is not None:
            leases.check(connection, lease)
        for rows in parts:
            if rows:
                put(connection, _statement(type(rows[0]), connection.dialect.name), rows)
        check()
        claims.release(connection, batch.released)


def _put(connection: Connection, statement: Executable, rows: Sequence[Row]) -> None:
    connection.execute(statement, [values_of(row) for row in rows])


def open_run(engine: Engine, run: RunRow) -> None:
    """Write the row of a run that begins, with its first lease."""
    with begin_write(engine) as connection:
        # A parameter may hold what JSON can't, and a name be longer than its column.
        _put(connection, _statement(RunRow, connection.dialect.name), [storable(run)])
        if run.status == RUNNING:
            leases.begin(connection, run.id)


def add_templates(engine: Engine, templates: Sequence[TemplateRow]) -> None:
    """Write templates that a run uses, where they are missing."""
    if not templates:
        return
    with begin_write(engine) as connection:
        statement = _statement(TemplateRow, connection.dialect.name)
        _put(connection, statement, [storable(template) for template in templates])


def close_run(engine: Engine, run_id: str, status: str, ended_at: datetime) -> None:
    """Write how and when a run ended, release its claims, and settle what it wrote ahead and never sent."""
    with begin_write(engine) as connection:
        connection.execute(
            update(_ATTEMPTS)
            .where(_ATTEMPTS.c.run_id == run_id, _ATTEMPTS.c.ended_at.is_(None))
            .values(ended_at=ended_at, error_type=NOT_SENT)
        )
        claims.release_all(connection, run_id)
        connection.execute(update(_RUNS).where(_RUNS.c.id == run_id).values(status=status, ended_at=ended_at))


def _statement(kind: type[Row], dialect: str) -> Executable:
    if kind is SettledRow:
        return _settle
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    # Only what is missing, history too: a commit whose answer was lost is simply written again.
    return insert(Base.metadata.tables[kind.table]).on_conflict_do_nothing()
