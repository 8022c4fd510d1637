"""Begin, join, leave, suspend, resume and close runs, each in one transaction together with the run's leases.

A process that closes or suspends a run that another process has taken over changes only its own lease.
"""

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, Executable, bindparam, delete, func, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from db.ledger import leases
from db.ledger.leases import Lease, SupersededError
from db.ledger.refused_rows import storable
from db.ledger.rows import RunRow, StepRow, names_of, values_of
from db.ledger.standing import COUNTED_IN
from db.rollups.marks import roll_up, take_mark
from db.rollups.savings import store_missing_savings, store_savings
from db.session import begin_write
from db.sources.values import storable_text
from db.tables import StoredLease, StoredRun, StoredStep, WorkingRow, missing_rows
from db.tables.content_upserts import dialect_of
from db.tables.prepared import prepared
from db.words import CRASHED, DONE, MAIN, NOT_OVER, OPEN, RUNNING, SUSPENDED

MANY = 200
"""Deleted working rows after which the table is vacuumed at once."""
_RUN: Any = bindparam("of_run")
_STEP: Any = bindparam("of_step")
_OF_FLOW_RUN = select(func.max(StoredRun.id)).where(
    StoredRun.prefect_flow_run_id == bindparam("of_flow_run"),
    StoredRun.flow == bindparam("of_flow"),
    StoredRun.endpoint == bindparam("of_endpoint"),
)
_SET = update(StoredRun).where(StoredRun.id == _RUN)
_SET_STEP = update(StoredStep).where(StoredStep.run_id == _RUN, StoredStep.step == _STEP)
_OPEN_STEPS = select(StoredStep.step).where(StoredStep.run_id == _RUN, StoredStep.state != DONE)
_COUNTED = (WorkingRow.run_id == _RUN, WorkingRow.step == _STEP, WorkingRow.status.is_not(None))
_ANY_COUNTED = select(WorkingRow.step).where(*_COUNTED).limit(1)
_DELETE_WORKING = delete(WorkingRow).where(WorkingRow.run_id == _RUN)


def begin_or_resume(engine: Engine, run: RunRow, lease_id: str) -> Lease:
    """Resume the run of a Prefect flow run under a new main lease, or begin it; two processes at once get one run.

    A process that still works on it as main is superseded. A flow run has one run for each name and endpoint that it
    opens runs with.
    """
    with begin_write(engine) as connection:
        if run.prefect_flow_run_id is not None:
            if connection.dialect.name == "postgresql":
                # There is no row to lock yet; SQLite has one writer anyway.
                connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(run.prefect_flow_run_id))))
            same = {"of_flow": run.flow, "of_endpoint": run.endpoint, "of_flow_run": run.prefect_flow_run_id}
            known = connection.scalar(_OF_FLOW_RUN, same)
            if known is not None:
                _set(connection, known, status=RUNNING, ended_at=None, suspended_for=None, due_at=None)
                return leases.take(connection, known, MAIN, lease_id, run.process)
        # A parameter may contain values that JSON can't, and a name may be longer than its column.
        row = missing_rows(RunRow.table, names_of(RunRow), connection.dialect.name)
        connection.execute(row, values_of(storable(run)))
        if run.status == RUNNING:
            return leases.take(connection, run.id, MAIN, lease_id, run.process)
        return Lease(lease_id, run.id, MAIN)


def join_run(engine: Engine, run_id: str, lease_id: str, worker: str) -> Lease:
    """Take a helper's lease on a run; raises SupersededError if the run has ended."""
    with begin_write(engine) as connection:
        status = leases.lock_run(connection, run_id)
        if status not in NOT_OVER:
            # Else a closed run is shown as active, and has no rollups, until this helper leaves.
            raise SupersededError(f"the run has ended ({status})")
        return leases.take(connection, run_id, worker, lease_id)


def leave_run(engine: Engine, lease: Lease) -> None:
    """End a helper's lease and release what it has not finished."""
    with begin_write(engine) as connection:
        leases.lock_run(connection, lease.run_id)
        leases.end(connection, lease)


def suspend_run(
    engine: Engine, lease: Lease, reason: str, due_at: datetime, *, steps_done: Collection[StepRow] = ()
) -> None:
    """Suspend a run until it is due or is resumed earlier; its confirmed records stay counted.

    `steps_done` are the steps that its process has ended.
    """
    with begin_write(engine) as connection:
        if _end_main(connection, lease):
            _end_again(connection, lease.run_id, steps_done)
            take_mark(connection, lease.run_id)
            _set(connection, lease.run_id, status=SUSPENDED, suspended_for=storable_text(reason), due_at=due_at)


