"""Make trials one after the other, with one open endpoint and one cost cap."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter
from sqlalchemy import Engine

from db.ledger.connecting import open_ledger
from db.machine import monotonic_s
from db.readers.chains import Spent
from db.readers.past_runs.step_outcomes import PastRun
from presswork.engine.materials.handles import Source
from presswork.engine.opening import open_hosted_run
from presswork.engine.orchestration.host import Kept
from presswork.engine.orchestration.try_host import TryHost
from presswork.engine.resources.endpoint import Endpoint, open_endpoint
from presswork.engine.resources.preflight import require_credential
from presswork.engine.resources.stopping import in_background
from presswork.engine.run import Run
from presswork.errors import CostCapError, StoppedError, UntoldCostError, copy_of
from presswork.options import RunOptions
from presswork.prompts.lint import load_sound
from presswork.prompts.templates import Template
from presswork.report.amounts import dollars, exact_dollars
from presswork.settings import Settings, ledger_url
from presswork.trying.inputs import find_inputs, past_run
from presswork.trying.kept_records import KeptRecords
from presswork.trying.trials import Asked, TokenCounts, Trial, TriedRecord
from presswork.trying.tried_records import EndedRecords, TellRecord

QUICKLY: Mapping[str, Any] = {"chunk_retries": 0, "commit_interval_s": 0.0}
"""Settings of trials: nobody waits minutes for an answer, and few rows need no collecting."""


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What a trial's prompts are made from, and the keys of their outcomes. `flow` is the run's name in the ledger."""

    flow: str
    source: Source
    keys: tuple[str, ...]
    variants: int = 1
    missing: tuple[str, ...] = ()
    note: str | None = None


class TrySession:
    """Makes the trials of one template. Use it as an async context manager, inside one event loop.

    Its first trial chooses the records, and opens the endpoint. Each later one is linked with it in the ledger: it
    resumes the first, so that all share one cost cap.

    `spent` is what all have cost so far. `doing` says what a trial does before it can send a request.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._endpoint: Endpoint | None = None
        self._ledger: Engine | None = None
        self._records = KeptRecords()
        self._past: PastRun | None = None
        self._past_keys: tuple[str, ...] = ()
        self._first: dict[str, str] = {}
        self._unpriced: set[str] = set()
        self.spent = Spent()
        self.doing: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what the session keeps open."""
        await self._stack.aclose()

    async def run(
        self, asked: Asked, *, templates_dir: Path | None = None, on_record: TellRecord | None = None
    ) -> Trial:
        """Make a trial; `on_record` is called as each record ends, and `templates_dir` has another template.

        Raises ConfigurationError or db.database_errors.DatabaseError if there is nothing to try or nothing to try it
        with, StoppingCallError if the endpoint refuses all requests, and StoppedError if a signal came meanwhile.
        """
        began = monotonic_s()
        other = {} if templates_dir is None else {"templates_dir": templates_dir}
        settings = self._settings.model_copy(update={**QUICKLY, **other})
        self.doing = "opening the endpoint"
        template = await asyncio.to_thread(load_sound, settings.templates_dir, asked.template)
        endpoint = await self._open_endpoint()
        self.doing = "reading the records"
        inputs = await self._inputs(settings, template, asked, ledger_url(settings, endpoint.name))
        kept = Kept(endpoint, await self._open_ledger(ledger_url(settings, endpoint.name)))
        trying = partial(self._try, kept, settings, template, inputs, asked, _once(on_record))
        trial = await self._under_cap(trying, asked, template.front.model)
        return replace(trial, wall_s=monotonic_s() - began)

    async def _under_cap(self, trying: Callable[[float | None], Awaitable[Trial]], asked: Asked, model: str) -> Trial:
        """Make a trial under the cap, or without one if the model's costs are unknown, which only a trial can tell."""
        if asked.keeps_cap or model not in self._unpriced:
            try:
                return await trying(asked.max_cost)
            except UntoldCostError:
                if asked.keeps_cap:
                    raise
                # Otherwise each save would make a trial that fails, and then this one.
                self._unpriced.add(model)
        trial = await trying(None)
        note = f"There is no cost cap, because the costs of {model} are unknown."
        return replace(trial, note=note if trial.note is None else f"{trial.note} {note}", is_capped=False)

    async def _try(
        self,
        kept: Kept,
        settings: Settings,
        template: Template,
        inputs: _Inputs,
        asked: Asked,
        tell: TellRecord,
        max_cost: float | None,
    ) -> Trial:
        options = RunOptions(max_cost=max_cost, refresh=asked.refresh, resumes=self._first.get(inputs.flow))
        host = TryHost(inputs.flow, template.name, _parameters(asked, inputs.source.params, options))
        async with open_hosted_run(host, settings, options, kept=kept) as run:
            self.doing = None
            run.context.progress.in_flight = run.context.stopper.in_flight
            self._first.setdefault(inputs.flow, run.ledger.run_id)
            ended = EndedRecords(run, template.name, inputs.keys, tell)
            async with in_background(ended.keep_looking(), "presswork-trial"):
                try:
                    await run.generate(template.name, inputs.source, variants=inputs.variants)
                except StoppedError:
                    # The answers that were in flight have come.
                    await ended.look()
                    raise
                finally:
                    self.spent = run.pace.spending.spent
                records = await ended.look()
            trial = _trial(run, template.name, inputs, records)
        reason = run.context.stopper.reason
        if reason is not None:
            # All answers came in the time that a stop leaves to requests in flight, but no further trial is wanted.
            raise copy_of(reason)
        return trial

    async def _open_endpoint(self) -> Endpoint:
        if self._endpoint is None:
            require_credential()
            endpoint = await open_endpoint(self._settings, self._settings.concurrency)
            await self._stack.enter_async_context(endpoint.client)
            self._endpoint = endpoint
        return self._endpoint

    async def _open_ledger(self, url: str) -> Engine:
        """Open the ledger once, because each new engine compiles all statements again."""
        if self._ledger is None:
            self._ledger = await asyncio.to_thread(open_ledger, url)
            self._stack.callback(self._ledger.dispose)
        return self._ledger

    async def _inputs(self, settings: Settings, template: Template, asked: Asked, url: str) -> _Inputs:
        if asked.inputs_of is not None:
            return await self._past_inputs(template, asked, asked.inputs_of, url)
        # Before the ledger is opened, which creates it: that it is missing explains why there are no records.
        given = await self._records.given(settings, template, asked, url)
        keys = tuple(material.key for material in given.materials)
        return _Inputs(template.name, given, keys, missing=self._records.missing)

    async def _past_inputs(self, template: Template, asked: Asked, run_id: str, url: str) -> _Inputs:
        ledger = await self._open_ledger(url)
        if self._past is None:
            self._past = await asyncio.to_thread(past_run, ledger, run_id)
        keys = self._past_keys or asked.keys
        found = await asyncio.to_thread(
            find_inputs, ledger, self._past, template, keys=keys, limit=asked.limit, sets=asked.sets
        )
        self._past_keys = found.keys
        return _Inputs(self._past.flow, found, found.keys, found.variants, note=found.note)


