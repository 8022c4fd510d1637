"""Read runs, and tell their state: how one ended stands in its row, that one is at work only in its leases."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, or_, select

from db.columns import Base
from db.ledger.leases import LivingLease, living
from db.ledger.tables import Attempt, StoredLease, StoredRun, StoredStep
from db.session import rows_of
from db.words import CRASHED, RUNNING

SHORTEST_ID = 6  # characters of an id that are taken for a part of one


def read_run(engine: Engine, run_id: str) -> Mapping[str, Any] | None:
    """Return a run's row, by its whole id: all columns of its table, the status as it is stored."""
    with engine.connect() as connection:
        return row_of(connection, StoredRun, StoredRun.id == run_id)


def who_has_asked(engine: Engine, run_id: str, lease_ids: Sequence[str]) -> set[str]:
    """Return those of the leases that have asked for anything in a run, however long ago."""
    asked = select(Attempt.lease_id).where(Attempt.run_id == run_id, Attempt.lease_id.in_(lease_ids)).distinct()
    return {str(lease_id) for (lease_id,) in rows_of(engine, asked)}


def running(engine: Engine) -> frozenset[str]:
    """Return the runs that somebody works on just now, a helper too."""
    with engine.connect() as connection:
        return frozenset(lease.run_id for lease in living(connection))


def workers_of(engine: Engine, run_id: str) -> list[LivingLease]:
    """Return who works on a run just now."""
    with engine.connect() as connection:
        return living(connection, StoredLease.run_id == run_id)


def steps_of(engine: Engine, run_id: str) -> list[dict[str, Any]]:
    """Return how far the steps of a run are, in the order in which they began: the columns of run_steps."""
    steps = StoredStep.__table__
    with engine.connect() as connection:
        found = select(steps).where(steps.c.run_id == run_id).order_by(steps.c.position)
        return [dict(row) for row in connection.execute(found).mappings()]


def state_of(run_id: str, status: str, at_work: frozenset[str]) -> str:
    """Tell the state of a run as screens show it, of the status that is stored and those that are worked on."""
    if run_id in at_work:
        return RUNNING
    return CRASHED if status == RUNNING else status


def matches(column: Any, text: str) -> ColumnElement[bool]:
    """Select ids by a whole one, its beginning or its end."""
    # An id's end tells runs of one day apart, its beginning is the time: people copy either.
    plain = "".join(character for character in text.lower() if character.isalnum() or character == "-")
    parts = (column.like(f"%{plain}"), column.like(f"{plain}%")) if len(plain) >= SHORTEST_ID else ()
    return or_(column == text, *parts)


def row_of(connection: Connection, table: type[Base], *which: ColumnElement[bool]) -> dict[str, Any] | None:
    """Return a row as column names and values; None where there is none."""
    found = connection.execute(select(table.__table__).where(*which)).mappings().first()
    return None if found is None else dict(found)
