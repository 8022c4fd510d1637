"""Add up what runs did, used and cost; no other module counts anything.

Tokens and cost are sums over attempts. Records are counted from generations, plus the steps' counts of unchanged
records, which have no generation. The figures of an earlier release's run include its shards. A page of a list of runs
takes as many statements as one run.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, Row, case, func, select, union_all

from db.readers.confirmations import confirmed_contents, count_confirmed
from db.readers.old_shards import requested_by_shards, shards_in, with_shards
from db.readers.runs import counts_in, matches, running, state_of
from db.session import in_parts, rows_of
from db.tables import Attempt, Generation, StoredRun
from db.words import CACHE, CACHED, LIVE, PERHAPS_BILLED, SUCCEEDED, UNSENT

_WRITTEN_5M, _WRITTEN_1H, _READ = (
    func.coalesce(column, 0)
    for column in (Attempt.cache_creation_5m_tokens, Attempt.cache_creation_1h_tokens, Attempt.cache_read_tokens)
)
_WRITTEN = _WRITTEN_5M + _WRITTEN_1H
_ALL_IN = func.coalesce(Attempt.input_tokens, 0) + _WRITTEN + _READ


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


_RUNS = select(*(StoredRun.__table__.c[each.name] for each in fields(RunLine) if each.name in StoredRun.__table__.c))
"""Selects the columns of runs that a line has fields for."""


def usage(engine: Engine, run_id: str, *, step: str | None = None) -> TotalUsage:
    """Add up the usage and cost of the attempts of a run and its shards, for one step or for all."""
    return usage_of(engine, [run_id], step=step)[run_id]


def usage_of(engine: Engine, run_ids: Sequence[str], *, step: str | None = None) -> dict[str, TotalUsage]:
    """Add up the usage and cost of the attempts of each run and its shards, for one step or for all."""
    members = with_shards(run_ids)
    error = func.coalesce(Attempt.error_type, "")
    # An answer counts even if the endpoint did not report its usage.
    answered = Attempt.input_tokens.is_not(None) | Attempt.output_text.is_not(None)
    perhaps = error.in_(PERHAPS_BILLED)
    statement = (
        select(
            members.c.whole,
            _sum(case((error.in_(UNSENT), 0), else_=1)).label("requests"),
            _sum(_ALL_IN).label("input_tokens"),
            _sum(func.coalesce(Attempt.output_tokens, 0)).label("output_tokens"),
            _sum(_WRITTEN).label("cache_creation_tokens"),
            _sum(_READ).label("cache_read_tokens"),
            func.sum(Attempt.cost_usd).label("cost_usd"),
            _sum(case((answered & Attempt.cost_usd.is_(None), 1), else_=0)).label("unpriced"),
            _sum(case((perhaps, 1), else_=0)).label("perhaps_billed"),
            _sum(case((Attempt.http_status == 429, 1), else_=0)).label("rate_limited"),
            func.sum(case((perhaps, Attempt.likely_cost_usd))).label("likely_usd"),
        )
        .join(Attempt, Attempt.run_id == members.c.member)
        .group_by(members.c.whole)
    )
    if step is not None:
        of_step = select(Generation.id).where(Generation.run_id.in_(select(members.c.member)), Generation.step == step)
        statement = statement.where(Attempt.generation_id.in_(of_step))
    found = dict.fromkeys(run_ids, TotalUsage(cost_usd=Decimal(0)))
    for row in rows_of(engine, statement):
        sums = row._asdict()
        run_id = sums.pop("whole")
        used = TotalUsage(**sums)
        # No sum and nothing unpriced means that nothing was spent.
        cost = Decimal(0) if used.cost_usd is None and not used.unpriced else used.cost_usd
        likely = Decimal(0) if used.likely_usd is None and not used.perhaps_billed else used.likely_usd
        found[run_id] = replace(used, cost_usd=cost, likely_usd=likely)
    return found


def prompt_cache_use(engine: Engine, run_id: str) -> list[PromptCacheUse]:
    """Return what a run and its shards wrote to the prompt cache and read from it, grouped by what sets the price.

    Requests that did neither are left out.
    """
    utc = func.timezone("UTC", Attempt.ended_at) if engine.dialect.name == "postgresql" else Attempt.ended_at
    priced_by = (Attempt.model, Attempt.service_tier, Attempt.inference_geo, Attempt.speed)
    # A subquery names them: PostgreSQL does not recognize that two expressions with bound values are equal.
    each = (
        select(
            *priced_by,
            func.date(utc).label("day"),
            # Price lists change at whole thousands, so all requests of a group have the same prices.
            ((_ALL_IN + 999) // 1000).label("thousands"),
            _WRITTEN_5M.label("written_5m"),
            _WRITTEN_1H.label("written_1h"),
            _READ.label("read"),
            case((_WRITTEN > 0, 1), else_=0).label("writes"),
            case((_READ > 0, 1), else_=0).label("reads"),
        )
        .where(Attempt.run_id.in_(select(with_shards([run_id]).c.member)), Attempt.model.is_not(None))
        .where(_WRITTEN + _READ > 0)
        .subquery()
    )
    alike, summed = list(each.c)[:6], list(each.c)[6:]
    statement = select(*alike, *(_sum(column).label(column.name) for column in summed)).group_by(*alike)
    return [
        PromptCacheUse(
            model=row.model,
            service_tier=row.service_tier,
            inference_geo=row.inference_geo,
            speed=row.speed,
            day=date.fromisoformat(str(row.day)),  # SQLite has no dates and returns text
            prompt_tokens=int(row.thousands) * 1000,
            written_5m=int(row.written_5m),
            written_1h=int(row.written_1h),
            read=int(row.read),
            writes=int(row.writes),
            reads=int(row.reads),
        )
        for row in rows_of(engine, statement)
    ]


def cost_reused(engine: Engine, run_id: str) -> Decimal | None:
    """Add up the original cost of the answers that a run reused; None if no price is known.

    These are the answers of its cached generations and unchanged records, except those that its own shards requested.
    After the run has closed, an unchanged record counts only until another run confirms it too.
    """
    confirmed = confirmed_contents(engine, run_id).subquery()
    cached = select(Generation.source_generation_id.label("written_by")).where(
        counts_in(run_id), Generation.origin == CACHE, Generation.status == SUCCEEDED
    )
    unchanged = select(func.coalesce(Generation.source_generation_id, Generation.id)).join(
        confirmed, confirmed.c.generation_id == Generation.id
    )
    reused = union_all(cached, unchanged).subquery()
    statement = (
        select(func.sum(Attempt.cost_usd))
        .select_from(reused)
        .join(Attempt, Attempt.generation_id == reused.c.written_by)
        .where(Attempt.run_id.not_in(select(shards_in([run_id]).subquery().c.member)))
    )
    cost: Decimal | None = rows_of(engine, statement)[0][0]
    return cost


def count_generations(engine: Engine, run_id: str) -> list[StepCount]:
    """Count a run's generations by step, status and origin, in the order in which the steps began.

    Unchanged records count as if they had a generation: cached if they have content, else failed or skipped. Answers
    that an earlier release's shard requested count as the run's own live ones.
    """
    return count_generations_of(engine, [run_id])[run_id]


def count_generations_of(engine: Engine, run_ids: Sequence[str]) -> dict[str, list[StepCount]]:
    """Count the generations of each run, as `count_generations` does."""
    alike = (Generation.run_id, Generation.step, Generation.status, Generation.origin)
    counted = (
        select(*alike, func.count())
        .where(Generation.run_id.in_(run_ids), Generation.replaced_by == "")
        .group_by(*alike)
        .order_by(func.min(Generation.id))
    )
    with engine.connect() as connection:
        lines = [tuple(row) for row in connection.execute(counted)]
        by_shards = {tuple(line): count for *line, count in connection.execute(requested_by_shards(run_ids))}
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


def list_runs(engine: Engine, *, flow: str | None = None, limit: int = 20) -> list[RunLine]:
    """List runs, the newest first; a shard has no line and counts in the figures of its run."""
    statement = _RUNS.where(StoredRun.parent_run_id.is_(None)).order_by(StoredRun.id.desc()).limit(limit)
    if flow is not None:
        statement = statement.where(StoredRun.flow == flow)
    return _lines(engine, rows_of(engine, statement))


def find_run(engine: Engine, run_id: str) -> RunLine | None:
    """Return the run with this id, or the only one whose id begins or ends with it; None if none or several."""
    runs = rows_of(engine, _RUNS.where(matches(StoredRun.id, run_id)).limit(2))
    return _lines(engine, runs)[0] if len(runs) == 1 else None


def _lines(engine: Engine, runs: Sequence[Row[Any]]) -> list[RunLine]:
    if not runs:
        return []
    counts: dict[str, list[StepCount]] = {}
    used: dict[str, TotalUsage] = {}
    active = running(engine)
    for part in in_parts([run.id for run in runs]):
        counts |= count_generations_of(engine, part)
        used |= usage_of(engine, part)
    return [
        RunLine(
            **run._asdict() | {"status": state_of(run.id, run.status, active)},
            generations=sum(line.count for line in counts[run.id]),
            succeeded=sum(line.count for line in counts[run.id] if line.counted_as == SUCCEEDED),
            cached=sum(line.count for line in counts[run.id] if line.counted_as == CACHED),
            usage=used[run.id],
        )
        for run in runs
    ]


def _sum(expression: Any) -> Any:
    return func.coalesce(func.sum(expression), 0)
