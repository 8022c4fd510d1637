"""Divide a step of a run among helpers: its keys are working rows, and each helper takes one range of them at a time.

No result depends on the ranges: the run itself does the records that no helper has finished, and skips those that have
their outcome.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import Engine, delete, select, update

from db.ledger import leases
from db.ledger.leases import Lease
from db.session import begin_write, in_parts
from db.tables import WorkingRow, insert_missing


def divide(engine: Engine, run_id: str, step: str, pages: Iterable[Sequence[str]]) -> None:
    """Write the keys of a step's records, page by page, for helpers to take; existing rows stay unchanged."""
    for keys in pages:
        if keys:
            rows = [{"run_id": run_id, "step": step, "record_key": key} for key in keys]
            with begin_write(engine) as connection:
                connection.execute(insert_missing(WorkingRow.__tablename__, connection.dialect.name), rows)


def take_range(engine: Engine, lease: Lease, step: str, size: int) -> list[str]:
    """Take the next free keys, in order; returns an empty list if no key is free.

    Raises LeaseLostError if the lease is lost.
    """
    free = (
        WorkingRow.run_id == lease.run_id,
        WorkingRow.step == step,
        WorkingRow.status.is_(None),
        WorkingRow.lease_id.is_(None),
    )
    following = select(WorkingRow.record_key).where(*free).order_by(WorkingRow.record_key).limit(size)
    with begin_write(engine) as connection:
        leases.check(connection, lease)
        keys = list(connection.scalars(following.with_for_update(skip_locked=True)))
        for part in in_parts(keys):
            mine = update(WorkingRow).where(*free, WorkingRow.record_key.in_(part))
            connection.execute(mine.values(lease_id=lease.id))
        return keys


def finish_range(engine: Engine, lease: Lease, step: str, keys: Sequence[str]) -> None:
    """Delete the working rows of finished keys, except those that another lease has taken by now.

    All their records must have their outcome in the ledger.
    """
    of_step = (WorkingRow.run_id == lease.run_id, WorkingRow.step == step)
    unfinished = (WorkingRow.lease_id == lease.id, WorkingRow.status.is_(None))
    with begin_write(engine) as connection:
        for part in in_parts(keys):
            connection.execute(delete(WorkingRow).where(*of_step, *unfinished, WorkingRow.record_key.in_(part)))
