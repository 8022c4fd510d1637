"""Claims: who is asking for what just now, so that two runs at once do not buy the same answer.

A claim is taken before a prompt is asked and released with its outcome. Its owner is a lease (leases.py), which holds
it: where that has run out or has ended, whoever wants the prompt next takes it over.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from sqlalchemy import Connection, Engine, bindparam, delete, select

from db.clock import now
from db.ledger import leases
from db.ledger.tables import Claim, insert_missing
from db.session import begin_write, in_parts

_release = delete(Claim).where(Claim.prompt_hash == bindparam("claimed"), Claim.owner == bindparam("by"))


def take(engine: Engine, owner: str, hashes: Iterable[str]) -> set[str]:
    """Claim prompts for a lease, by its id, and return those that are its own now; one that is over loses its own."""
    # In one order everywhere, so that two that claim at once wait for each other and never in a circle.
    wanted = sorted(set(hashes))
    if not wanted:
        return set()
    with begin_write(engine) as connection:
        owners = _claim(connection, owner, wanted)
        taken = [wish for wish in wanted if owners.get(wish) != owner]
        if taken:
            leases.end_lapsed_of(connection, {owners[wish] for wish in taken if wish in owners})
            owners |= _claim(connection, owner, taken)
        return {wish for wish in wanted if owners.get(wish) == owner}


def release(connection: Connection, claimed: Sequence[tuple[str, str]]) -> None:
    """Release claims, as (owner, prompt hash), in the transaction that records their outcomes."""
    if claimed:
        connection.execute(_release, [{"claimed": done, "by": owner} for owner, done in sorted(claimed)])


def _claim(connection: Connection, owner: str, wanted: Sequence[str]) -> dict[str, str]:
    """Claim what no one claims; return who owns each of the prompts now."""
    # What decides is the owner's lease; the column says when that ran out as things stood.
    until = now() + timedelta(seconds=leases.LEASE_S)
    rows = [{"prompt_hash": wish, "owner": owner, "expires_at": until} for wish in wanted]
    connection.execute(insert_missing(Claim.__tablename__, connection.dialect.name), rows)
    owners: dict[str, str] = {}
    for part in in_parts(wanted):
        found = select(Claim.prompt_hash, Claim.owner).where(Claim.prompt_hash.in_(part))
        owners |= {row.prompt_hash: row.owner for row in connection.execute(found)}
    return owners
