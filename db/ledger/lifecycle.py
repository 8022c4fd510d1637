"""How a run begins, is joined, left, taken up again and closed: each one transaction, with the lease that it changes.

Whoever closes or leaves a run after another process has taken it over changes nothing of it but what is its own.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from db.ledger import leases
from db.ledger.leases import Lease
from db.ledger.refused_rows import storable
from db.ledger.rows import RunRow, values_of
from db.ledger.tables import StoredLease, StoredRun, StoredStep, WorkingRow, insert_missing
from db.session import begin_write
from db.words import CRASHED, DONE, MAIN, OPEN, RUNNING, SUSPENDED

MANY = 200
"""Working rows that are worth a vacuum of their own."""
_COUNTS = (StoredStep.unchanged, StoredStep.failed_again, StoredStep.skipped_again)


def start_run(engine: Engine, run: RunRow, lease_id: str) -> Lease:
    """Write the row of a run that begins, with its main lease where it is running."""
    with begin_write(engine) as connection:
        return _start(connection, run, lease_id)


def begin_or_take_up(engine: Engine, run: RunRow, lease_id: str) -> Lease:
    """Go on with the run of a Prefect flow run, or begin it: also where two open it at once it is one.

    A flow run that asks another endpoint than before, or opens runs under several names, has one of each.
    """
    with begin_write(engine) as connection:
        if run.prefect_flow_run_id is not None:
            if connection.dialect.name == "postgresql":
                # There is no row to lock yet; SQLite has one writer anyway.
                connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(run.prefect_flow_run_id))))
            of_flow_run = select(func.max(StoredRun.id)).where(StoredRun.prefect_flow_run_id == run.prefect_flow_run_id)
            same = (StoredRun.flow == run.flow, StoredRun.endpoint == run.endpoint)
            known = connection.scalar(of_flow_run.where(*same))
            if known is not None:
                return _take_up(connection, known, lease_id)
        return _start(connection, run, lease_id)


def take_up(engine: Engine, run_id: str, lease_id: str) -> Lease:
    """Go on with a run under a new main lease; a process that still works on it as main is superseded.

    A run that was closed goes over all of its records again, so what it has confirmed is counted from nothing.
    """
    with begin_write(engine) as connection:
        return _take_up(connection, run_id, lease_id)


def join_run(engine: Engine, run_id: str, lease_id: str, worker: str) -> Lease:
    """Help with a run under a lease of its own."""
    with begin_write(engine) as connection:
        return leases.take(connection, run_id, worker, lease_id)


def leave_run(engine: Engine, lease: Lease) -> None:
    """End a helper's work: what it has not finished is free."""
    with begin_write(engine) as connection:
        leases.give_back(connection, lease)


def suspend_run(engine: Engine, lease: Lease, reason: str, due_at: datetime) -> None:
    """Leave a run until it is due, or until anyone takes it up; what it has confirmed stays counted."""
    with begin_write(engine) as connection:
        if _gives_main_back(connection, lease):
            _set(connection, lease.run_id, status=SUSPENDED, suspended_for=reason, due_at=due_at)


def close_run(engine: Engine, lease: Lease, status: str, ended_at: datetime) -> None:
    """Write how and when a run ended, and delete its working rows.

    What was written ahead and never sent is settled as that. Helpers that are still at work end by themselves.
    """
    deleted = 0
    with begin_write(engine) as connection:
        if _gives_main_back(connection, lease):
            deleted = connection.execute(delete(WorkingRow).where(WorkingRow.run_id == lease.run_id)).rowcount
            _set(connection, lease.run_id, status=status, ended_at=ended_at)
    if deleted >= MANY and engine.dialect.name == "postgresql":
        # Its own autovacuum looks once a minute: a flow that runs more often would let the table grow meanwhile. One
        # who may not is only told so.
        with suppress(SQLAlchemyError), engine.connect() as idle:
            idle.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM (SKIP_LOCKED) working_rows"))


def begin_step(
    engine: Engine, run_id: str, step: str, *, made_from: str | None, total: int | None, left_out: int
) -> None:
    """Write that a run works on a step; one that it takes up again keeps its place and its counts."""
    with begin_write(engine) as connection:
        place = select(func.coalesce(func.max(StoredStep.position), 0) + 1).where(StoredStep.run_id == run_id)
        now_known = {"state": OPEN, "made_from": made_from, "total": total, "left_out": left_out}
        made = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        row = made(StoredStep).values(run_id=run_id, step=step, position=place.scalar_subquery(), **now_known)
        connection.execute(row.on_conflict_do_update(index_elements=["run_id", "step"], set_=now_known))


def end_step(engine: Engine, run_id: str, step: str) -> None:
    """Write that a step is done."""
    with begin_write(engine) as connection:
        its_row = update(StoredStep).where(StoredStep.run_id == run_id, StoredStep.step == step)
        connection.execute(its_row.values(state=DONE))


def _start(connection: Connection, run: RunRow, lease_id: str) -> Lease:
    # A parameter may hold what JSON can't, and a name be longer than its column.
    row = values_of(storable(run))
    connection.execute(insert_missing(RunRow.table, connection.dialect.name), row)
    if run.status == RUNNING:
        return leases.take(connection, run.id, MAIN, lease_id, run.process)
    return Lease(lease_id, run.id, MAIN)


def _take_up(connection: Connection, run_id: str, lease_id: str) -> Lease:
    lease = leases.take(connection, run_id, MAIN, lease_id)
    row = connection.execute(select(StoredRun.status, StoredRun.ended_at).where(StoredRun.id == run_id)).one()
    if row.ended_at is not None and row.status != CRASHED:
        again: Mapping[Any, int] = dict.fromkeys(_COUNTS, 0)
        connection.execute(update(StoredStep).where(StoredStep.run_id == run_id).values(again))
    _set(connection, run_id, status=RUNNING, ended_at=None, suspended_for=None, due_at=None)
    return lease


def _gives_main_back(connection: Connection, lease: Lease) -> bool:
    """Give a main lease back; whether its run is still this process's to end."""
    connection.execute(select(StoredRun.id).where(StoredRun.id == lease.run_id).with_for_update())
    if leases.give_back(connection, lease):
        return True
    # It was lost, and nobody has taken the run up.
    another = select(StoredLease.id).where(StoredLease.run_id == lease.run_id, StoredLease.worker == MAIN)
    status = connection.scalar(select(StoredRun.status).where(StoredRun.id == lease.run_id))
    return connection.scalar(another) is None and status in {RUNNING, CRASHED}


def _set(connection: Connection, run_id: str, **values: Any) -> None:
    connection.execute(update(StoredRun).where(StoredRun.id == run_id).values(**values))
