"""Add up what runs did, used and cost; no other module counts anything.

Tokens and cost are sums over attempts. Records are counted from generations, plus the steps' counts of unchanged
records, which have no generation. The figures of an earlier release's run include its shards. A page of a list of runs
takes as many statements as one run.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import Engine, Row, Select, bindparam, case, func, select

from db.readers.confirmations import count_confirmed
from db.readers.old_shards import requested_by_shards, with_shards
from db.readers.runs import matches, running, state_of
from db.rollups.attempt_sums import (
    ALL_IN,
    COST,
    IS_RATE_LIMITED,
    IS_UNPRICED,
    LIKELY_COST,
    MAY_BE_BILLED,
    READ,
    WAS_SENT,
    WRITTEN,
    dollars_of,
    total,
)
from db.rollups.grouped import added_up
from db.rollups.savings import saved_by_step, was_pruned
from db.rollups.shard_runs import RUN_IDS
from db.session import rows_of
from db.tables import Attempt, Generation, PromptCacheRollup, StoredRun, StoredStep
from db.words import CACHE, CACHED, DONE, LIVE, NOT_OVER, SUCCEEDED

PRICED_BY = ("model", "service_tier", "inference_geo", "speed", "day", "prompt_tokens")
"""The columns of a use of the prompt cache that set its price."""
CACHE_SUMS = ("written_5m", "written_1h", "read", "writes", "reads")


@dataclass(frozen=True, slots=True)
class TotalUsage:
    """The tokens and cost of requests; cost_usd does not include the `unpriced` ones, whose price is unknown.

    `input_tokens` include the tokens written to and read from the prompt cache. `likely_usd` is the estimated cost of
    the requests that were perhaps billed; None if none of them has an estimate.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_tokens: int = 0
    cache_read_tokens: int = 0
    cost_usd: Decimal | None = None
    unpriced: int = 0
    perhaps_billed: int = 0
    rate_limited: int = 0
    likely_usd: Decimal | None = Decimal(0)


@dataclass(frozen=True, slots=True)
class PromptCacheUse:
    """The tokens that requests with the same prices wrote to the prompt cache and read from it.

    The requests share model, tier, place, speed, day (UTC) and `prompt_tokens`, because prices may depend on the length
    of the prompt: all input tokens of one request, rounded up to a thousand. `writes` and `reads` count requests.
    """

    model: str
    service_tier: str | None
    inference_geo: str | None
    speed: str | None
    day: date
    prompt_tokens: int
    written_5m: int
    written_1h: int
    read: int
    writes: int
    reads: int


