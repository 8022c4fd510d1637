"""Add up an open run: its summary at any time, and how its requests were paced."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from decimal import Decimal

from sqlalchemy import Engine

from db.readers.figures import cost_reused, count_generations, prompt_cache_use, usage
from db.words import CACHED, CAPPED, COMPLETED, COUNTED, RunStatus
from presswork.errors import CostCapError
from presswork.pacing.limiter import Limiter, LimiterReport
from presswork.pacing.pace import Pace
from presswork.report.cache_savings import saved_by_reads
from presswork.report.progress import Progress
from presswork.report.summary import PaceSummary, PromptCacheSummary, StepSummary, Summary, list_failures

ReadSummary = Callable[[Callable[[RunStatus], Summary], RunStatus], Awaitable[Summary]]


class Totals:
    """Adds a run up from the ledger and from figures that the ledger does not have.

    `read` calls a reader of the ledger in a thread. `left_out` counts, by step, the records for which an earlier step
    produced no content; `made_from` names that step for each step that began, or None if it works on records.
    """

    def __init__(self, ledger: Engine, read: ReadSummary, progress: Progress, pace: Pace) -> None:
        self._ledger = ledger
        self._read = read
        self._progress = progress
        self._pace = pace
        self._figures: Summary | None = None
        self._steps_open = 0
        self.records = 0
        self.left_out: Counter[str] = Counter()
        self.made_from: dict[str, str | None] = {}

    def summary(self, status: RunStatus | None = None) -> Summary:
        """Add the run up from the ledger; without a status, with the one that the run would have now.

        Flows call this on the event loop, so it uses figures read in a thread at the end of a step: nothing changes
        after that. It reads the ledger itself while a step is open, and after one that was interrupted.
        """
        figures = self._figures or self._added_up(status or self.status())
        return figures.model_copy(
            update={
                "status": status or self.status(),
                "records": self.records,
                "notes": list(self._progress.notes.values()),
                "wall_s": round(self._progress.wall_s, 3),
                "pace": self._progress.ask_pace(),
            }
        )

    @asynccontextmanager
    async def step_open(self) -> AsyncIterator[None]:
        """Read the figures for `summary` in a thread when the step ends, unless another step is still open."""
        self._figures = None
        self._steps_open += 1
        try:
            yield
        finally:
            self._steps_open -= 1
        if not self._steps_open:
            figures = await self._read(self._added_up, self.status())
            self._figures = None if self._steps_open else figures

    def status(self) -> RunStatus:
        """How the run would end now."""
        return CAPPED if isinstance(self._pace.stopped, CostCapError) else COMPLETED

    def _added_up(self, status: RunStatus) -> Summary:
        progress, steps = self._progress, self._steps()
        counts = {name: sum(getattr(step, name) for step in steps) for name in COUNTED}
        cached, warmth = prompt_cache_use(self._ledger, progress.run_id), self._pace.warming.report()
        return Summary(
            run_id=progress.run_id,
            flow=progress.flow,
            endpoint=progress.endpoint,
            status=status,
            records=self.records,
            **counts,
            left_out=self.left_out.total(),
            **asdict(usage(self._ledger, progress.run_id)),
            saved_by_ledger_usd=cost_reused(self._ledger, progress.run_id) if counts[CACHED] else Decimal(0),
            saved_by_prompt_cache_usd=saved_by_reads(cached),
            prompt_cache=PromptCacheSummary(
                reads=sum(use.reads for use in cached), writes=sum(use.writes for use in cached), **asdict(warmth)
            ),
            wall_s=round(progress.wall_s, 3),
            pace=self._progress.ask_pace(),
            notes=list(progress.notes.values()),
            steps=steps,
            failures=list_failures(self._ledger, progress.run_id),
        )

    def _steps(self) -> list[StepSummary]:
        lines = count_generations(self._ledger, self._progress.run_id)
        steps = {
            name: StepSummary(step=name, made_from=self.made_from.get(name), left_out=self.left_out[name])
            for name in [*(line.step for line in lines), *self.left_out]
        }
        for line in lines:
            step = steps[line.step]
            setattr(step, line.counted_as, getattr(step, line.counted_as) + line.count)
            step.generations += line.count
        return list(steps.values())


def paced_since(limiter: Limiter, before: LimiterReport) -> PaceSummary:
    """Summarize the pace since an earlier report: the limiter outlives the run, and counts for other runs too."""
    report = limiter.report()
    limit = report.limit_per_minute
    return PaceSummary(
        requests_per_minute=report.requests_per_minute,
        limit_per_minute=limit,
        share_of_limit=round(report.requests_per_minute / limit, 3) if limit else None,
        limit_from=report.limit_from,
        rate_limited=report.rate_limited - before.rate_limited,
        refused_anyway=report.refused_anyway,
        waited_s=round(report.waited_s - before.waited_s, 1),
        waiting_s=round(report.hold.wait_s, 1) if report.hold else 0.0,
        waiting_for=report.hold.words() if report.hold else None,
    )
