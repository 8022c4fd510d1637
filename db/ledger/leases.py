"""Leases: who is working on a run just now, and until when.

A run's heartbeat renews its lease. One that has run out lets others take what the run claims, and counts the epoch
up, which every commit of the run checks: a run that was away finds out before it writes or sends anything. It is
called crashed only where its process is seen to be gone or can't be seen at all, and even that is provisional: a
run that returns takes its lease back. PostgreSQL's clock judges leases there. SQLite is on one machine, so there it
is the clock that counts since the machine's start, which no one sets and which goes on while it sleeps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, func, or_, select, text, update

from db.database_errors import DatabaseError
from db.identity import boot_id, boot_time_s, fate_of
from db.ledger.clock import CLOCK, now
from db.ledger.tables import Attempt, Claim, StoredRun
from db.session import begin_write
from db.words import CRASHED, RUNNING

LEASE_S = 120.0
HEARTBEAT_S = 15.0


@dataclass(frozen=True, slots=True)
class Lease:
    """A run's hold on its work; `epoch` is how often others have found it run out, counted from 1."""

    run_id: str
    epoch: int


class LeaseLostError(DatabaseError):
    """The run's lease ran out and others may have taken what it claimed; it must be taken back first."""


class SupersededError(DatabaseError):
    """A newer run of the same Prefect flow run goes on with this run's work."""


def check(connection: Connection, lease: Lease) -> None:
    """Raise LeaseLostError unless the run still has this lease, and keep it until the transaction ends."""
    statement = select(StoredRun.id).where(*_held(lease)).with_for_update(read=True)
    if connection.execute(statement).first() is None:
        raise LeaseLostError(f"The lease of run {lease.run_id} has run out.")


def renew(engine: Engine, lease: Lease) -> None:
    """Renew the lease for LEASE_S, and measure the ledger's clock by the way; LeaseLostError where it is lost."""
    with begin_write(engine) as connection:
        renew_in(connection, lease)


def take_back(engine: Engine, lease: Lease) -> Lease:
    """Return the lease of a run that has lost it, which is running again now.

    Raises SupersededError where a newer run of the same Prefect flow run exists: the work is that one's.
    """
    with begin_write(engine) as connection:
        own = select(StoredRun.epoch, StoredRun.prefect_flow_run_id).where(StoredRun.id == lease.run_id)
        epoch, flow_run = connection.execute(own.with_for_update()).one()
        same = (StoredRun.prefect_flow_run_id == flow_run, StoredRun.id > lease.run_id)
        newer = connection.scalar(select(func.max(StoredRun.id)).where(*same)) if flow_run is not None else None
        if newer is not None:
            raise SupersededError(f"the newer run {newer} of the same Prefect flow run goes on with its work")
        own_row = update(StoredRun).where(StoredRun.id == lease.run_id)
        connection.execute(own_row.values(status=RUNNING, ended_at=None))
        renewed = Lease(lease.run_id, epoch)
        renew_in(connection, renewed)
        return renewed


def end_lapsed(engine: Engine, *, but: str) -> list[str]:
    """End the leases of other runs that have run out or whose process has ended; return the runs that crashed by it."""
    with engine.connect() as connection:
        runs = _running(connection, StoredRun.id != but)
    if not any(run.lapsed or _fate(engine.dialect.name, run) == "gone" for run in runs):
        return []
    with begin_write(engine) as connection:
        return _end(connection, runs)


def end_lapsed_of(connection: Connection, owners: set[str]) -> None:
    """End the leases of these owners of claims where they have run out, in the transaction that wants the claims.

    An owner that is no run, or has ended, holds nothing.
    """
    runs = _running(connection, StoredRun.id.in_(owners))
    _end(connection, runs)
    over = owners - {run.id for run in runs}
    if over:
        connection.execute(delete(Claim).where(Claim.owner.in_(sorted(over))))


def _running(connection: Connection, which: ColumnElement[bool]) -> Sequence[Any]:
    columns = (StoredRun.id, StoredRun.process, StoredRun.epoch, _lapsed(connection.dialect.name).label("lapsed"))
    return list(connection.execute(select(*columns).where(StoredRun.status == RUNNING, which).order_by(StoredRun.id)))


def _end(connection: Connection, runs: Sequence[Any]) -> list[str]:
    """End the leases of those that have lapsed; each is looked at again as it is locked, for it may just be renewed."""
    crashed = []
    for run in runs:
        fate = _fate(connection.dialect.name, run)
        lapsed = [] if fate == "gone" else [_lapsed(connection.dialect.name)]
        if fate == "alive":
            # Not crashed: it only sleeps. What it claims is free, once for each time that it sleeps.
            lapsed.append(select(Claim.owner).where(Claim.owner == run.id).exists())
        end = {} if fate == "alive" else {"status": CRASHED, "ended_at": now()}
        its_row = update(StoredRun).where(*_held(Lease(run.id, run.epoch)), *lapsed)
        if not connection.execute(its_row.values(epoch=run.epoch + 1, **end)).rowcount:
            continue
        connection.execute(delete(Claim).where(Claim.owner == run.id))
        if fate != "alive":
            settle_open(connection, run.id, CRASHED)
            crashed.append(str(run.id))
    return crashed


def settle_open(connection: Connection, run_id: str, error_type: str) -> None:
    """Settle the attempts of a run that have no end."""
    is_open = (Attempt.run_id == run_id, Attempt.ended_at.is_(None))
    connection.execute(update(Attempt).where(*is_open).values(ended_at=now(), error_type=error_type))


def _fate(dialect: str, run: Any) -> str:
    return fate_of(run.process, one_machine=dialect == "sqlite")


def _held(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (StoredRun.id == lease.run_id, StoredRun.epoch == lease.epoch, StoredRun.status == RUNNING)


def _lapsed(dialect: str) -> ColumnElement[bool]:
    if dialect == "postgresql":
        return StoredRun.alive_until < func.clock_timestamp()
    # A lease that an earlier Presswork wrote has no clock but the time of day; one of another boot is over.
    of_before = and_(StoredRun.lease_boot.is_(None), StoredRun.alive_until < now())
    return or_(of_before, StoredRun.lease_boot != boot_id(), StoredRun.lease_until_s < boot_time_s())


def renew_in(connection: Connection, lease: Lease) -> None:
    """Give a run LEASE_S from now, in a transaction that has begun; LeaseLostError where its lease is lost."""
    sent, on_postgres = boot_time_s(), connection.dialect.name == "postgresql"
    until: Mapping[str, Any] = {
        "alive_until": now() + timedelta(seconds=LEASE_S),
        "lease_boot": boot_id(),
        "lease_until_s": sent + LEASE_S,
    }
    if on_postgres:
        until = {"alive_until": text(f"clock_timestamp() + interval '{LEASE_S} seconds'")}
    renewed = connection.scalar(update(StoredRun).where(*_held(lease)).values(until).returning(StoredRun.alive_until))
    if renewed is None:
        raise LeaseLostError(f"The lease of run {lease.run_id} has run out.")
    if on_postgres:
        CLOCK.set(renewed - timedelta(seconds=LEASE_S), sent, boot_time_s() - sent)