def _once(tell: TellRecord | None) -> TellRecord:
    """Tell each record once: a trial that is made again without a cap finds those that ended before."""
    told = set[str]()

    def tell_new(record: TriedRecord) -> None:
        if tell is not None and record.key not in told:
            tell(record)
            told.add(record.key)

    return tell_new


def _parameters(asked: Asked, params: Mapping[str, Any], options: RunOptions) -> dict[str, Any]:
    """Return the parameters of a trial, by the names that the flow for any template uses."""
    given = {"template": asked.template, "params": dict(params), "options": options}
    if asked.inputs_of is not None:
        given["inputs_of"] = asked.inputs_of
    parameters: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(given, mode="json")
    return parameters


def _trial(run: Run, template: str, inputs: _Inputs, records: list[TriedRecord]) -> Trial:
    summary, spent = run.summary(), run.pace.spending.spent.total_usd
    cap = run.pace.stopped if isinstance(run.pace.stopped, CostCapError) else None
    return Trial(
        run_id=summary.run_id,
        template=template,
        template_hash=run.briefs.template(template).hash,
        endpoint=summary.endpoint,
        records=records,
        missing=inputs.missing,
        note=inputs.note,
        requests=summary.requests,
        tokens=TokenCounts(
            summary.input_tokens, summary.output_tokens, summary.cache_read_tokens, summary.cache_creation_tokens
        ),
        cost_usd=summary.cost_usd,
        unpriced=summary.unpriced,
        session_usd=spent,
        stopped=_reached(run, template, cap) if cap is not None else None,
    )


def _reached(run: Run, template: str, cap: CostCapError) -> str:
    spending, estimate = run.pace.spending, run.pace.estimates[template]
    is_guess = estimate.output_tokens is None and estimate.cost_usd is None
    told = " if its answer has all of max_tokens" if is_guess else ""
    return (
        f"The cost cap of {exact_dollars(spending.max_usd or 0)} is reached: {dollars(spending.spent.total_usd)} is "
        f"spent, and the next request may cost {dollars(cap.next_usd)}{told}. Try again with a higher --max-cost."
    )
