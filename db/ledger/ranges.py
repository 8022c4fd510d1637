"""Divide a step of a run among helpers: its keys are working rows, which each helper takes a range of at a time.

Nothing depends on a range: the run itself does what nobody has finished, and passes over a record that has its outcome.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import Engine, delete, select, update

from db.ledger import leases
from db.ledger.leases import Lease
from db.ledger.tables import WorkingRow, insert_missing
from db.session import begin_write, in_parts


def divide(engine: Engine, run_id: str, step: str, pages: Iterable[Sequence[str]]) -> None:
    """Write the keys of a step's records, page by page, for helpers to take; those that are there stay as they are."""
    for keys in pages:
        if keys:
            rows = [{"run_id": run_id, "step": step, "record_key": key} for key in keys]
            with begin_write(engine) as connection:
                connection.execute(insert_missing(WorkingRow.__tablename__, connection.dialect.name), rows)


def take_range(engine: Engine, lease: Lease, step: str, size: int) -> list[str]:
    """Take the next free keys, in their order; none: no key is free.

    Raises LeaseLostError where the lease is lost.
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
    """Take keys off the step whose records all have their outcome in the ledger; those that another has by now stay."""
    of_step = (WorkingRow.run_id == lease.run_id, WorkingRow.step == step)
    unfinished = (WorkingRow.lease_id == lease.id, WorkingRow.status.is_(None))
    with begin_write(engine) as connection:
        for part in in_parts(keys):
            connection.execute(delete(WorkingRow).where(*of_step, *unfinished, WorkingRow.record_key.in_(part)))
