"""Commit batches to the ledger. Generations and attempts are written only here.

A WriteBatch is committed in one transaction, together with its changes of `content` and of the run's steps.
Content-addressed rows (templates, texts, records, prompts) are inserted if they are missing. History (generations,
attempts) is append-only, with two exceptions: an attempt is updated once when it ends, and a replaced generation gets
its confirmation counts and its successor. lifecycle.py begins and ends runs.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from sqlalchemy import Connection, Engine, Executable, bindparam, or_, select, update

from db.ledger import claims, leases, standing
from db.ledger.refused_rows import RefusalFinder, RefusedRow, is_refusal, storable
from db.ledger.replacing import mark_replaced, replaced_by_counted
from db.ledger.rows import PARTS, GenerationRow, Row, SettledRow, TemplateRow, WriteBatch, names_of, values_of
from db.rollups.marks import unmark
from db.session import begin_write, in_parts
from db.tables import Attempt, missing_rows
from db.words import CRASHED, NOT_SENT

_settle = (
    update(Attempt)
    .where(
        Attempt.id == bindparam("attempt_id"),
        # The attempt's own row also overrides an end that others wrote for it: "crashed" by a process that could not
        # see its process, or "not sent" by a run that closed while the row was in a spill file.
        or_(Attempt.ended_at.is_(None), Attempt.error_type == CRASHED, Attempt.error_type == NOT_SENT),
    )
    .values({name: bindparam(name) for name in names_of(SettledRow) if name != "attempt_id"})
)


def write(
    engine: Engine, batch: WriteBatch, lease: leases.Lease | None = None, *, refused: list[RefusedRow] | None = None
) -> None:
    """Commit a batch as a whole, or raise SQLAlchemy's error unchanged and write nothing.

    With a `lease`, raises LeaseLostError if the run has lost it. With `refused`, each row that the ledger refuses is
    added to that list, and is written without its refused values if possible. If the ledger refuses all generations and
    attempts of the batch, the cause is not in the rows, and the error is raised.
    """
    try:
        _commit(engine, batch, lease)
    except Exception as error:
        if refused is None or not is_refusal(error):
            raise
        finder = RefusalFinder(error)
        _commit(engine, batch, lease, finder)
        refused += finder.found


def _commit(engine: Engine, batch: WriteBatch, lease: leases.Lease | None, finder: RefusalFinder | None = None) -> None:
    put = partial(_put_accepted, finder) if finder else _put
    with begin_write(engine) as connection:
        if lease is None:
            unmark(connection, _runs_of(connection, batch))
        else:
            # A run with a lease has no mark, so this path needs no statement for it.
            leases.check(connection, lease)
        for part, rows in batch.parts():
            if rows and part != "confirmed":
                statement = _statement(PARTS[part], connection.dialect.name)
                own = _marked(connection, batch, lease) if part == "generations" else rows
                if put(connection, statement, own) < len(own) and part == "generations":
                    # Some were written before, or another process of the run has just written the same records.
                    put(connection, statement, _marked(connection, batch, lease))
        if finder and 0 < len(batch) == finder.count_missing_history():
            raise finder.error
        standing.update_content(connection, batch.generations)
        standing.confirm(connection, batch.confirmed)
        claims.release(connection, batch.released)


def _marked(connection: Connection, batch: WriteBatch, lease: leases.Lease | None) -> list[GenerationRow]:
    """Return the generations of a batch, each with what replaces it in its run; without a lease some may be late."""
    late = replaced_by_counted(connection, batch.generations) if lease is None else {}
    in_time = [row for row in batch.generations if row.id not in late]
    return mark_replaced(connection, in_time) + [
        replace(row, replaced_by=late[row.id]) for row in batch.generations if row.id in late
    ]


def _runs_of(connection: Connection, batch: WriteBatch) -> set[str]:
    """Return the runs whose figures a batch may change."""
    runs = {row.run_id for row in batch.opened} | {row.run_id for row in batch.generations}
    runs |= {row.run_id for row in batch.confirmed}
    for part in in_parts([row.attempt_id for row in batch.settled]):
        runs |= set(connection.scalars(select(Attempt.run_id).where(Attempt.id.in_(part)).distinct()))
    return runs


def _put_accepted(finder: RefusalFinder, connection: Connection, statement: Executable, rows: Sequence[Row]) -> int:
    """Write the rows that the ledger accepts; all count as new, because a second try would refuse the same ones."""
    finder.put(connection, statement, rows)
    return len(rows)


def _put(connection: Connection, statement: Executable, rows: Sequence[Row]) -> int:
    """Write rows and return how many are new."""
    return connection.execute(statement, [values_of(row) for row in rows]).rowcount


def add_templates(engine: Engine, templates: Sequence[TemplateRow]) -> None:
    """Write the templates that a run uses, if they are missing."""
    if not templates:
        return
    with begin_write(engine) as connection:
        _put(connection, _statement(TemplateRow, connection.dialect.name), [storable(each) for each in templates])


def _statement(kind: type[Row], dialect: str) -> Executable:
    return _settle if kind is SettledRow else missing_rows(kind.table, names_of(kind), dialect)
