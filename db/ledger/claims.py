"""Claim prompts before they are requested, so that two active runs do not pay for the same answer.

A claim is released in the commit of its prompt's outcome. Its owner is a lease (leases.py): if that has expired or
ended, the next process that wants the prompt takes the claim over.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import cache

from sqlalchemy import Connection, Engine, TextClause, bindparam, delete, select

from db.clock import now
from db.ledger import leases
from db.session import begin_write, in_parts
from db.tables import Claim, StoredLease, insert_missing
from db.tables.prepared import prepared

_release = delete(Claim).where(Claim.prompt_hash == bindparam("claimed"), Claim.owner == bindparam("by"))
_lease = select(StoredLease.id).where(StoredLease.id == bindparam("by"))
_owners = select(Claim.prompt_hash, Claim.owner).where(Claim.prompt_hash.in_(bindparam("hashes", expanding=True)))


def take(engine: Engine, owner: str, hashes: Iterable[str]) -> set[str]:
    """Claim prompts for the lease `owner`, also from expired leases; return those that it owns now.

    Raises LeaseLostError if that lease has ended: it gets no claims, because nothing would release them.
    """
    # Always in the same order, so that two processes that claim the same prompts can't deadlock.
    wanted = sorted(set(hashes))
    if not wanted:
        return set()
    with begin_write(engine) as connection:
        owners = _claim(connection, owner, wanted)
        of_others = [wish for wish in wanted if owners.get(wish) != owner]
        if of_others:
            if connection.scalar(_lease, {"by": owner}) is None:
                raise leases.LeaseLostError(f"The lease {owner} has ended.")
            leases.end_lapsed_of(connection, {owners[wish] for wish in of_others if wish in owners})
            owners |= _claim(connection, owner, of_others)
        return {wish for wish in wanted if owners.get(wish) == owner}


def release(connection: Connection, claimed: Sequence[tuple[str, str]]) -> None:
    """Release claims, each an (owner, prompt hash), in the transaction that records their outcomes."""
    if claimed:
        connection.execute(_release, [{"claimed": done, "by": owner} for owner, done in sorted(claimed)])


def _claim(connection: Connection, owner: str, wanted: Sequence[str]) -> dict[str, str]:
    """Claim the prompts that have no owner, if the lease is there; return the current owner of each prompt."""
    # Only the owner's lease decides. The column records when that would have expired at the time of the claim.
    until = now() + timedelta(seconds=leases.LEASE_S)
    rows = [{"wish": wish, "by": owner, "until": until} for wish in wanted]
    connection.execute(_insert(connection.dialect.name), rows)
    owners: dict[str, str] = {}
    for part in in_parts(wanted):
        owners |= {row.prompt_hash: row.owner for row in connection.execute(_owners, {"hashes": part})}
    return owners


@cache
def _insert(dialect: str) -> TextClause:
    columns = Claim.__table__.c
    wish, until = bindparam("wish", type_=columns.prompt_hash.type), bindparam("until", type_=columns.expires_at.type)
    # Until the commit, nobody can end the lease and miss these claims; its heartbeat can still renew it. If two that
    # have expired take over each other's claims, PostgreSQL rolls one of them back, and the writer repeats it.
    held = select(wish, StoredLease.id, until).where(StoredLease.id == bindparam("by"))
    held = held.with_for_update(read=True, key_share=True)
    names = ["prompt_hash", "owner", "expires_at"]
    return prepared(insert_missing(Claim.__tablename__, dialect).from_select(names, held), dialect)
