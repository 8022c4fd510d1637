"""Claim prompts before they are requested, so that two active runs do not pay for the same answer.

A claim is released in the commit of its prompt's outcome. Its owner is a lease (leases.py): if that has expired or
ended, the next process that wants the prompt takes the claim over.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from sqlalchemy import Connection, Engine, bindparam, delete, select

from db.clock import now
from db.ledger import leases
from db.session import begin_write, in_parts
from db.tables import Claim, missing_rows

_release = delete(Claim).where(Claim.prompt_hash == bindparam("claimed"), Claim.owner == bindparam("by"))
_owners = select(Claim.prompt_hash, Claim.owner).where(Claim.prompt_hash.in_(bindparam("hashes", expanding=True)))


def take(engine: Engine, owner: str, hashes: Iterable[str]) -> set[str]:
    """Claim prompts for the lease `owner`, also from expired leases; return those that it owns now.

    Raises LeaseLostError if that lease has ended: nothing would release its claims.
    """
    # Always in the same order, so that two processes that claim the same prompts can't deadlock.
    wanted = sorted(set(hashes))
    if not wanted:
        return set()
    with begin_write(engine) as connection:
        leases.check_is_there(connection, owner)
        owners = _claim(connection, owner, wanted)
        of_others = [wish for wish in wanted if owners.get(wish) != owner]
        if of_others:
            leases.end_lapsed_of(connection, {owners[wish] for wish in of_others if wish in owners})
            owners |= _claim(connection, owner, of_others)
        return {wish for wish in wanted if owners.get(wish) == owner}


def release(connection: Connection, claimed: Sequence[tuple[str, str]]) -> None:
    """Release claims, each an (owner, prompt hash), in the transaction that records their outcomes."""
    if claimed:
        connection.execute(_release, [{"claimed": done, "by": owner} for owner, done in sorted(claimed)])


def _claim(connection: Connection, owner: str, wanted: Sequence[str]) -> dict[str, str]:
    """Claim the prompts that have no owner; return the current owner of each prompt."""
    # Only the owner's lease decides. The column records when that would have expired at the time of the claim.
    until = now() + timedelta(seconds=leases.LEASE_S)
    rows = [{"prompt_hash": wish, "owner": owner, "expires_at": until} for wish in wanted]
    connection.execute(missing_rows(Claim.__tablename__, tuple(rows[0]), connection.dialect.name), rows)
    owners: dict[str, str] = {}
    for part in in_parts(wanted):
        owners |= {row.prompt_hash: row.owner for row in connection.execute(_owners, {"hashes": part})}
    return owners
