"""One run: what started it, how far it came, what it cost, and what went wrong, grouped by cause."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from markupsafe import Markup
from sqlalchemy import Engine

from db.ledger.leases import LivingLease
from db.readers.audit.filters import Filter
from db.readers.audit.sums import cache_use_by, sums_by
from db.readers.chains import resumed_by, resuming
from db.readers.failures import Loss, Trouble, count_unlisted, losses, troubles
from db.readers.figures import RunLine, StepCount, TotalUsage, count_generations, find_run
from db.readers.old_shards import shards_of
from db.readers.runs import read_run, steps_of, workers_of
from db.words import CACHE, FAILED, LIVE, SKIPPED, SUCCEEDED
from presswork.audit import links
from presswork.audit.page import NotFoundError, Page, PageQuery, ShortText
from presswork.report.savings import PromptCacheSavings, add_savings
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
    `saved_usd` is an estimate, written when the run closes.
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

    `unlisted` counts the failures that it repeated and that are no longer listed, because later runs did these records.
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
    def minutes(self) -> float | None:
        """How long it took; None if it has not ended."""
        ended = self.run.ended_at
        return None if ended is None else (ended - self.run.started_at).total_seconds() / 60


def read_one_run(engine: Engine, query: RunQuery) -> RunView:
    """Read a run with its figures; raises NotFoundError if there is none, or more than one."""
    line = find_run(engine, query.id)
    if line is None:
        raise NotFoundError(
            f"There is no run, or more than one, whose id starts or ends with {query.id!r} in this ledger. "
            "The list of runs has all of them."
        )
    row, steps = read_run(engine, line.id) or {}, _steps(engine, line.id)
    return RunView(
        run=line,
        row=row,
        parameters=given_parameters(row.get("parameters") or {}),
        steps=steps,
        losses=tuple(losses(engine, line.id)),
        troubles=tuple(troubles(engine, line.id)),
        unlisted=count_unlisted(engine, line.id),
        workers=tuple(workers_of(engine, line.id)),
        resumes=tuple(resumed_by(engine, line.id)),
        resumed_by=tuple(resuming(engine, line.id)),
        shards=tuple(shards_of(engine, line.id)),
        saved_by_prompt_cache=add_savings(each.use for each in cache_use_by(engine, (), Filter(run=line.id))),
        saved_by_ledger_usd=_saved(steps),
    )


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


def _steps(engine: Engine, run_id: str) -> tuple[RunStep, ...]:
    rows = {row["step"]: row for row in steps_of(engine, run_id)}
    counts = count_generations(engine, run_id)
    used = {each.alike.step: each.usage for each in sums_by(engine, ("step",), Filter(run=run_id))}
    names = dict.fromkeys([*rows, *(count.step for count in counts)])
    return tuple(_step(name, rows.get(name, {}), counts, used.get(name)) for name in names)


def _step(name: str, row: Mapping[str, Any], counts: Sequence[StepCount], used: TotalUsage | None) -> RunStep:
    unchanged, failed, skipped = (row.get(each, 0) for each in ("unchanged", "failed_again", "skipped_again"))
    # These records are counted as if they had a generation, but a list of generations has none of them.
    without_row = {(SUCCEEDED, CACHE): unchanged, (FAILED, LIVE): failed, (SKIPPED, LIVE): skipped}
    own = (
        StepCount(name, each.status, each.origin, each.count - without_row.get((each.status, each.origin), 0))
        for each in counts
        if each.step == name
    )
    return RunStep(
        step=name,
        made_from=row.get("made_from"),
        state=row.get("state"),
        records=row.get("total"),
        counts=tuple(each for each in own if each.count),
        unchanged=unchanged,
        failed_again=failed,
        skipped_again=skipped,
        left_out=row.get("left_out", 0),
        usage=used or TotalUsage(cost_usd=Decimal(0)),
        saved_usd=row.get("saved_usd"),
    )


def _saved(steps: Sequence[RunStep]) -> Decimal | None:
    known = [step.saved_usd for step in steps if step.saved_usd is not None]
    return sum(known, Decimal(0)) if known else None


RUN = Page("/runs/{id}", RunQuery, read_one_run, "run.html", drawn=draw_run)
