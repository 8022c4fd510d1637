"""Leases record which process works on a run, and until when. A run has one `main` lease, and one for each helper.

A heartbeat renews a lease. When a lease has expired, others may take its claims; that raises its epoch. Each commit of
the holder checks the epoch, so a process that slept learns of it before it writes or sends anything. A run counts as
crashed only if the process of its main lease has ended, or if the lease has expired and the process is not visible from
here. Even that is provisional: a process that returns takes its lease back. If several machines share the ledger, its
database's clock decides. SQLite is on one machine, so there the seconds since its start decide: users can't set them,
and they include its sleep.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, delete, select, update

from db.clock import is_shared, keep_up_with, now
from db.database_errors import DatabaseError
from db.identity import fate_of, this_process
from db.machine import boot_time_s, here
from db.rollups.marks import take_mark
from db.session import begin_write
from db.tables import Claim, StoredLease, StoredRun
from db.tables.lease_statements import (
    CHECK_LEASE,
    END_LEASE,
    FREE_RECORDS,
    HELD_LEASE,
    HOLDS_ANY,
    LEASES_OF_RUN,
    LOCK_RUN,
    OLDER_LEASES,
    RELEASE_CLAIMS,
    RENEW_LEASE,
    RENEW_SHARED_LEASE,
    SETTLE_ATTEMPTS,
    TAKE_LEASE,
    find_leases,
    lapsed,
)
from db.words import CRASHED, MAIN, NOT_SENT, RUNNING

LEASE_S = 120.0
HEARTBEAT_S = 15.0


@dataclass(frozen=True, slots=True)
class Lease:
    """A process's lease on its part of a run; `epoch` starts at 1 and rises when others take what it held."""

    id: str
    run_id: str
    worker: str
    epoch: int = 1


@dataclass(frozen=True, slots=True)
class LivingLease:
    """A lease that has not expired and whose process, if visible, has not ended."""

    id: str
    run_id: str
    flow: str
    worker: str
    process: str


class LeaseLostError(DatabaseError):
    """The lease has expired and others may have taken its claims; take it back before any write."""


class SupersededError(DatabaseError):
    """Another process has taken over this one's work, or the run has ended."""


def take(
    connection: Connection, run_id: str, worker: str, lease_id: str, process: str | None = None, epoch: int = 1
) -> Lease:
    """Give a worker of a run its lease, in an open transaction; an earlier holder is superseded."""
    lock_run(connection, run_id)
    # The only place where leases are made, so a run with a lease has no mark (see db/rollups/marks.py).
    take_mark(connection, run_id)
    for superseded in connection.execute(OLDER_LEASES, {"of_run": run_id, "of_worker": worker}).all():
        end(connection, Lease(superseded.id, run_id, worker), CRASHED)
        if superseded.id == lease_id:
            # A flow run that is started again: its earlier process must also learn that it is superseded.
            epoch = max(epoch, superseded.epoch + 1)
    row = {"id": lease_id, "run_id": run_id, "worker": worker, "process": process or this_process(), "epoch": epoch}
    connection.execute(TAKE_LEASE, {**row, "taken_at": now(), "alive_until": now()})
    lease = Lease(lease_id, run_id, worker, epoch)
    renew_in(connection, lease)
    return lease


def check(connection: Connection, lease: Lease) -> None:
    """Raise LeaseLostError if this lease is lost; else lock it until the transaction ends."""
    if connection.execute(CHECK_LEASE, _of(lease)).first() is None:
        raise _lost(lease)


def renew(engine: Engine, lease: Lease) -> None:
    """Renew the lease for LEASE_S and measure the ledger's clock; raises LeaseLostError if the lease is lost."""
    with begin_write(engine) as connection:
        renew_in(connection, lease)


