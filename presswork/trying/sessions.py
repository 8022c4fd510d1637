"""Make trials one after the other, with one open endpoint and one cost cap."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter

from presswork.engine.materials.handles import Source
from presswork.engine.opening import open_hosted_run
from presswork.engine.orchestration.try_host import TryHost
from presswork.engine.resources.endpoint import Endpoint, open_endpoint
from presswork.engine.resources.preflight import require_credential
from presswork.engine.resources.stopping import in_background
from presswork.engine.run import Run
from presswork.errors import CostCapError
from presswork.options import RunOptions
from presswork.prompts.lint import load_sound
from presswork.prompts.templates import Template
from presswork.report.summary import Summary
from presswork.settings import Settings, ledger_url
from presswork.trying.kept_records import KeptRecords
from presswork.trying.trials import Asked, TokenCounts, Trial, TriedRecord
from presswork.trying.tried_records import Ended, Tell

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


class TrySession:
    """Makes the trials of one template. Use it as an async context manager, inside one event loop.

    Its first trial chooses the records, and opens the endpoint. Each later one is linked with it in the ledger: it
    resumes the first, so that all share one cost cap.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._endpoint: Endpoint | None = None
        self._records = KeptRecords()
        self._first: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the endpoint."""
        await self._stack.aclose()

    async def run(self, asked: Asked, *, templates_dir: Path | None = None, on_record: Tell | None = None) -> Trial:
        """Make a trial; `on_record` is called as each record ends, and `templates_dir` has another template.

        Raises ConfigurationError or db.database_errors.DatabaseError if there is nothing to try or nothing to try it
        with, StoppingCallError if the endpoint refuses all requests, and StoppedError if a signal stopped the trial.
        """
        began = time.monotonic()
        other = {} if templates_dir is None else {"templates_dir": templates_dir}
        settings = self._settings.model_copy(update={**QUICKLY, **other})
        template = await asyncio.to_thread(load_sound, settings.templates_dir, asked.template)
        endpoint = await self._open_endpoint()
        inputs = await self._inputs(settings, template, asked, endpoint)
        options = RunOptions(max_cost=asked.max_cost, refresh=asked.refresh, resumes=self._first.get(inputs.flow))
        host = TryHost(inputs.flow, template.name, _parameters(asked, options))
        async with open_hosted_run(host, settings, options, endpoint=endpoint) as run:
            self._first.setdefault(inputs.flow, run.ledger.run_id)
            ended = Ended(run, template.name, inputs.keys, on_record)
            async with in_background(ended.keep_looking(), "presswork-trial"):
                await run.generate(template.name, inputs.source, variants=inputs.variants)
            records, summary = await ended.look(), run.summary()
        return _trial(run, template.name, records, inputs.missing, summary, time.monotonic() - began)

    async def _open_endpoint(self) -> Endpoint:
        if self._endpoint is None:
            require_credential()
            endpoint = await open_endpoint(self._settings, self._settings.concurrency)
            await self._stack.enter_async_context(endpoint.client)
            self._endpoint = endpoint
        return self._endpoint

    async def _inputs(self, settings: Settings, template: Template, asked: Asked, endpoint: Endpoint) -> _Inputs:
        url = ledger_url(settings, endpoint.name)
        given = await self._records.given(settings, template, asked, url)
        keys = tuple(material.key for material in given.materials)
        return _Inputs(template.name, given, keys, missing=self._records.missing)


def _parameters(asked: Asked, options: RunOptions) -> dict[str, Any]:
    """Return what was asked for, under the names of the flow that runs any template."""
    given = {"template": asked.template, "params": dict(asked.sets), "options": options}
    if asked.inputs_of is not None:
        given["inputs_of"] = asked.inputs_of
    parameters: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(given, mode="json")
    return parameters


def _trial(
    run: Run, template: str, records: list[TriedRecord], missing: tuple[str, ...], summary: Summary, wall_s: float
) -> Trial:
    stopped = run.pace.stopped
    likely = (summary.cost_usd or Decimal(0)) + (summary.likely_usd or Decimal(0))
    return Trial(
        run_id=summary.run_id,
        template=template,
        template_hash=run.briefs.template(template).hash,
        endpoint=summary.endpoint,
        records=records,
        missing=missing,
        requests=summary.requests,
        tokens=TokenCounts(
            summary.input_tokens, summary.output_tokens, summary.cache_read_tokens, summary.cache_creation_tokens
        ),
        cost_usd=summary.cost_usd,
        unpriced=summary.unpriced,
        session_usd=run.pace.spending.earlier.total_usd + likely,
        wall_s=wall_s,
        stopped=str(stopped) if isinstance(stopped, CostCapError) else None,
    )
