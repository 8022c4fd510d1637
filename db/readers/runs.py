"""Read runs and their state. A run's row says how it ended; only its leases say whether it is active."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, or_, select

from db.columns import Base
from db.ledger.leases import LivingLease, living
from db.session import rows_of
from db.tables import Attempt, Generation, StoredRun, StoredStep
from db.words import CRASHED, RUNNING

SHORTEST_ID = 6  # fewer characters do not count as a part of an id
WHOLE_ID = 36


def read_run(engine: Engine, run_id: str) -> Mapping[str, Any] | None:
    """Return a run's row by its full id, with all columns of the table; the status is the stored one."""
    with engine.connect() as connection:
        return row_of(connection, StoredRun, StoredRun.id == run_id)


def leases_with_requests(engine: Engine, run_id: str, lease_ids: Sequence[str]) -> set[str]:
    """Return the leases among these that have ever made a request in a run."""
    requested = select(Attempt.lease_id).where(Attempt.run_id == run_id, Attempt.lease_id.in_(lease_ids)).distinct()
    return {str(lease_id) for (lease_id,) in rows_of(engine, requested)}


def running(engine: Engine) -> frozenset[str]:
    """Return the runs that are active now, also those on which only a helper works."""
    with engine.connect() as connection:
        return frozenset(lease.run_id for lease in living(connection))


def workers_of(engine: Engine, run_id: str) -> list[LivingLease]:
    """Return the leases of the processes that work on a run now."""
    with engine.connect() as connection:
        return living(connection, run_id)


def steps_of(engine: Engine, run_id: str) -> list[dict[str, Any]]:
    """Return the rows of run_steps for a run, in the order in which the steps began."""
    steps = StoredStep.__table__
    with engine.connect() as connection:
        found = select(steps).where(steps.c.run_id == run_id).order_by(steps.c.position)
        return [dict(row) for row in connection.execute(found).mappings()]


def state_of(run_id: str, status: str, active: frozenset[str]) -> str:
    """Return a run's state as screens show it, given its stored status and the runs that are active now."""
    if run_id in active:
        return RUNNING
    return CRASHED if status == RUNNING else status


def counts_in(run_id: Any) -> ColumnElement[bool]:
    """Select the generations that count in a run: one for each record and step, without the replaced ones."""
    return and_(Generation.run_id == run_id, Generation.replaced_by == "")


def matches(column: Any, text: str) -> ColumnElement[bool]:
    """Select ids by a full id, or by the beginning or end of one."""
    # People copy either: the beginning is the time, and the end distinguishes the runs of one day. A whole id is found
    # by the primary key; LIKE would read all.
    plain = "".join(character for character in text.lower() if character.isalnum() or character == "-")
    parts = (column.like(f"%{plain}"), column.like(f"{plain}%")) if SHORTEST_ID <= len(plain) < WHOLE_ID else ()
    return or_(column == text, *parts)


def find_id(connection: Connection, column: Any, text: str) -> str | None:
    """Return the id that this text is, begins or, if it begins none, ends; None if there is none or several.

    Only an end makes the database look at all ids.
    """
    plain = "".join(character for character in text.lower() if character.isalnum() or character == "-")
    tries = [column == text.lower()]
    if SHORTEST_ID <= len(plain) < WHOLE_ID:
        # As a range, a beginning is found by the index. "g" sorts after the digits of ids.
        begins = and_(column >= plain, column < plain + "g", column.like(f"{plain}%"))
        tries += [begins, column.like(f"%{plain}")]
    for which in tries:
        found = connection.scalars(select(column).where(which).limit(2)).all()
        if found:
            return str(found[0]) if len(found) == 1 else None
    return None


def row_of(connection: Connection, table: type[Base], *which: ColumnElement[bool]) -> dict[str, Any] | None:
    """Return a row as column names and values; None if there is none."""
    found = connection.execute(select(table.__table__).where(*which)).mappings().first()
    return None if found is None else dict(found)
