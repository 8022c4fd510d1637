"""Give flows the run that they use: `select`, `generate`, `suspend` and `summary`.

opening.py builds the run and closes it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from db.clock import now
from db.ledger.rows import StepRow
from db.words import SUSPENDED
from presswork.engine.context import StepContext
from presswork.engine.materials.briefs import Briefs
from presswork.engine.materials.handles import Generations, Selected, Source
from presswork.engine.materials.run_selects import Selects
from presswork.engine.materials.taken_records import TakenRecords
from presswork.engine.orchestration.host import Host, SpreadRun
from presswork.engine.resources.run_ledger import RunLedger
from presswork.engine.step import Step
from presswork.errors import ConfigurationError
from presswork.options import RunOptions, Selection
from presswork.pacing.pace import Pace
from presswork.pacing.spending import Estimate, mean_of
from presswork.prompts.render import Brief
from presswork.report.progress import counts_in_words
from presswork.report.summary import Summary
from presswork.report.totals import Totals

KEYS_AT_ONCE = 5000
"""How many keys of a divided step are written at a time."""
_PADDED = (
    "{step}: {orphaned:,} keys with content end in blanks. An earlier release kept the blanks of CHAR(n) keys. This "
    "content is orphaned: the same records now have their content under trimmed keys, and unchanged prompts were not "
    "paid for again. Exclude it from your queries with: record_key NOT LIKE '% '"
)


class SuspendingError(BaseException):
    """The run ends its process here and resumes later. No flow may catch this."""


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why a run is suspended, and when it is due."""

    reason: str
    due: datetime

    def __str__(self) -> str:
        return f"{self.due:%Y-%m-%d %H:%M} UTC: {self.reason}"