def close_run(
    engine: Engine, lease: Lease, status: str, ended_at: datetime, *, steps_done: Collection[StepRow] = ()
) -> None:
    """Write how and when a run ended, and its rollups, and delete its working rows.

    Attempts that were opened but never sent are settled as not sent. Helpers that are still running lose their leases.
    `steps_done` are the steps that the run's process has ended.
    """
    deleted = 0
    with begin_write(engine) as connection:
        if _end_main(connection, lease):
            leases.end_all(connection, lease.run_id)
            _end_again(connection, lease.run_id, steps_done)
            store_missing_savings(connection, lease.run_id)
            roll_up(connection, lease.run_id)
            deleted = connection.execute(_DELETE_WORKING, {"of_run": lease.run_id}).rowcount
            _set(connection, lease.run_id, status=status, ended_at=ended_at)
    if deleted >= MANY and engine.dialect.name == "postgresql":
        # Autovacuum checks once a minute, so the table of a flow that runs more often would grow meanwhile. A user who
        # may not vacuum gets a warning, not an error.
        with suppress(SQLAlchemyError), engine.connect() as idle:
            idle.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM (SKIP_LOCKED) working_rows"))


def begin_step(engine: Engine, run_id: str, row: StepRow, *, lease: Lease | None = None) -> None:
    """Record that a run works on a step; a resumed step keeps its position.

    It also keeps its counts if working rows list the counted records; else the run confirms all records again. With a
    `lease`, raises LeaseLostError if the run has lost it.
    """
    place = {"of_run": run_id, "of_step": row.step}
    with begin_write(engine) as connection:
        if lease is not None:
            leases.check(connection, lease)
        is_counted = connection.scalar(_ANY_COUNTED, place) is not None
        counts = {} if is_counted else dict.fromkeys(COUNTED_IN.values(), 0)
        current = {**values_of(row), "state": OPEN, **counts}
        begun = _step_begun(tuple(current), connection.dialect.name)
        connection.execute(begun, {"run_id": run_id, "of_run": run_id, **current})


@cache
def _step_begun(columns: tuple[str, ...], dialect: str) -> Executable:
    position = select(func.coalesce(func.max(StoredStep.position), 0) + 1).where(StoredStep.run_id == _RUN)
    row = dialect_of(dialect).insert(StoredStep).values(position=position.scalar_subquery())
    current = {name: row.excluded[name] for name in columns if name != "step"}
    begun = row.on_conflict_do_update(index_elements=["run_id", "step"], set_=current)
    return prepared(begun, dialect, ("run_id", *columns))


def end_step(engine: Engine, run_id: str, row: StepRow, *, lease: Lease | None = None) -> None:
    """Record that a step is done, and what it saved, so that neither the summary nor the close adds it up again.

    `row` is what it was begun with: another process may have begun it again meanwhile. With a `lease`, raises
    LeaseLostError if the run has lost it.
    """
    with begin_write(engine) as connection:
        if lease is not None:
            leases.check(connection, lease)
        _set_done(connection, run_id, row)
        store_savings(connection, run_id, [row.step])


def _end_again(connection: Connection, run_id: str, steps_done: Collection[StepRow]) -> None:
    """End steps of a process once more that another process had begun again before it crashed."""
    is_open = set(connection.scalars(_OPEN_STEPS, {"of_run": run_id}))
    if again := [row for row in steps_done if row.step in is_open]:
        # What a step saved is added up again only while it is open.
        store_missing_savings(connection, run_id)
        for row in again:
            _set_done(connection, run_id, row)


def _set_done(connection: Connection, run_id: str, row: StepRow) -> None:
    done = {name: value for name, value in values_of(row).items() if name != "step"} | {"state": DONE}
    connection.execute(_SET_STEP, {"of_run": run_id, "of_step": row.step, **done})


def _end_main(connection: Connection, lease: Lease) -> bool:
    """End a main lease; return whether this process may still end the run."""
    status = leases.lock_run(connection, lease.run_id)
    if leases.end(connection, lease):
        return True
    # The lease was lost. This process may end the run only if no other process has resumed it.
    another = select(StoredLease.id).where(StoredLease.run_id == lease.run_id, StoredLease.worker == MAIN)
    return connection.scalar(another) is None and status in {RUNNING, CRASHED}


def _set(connection: Connection, run_id: str, **values: Any) -> None:
    connection.execute(_SET, {"of_run": run_id, **values})
