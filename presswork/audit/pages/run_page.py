"""One run: what started it, how far it came, what it cost, and what went wrong, grouped by cause."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from markupsafe import Markup
from sqlalchemy import Engine

from db.ledger.leases import LivingLease
from db.readers.audit.filters import Filter, FilterError, resolved
from db.readers.audit.sums import cache_use_by, outcomes_by, sums_by
from db.readers.chains import resumed_by, resuming
from db.readers.failures import Loss, Trouble, count_unlisted, losses, troubles
from db.readers.figures import PromptCacheUse, RunLine, StepCount, TotalUsage, count_generations, usage
from db.readers.old_shards import shards_of
from db.readers.run_figures import figures_of
from db.readers.runs import read_run, running, state_of, steps_of, workers_of
from db.words import CACHE, FAILED, LIVE, SKIPPED, SUCCEEDED
from presswork.audit import links
from presswork.audit.page import NotFoundError, Page, PageQuery, ShortText
from presswork.report.cache_savings import PromptCacheSavings, add_savings
from presswork.report.step_picture import Paint, steps_svg

_BY_CLASS = Paint(
    ground='class="ground"',
    box={"": 'class="box"', "good": 'class="box good"', "lacking": 'class="box lacking"'},
    title='class="title"',
    counts={"": 'class="counts"', "good": 'class="counts good"', "lacking": 'class="counts lacking"'},
    line='class="line"',
    arrow='class="arrow"',
)


class RunQuery(PageQuery):
    """A run, by its id or by at least 6 characters of its start or end."""

    id: ShortText


@dataclass(frozen=True, slots=True)
class RunStep:
    """A step of a run: its progress, and what its requests used.

    `counts` are of generations; unchanged records, and those that failed or were skipped as before, have none.
    `saved_usd` is an estimate, written when the step is done.
    """

    step: str
    made_from: str | None
    state: str | None
    records: int | None
    counts: tuple[StepCount, ...]
    unchanged: int
    failed_again: int
    skipped_again: int
    left_out: int
    usage: TotalUsage
    saved_usd: Decimal | None

    @property
    def with_content(self) -> int:
        """The number of its records that have content, new or from the ledger."""
        return self.unchanged + sum(each.count for each in self.counts if each.status == SUCCEEDED)

    @property
    def without_content(self) -> int:
        """The number of its records that have none."""
        again = self.failed_again + self.skipped_again
        return again + sum(each.count for each in self.counts if each.status != SUCCEEDED)


@dataclass(frozen=True, slots=True)
class RunView:
    """A run. `resumes` are the runs that it resumes, directly or not; `resumed_by` those that resume it.

    `unlisted` counts the failures that it repeated and that are not listed, because later runs did these records, or
    because it is a trial.
    """

    run: RunLine
    row: Mapping[str, Any]
    parameters: Mapping[str, Any]
    steps: tuple[RunStep, ...]
    losses: tuple[Loss, ...]
    troubles: tuple[Trouble, ...]
    unlisted: int
    workers: tuple[LivingLease, ...]
    resumes: tuple[str, ...]
    resumed_by: tuple[str, ...]
    shards: tuple[str, ...]
    saved_by_prompt_cache: PromptCacheSavings
    saved_by_ledger_usd: Decimal | None

    @property
    def made(self) -> int:
        """The number of generations that it made; a record that ended as in an earlier run has none."""
        return sum(count.count for step in self.steps for count in step.counts)

    @property
    def new_by_origin(self) -> tuple[str, ...]:
        """The origins of its new content."""
        succeeded = {count.origin for step in self.steps for count in step.counts if count.status == SUCCEEDED}
        return tuple(sorted(succeeded - {CACHE}))

    @property
    def minutes(self) -> float | None:
        """How long it took; None if it has not ended."""
        ended = self.run.ended_at
        return None if ended is None else (ended - self.run.started_at).total_seconds() / 60


def read_one_run(engine: Engine, query: RunQuery) -> RunView:
    """Read a run with its figures; raises NotFoundError if there is none, or more than one."""
    try:
        run_id = str(resolved(engine, Filter(run=query.id)).run)
    except FilterError as error:
        raise NotFoundError(str(error)) from None
    row, shards = read_run(engine, run_id) or {}, shards_of(engine, run_id)
    steps = _steps(engine, run_id, has_shards=bool(shards))
    return RunView(
        run=_line(engine, row),
        row=row,
        parameters=given_parameters(row.get("parameters") or {}),
        steps=steps,
        losses=tuple(losses(engine, run_id)),
        troubles=tuple(troubles(engine, run_id)),
        unlisted=count_unlisted(engine, run_id),
        workers=tuple(workers_of(engine, run_id)),
        resumes=tuple(resumed_by(engine, run_id)),
        resumed_by=tuple(resuming(engine, run_id)),
        shards=tuple(shards),
        saved_by_prompt_cache=add_savings(_cache_uses(engine, run_id, shards)),
        saved_by_ledger_usd=_saved(steps),
    )


def _line(engine: Engine, row: Mapping[str, Any]) -> RunLine:
    figures = figures_of(engine, [row["id"]])[row["id"]]
    return RunLine(
        **{name: row[name] for name in ("id", "flow", "endpoint", "trigger", "started_at", "ended_at")},
        status=state_of(row["id"], row["status"], running(engine)),
        generations=figures.generations,
        succeeded=figures.succeeded,
        cached=figures.cached,
        usage=figures.usage,
    )


def _cache_uses(engine: Engine, run_id: str, shards: Sequence[str]) -> list[PromptCacheUse]:
    return [each.use for member in (run_id, *shards) for each in cache_use_by(engine, (), Filter(run=member))]


def given_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that were given, with those of options and selection in one level, without empty ones."""
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return {name: value for name, value in flat.items() if value not in (None, False, {}, [])}


