"""Record: the one place that writes to the ledger.

What has arrived is handed over as one WriteBatch and committed in one transaction: either all of its rows are there or
none, and `content` and the run's steps say so too. Content-addressed rows (templates, texts, records, prompts) are
inserted where they are missing; history (generations, attempts) is only ever added to, but for an attempt's one update
when it ends, and what is noted on a generation that another takes the place of. How a run begins and ends stands in
lifecycle.py.
"""

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection, Engine, Executable, bindparam, or_, update

from db.ledger import claims, leases, standing
from db.ledger.refused_rows import RefusedRow, Sifter, is_refusal, storable
from db.ledger.replacing import placed
from db.ledger.rows import Row, SettledRow, TemplateRow, WriteBatch, names_of, values_of
from db.ledger.tables import Attempt, insert_missing
from db.session import begin_write
from db.words import CRASHED, NOT_SENT

_settle = (
    update(Attempt)
    .where(
        Attempt.id == bindparam("attempt_id"),
        # An attempt that others settled for it, as crashed by one who could not see its process or as not sent by a run
        # that closed while it waited in a spill file, ends by what it says itself.
        or_(Attempt.ended_at.is_(None), Attempt.error_type == CRASHED, Attempt.error_type == NOT_SENT),
    )
    .values({name: bindparam(name) for name in names_of(SettledRow) if name != "attempt_id"})
)


def write(
    engine: Engine, batch: WriteBatch, lease: leases.Lease | None = None, *, refused: list[RefusedRow] | None = None
) -> None:
    """Commit a batch; SQLAlchemy's errors go up unchanged, and then nothing of it is there.

    With a `lease`, that of the run which writes, it raises LeaseLostError where the run no longer has it. With
    `refused`, rows that the ledger refuses are put into that list instead, and written as far as they can be; where it
    takes no row of history at all, it is no row's fault, and the error goes up.
    """
    try:
        _commit(engine, batch, lease)
    except Exception as error:
        if refused is None or not is_refusal(error):
            raise
        sifter = Sifter(error)
        _commit(engine, batch, lease, sifter)
        refused += sifter.found


def _commit(engine: Engine, batch: WriteBatch, lease: leases.Lease | None, sifter: Sifter | None = None) -> None:
    put = partial(_sift, sifter) if sifter else _put
    with begin_write(engine) as connection:
        if lease is not None:
            leases.check(connection, lease)
        for part, rows in batch.parts():
            if rows and part != "confirmed":
                statement = _statement(type(rows[0]), connection.dialect.name)
                own = placed(connection, batch.generations) if part == "generations" else rows
                if put(connection, statement, own) < len(own) and part == "generations":
                    # Written before; or another process of the run has just written the same records, which counts now.
                    put(connection, statement, placed(connection, batch.generations))
        if sifter and 0 < len(batch) == sifter.count_missing_history():
            raise sifter.error
        standing.stand(connection, batch.generations)
        standing.confirm(connection, batch.confirmed)
        claims.release(connection, batch.released)


def _sift(sifter: Sifter, connection: Connection, statement: Executable, rows: Sequence[Row]) -> int:
    """Write rows as far as they can be; all count as new, for a second try would find the same ones refused."""
    sifter.put(connection, statement, rows)
    return len(rows)


def _put(connection: Connection, statement: Executable, rows: Sequence[Row]) -> int:
    """Write rows, and return how many are new."""
    return connection.execute(statement, [values_of(row) for row in rows]).rowcount


def add_templates(engine: Engine, templates: Sequence[TemplateRow]) -> None:
    """Write templates that a run uses, where they are missing."""
    if not templates:
        return
    with begin_write(engine) as connection:
        _put(connection, _statement(TemplateRow, connection.dialect.name), [storable(each) for each in templates])


def _statement(kind: type[Row], dialect: str) -> Executable:
    return _settle if kind is SettledRow else insert_missing(kind.table, dialect)
