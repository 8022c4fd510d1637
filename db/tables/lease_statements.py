"""The statements by which leases are taken, checked, renewed and ended, made once.

Each commit of a run checks its lease, so making these again would take longer than executing them. The parameters are
`of_lease`, `of_epoch`, `of_run` and `of_worker`, and those of `lapsed` the values of this process's clock and machine.
"""

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Float, Select, and_, bindparam, delete, insert, or_, select, update

from db.clock import NEWEST_IDS, database_time
from db.tables.history_tables import Attempt
from db.tables.run_tables import Claim, StoredLease, StoredRun, WorkingRow

_LEASE: Any = bindparam("of_lease")
_RUN: Any = bindparam("of_run")
_IT = StoredLease.id == _LEASE
HELD_LEASE = (_IT, StoredLease.epoch == bindparam("of_epoch"))
_TAKEN = (WorkingRow.run_id == _RUN, WorkingRow.lease_id == _LEASE, WorkingRow.status.is_(None))
_OPEN = (Attempt.run_id == _RUN, Attempt.ended_at.is_(None), Attempt.lease_id == _LEASE)
HOLDS_ANY = or_(
    select(Claim.owner).where(Claim.owner == _LEASE).exists(), select(WorkingRow.step).where(*_TAKEN).exists()
)

TAKE_LEASE = insert(StoredLease)
CHECK_LEASE = select(StoredLease.id).where(*HELD_LEASE).with_for_update(read=True)
_RENEWING = update(StoredLease).where(*HELD_LEASE)
# The newest ids are read with the renewal, because a statement of its own would cost another wait for the ledger.
RENEW_LEASE = _RENEWING.returning(StoredLease.alive_until, *NEWEST_IDS)
_LATER = database_time(bindparam("lasts_s", type_=Float()))
RENEW_SHARED_LEASE = _RENEWING.values(alive_until=_LATER).returning(StoredLease.alive_until)
END_LEASE = delete(StoredLease).where(_IT)
SETTLE_ATTEMPTS = update(Attempt).where(*_OPEN)
RELEASE_CLAIMS = delete(Claim).where(Claim.owner == _LEASE)
FREE_RECORDS = update(WorkingRow).where(*_TAKEN)
# key_share: the lock must not block those that write rows of the run, because these rows refer to it.
LOCK_RUN = select(StoredRun.status).where(StoredRun.id == _RUN).with_for_update(key_share=True)
LEASES_OF_RUN = select(StoredLease.id, StoredLease.epoch, StoredLease.worker).where(StoredLease.run_id == _RUN)
OLDER_LEASES = LEASES_OF_RUN.where(StoredLease.worker == bindparam("of_worker"))

_WHICH: dict[str, tuple[ColumnElement[bool], ...]] = {
    "all": (),
    "of run": (StoredLease.run_id == _RUN,),
    "others": (StoredLease.id != _LEASE,),
    "these": (StoredLease.id.in_(bindparam("leases", expanding=True)),),
}
_LAPSED_BY_DATABASE = StoredLease.alive_until < database_time()
_LAPSED_HERE = or_(
    # A lease of an earlier release has only the time of day. A lease of another boot has expired.
    and_(StoredLease.boot.is_(None), StoredLease.alive_until < bindparam("this_moment")),
    StoredLease.boot != bindparam("this_boot"),
    StoredLease.until_s < bindparam("this_second"),
)


def lapsed(*, shared: bool) -> ColumnElement[bool]:
    """Select the leases that have expired, of a ledger that several machines share or of one on this machine."""
    return _LAPSED_BY_DATABASE if shared else _LAPSED_HERE


@cache
def find_leases(which: str, *, shared: bool) -> Select[Any]:
    """Return the statement that reads leases with their run's flow, and whether they have lapsed."""
    columns = (*StoredLease.__table__.c, StoredRun.flow, lapsed(shared=shared).label("lapsed"))
    found = select(*columns).join(StoredRun, StoredRun.id == StoredLease.run_id)
    return found.where(*_WHICH[which]).order_by(StoredLease.id)