def draw_run(view: RunView) -> Markup:
    """Draw the steps of a run, each a link to its generations."""
    records = next((step.records for step in view.steps if step.made_from is None and step.records is not None), 0)
    return Markup(steps_svg(records, view.steps, _BY_CLASS, lambda step: links.generations(run=view.run.id, step=step)))  # noqa: S704 - it escapes the names


def _steps(engine: Engine, run_id: str, *, has_shards: bool) -> tuple[RunStep, ...]:
    rows = {row["step"]: row for row in steps_of(engine, run_id)}
    counts = _with_shards(engine, run_id, rows) if has_shards else _counts(engine, run_id)
    names = dict.fromkeys([*rows, *(count.step for count in counts)])
    if has_shards:
        used = {name: usage(engine, run_id, step=name) for name in names}
    else:
        used = {str(each.alike.step): each.usage for each in sums_by(engine, ("step",), Filter(run=run_id))}
    return tuple(_step(name, rows.get(name, {}), counts, used.get(name)) for name in names)


def _counts(engine: Engine, run_id: str) -> list[StepCount]:
    """Count the generations of each step, without unchanged records."""
    return [
        StepCount(str(each.alike.step), str(each.alike.status), str(each.alike.origin), each.generations)
        for each in outcomes_by(engine, ("step", "status", "origin"), Filter(run=run_id))
        if each.generations
    ]


def _with_shards(engine: Engine, run_id: str, rows: Mapping[str, Mapping[str, Any]]) -> list[StepCount]:
    """Count as `_counts` does, in a run of an earlier release: what its shards requested is its own."""
    found = []
    for each in count_generations(engine, run_id):
        again = {(SUCCEEDED, CACHE): "unchanged", (FAILED, LIVE): "failed_again", (SKIPPED, LIVE): "skipped_again"}
        row, name = rows.get(each.step, {}), again.get((each.status, each.origin))
        found.append(replace(each, count=each.count - (row.get(name, 0) if name else 0)))
    return [each for each in found if each.count]


def _step(name: str, row: Mapping[str, Any], counts: Sequence[StepCount], used: TotalUsage | None) -> RunStep:
    return RunStep(
        step=name,
        made_from=row.get("made_from"),
        state=row.get("state"),
        records=row.get("total"),
        counts=tuple(each for each in counts if each.step == name),
        unchanged=row.get("unchanged", 0),
        failed_again=row.get("failed_again", 0),
        skipped_again=row.get("skipped_again", 0),
        left_out=row.get("left_out", 0),
        usage=used or TotalUsage(cost_usd=Decimal(0)),
        saved_usd=row.get("saved_usd"),
    )


def _saved(steps: Sequence[RunStep]) -> Decimal | None:
    known = [step.saved_usd for step in steps if step.saved_usd is not None]
    return sum(known, Decimal(0)) if known else None


RUN = Page("/runs/{id}", RunQuery, read_one_run, "run.html", drawn=draw_run)
