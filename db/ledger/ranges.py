"""Divide a step of a run among helpers: its keys are working rows, and each helper takes one range of them at a time.

No result depends on the ranges: the run itself does the records that no helper has finished, and skips those that have
their outcome.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Engine, Integer, bindparam, delete, select, update

from db.ledger import leases
from db.ledger.leases import Lease
from db.session import begin_write, in_parts
from db.tables import WorkingRow, missing_rows

_KEYS: Any = bindparam("keys", expanding=True)
_OF_STEP = (WorkingRow.run_id == bindparam("of_run"), WorkingRow.step == bindparam("of_step"))
_FREE = (*_OF_STEP, WorkingRow.status.is_(None), WorkingRow.lease_id.is_(None))
_NEXT = (
    select(WorkingRow.record_key)
    .where(*_FREE)
    .order_by(WorkingRow.record_key)
    .limit(bindparam("most", type_=Integer))
    .with_for_update(skip_locked=True)
)
_TAKE = update(WorkingRow).where(*_FREE, WorkingRow.record_key.in_(_KEYS))
_UNFINISHED = (WorkingRow.lease_id == bindparam("of_lease"), WorkingRow.status.is_(None))
_FINISH = delete(WorkingRow).where(*_OF_STEP, *_UNFINISHED, WorkingRow.record_key.in_(_KEYS))


def divide(engine: Engine, lease: Lease, step: str, pages: Iterable[Sequence[str]]) -> None:
    """Write the keys of a step's records, page by page, for helpers to take; existing rows stay unchanged.

    Raises LeaseLostError if the lease is lost.
    """
    for keys in pages:
        if keys:
            rows = [{"run_id": lease.run_id, "step": step, "record_key": key} for key in keys]
            with begin_write(engine) as connection:
                leases.check(connection, lease)
                missing = missing_rows(WorkingRow.__tablename__, tuple(rows[0]), connection.dialect.name)
                connection.execute(missing, rows)


def take_range(engine: Engine, lease: Lease, step: str, size: int) -> list[str]:
    """Take the next free keys, in order; returns an empty list if no key is free.

    Raises LeaseLostError if the lease is lost.
    """
    of_step = {"of_run": lease.run_id, "of_step": step}
    with begin_write(engine) as connection:
        leases.check(connection, lease)
        keys = list(connection.scalars(_NEXT, {**of_step, "most": size}))
        for part in in_parts(keys):
            connection.execute(_TAKE, {**of_step, "keys": part, "lease_id": lease.id})
        return keys


def finish_range(engine: Engine, lease: Lease, step: str, keys: Sequence[str]) -> None:
    """Delete the working rows of finished keys, except those that another lease has taken by now.

    All their records must have their outcome in the ledger.
    """
    taken = {"of_run": lease.run_id, "of_step": step, "of_lease": lease.id}
    with begin_write(engine) as connection:
        for part in in_parts(keys):
            connection.execute(_FINISH, {**taken, "keys": part})
