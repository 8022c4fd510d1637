"""How a run begins, is joined, left, taken up again and closed: each one transaction, with the lease that it changes.

Whoever closes or leaves a run after another process has taken it over changes nothing of it but what is its own.
"""

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
from db.ledger.standing import COUNTED_IN
from db.ledger.tables import StoredLease, StoredRun, StoredStep, WorkingRow, insert_missing
from db.session import begin_write
from db.sources.values import storable_text
from db.words import CRASHED, DONE, MAIN, OPEN, RUNNING, SUSPENDED

MANY = 200
"""Working rows that are worth a vacuum of their own."""


def begin_or_take_up(engine: Engine, run: RunRow, lease_id: str) -> Lease:
    """Go on with the run of a Prefect flow run under a new main lease, or begin it; where two do so at once, it is one.

    A process that still works on it as main is superseded. A flow run that asks another endpoint than before, or opens
    runs under several names, has one of each.
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
                _set(connection, known, status=RUNNING, ended_at=None, suspended_for=None, due_at=None)
                return leases.take(connection, known, MAIN, lease_id, run.process)
        # A parameter may hold what JSON can't, and a name be longer than its column.
        connection.execute(insert_missing(RunRow.table, connection.dialect.name), values_of(storable(run)))
        if run.status == RUNNING:
            return leases.take(connection, run.id, MAIN, lease_id, run.process)
        return Lease(lease_id, run.id, MAIN)


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
            _set(connection, lease.run_id, status=SUSPENDED, suspended_for=storable_text(reason), due_at=due_at)


def close_run(engine: Engine, lease: Lease, status: str, ended_at: datetime) -> None:
    """Write how and when a run ended, and delete its working rows.

    What was written ahead and never sent is settled as that. Helpers that are still at work lose their leases.
    """
    deleted = 0
    with begin_write(engine) as connection:
        if _gives_main_back(connection, lease):
            leases.end_all(connection, lease.run_id)
            deleted = connection.execute(delete(WorkingRow).where(WorkingRow.run_id == lease.run_id)).rowcount
            _set(connection, lease.run_id, status=status, ended_at=ended_at)
    if deleted >= MANY and engine.dialect.name == "postgresql":
        # Its own autovacuum looks once a minute: a flow that runs more often would let the table grow meanwhile. A user
        # who may not vacuum gets a warning, no error.
        with suppress(SQLAlchemyError), engine.connect() as idle:
            idle.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM (SKIP_LOCKED) working_rows"))


def begin_step(
    engine: Engine, run_id: str, step: str, *, made_from: str | None, total: int | None, left_out: int
) -> None:
    """Write that a run works on a step; one that it takes up again keeps its place.

    It keeps its counts as long as working rows say of which records these are; else it goes over all of them again.
    """
    with begin_write(engine) as connection:
        of_step = (WorkingRow.run_id == run_id, WorkingRow.step == step, WorkingRow.status.is_not(None))
        is_counted = connection.scalar(select(WorkingRow.step).where(*of_step).limit(1)) is not None
        place = select(func.coalesce(func.max(StoredStep.position), 0) + 1).where(StoredStep.run_id == run_id)
        counts = {} if is_counted else dict.fromkeys(COUNTED_IN.values(), 0)
        now_known = {"state": OPEN, "made_from": made_from, "total": total, "left_out": left_out, **counts}
        made = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        row = made(StoredStep).values(run_id=run_id, step=step, position=place.scalar_subquery(), **now_known)
        connection.execute(row.on_conflict_do_update(index_elements=["run_id", "step"], set_=now_known))


def end_step(engine: Engine, run_id: str, step: str) -> None:
    """Write that a step is done."""
    with begin_write(engine) as connection:
        its_row = update(StoredStep).where(StoredStep.run_id == run_id, StoredStep.step == step)
        connection.execute(its_row.values(state=DONE))


def _gives_main_back(connection: Connection, lease: Lease) -> bool:
    """Give a main lease back; whether its run is still this process's to end."""
    connection.execute(select(StoredRun.id).where(StoredRun.id == lease.run_id).with_for_update(key_share=True))
    if leases.give_back(connection, lease):
        return True
    # It was lost, and nobody has taken the run up.
    another = select(StoredLease.id).where(StoredLease.run_id == lease.run_id, StoredLease.worker == MAIN)
    status = connection.scalar(select(StoredRun.status).where(StoredRun.id == lease.run_id))
    return connection.scalar(another) is None and status in {RUNNING, CRASHED}


def _set(connection: Connection, run_id: str, **values: Any) -> None:
    connection.execute(update(StoredRun).where(StoredRun.id == run_id).values(**values))
