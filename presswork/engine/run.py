"""Run: one execution of a content flow, as flows use it: `select`, `generate` and `summary`.

opening.py puts it together and closes it. Between, records go through the five verbs.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from db.clock import now
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
from presswork.pacing.spending import Estimate
from presswork.prompts.render import Brief
from presswork.report.prefect.totals import Totals
from presswork.report.progress import counts_in_words
from presswork.report.summary import Summary

KEYS_AT_ONCE = 5000
"""How many keys of a step that is divided are written at a time."""
_PADDED = (
    "{step}: content stands under keys that end in blanks ({orphaned:,}), from a release that kept the blanks of "
    "CHAR(n) keys. It is orphaned: the same records have theirs under the trimmed keys now, and what had not changed "
    "was not asked for again. Leave it out of your queries with: record_key NOT LIKE '% '"
)


class LeavingError(BaseException):
    """The run ends its process here, and is to go on another time; no flow is to catch this."""


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why a run is left, and when it is due."""

    reason: str
    due: datetime

    def __str__(self) -> str:
        return f"{self.due:%Y-%m-%d %H:%M} UTC: {self.reason}"


@dataclass
class Run:
    """An open run. Flows use `select`, `generate`, `suspend` and `summary`; the rest is the engine's own.

    `suspended` says why and until when it is left, once it is; `is_spread` whether helpers have been called, which is
    done once in a process.
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
        """Select a template's records. The database is asked at the first `await` that needs it, in a thread.

        `selection` holds the values of the template's params. Raises TemplateError, ParameterError, or
        ConfigurationError where the template's source is not set. What only the database can tell, the next
        `generate` raises. Records that nothing waits for are neither read nor counted.
        """
        values = selection.values() if isinstance(selection, Selection) else dict(selection or {})
        return self.selects.select(self.briefs.template(template_name), values)

    async def generate(self, template_name: str, source: Source, *, variants: int = 1) -> Generations:
        """Generate content for all that `source` yields, and return a handle to what succeeded.

        With `variants`, each gets so many answers to the same request, as children `key/0`, `key/1`, ... Whatever
        the run has selected so far is checked first, so that a wrong select stops it before it asks for anything:
        raises the database error of a source that can't be reached, of a select that fails or of keys that don't tell
        records apart. One record that goes wrong stops no other; what stops the run (a refused key, a spend limit) is
        raised when all that was in flight is recorded.
        """
        if variants < 1:
            raise ValueError(f"variants is {variants}; it must be 1 or more")
        ledger = self.ledger
        brief = await self.briefs.brief(template_name, source.params)
        await self.selects.check()
        if template_name in self.totals.made_from:
            # The ledger keeps one generation for each record and step of a run: a second would be lost.
            raise ConfigurationError(
                f"The flow {ledger.flow!r} generates {template_name!r} twice in one run. Put the records together "
                "before, or give the second a template of its own."
            )
        self.totals.made_from[template_name] = source.step
        async with self.totals.step_open():
            if not self.selects.is_left_to_the_whole(source):
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
        await self.ledger.begin_step(name, made_from=source.step, total=total, left_out=missing)
        if isinstance(source, Selected) and (self.options.shards or 1) > 1 and not self.is_spread:
            await self._spread(name, source)
        if self.selects.spooling.trimmed and helper is None:
            # A helper has the same keys as the run that it helps, which tells of them once.
            orphaned = await self.ledger.padded_keys(name)
            if orphaned:
                progress.notes[f"padded keys: {name}"] = _PADDED.format(step=name, orphaned=orphaned)
        mean = await self.ledger.mean_tokens(name, brief.template.front.model)
        if mean is not None:
            self.pace.estimates.setdefault(name, Estimate(input_tokens=mean[0], output_tokens=mean[1]))
        await step.run(taken or source)
        if taken is not None:
            await taken.finish_done()
        await self.ledger.end_step(name)
        ended = ", ".join(counts_in_words(progress.step_counts).values()) or "nothing to do"
        self.host.log.info("%s: %d generations: %s.", progress.step, progress.done_in_step, ended)

    async def _spread(self, step: str, source: Selected) -> None:
        """Have helpers do a step first, and take over what they have spent and found out."""
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
        # The cap is the job's: what the helpers spent is no longer there to be spent here.
        self.pace.spending.helpers = await ledger.spent() - self.pace.spending.earlier
        known = await ledger.used(step)
        if known.requests and known.cost_usd:
            # Of what is left of a cap, a guess from one answer could spend too much.
            each = Estimate(
                output_tokens=known.output_tokens / known.requests, cost_usd=known.cost_usd / known.requests
            )
            self.pace.estimates.setdefault(step, each)

    async def suspend(self, reason: str, due: datetime) -> None:
        """Leave the run until `due`, or until somebody takes it up: `while not is_approved(): await run.suspend(...)`.

        All that was generated stays. Where the flow run has a deployment, the process ends here, and the one that takes
        the run up begins the flow again, which is done at once with what the run has. Elsewhere the run waits in place,
        and this returns when it is due. `reason` is shown to people; a `due` without a time zone is a ValueError.
        """
        if due.tzinfo is None:
            raise ValueError("the time at which a suspended run is due needs a time zone")
        if self.options.helper is not None:
            raise await self.host.left_undone("A helper does not wait with its run: it has done its part.")
        suspension = Suspension(reason, due.astimezone(UTC))
        with self.context.stopper.pursuing():
            if self.host.can_leave:
                self.suspended = suspension
                self.context.progress.notes[SUSPENDED] = f"The run is suspended until {suspension}"
                raise LeavingError
            await self.context.writer.committed()
            self.host.log.info("The run waits until %s", suspension)
            await asyncio.sleep(max((suspension.due - now()).total_seconds(), 0))

    def summary(self) -> Summary:
        """Return what the run has come to."""
        return self.totals.summary()