def take_back(engine: Engine, lease: Lease) -> Lease:
    """Take back a lease that this process has lost, to work on its run again; return the lease with its new epoch.

    Raises SupersededError if another process has taken this worker's place, or if the run has ended meanwhile.
    """
    with begin_write(engine) as connection:
        status = lock_run(connection, lease.run_id)
        # A helper's lease has the id of its flow run, which another process may have started again.
        ours = () if lease.worker == MAIN else (StoredLease.process == this_process(),)
        kept = connection.scalar(select(StoredLease.epoch).where(StoredLease.id == lease.id, *ours))
        if kept is not None:
            renewed = Lease(lease.id, lease.run_id, lease.worker, kept)
            renew_in(connection, renewed)
            return renewed
        place = (StoredLease.run_id == lease.run_id, StoredLease.worker == lease.worker)
        if connection.scalar(select(StoredLease.id).where(*place)) is not None:
            raise SupersededError("another process has taken over this part of the run")
        if status not in {RUNNING, CRASHED}:
            raise SupersededError(f"another process has resumed the run, and it is {status} now")
        if lease.worker == MAIN:
            its_row = update(StoredRun).where(StoredRun.id == lease.run_id)
            connection.execute(its_row.values(status=RUNNING, ended_at=None))
        return take(connection, lease.run_id, lease.worker, lease.id, epoch=lease.epoch + 1)


def end(connection: Connection, lease: Lease, error_type: str = NOT_SENT) -> bool:
    """End a lease in an open transaction and release all that it holds; return whether it was still there.

    Its open attempts are settled as `error_type`. If the lease may be gone already, the caller holds the run's lock.
    """
    # First the lease: this waits for a transaction in which it claims prompts.
    was_there = bool(connection.execute(END_LEASE, _of(lease)).rowcount)
    changed = settle_open(connection, lease, error_type)
    release_holdings(connection, lease)
    if changed and not was_there:
        take_mark(connection, lease.run_id)
    return was_there


def end_all(connection: Connection, run_id: str) -> None:
    """End all leases of a run that is being closed; its helpers' requests in flight may still be billed."""
    for each in connection.execute(LEASES_OF_RUN, {"of_run": run_id}).all():
        end(connection, Lease(each.id, run_id, each.worker), CRASHED)


def end_lapsed(engine: Engine, *, except_lease: str) -> list[str]:
    """End all leases except `except_lease` that have expired or lost their process; return the runs that crashed."""
    with engine.connect() as connection:
        found = _leases(connection, "others", of_lease=except_lease)
    if not any(lease.lapsed or _fate(engine, lease) == "gone" for lease in found):
        return []
    with begin_write(engine) as connection:
        return _end(connection, found)


def end_lapsed_of(connection: Connection, owners: set[str]) -> None:
    """End the leases of these owners of claims if they have expired, in the transaction that wants the claims.

    Claims of an owner without a lease are deleted.
    """
    found = _leases(connection, "these", leases=sorted(owners))
    _end(connection, found)
    over = owners - {lease.id for lease in found}
    if over:
        connection.execute(delete(Claim).where(Claim.owner.in_(sorted(over))))


def living(connection: Connection, run_id: str | None = None) -> list[LivingLease]:
    """List the leases of active runs, or those of one run."""
    found = _leases(connection, "all") if run_id is None else _leases(connection, "of run", of_run=run_id)
    return [
        LivingLease(lease.id, lease.run_id, lease.flow, lease.worker, lease.process)
        for lease in found
        if not lease.lapsed and _fate(connection, lease) != "gone"
    ]


def settle_open(connection: Connection, lease: Lease, error_type: str) -> int:
    """Settle the open attempts of a lease, and return their number."""
    return connection.execute(SETTLE_ATTEMPTS, {**_of(lease), "ended_at": now(), "error_type": error_type}).rowcount


def release_holdings(connection: Connection, lease: Lease) -> None:
    """Release the claims of a lease, and the records that it has taken and not finished."""
    connection.execute(RELEASE_CLAIMS, _of(lease))
    free_records(connection, lease)