@dataclass
class Run:
    """An open run. Flows use `select`, `generate`, `suspend` and `summary`; the rest belongs to the engine.

    `suspended` is set when the run is suspended. `is_spread` is set when it has started helpers, once per process.
    """

    host: Host
    options: RunOptions
    context: StepContext
    ledger: RunLedger
    pace: Pace
    selects: Selects
    briefs: Briefs
    totals: Totals
    suspended: Suspension | None = None
    is_spread: bool = False

    def select(self, template_name: str, selection: Selection | Mapping[str, Any] | None = None) -> Selected:
        """Select a template's records. The select is executed in a thread at the first `await` that needs it.

        `selection` holds the values of the template's params. Raises TemplateError, ParameterError, or
        ConfigurationError if the template's source is not set. The next `generate` raises the errors of the database.
        If no step and no `await` uses the records, they are neither read nor counted.
        """
        values = selection.values() if isinstance(selection, Selection) else dict(selection or {})
        return self.selects.select(self.briefs.template(template_name), values)

    async def generate(self, template_name: str, source: Source, *, variants: int = 1) -> Generations:
        """Generate content for everything that `source` yields, and return a handle to the succeeded generations.

        With `variants`, each record gets this many answers to the same request, under the keys `key/0`, `key/1`, ...
        All selects of the run so far are checked first, so that a wrong one stops the run before any request. They
        raise a database error if a source can't be reached, a select fails, or keys are not unique. One failed record
        does not stop the others. An error that stops the run (a refused key, a spend limit) is raised when all
        requests in flight are recorded.
        """
        if variants < 1:
            raise ValueError(f"`variants` is {variants}. Use 1 or more.")
        ledger = self.ledger
        brief = await self.briefs.brief(template_name, source.params)
        await self.selects.check()
        if template_name in self.totals.made_from:
            # The ledger keeps one generation for each record and step of a run, so the second would be lost.
            raise ConfigurationError(
                f"The flow {ledger.flow!r} generates {template_name!r} twice in one run. Combine the records into one "
                "`generate`, or use another template for the second."
            )
        self.totals.made_from[template_name] = source.step
        async with self.totals.step_open():
            if not self.selects.is_left_to_the_run(source):
                await self._generate(brief, source, variants)
        return Generations(
            ledger.engine,
            ledger.run_id,
            template_name,
            brief.template.output_class,
            read=ledger.writer.read,
            params=source.params,
            helper_id=ledger.helper_id,
        )

    async def _generate(self, brief: Brief, source: Source, variants: int) -> None:
        name = brief.template.name
        progress = self.context.progress
        step = Step(self.context, brief, variants)
        helper = self.options.helper
        taken: TakenRecords | None = None
        if helper is not None and isinstance(source, Selected):
            taken = TakenRecords(
                source,
                helpers=helper.of,
                variants=variants,
                take=partial(self.ledger.take_range, name),
                finish=partial(self.ledger.finish_range, name),
                is_stopped=lambda: self.pace.stopped is not None,
            )
        total = await source.count() if taken is None else None
        missing = await source.left_out()
        if missing:
            self.totals.left_out[name] += missing
        total = total * variants if total is not None else None
        progress.begin_step(name, total)
        begun = StepRow(name, made_from=source.step, total=total, left_out=missing)
        await self.ledger.begin_step(begun)
        if isinstance(source, Selected) and (self.options.shards or 1) > 1 and not self.is_spread:
            await self._spread(brief, source)
        if self.selects.spooling.trimmed and helper is None:
            # A helper has the same keys as its run, and the run reports them.
            orphaned = await self.ledger.padded_keys(name)
            if orphaned:
                progress.notes[f"padded keys: {name}"] = _PADDED.format(step=name, orphaned=orphaned)
        mean = await self.ledger.mean_tokens(name, brief.template.front.model)
        if mean is not None:
            self.pace.estimates.setdefault(name, Estimate(input_tokens=mean[0], output_tokens=mean[1]))
        await step.run(taken or source)
        if taken is not None:
            await taken.finish_done()
        await self.ledger.end_step(begun)
        ended = ", ".join(counts_in_words(progress.step_counts).values()) or "nothing to do"
        self.host.log.info("%s: %d generations (%s).", progress.step, progress.done_in_step, ended)

    async def _spread(self, brief: Brief, source: Selected) -> None:
        """Let helpers do a step first; then take over their costs and the estimate of the next request."""
        step = brief.template.name
        self.is_spread = True
        ledger = self.ledger
        await self.briefs.endpoint.verify()
        spool = await source.check()
        if spool.count < 2:
            return
        await ledger.divide(step, partial(spool.keys, KEYS_AT_ONCE))
        await self.host.spread(
            SpreadRun(self.context.settings, self.options, ledger, self.context.stopper, source, spool.count)
        )
        # The cap is the job's: the helpers' costs reduce what this process may spend.
        self.pace.spending.helpers = await ledger.spent() - self.pace.spending.earlier
        # Near the cap, an estimate from a single answer could spend too much.
        answers = await ledger.answers(step)
        if answers:
            self.pace.estimates.setdefault(step, mean_of(answers, brief.template.front.model))

    async def suspend(self, reason: str, due: datetime) -> None:
        """Suspend the run until `due`, or until you resume it: `while not is_approved(): await run.suspend(...)`.

        All generations stay. If the flow run has a deployment, the process ends here. The process that resumes the run
        starts the flow from the beginning, and passes quickly through the steps that are done. Without a deployment the
        run waits here and this returns when it is due. `reason` is shown to people. Raises ValueError if `due` has no
        time zone.
        """
        if due.tzinfo is None:
            raise ValueError("`due` has no time zone. Pass a datetime with one, such as datetime.now(UTC).")
        if self.options.helper is not None:
            raise await self.host.nothing_to_do("This helper ends: its part is done, and only the run itself waits.")
        suspension = Suspension(reason, due.astimezone(UTC))
        with self.context.stopper.pursuing():
            if self.host.can_end_process:
                self.suspended = suspension
                self.context.progress.notes[SUSPENDED] = f"The run is suspended until {suspension}"
                raise SuspendingError
            await self.context.writer.committed()
            self.host.log.info("The run waits until %s", suspension)
            await asyncio.sleep(max((suspension.due - now()).total_seconds(), 0))

    def summary(self) -> Summary:
        """Return the run's counts and costs so far."""
        return self.totals.summary()