@dataclass(frozen=True, slots=True)
class StepCount:
    """The number of a step's generations with one status and origin."""

    step: str
    status: str
    origin: str
    count: int

    @property
    def counted_as(self) -> str:
        """The count of a run to which they belong: their status, or `cached`."""
        return CACHED if (self.status, self.origin) == (SUCCEEDED, CACHE) else self.status


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run as a list of runs shows it; `status` is its state, see runs.py."""

    id: str
    flow: str
    endpoint: str
    trigger: str
    status: str
    started_at: datetime
    ended_at: datetime | None
    generations: int
    succeeded: int
    cached: int
    usage: TotalUsage

    @property
    def without_content(self) -> int:
        """The number of generations without content."""
        return self.generations - self.succeeded - self.cached


_COUNTS = frozenset(each.name for each in fields(TotalUsage)) - {"cost_usd", "likely_usd"}
_RUNS = select(*(StoredRun.__table__.c[each.name] for each in fields(RunLine) if each.name in StoredRun.__table__.c))
"""Selects the columns of runs that a line has fields for."""


def usage(engine: Engine, run_id: str, *, step: str | None = None) -> TotalUsage:
    """Add up the usage and cost of the attempts of a run and its shards, for one step or for all."""
    return usage_of(engine, [run_id], step=step)[run_id]


def usage_of(engine: Engine, run_ids: Sequence[str], *, step: str | None = None) -> dict[str, TotalUsage]:
    """Add up the usage and cost of the attempts of each run and its shards, for one step or for all."""
    found = dict.fromkeys(run_ids, TotalUsage(cost_usd=Decimal(0)))
    of_step = {} if step is None else {"of_step": step}
    for row in rows_of(engine, _used(of_step=step is not None), {"run_ids": run_ids, **of_step}):
        whole, cost, likely = row.whole, row.cost_usd, row.likely_usd
        counts = {name: int(value) for name, value in row._asdict().items() if name in _COUNTS}
        found[whole] = TotalUsage(
            **counts,
            # No sum and nothing unpriced means that nothing was spent.
            cost_usd=None if cost is None and counts["unpriced"] else dollars_of(cost),
            likely_usd=None if likely is None and counts["perhaps_billed"] else dollars_of(likely),
        )
    return found


@cache
def _used(*, of_step: bool) -> Select[Any]:
    members = with_shards()
    statement = (
        select(
            members.c.whole,
            total(WAS_SENT).label("requests"),
            total(ALL_IN).label("input_tokens"),
            total(Attempt.output_tokens).label("output_tokens"),
            total(WRITTEN).label("cache_creation_tokens"),
            total(READ).label("cache_read_tokens"),
            func.sum(COST).label("cost_usd"),
            total(IS_UNPRICED).label("unpriced"),
            total(case((MAY_BE_BILLED, 1), else_=0)).label("perhaps_billed"),
            total(IS_RATE_LIMITED).label("rate_limited"),
            func.sum(LIKELY_COST).label("likely_usd"),
        )
        .join(Attempt, Attempt.run_id == members.c.member)
        .group_by(members.c.whole)
    )
    if not of_step:
        return statement
    of_runs = (Generation.run_id.in_(select(members.c.member)), Generation.step == bindparam("of_step"))
    return statement.where(Attempt.generation_id.in_(select(Generation.id).where(*of_runs)))


def prompt_cache_use(engine: Engine, run_id: str) -> list[PromptCacheUse]:
    """Return what a run and its shards wrote to the prompt cache and read from it, grouped by what sets the price.

    Requests that did neither are left out.
    """
    return [cache_use_of(row) for row in rows_of(engine, _cached(), {"run_ids": [run_id]})]


@cache
def _cached() -> Select[Any]:
    added = added_up(PromptCacheRollup, select(with_shards().c.member)).subquery()
    priced_by = [added.c[name] for name in PRICED_BY]
    sums = [total(added.c[name]).label(name) for name in CACHE_SUMS]
    return select(*priced_by, *sums).group_by(*priced_by)


def cache_use_of(row: Row[Any]) -> PromptCacheUse:
    """Make a use of the prompt cache from a row with the columns PRICED_BY and CACHE_SUMS."""
    return PromptCacheUse(
        model=row.model,
        service_tier=row.service_tier or None,
        inference_geo=row.inference_geo or None,
        speed=row.speed or None,
        day=date.fromisoformat(row.day),
        prompt_tokens=row.prompt_tokens,
        written_5m=int(row.written_5m),
        written_1h=int(row.written_1h),
        read=int(row.read),
        writes=int(row.writes),
        reads=int(row.reads),
    )


def cost_reused(engine: Engine, run_id: str) -> Decimal | None:
    """Estimate what the ledger's cache saved a run: the original cost of the reused answers; None: no known price.

    A step has the figure of the moment when it was done, or when its run closed or crashed, if its working rows were
    pruned since. For other steps of an open run, this reads their rows.
    """
    with engine.connect() as connection:
        is_open = connection.scalar(select(StoredRun.status).where(StoredRun.id == run_id)) in NOT_OVER
        steps = connection.execute(_saved(), {"of_run": run_id}).all()
        working = [each.step for each in steps if is_open and each.state != DONE and not each.was_pruned]
        known = [each.saved_usd for each in steps if each.step not in working and each.saved_usd is not None]
        if working:
            now = connection.execute(saved_by_step(), {"of_run": run_id, "of_steps": working})
            known += [dollars_of(each.saved_e10) for each in now if each.saved_e10 is not None]
    return sum(known, Decimal(0)) if known else None


@cache
def _saved() -> Select[Any]:
    columns = (StoredStep.step, StoredStep.state, StoredStep.saved_usd, was_pruned().label("was_pruned"))
    return select(*columns).where(StoredStep.run_id == bindparam("of_run"))


def count_generations(engine: Engine, run_id: str) -> list[StepCount]:
    """Count a run's generations by step, status and origin, in the order in which the steps began.

    Unchanged records count as if they had a generation: cached if they have content, else failed or skipped. Answers
    that an earlier release's shard requested count as the run's own live ones.
    """
    return count_generations_of(engine, [run_id])[run_id]


def count_generations_of(engine: Engine, run_ids: Sequence[str]) -> dict[str, list[StepCount]]:
    """Count the generations of each run, as `count_generations` does."""
    of_runs = {"run_ids": run_ids}
    with engine.connect() as connection:
        lines = [tuple(row) for row in connection.execute(_counted(), of_runs)]
        by_shards = {tuple(line): count for *line, count in connection.execute(requested_by_shards(), of_runs)}
        confirmed = count_confirmed(connection, run_ids)
    # Steps of earlier releases have no counts; they follow in the order of their first generations.
    found = {run_id: {step: Counter[tuple[str, str]]() for step in confirmed[run_id]} for run_id in run_ids}
    for run_id, step, status, origin, count in lines:
        live = by_shards.get((run_id, step, status, origin), 0)
        ended = found[run_id].setdefault(step, Counter())
        ended += Counter({(status, LIVE): live}) + Counter({(status, origin): count - live})
    return {
        run_id: [
            StepCount(step, status, origin, count)
            for step, ended in steps.items()
            for (status, origin), count in (ended + confirmed[run_id].get(step, Counter())).items()
        ]
        for run_id, steps in found.items()
    }


@cache
def _counted() -> Select[Any]:
    alike = (Generation.run_id, Generation.step, Generation.status, Generation.origin)
    return (
        select(*alike, func.count())
        .where(Generation.run_id.in_(RUN_IDS), Generation.replaced_by == "")
        .group_by(*alike)
        .order_by(func.min(Generation.id))
    )


def find_run(engine: Engine, run_id: str) -> RunLine | None:
    """Return the run with this id, or the only one whose id begins or ends with it; None if none or several."""
    runs = rows_of(engine, _RUNS.where(matches(StoredRun.id, run_id)).limit(2))
    if len(runs) != 1:
        return None
    run = runs[0]
    counts = count_generations(engine, run.id)
    return RunLine(
        **run._asdict() | {"status": state_of(run.id, run.status, running(engine))},
        generations=sum(line.count for line in counts),
        succeeded=sum(line.count for line in counts if line.counted_as == SUCCEEDED),
        cached=sum(line.count for line in counts if line.counted_as == CACHED),
        usage=usage(engine, run.id),
    )