def free_records(connection: Connection, lease: Lease) -> None:
    """Release the records that a lease has taken and not finished."""
    connection.execute(FREE_RECORDS, {**_of(lease), "lease_id": None})


def renew_in(connection: Connection, lease: Lease) -> None:
    """Renew a lease for LEASE_S from now, in an open transaction, and measure the ledger's clock.

    Raises LeaseLostError if it is lost.
    """
    sent, shared = boot_time_s(), is_shared(connection)
    if shared:
        renewed = connection.execute(RENEW_SHARED_LEASE, {**_of(lease), "lasts_s": LEASE_S}).one_or_none()
    else:
        until = {"alive_until": now() + timedelta(seconds=LEASE_S), "until_s": sent + LEASE_S}
        renewed = connection.execute(RENEW_LEASE, {**_of(lease), **until, "boot": here().boot_id}).one_or_none()
    if renewed is None:
        raise _lost(lease)
    if shared:
        here().ledger_clock.set(renewed.alive_until - timedelta(seconds=LEASE_S), sent, boot_time_s() - sent)
    else:
        keep_up_with(renewed[1:])


def lock_run(connection: Connection, run_id: str) -> str:
    """Lock a run against others that change its leases, and return its status; SQLite has one writer anyway."""
    return str(connection.execute(LOCK_RUN, {"of_run": run_id}).scalar_one())


def _leases(connection: Connection, which: str, **values: Any) -> Sequence[Any]:
    found = find_leases(which, shared=is_shared(connection))
    return list(connection.execute(found, {**values, **_this_time(connection)}))


def _end(connection: Connection, found: Sequence[Any]) -> list[str]:
    """End the lapsed ones of these leases; each is checked again under its lock, because it may just be renewed."""
    crashed = []
    for each in found:
        lease = Lease(each.id, each.run_id, each.worker, each.epoch)
        fate = _fate(connection, each)
        expired = () if fate == "gone" else (lapsed(shared=is_shared(connection)),)
        if fate == "alive":
            # It has not crashed, it only sleeps. Release its holdings once, and raise its epoch if it has any.
            sleeping = update(StoredLease).where(*HELD_LEASE, *expired, HOLDS_ANY).values(epoch=lease.epoch + 1)
            if connection.execute(sleeping, {**_of(lease), **_this_time(connection)}).rowcount:
                release_holdings(connection, lease)
        elif (fate == "gone" or each.lapsed) and _end_crashed(connection, lease, expired):
            crashed.append(lease.run_id)
    return crashed


def _end_crashed(connection: Connection, lease: Lease, expired: Sequence[ColumnElement[bool]]) -> bool:
    """End a lease whose process has crashed; return whether its run has crashed with it."""
    # First the run, then its lease, in the same order as all others that lock both.
    lock_run(connection, lease.run_id)
    crashed = delete(StoredLease).where(*HELD_LEASE, *expired)
    if not connection.execute(crashed, {**_of(lease), **_this_time(connection)}).rowcount:
        return False
    end(connection, lease, CRASHED)
    if lease.worker == MAIN:
        running = (StoredRun.id == lease.run_id, StoredRun.status == RUNNING)
        connection.execute(update(StoredRun).where(*running).values(status=CRASHED, ended_at=now()))
    return lease.worker == MAIN


def _fate(ledger: Engine | Connection, lease: Any) -> str:
    return fate_of(lease.process, one_machine=not is_shared(ledger))


def _of(lease: Lease) -> dict[str, Any]:
    return {"of_lease": lease.id, "of_epoch": lease.epoch, "of_run": lease.run_id}


def _this_time(connection: Connection) -> dict[str, Any]:
    """Return the values of the parameters of `lapsed`."""
    if is_shared(connection):
        return {}
    return {"this_moment": now(), "this_boot": here().boot_id, "this_second": boot_time_s()}


def _lost(lease: Lease) -> LeaseLostError:
    return LeaseLostError(f"The lease of run {lease.run_id} has expired.")
