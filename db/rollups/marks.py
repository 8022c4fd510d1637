"""Write a run's rollups when it closes, and take its mark away before anything is written to it afterwards.

A run with a row in `rolled_up` counts by its rollups, all others by live sums. Three rules keep both equal:

- A run with a lease has no mark: a lease is taken (db/ledger/leases.py) and a mark is made under the run's lock, and
  the first deletes the mark, the second requires that there is no lease. So a commit under a valid lease need not look
  for a mark, and costs no statement more.
- A writer without a lease deletes the mark of the run first, in the same transaction. On PostgreSQL a shared lock
  on the run makes this writer and the one that makes the mark wait for each other.
- A run that is open gets no mark, and a suspended one only when it was due so long ago that hardly anyone resumes it.
"""

from collections.abc import Iterable
from datetime import timedelta
from functools import cache
from math import inf
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Executable,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
)

from db.clock import now
from db.columns import aliased
from db.machine import monotonic_s
from db.rollups.grouped import ROLLUPS, added_up
from db.rollups.savings import store_missing_savings
from db.session import begin_write, in_parts
from db.tables import RolledUp, StoredLease, StoredRun
from db.words import CRASHED, RUNNING, SUSPENDED

KEPT_FOR = timedelta(days=7)
"""How long a suspended or crashed run is kept ready to be resumed, with its working rows: as long as its spools."""
_LEASED = select(StoredLease.id).where(StoredLease.run_id == StoredRun.id).exists()
_MARKED = select(RolledUp.run_id).where(RolledUp.run_id == StoredRun.id).exists()
_HAS_ENDED: ColumnElement[bool] = or_(
    StoredRun.status.not_in((RUNNING, SUSPENDED)),
    and_(StoredRun.status == SUSPENDED, func.coalesce(StoredRun.due_at, StoredRun.alive_until) < bindparam("long_ago")),
)
"""Selects the runs that have ended, and the suspended ones that were due too long ago."""
_RUN: Any = bindparam("of_run")
_TAKE_MARK = delete(RolledUp).where(RolledUp.run_id == _RUN)
_MARK = insert(RolledUp)


def unmarked(**alike: str | None) -> Select[tuple[str]]:
    """Select the ids of the runs that count by live sums, all or those with these values of columns of runs.

    They are few. This reads an index of runs, not the runs.
    """
    run = aliased(StoredRun)
    marked = select(RolledUp.run_id).where(RolledUp.run_id == run.id).exists()
    chosen = [getattr(run, name) == value for name, value in alike.items() if value is not None]
    return select(run.id).where(~marked, *chosen)


def unmark(connection: Connection, run_ids: Iterable[str]) -> None:
    """Take the marks of runs away, to write to them without a lease in this transaction; waits if one is just made."""
    for part in in_parts(sorted(set(run_ids))):
        locked = select(StoredRun.id).where(StoredRun.id.in_(part)).order_by(StoredRun.id)
        connection.execute(locked.with_for_update(read=True))
        connection.execute(delete(RolledUp).where(RolledUp.run_id.in_(part)))


def take_mark(connection: Connection, run_id: str) -> None:
    """Take the mark of one run away; the caller holds the run's lock."""
    connection.execute(_TAKE_MARK, {"of_run": run_id})


def roll_up(connection: Connection, run_id: str) -> None:
    """Write the rollups of a run that has just ended, and its mark; the caller holds the run's lock.

    The run must have no lease.
    """
    take_mark(connection, run_id)
    for statement in _rollups():
        connection.execute(statement, {"of_run": run_id})
    connection.execute(_MARK, {"run_id": run_id, "rolled_up_at": now()})


@cache
def _rollups() -> tuple[Executable, ...]:
    """Make the statements that write the rollups of the run `of_run` in place of those that it has."""
    made: list[Executable] = []
    for rollup in ROLLUPS:
        names = [column.name for column in rollup.__table__.c]
        made.append(delete(rollup).where(rollup.__table__.c.run_id == _RUN))
        made.append(insert(rollup).from_select(names, added_up(rollup, [_RUN])))
    return tuple(made)


def roll_up_ended(engine: Engine, within_s: float = inf) -> int:
    """Roll up each run that has ended and has no mark, in its own transaction, and return how many these were.

    These are runs that have crashed, closed runs to which somebody wrote, such as a spill import, and suspended runs
    that nobody has resumed for long. When the time is over, the others are left: they count by live sums until the next
    call.
    """
    until = monotonic_s() + within_s
    with engine.connect() as connection:
        found = list(connection.scalars(_due(), {"long_ago": now() - KEPT_FOR}))
    return sum(_roll_up_if_due(engine, run_id) for run_id in found if monotonic_s() < until)


def _roll_up_if_due(engine: Engine, run_id: str) -> bool:
    with begin_write(engine) as connection:
        # key_share: the lock must not block those that write rows that refer to the run.
        locked = select(StoredRun.status).where(StoredRun.id == run_id).with_for_update(key_share=True)
        connection.execute(locked)
        # Read after the lock: another process may have resumed the run or rolled it up meanwhile.
        its_row = select(StoredRun.status).where(StoredRun.id == run_id, _HAS_ENDED, ~_LEASED, ~_MARKED)
        status = connection.scalar(its_row, {"long_ago": now() - KEPT_FOR})
        if status is None:
            return False
        if status in {CRASHED, SUSPENDED}:
            # It still has its working rows. A closed run has not, and keeps what was stored when it closed.
            store_missing_savings(connection, run_id)
        roll_up(connection, run_id)
        return True


@cache
def _due() -> Select[tuple[str]]:
    return select(StoredRun.id).where(StoredRun.id.in_(unmarked()), _HAS_ENDED, ~_LEASED).order_by(StoredRun.id)
