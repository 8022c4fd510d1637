"""Tell which runs resume one another, and what they have spent together, or one run's leases.

All runs that `resumes_run_id` links share one cost cap, and so do all who work on one of them: its helpers, and in runs
of earlier releases its shards. What was perhaps billed counts
at its likely cost: what an attempt was expected to cost when it was opened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import CTE, ColumnElement, Engine, Row, and_, case, func, or_, select
from sqlalchemy.orm import aliased

from db.ledger.tables import Attempt, StoredRun
from db.session import rows_of
from db.words import PERHAPS_BILLED


@dataclass(frozen=True, slots=True)
class Spent:
    """US dollars: `known_usd` for answers whose price is known, `likely_usd` for what was perhaps billed."""

    known_usd: Decimal = Decimal(0)
    likely_usd: Decimal = Decimal(0)

    @property
    def total_usd(self) -> Decimal:
        """Both together: what counts under a cap."""
        return self.known_usd + self.likely_usd

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.known_usd + other.known_usd, self.likely_usd + other.likely_usd)

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.known_usd - other.known_usd, self.likely_usd - other.likely_usd)


def resumed_by(engine: Engine, run_id: str) -> list[str]:
    """Return the runs that a run resumes, directly or not, the latest first."""
    return [row.id for row in _and_resumed(engine, run_id)[1:]]


def refreshing_since(engine: Engine, run_id: str) -> datetime | None:
    """Return when the first refresh began among a run that refreshes and those that it resumes; None: unknown run.

    What was asked for since then is part of this refresh, and need not be asked for again.
    """
    rows = _and_resumed(engine, run_id)
    began = [row.started_at for row in rows if row.id == run_id or _refreshes(row.parameters)]
    return began[-1] if began else None


def _and_resumed(engine: Engine, run_id: str) -> list[Row[Any]]:
    """Read a run and those that it resumes, the latest first, each once."""
    found: dict[str, Row[Any]] = {}
    columns = select(StoredRun.id, StoredRun.started_at, StoredRun.parameters, StoredRun.resumes_run_id)
    following: str | None = run_id
    with engine.connect() as connection:
        while following is not None and following not in found:
            row = connection.execute(columns.where(StoredRun.id == following)).first()
            if row is None:
                break
            found[following], following = row, row.resumes_run_id
    return list(found.values())


def _refreshes(parameters: Mapping[str, Any]) -> bool:
    # A flow that takes no options says itself, in its code, that it refreshes, and said so before too.
    return not any(isinstance(value, dict) and value.get("refresh") is False for value in parameters.values())


def spent_by_chain(engine: Engine, run_id: str) -> Spent:
    """Add up what all runs have spent that are linked with this one, and the shards of all; its own requests left out.

    Linked are the runs that it resumes, directly or not, and all that resume any of these.
    """
    linked = _linked(run_id)
    shard = aliased(StoredRun)
    whole = select(linked.c.id).union(select(shard.id).join(linked, shard.parent_run_id == linked.c.id))
    return _spent(engine, and_(Attempt.run_id.in_(whole), Attempt.run_id != run_id))


def spent_by_run(engine: Engine, run_id: str, *, but_lease: str | None = None) -> Spent:
    """Add up what a run has spent, all who have worked on it together; but for one of them, by its lease.

    A process knows what it has spent itself: without that, it is what its run's other leases have, earlier ones too.
    """
    which = [Attempt.run_id == run_id]
    if but_lease is not None:
        which.append(Attempt.lease_id.is_distinct_from(but_lease))
    return _spent(engine, and_(*which))


def spent_by_leases(engine: Engine, run_id: str, lease_ids: Sequence[str]) -> Spent:
    """Add up what some of those have spent who have worked on a run, by their leases."""
    return _spent(engine, and_(Attempt.run_id == run_id, Attempt.lease_id.in_(lease_ids)))


def _linked(run_id: str) -> CTE:
    # UNION, not UNION ALL: a run that is met again is not followed again.
    first = select(StoredRun.id, StoredRun.resumes_run_id).where(StoredRun.id == run_id).cte("resumed", recursive=True)
    before = aliased(StoredRun)
    resumed = first.union(select(before.id, before.resumes_run_id).join(first, before.id == first.c.resumes_run_id))
    linked = select(resumed.c.id).cte("linked", recursive=True)
    after = aliased(StoredRun)
    return linked.union(select(after.id).join(linked, after.resumes_run_id == linked.c.id))


def _spent(engine: Engine, which: ColumnElement[bool]) -> Spent:
    # An answer without a price, a request whose answer was lost, and one that is in flight or was in a crash.
    counts = or_(
        Attempt.error_type.is_(None), Attempt.error_type.in_(PERHAPS_BILLED), Attempt.input_tokens.is_not(None)
    )
    likely = case((and_(Attempt.cost_usd.is_(None), counts), Attempt.likely_cost_usd))
    ((known, expected),) = rows_of(engine, select(func.sum(Attempt.cost_usd), func.sum(likely)).where(which))
    return Spent(known or Decimal(0), expected or Decimal(0))
