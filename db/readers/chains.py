"""Find the runs that resume each other, and add up what they, or the leases of one run, have spent.

All runs that `resumes_run_id` links share one cost cap, together with their helpers and, in earlier releases, their
shards. Requests that were perhaps billed count at their likely cost, estimated when the attempt was opened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import CTE, ColumnElement, Engine, Row, Select, and_, bindparam, case, func, or_, select

from db.columns import aliased
from db.session import rows_of
from db.tables import Attempt, StoredRun
from db.words import PERHAPS_BILLED


@dataclass(frozen=True, slots=True)
class Spent:
    """US dollars: `known_usd` for answers with a known price, `likely_usd` for requests that were perhaps billed."""

    known_usd: Decimal = Decimal(0)
    likely_usd: Decimal = Decimal(0)

    @property
    def total_usd(self) -> Decimal:
        """The sum of both, which counts against a cap."""
        return self.known_usd + self.likely_usd

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.known_usd + other.known_usd, self.likely_usd + other.likely_usd)

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.known_usd - other.known_usd, self.likely_usd - other.likely_usd)


_RUN: Any = bindparam("of_run")
_LINK = select(StoredRun.id, StoredRun.started_at, StoredRun.parameters, StoredRun.resumes_run_id).where(
    StoredRun.id == _RUN
)


def resumed_by(engine: Engine, run_id: str) -> list[str]:
    """Return the runs that a run resumes, directly or not, the latest first."""
    return [row.id for row in _and_resumed(engine, run_id)[1:]]


def resuming(engine: Engine, run_id: str) -> list[str]:
    """Return the runs that resume a run directly, the latest first."""
    which = select(StoredRun.id).where(StoredRun.resumes_run_id == run_id).order_by(StoredRun.id.desc())
    return [row.id for row in rows_of(engine, which)]


def refreshing_since(engine: Engine, run_id: str) -> datetime | None:
    """Return when the first refresh began among a refreshing run and the runs that it resumes; None for unknown runs.

    Answers requested since then are part of this refresh and need not be requested again.
    """
    rows = _and_resumed(engine, run_id)
    began = [row.started_at for row in rows if row.id == run_id or _refreshes(row.parameters)]
    return began[-1] if began else None


def _and_resumed(engine: Engine, run_id: str) -> list[Row[Any]]:
    """Read a run and those that it resumes, the latest first, each once."""
    found: dict[str, Row[Any]] = {}
    following: str | None = run_id
    with engine.connect() as connection:
        while following is not None and following not in found:
            row = connection.execute(_LINK, {"of_run": following}).first()
            if row is None:
                break
            found[following], following = row, row.resumes_run_id
    return list(found.values())


def _refreshes(parameters: Mapping[str, Any]) -> bool:
    # A flow without options refreshes by its own code, so its earlier runs did too.
    return not any(isinstance(value, dict) and value.get("refresh") is False for value in parameters.values())


def spent_by_chain(engine: Engine, run_id: str) -> Spent:
    """Add up what the runs linked with this one, and all their shards, have spent, without its own requests.

    Linked are the runs that it resumes, directly or not, and all runs that resume any of these.
    """
    return _read(engine, _spent_by_chain(), of_run=run_id)


@cache
def _spent_by_chain() -> Select[Any]:
    linked = _linked()
    shard = aliased(StoredRun)
    whole = select(linked.c.id).union(select(shard.id).join(linked, shard.parent_run_id == linked.c.id))
    return _spent(Attempt.run_id.in_(whole), Attempt.run_id != _RUN)


def spent_by_run(engine: Engine, run_id: str, *, except_lease: str | None = None) -> Spent:
    """Add up what all leases of a run have spent, earlier ones too, except the lease `except_lease`.

    A process counts its own spending itself, so it needs only that of the other leases.
    """
    return _read(engine, _spent_by_run(with_all=except_lease is None), of_run=run_id, of_lease=except_lease)


@cache
def _spent_by_run(*, with_all: bool) -> Select[Any]:
    others = () if with_all else (Attempt.lease_id.is_distinct_from(bindparam("of_lease")),)
    return _spent(Attempt.run_id == _RUN, *others)


def spent_by_leases(engine: Engine, run_id: str, lease_ids: Sequence[str]) -> Spent:
    """Add up what these leases of a run have spent."""
    return _read(engine, _spent_by_leases(), of_run=run_id, leases=lease_ids)


@cache
def _spent_by_leases() -> Select[Any]:
    return _spent(Attempt.run_id == _RUN, Attempt.lease_id.in_(bindparam("leases", expanding=True)))


def _linked() -> CTE:
    # UNION, not UNION ALL, so that each run is followed only once.
    first = select(StoredRun.id, StoredRun.resumes_run_id).where(StoredRun.id == _RUN).cte("resumed", recursive=True)
    before = aliased(StoredRun)
    resumed = first.union(select(before.id, before.resumes_run_id).join(first, before.id == first.c.resumes_run_id))
    linked = select(resumed.c.id).cte("linked", recursive=True)
    after = aliased(StoredRun)
    return linked.union(select(after.id).join(linked, after.resumes_run_id == linked.c.id))


def _spent(*which: ColumnElement[bool]) -> Select[Any]:
    # An answer without a price, a request whose answer was lost, and a request in flight, now or during a crash.
    counts = or_(
        Attempt.error_type.is_(None), Attempt.error_type.in_(PERHAPS_BILLED), Attempt.input_tokens.is_not(None)
    )
    likely = case((and_(Attempt.cost_usd.is_(None), counts), Attempt.likely_cost_usd))
    return select(func.sum(Attempt.cost_usd), func.sum(likely)).where(*which)


def _read(engine: Engine, spent: Select[Any], **values: Any) -> Spent:
    ((known, expected),) = rows_of(engine, spent, values)
    return Spent(known or Decimal(0), expected or Decimal(0))
