"""Read the figures of several runs: from the rollups for closed runs, from live sums for all others."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, case, select

from db.readers.figures import TotalUsage, count_generations_of, usage_of
from db.rollups.attempt_sums import dollars_of, total
from db.rollups.shard_runs import shards_in
from db.session import in_parts, rows_of
from db.tables import OutcomeRollup, RolledUp, StoredStep, UsageRollup
from db.words import CACHE, CACHED, SUCCEEDED


@dataclass(frozen=True, slots=True)
class RunFigures:
    """The number of a run's records by how they ended, unchanged ones included, and its requests."""

    generations: int
    succeeded: int
    cached: int
    usage: TotalUsage


def figures_of(engine: Engine, run_ids: Sequence[str]) -> dict[str, RunFigures]:
    """Return the figures of these runs, as the list and the page of one run show them."""
    found: dict[str, RunFigures] = {}
    for part in in_parts(run_ids):
        marked = {row.run_id for row in rows_of(engine, select(RolledUp.run_id).where(RolledUp.run_id.in_(part)))}
        # The figures of an earlier release's run include its shards, which its own rollups do not.
        added_up = marked - {row.whole for row in rows_of(engine, shards_in(part))}
        found |= _stored(engine, sorted(added_up)) | _live(engine, [each for each in part if each not in added_up])
    return found


def _live(engine: Engine, run_ids: Sequence[str]) -> dict[str, RunFigures]:
    if not run_ids:
        return {}
    counts, used = count_generations_of(engine, run_ids), usage_of(engine, run_ids)
    return {
        run_id: RunFigures(
            generations=sum(line.count for line in counts[run_id]),
            succeeded=sum(line.count for line in counts[run_id] if line.counted_as == SUCCEEDED),
            cached=sum(line.count for line in counts[run_id] if line.counted_as == CACHED),
            usage=used[run_id],
        )
        for run_id in run_ids
    }


def _stored(engine: Engine, run_ids: Sequence[str]) -> dict[str, RunFigures]:
    if not run_ids:
        return {}
    o, s, u = OutcomeRollup, StoredStep, UsageRollup
    good = o.status == SUCCEEDED
    outcomes = select(
        o.run_id,
        total(o.generations),
        total(case((good & (o.origin != CACHE), o.generations))),
        total(case((good & (o.origin == CACHE), o.generations))),
    ).group_by(o.run_id)
    confirmed = select(s.run_id, total(s.unchanged), total(s.failed_again + s.skipped_again)).group_by(s.run_id)
    counts = {row[0]: row[1:] for row in rows_of(engine, outcomes.where(o.run_id.in_(run_ids)))}
    again = {row[0]: row[1:] for row in rows_of(engine, confirmed.where(s.run_id.in_(run_ids)))}
    used = {row.run_id: usage_in(row) for row in rows_of(engine, _USED.where(u.run_id.in_(run_ids)))}
    nothing = TotalUsage(cost_usd=Decimal(0))
    found = {}
    for run_id in run_ids:
        every, succeeded, cached = (int(count) for count in counts.get(run_id, (0, 0, 0)))
        unchanged, failed = (int(count) for count in again.get(run_id, (0, 0)))
        records = every + unchanged + failed
        found[run_id] = RunFigures(records, succeeded, cached + unchanged, used.get(run_id, nothing))
    return found


def sums_of_usage(columns: Any) -> list[Any]:
    """Return the sums of the columns of a usage rollup, under their names."""
    names = [column.name for column in UsageRollup.__table__.c if not column.primary_key]
    return [total(columns[name]).label(name) for name in names]


def usage_in(row: Any) -> TotalUsage:
    """Make the usage of a row with `sums_of_usage`; as in figures.py, a sum of unknown amounts alone is None."""
    written = int(row.cache_creation_5m_tokens) + int(row.cache_creation_1h_tokens)
    return TotalUsage(
        requests=int(row.requests),
        input_tokens=int(row.input_tokens) + written + int(row.cache_read_tokens),
        output_tokens=int(row.output_tokens),
        cache_creation_tokens=written,
        cache_read_tokens=int(row.cache_read_tokens),
        cost_usd=None if row.unpriced and not row.priced else dollars_of(row.cost_e10),
        unpriced=int(row.unpriced),
        perhaps_billed=int(row.perhaps_billed),
        rate_limited=int(row.rate_limited),
        likely_usd=None if row.perhaps_billed and not row.estimated else dollars_of(row.likely_e10),
    )


_USED = select(UsageRollup.run_id, *sums_of_usage(UsageRollup.__table__.c)).group_by(UsageRollup.run_id)
"""Selects the usage of runs."""
