"""Run: one execution of a content flow, from its first select to its summary.

`open_run()` settles what must be right before anything is asked (settings, endpoint, ledger), writes the run's row,
and closes it however the flow ends. Between, `run.select()` and `run.generate()` carry records through the five verbs.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from httpx import HTTPError
from prefect import get_run_logger
from prefect.exceptions import Abort
from sqlalchemy import URL, Engine, make_url

from db.database_errors import DatabaseError
from db.identity import this_process
from db.ledger import writing as ledger_record
from db.ledger.clock import new_id, now
from db.ledger.connecting import open_ledger
from db.ledger.rows import RunRow
from db.readers.chains import refreshing_since, resumed_by, spent_by_chain
from db.readers.history import BadOutcome, PromptHistory, bad_outcomes_of, count_padded_keys, look_up, shards_of, usage
from db.session import readable_url
from db.sources.access import open_source
from db.sources.spool import RunSpools, sweep
from db.sources.statements import Query
from db.words import TAG
from flows.engine.generations import template_row
from flows.engine.materials.handles import Generations, Selected, Source, Together
from flows.engine.materials.step_params import params_of_step
from flows.engine.options import RunOptions, Selection
from flows.engine.orchestration.chunks import ChunkRunner, chunk_runner
from flows.engine.orchestration.origin import Origin, read_origin
from flows.engine.orchestration.results import results_served_by, saved_block
from flows.engine.orchestration.spread import ShardedRun, find_parent, name_shard, part_of, spread
from flows.engine.pacing.estimates import Estimate
from flows.engine.pacing.limiter import Limiter, LimiterReport, limiter_for
from flows.engine.pacing.pace import Pace
from flows.engine.plan import Hit, Item, find_hit
from flows.engine.report.artifacts import SUMMARY_KEY, money, publish_summary
from flows.engine.report.assets import tell_assets
from flows.engine.report.events import tell_ending
from flows.engine.report.live_page import add_tags, shown_live
from flows.engine.report.progress import Progress, announce, counted
from flows.engine.report.summary import PaceSummary, Summary, summarize
from flows.engine.resources.endpoint import Endpoint, open_endpoint, require_files
from flows.engine.resources.lease import HeldLease
from flows.engine.resources.recovery import begin
from flows.engine.resources.source_reads import SourceReader
from flows.engine.resources.source_urls import query_of, url_of_source
from flows.engine.resources.spooling import Spooling
from flows.engine.resources.stopping import Stopper, mark_cancelled, stoppable
from flows.engine.resources.writer import Writer
from flows.engine.step import Generating
from flows.errors import ConfigurationError, CostCapError, LedgerAwayError, StoppedError
from flows.settings import Settings, ledger_url, load_settings, source_variable
from flows.steps.answers.asking import Policy
from flows.steps.catalog import Model, ending
from flows.steps.model_rules import misfits, require_fit
from flows.steps.prompts.render import Brief, make_brief
from flows.steps.prompts.templates import Template, list_templates, load_template

_PADDED = (
    "{step}: content stands under keys that end in blanks ({orphaned:,}), from a release that kept the blanks of "
    "CHAR(n) keys. It is orphaned: the same records have theirs under the trimmed keys now, and what had not changed "
    "was not asked for again. Leave it out of your queries with: record_key NOT LIKE '% '"
)


@dataclass
class Run:
    """An open run. Flows use `select`, `generate` and `summary`; the rest is the engine's own."""

    id: str
    flow: str
    settings: Settings
    options: RunOptions
    endpoint: Endpoint
    ledger: Engine
    writer: Writer
    lease: HeldLease
    pace: Pace
    policy: Policy
    progress: Progress
    run_chunk: ChunkRunner
    stopper: Stopper
    limiter: Limiter
    paced_before: LimiterReport
    spooling: Spooling
    fresh_since: datetime | None = None
    records: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    made_from: dict[str, str] = field(default_factory=dict)
    read_from: dict[str, URL] = field(default_factory=dict)
    _sources: dict[str, SourceReader] = field(default_factory=dict)
    _selected: list[Selected] = field(default_factory=list)
    _templates: dict[str, Template] = field(default_factory=dict)
    _briefs: dict[str, Brief] = field(default_factory=dict)
    _generated: set[str] = field(default_factory=set)
    _shards: list[str] | None = None
    _steps_open: int = 0
    _figures: Summary | None = None

    def select(self, template_name: str, selection: Selection | Mapping[str, Any] | None = None) -> Selected:
        """Select a template's records. The database is asked at the first `await` that needs it, in a thread.

        `selection` holds the values of the template's params. Raises TemplateError, ParameterError, or
        ConfigurationError where the template's source is not set. What only the database can tell, the next
        `generate` raises. Records that nothing waits for are neither read nor counted.
        """
        values = selection.values() if isinstance(selection, Selection) else dict(selection or {})
        template = self._template(template_name)
        params = template.parse_params(values)
        query = query_of(template, params)
        nth = 1 + sum(selected.query.name == query.name for selected in self._selected)
        query = self._bounded(query, nth)
        url, source = self._source(template.front.source)
        name = self.spooling.name(query, url)
        selected = Selected(
            source,
            query,
            partial(self.spooling.records, name, query, source),
            partial(self._note_selected, template_name, query, url),
            params=params,
            nth=nth,
        )
        self._selected.append(selected)
        return selected

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
        brief = await self._brief(template_name, source.params)
        for selected in tuple(self._selected):
            if self.options.shard is None or not self._is_of_the_whole(selected):
                await selected.check()
        if template_name in self._generated:
            # The ledger keeps one generation for each record and step of a run: a second would be lost.
            raise ConfigurationError(
                f"The flow {self.flow!r} generates {template_name!r} twice in one run. Put the records together "
                "before, or give the second a template of its own."
            )
        self._generated.add(template_name)
        if source.step is not None:
            self.made_from[template_name] = source.step
        self._figures, self._steps_open = None, self._steps_open + 1
        try:
            await self._generate(template_name, source, Generating(self, brief, variants), variants)
        finally:
            self._steps_open -= 1
        await self._read_figures()
        output_class = brief.template.output_class
        return Generations(
            self.ledger, self.id, template_name, output_class, read=self.writer.read, params=source.params
        )

    async def _note_padded_keys(self, step: str) -> None:
        orphaned = await self.writer.read(count_padded_keys, self.ledger, self.flow, step, self.endpoint.name)
        if orphaned:
            self.progress.note(f"padded keys: {step}", _PADDED.format(step=step, orphaned=orphaned))

    async def _generate(self, template_name: str, source: Source, generating: Generating, variants: int) -> None:
        if self.options.shard is not None and self._is_of_the_whole(source):
            # Left to the run that is spread: only there is everything that it gathers.
            return
        if isinstance(source, Selected) and (self.options.shards or 1) > 1 and self._shards is None:
            self._shards = []
            await self._spread(template_name, source)
        total = await source.count()
        missing = await source.left_out()
        if missing:
            self.left_out[template_name] += missing
        self.progress.begin_step(template_name, total * variants if total is not None else None)
        if self.spooling.trimmed and self.options.shard is None:
            # A shard has the same keys as the run that is spread, which tells of them once.
            await self._note_padded_keys(template_name)
        await generating.all_of(source)
        _log_step(self)

    def summary(self, status: str | None = None) -> Summary:
        """Add the run up from the ledger; without a status, it is what the run has come to.

        Flows call it on the event loop, so it takes what `generate` has read in a thread at its end. The ledger is
        read here where a status is given (the run closes), while a step is open, and after one that broke off.
        """
        figures = self._figures if status is None else None
        figures = figures or self._added_up(status or self._status())
        return figures.model_copy(
            update={
                "status": status or self._status(),
                "records": self.records,
                "wall_s": round(self.progress.wall_s, 3),
                "pace": self.pace_summary(),
            }
        )

    async def _read_figures(self) -> None:
        """Read what `summary` returns, in a thread; while another step is open, its figures would be old at once."""
        if self._steps_open:
            return
        figures = await self.writer.read(self._added_up, self._status())
        self._figures = None if self._steps_open else figures

    def _added_up(self, status: str) -> Summary:
        return summarize(
            self.ledger,
            run_id=self.id,
            flow=self.flow,
            endpoint=self.endpoint.name,
            status=status,
            records=self.records,
            left_out=dict(self.left_out),
            made_from=self.made_from,
            wall_s=self.progress.wall_s,
            pace=self.pace_summary(),
            warmth=self.pace.warming.report(),
            notes=list(self.progress.notes.values()),
        )

    def _status(self) -> str:
        return "capped" if isinstance(self.pace.stopped, CostCapError) else "completed"

    def pace_summary(self) -> PaceSummary:
        """How requests have been paced so far."""
        report = self.limiter.report()
        limit = report.limit_per_minute
        return PaceSummary(
            requests_per_minute=report.requests_per_minute,
            limit_per_minute=limit,
            share_of_limit=round(report.requests_per_minute / limit, 3) if limit else None,
            limit_from=report.limit_from,
            # The limiter outlives the run: what it counted before belongs to another.
            rate_limited=report.rate_limited - self.paced_before.rate_limited,
            refused_anyway=report.refused_anyway,
            waited_s=round(report.waited_s - self.paced_before.waited_s, 1),
            waiting_s=round(report.hold.wait_s, 1) if report.hold else 0.0,
            waiting_for=report.hold.words() if report.hold else None,
        )

    def hits_of(self, items: Sequence[Item]) -> list[Hit]:
        """Look items up in the ledger, whatever the run's plan said before."""
        known = self.known_of(items)
        found = (find_hit(item, known.get(item.prompt.hash)) for item in items)
        return [hit for hit in found if hit is not None]

    def known_of(self, items: Sequence[Item]) -> dict[str, PromptHistory]:
        """What the ledger knows of the items' prompts; where the run refreshes, only what is new since it began."""
        return look_up(self.ledger, list({item.prompt.hash for item in items}), since=self.fresh_since)

    def bad_outcomes(self, items: Sequence[Item]) -> dict[str, BadOutcome]:
        """How the run's own shards fared with prompts that brought no content: it does not ask for these again."""
        if not self._shards:
            return {}
        return bad_outcomes_of(self.ledger, self._shards, list({item.prompt.hash for item in items}))

    def _is_of_the_whole(self, source: Source) -> bool:
        shard = self.options.shard
        if isinstance(source, Selected):
            return shard is not None and source.query.part is None
        return isinstance(source, Together)

    async def _spread(self, template_name: str, source: Selected) -> None:
        await self.endpoint.verify()
        await spread(
            ShardedRun(
                id=self.id,
                settings=self.settings,
                options=self.options,
                ledger=self.ledger,
                stopper=self.stopper,
                max_cost=self.options.max_cost or self.settings.max_cost,
                query=source.query,
                nth=source.nth,
                records=await source.count(),
            )
        )
        self._shards = await self.writer.read(shards_of, self.ledger, self.id)
        # The cap is the job's: what the shards spent is no longer there to be spent here.
        spending = self.pace.spending
        spending.shards = await self.writer.read(spent_by_chain, self.ledger, self.id) - spending.earlier
        known = await self.writer.read(usage, self.ledger, self.id, step=template_name)
        if known.requests and known.cost_usd:
            # Of what is left of a cap, a guess from one answer could spend too much.
            each = Estimate(
                output_tokens=known.output_tokens / known.requests, cost_usd=known.cost_usd / known.requests
            )
            self.pace.know(template_name, each)

    async def learn_model(self, brief: Brief) -> Model | None:
        """Ask the endpoint about a step's model before the first request; return what is known then.

        Raises TemplateError where the model does not take what the step's requests carry.
        """
        front = brief.template.front
        if await self.pace.reaches_endpoint():
            await self.endpoint.ask_about(front.model)
        model = self.endpoint.known(front.model)
        require_fit(brief.template.file, misfits(front, brief.settings, model))
        self._note_ending(front.model)
        return model

    def _note_ending(self, model: str) -> None:
        named = sorted(name for name, brief in self._briefs.items() if brief.template.front.model == model)
        told = ending(model, self.endpoint.known(model), now().date())
        if told is None:
            self.progress.notes.pop(f"model {model}", None)
        else:
            self.progress.note(f"model {model}", f"{told}. Move to another model: it is named by {', '.join(named)}.")

    async def _brief(self, template_name: str, selected: Mapping[str, Any]) -> Brief:
        params = params_of_step(self._template(template_name), selected)
        brief = self._briefs.get(template_name)
        if brief is None or brief.params != params:
            # In a thread, for the SDK, which takes seconds to load, makes the schema.
            brief = await asyncio.to_thread(make_brief, self._template(template_name), self.endpoint.name, params)
            self._briefs[template_name] = brief
            row = template_row(self._template(template_name))
            await self.writer.call(ledger_record.add_templates, self.ledger, [row])
            self._note_ending(brief.template.front.model)
        return brief

    def _template(self, name: str) -> Template:
        if name not in self._templates:
            self._templates[name] = load_template(self.settings.templates_dir, name)
        return self._templates[name]

    def _bounded(self, query: Query, nth: int) -> Query:
        shard = self.options.shard
        if shard is not None and (shard.select, shard.nth) == (query.name, nth):
            return part_of(query, shard)
        return replace(query, limit=self.options.limit)

    def _note_selected(self, template_name: str, query: Query, url: str, count: int) -> None:
        self.read_from[template_name] = make_url(url)
        if self.options.shard is None or query.part is not None:
            get_run_logger().info("%s selects %d records.", template_name, count)
            self.records += count

    def _source(self, name: str | None) -> tuple[str, SourceReader]:
        url = url_of_source(self.settings, name, self.ledger.url)
        if url not in self._sources:
            self._sources[url] = SourceReader(partial(open_source, url, source_variable(name)), self.stopper.pursuing)
        return url, self._sources[url]


@asynccontextmanager
async def open_run(options: RunOptions | None = None, *, flow: str | None = None) -> AsyncIterator[Run]:
    """Open a run inside a Prefect flow, and close it however the flow ends.

    `flow` is the run's name in the ledger, by default that of the flow's function. Raises ConfigurationError or
    db.database_errors.DatabaseError before anything is sent.
    """
    _spare_the_collector()
    options = options or RunOptions()
    settings = load_settings()
    origin = await read_origin(flow, settings)
    concurrency = options.concurrency or settings.concurrency
    require_files(concurrency)
    templates = await asyncio.to_thread(_check_templates, settings.templates_dir, origin.words)
    async with AsyncExitStack() as stack:
        endpoint = await open_endpoint(settings, concurrency)
        await stack.enter_async_context(endpoint.client)
        await endpoint.require_fit(templates)
        ledger = await asyncio.to_thread(open_ledger, ledger_url(settings, endpoint.name))
        stack.callback(ledger.dispose)
        run_id = new_id()
        writer = Writer(
            ledger,
            run_id=run_id,
            interval_s=settings.commit_interval_s,
            patience_s=settings.database_patience_s,
            spill_folders=settings.spill_folders,
        )
        await stack.enter_async_context(writer)
        limiter = limiter_for(endpoint.name)
        parts = options.shard.of if options.shard else 1
        release = limiter.hold(
            rpm=_part(options.rpm or settings.rpm, parts),
            itpm=_part(settings.itpm, parts),
            otpm=_part(settings.otpm, parts),
        )
        stack.callback(release)
        pace = Pace(
            concurrency=concurrency,
            limiter=limiter,
            verify=endpoint.verify,
            max_cost=_cap(options.max_cost or settings.max_cost),
        )

        def close_gate(reason: StoppedError) -> None:
            pace.stop(reason)
            writer.stop(reason)

        progress = Progress(run_id, origin.flow, endpoint.name)
        spooling = Spooling(RunSpools(settings.spool_folder, run_id), progress)
        stack.callback(spooling.close)
        stopper = Stopper(wait_s=settings.stop_wait_s, close_gate=close_gate)
        run = Run(
            id=run_id,
            flow=origin.flow,
            settings=settings,
            options=options,
            endpoint=endpoint,
            ledger=ledger,
            writer=writer,
            lease=HeldLease(ledger, run_id, stop=stopper.stop),
            pace=pace,
            policy=_policy(settings),
            progress=progress,
            run_chunk=chunk_runner(
                retries=settings.chunk_retries,
                delay_s=settings.chunk_retry_delay_s,
                refresh=options.refresh,
            ),
            stopper=stopper,
            limiter=limiter,
            paced_before=limiter.report(),
            spooling=spooling,
        )
        stack.enter_context(results_served_by(await saved_block()))
        row = await writer.read(_run_row, run, origin)
        if options.shard is not None:
            await writer.read(find_parent, ledger, options.shard)
            await name_shard(options.shard)
        await writer.call(begin, ledger, row, settings.spill_folders)
        writer.commit = run.lease.write
        await asyncio.to_thread(sweep, settings.spool_folder)
        await _take_up(run, row)
        run.progress.is_stopping = lambda: run.stopper.reason is not None
        run.progress.ask_pace = run.pace_summary
        announce(run.progress)
        if options.shard is None:
            # A shard has its own tag alone: what an automation does for runs by their tags is not for shards.
            await add_tags(TAG, run.flow, endpoint.name)
        _log_opening(run, concurrency)
        await stack.enter_async_context(shown_live(run.progress))
        await stack.enter_async_context(stoppable(run.stopper, origin.flow_run_id))
        await stack.enter_async_context(run.lease.kept(writer))
        async with _closing(run, origin.flow_run_id):
            yield run


async def _take_up(run: Run, row: RunRow) -> None:
    """Go on where the runs were that this one resumes."""
    read = run.writer.read
    if run.options.refresh:
        # A refresh that was interrupted goes on where it was: what it bought is not bought again.
        run.fresh_since = await read(refreshing_since, run.ledger, row.parent_run_id or run.id)
    if row.resumes_run_id is not None:
        run.pace.spending.earlier = await read(spent_by_chain, run.ledger, run.id)
        run.spooling.resume(await read(resumed_by, run.ledger, run.id))


@asynccontextmanager
async def _closing(run: Run, flow_run_id: str) -> AsyncIterator[None]:
    status = "failed"
    try:
        yield
        status = run._status()  # noqa: SLF001 - this closes what that class opened
    except StoppedError:
        status = "cancelled"
        raise
    except asyncio.CancelledError:
        status = "cancelled"
        raise
    finally:
        run.progress.ended, run.progress.status = True, status
        await close(run, status, flow_run_id)
        if run.lease.superseded_by is not None:
            # The newer run decides what becomes of the flow run.
            raise Abort(f"The run was stopped ({run.lease.superseded_by}).")
        if status == "cancelled" and run.stopper.reason is not None:
            await mark_cancelled(flow_run_id, str(run.stopper.reason))
            # Prefect's own word for a run whose state has been decided elsewhere: it leaves the state as it is.
            raise Abort(str(run.stopper.reason))


async def close(run: Run, status: str, flow_run_id: str) -> None:
    """Write how a run ended, and show its summary in Prefect; what fails here must not hide why the run ended."""
    try:
        # How the last requests ended is still on its way: what is not settled when a run closes counts as not sent.
        with suppress(LedgerAwayError):
            await run.writer.committed()
        await run.writer.call(run.lease.close, status)
        if status == "completed":
            await asyncio.to_thread(run.spooling.remove)
        summary = await run.writer.read(run.summary, status)
        _log_closing(summary)
        if run.lease.superseded_by is not None:
            return  # the newer run tells Prefect what becomes of the flow run
        tell_ending(summary, flow_run_id)
        if run.options.shard is None:
            tell_assets(summary, run.ledger.url, run.read_from)
        await publish_summary(summary)
    except (DatabaseError, LedgerAwayError, StoppedError, HTTPError, OSError) as error:
        get_run_logger().warning("The run's end could not be written: %s.", type(error).__name__)


def _log_opening(run: Run, concurrency: int) -> None:
    limits = [
        f"{name} {value}"
        for name, value in (
            ("limit", run.options.limit),
            ("requests a minute", run.options.rpm or run.settings.rpm),
            ("cost cap $", run.options.max_cost or run.settings.max_cost),
        )
        if value is not None
    ]
    if run.pace.spending.max_usd is not None and run.pace.spending.earlier.total_usd > 0:
        limits.append(f"of which earlier runs have spent ${run.pace.spending.earlier.total_usd:,.4f}")
    get_run_logger().info(
        "Run %s of %s opened: endpoint %s, ledger %s, %s.",
        run.id,
        run.flow,
        run.endpoint.name,
        readable_url(run.ledger.url),
        ", ".join([f"{concurrency} requests in flight at most", *limits]),
    )


def _log_step(run: Run) -> None:
    ended = ", ".join(counted(run.progress.step_counts)) or "nothing to do"
    get_run_logger().info("%s: %d generations: %s.", run.progress.step, run.progress.done_in_step, ended)


def _log_closing(summary: Summary) -> None:
    get_run_logger().info(
        "Run %s %s after %.1f s: %d requests, cost %s. `presswork history %s` shows it, as does the artifact %s.",
        summary.run_id,
        summary.status,
        summary.wall_s,
        summary.requests,
        money(summary),
        summary.run_id,
        SUMMARY_KEY,
    )


@lru_cache(maxsize=1)
def _spare_the_collector() -> None:
    # Prefect and its libraries leave half a million objects that live as long as the process. Each full collection
    # would walk through them, for a tenth of a run's CPU; so would one more before they are set aside.
    gc.freeze()


def _check_templates(folder: Path, words: frozenset[str]) -> list[Template]:
    """Read every template that the flow's code names: a later step's mistake must not show when the first is paid."""
    templates = [load_template(folder, name) for name in sorted(words.intersection(list_templates(folder)))]
    for template in templates:
        template.schema  # noqa: B018 - asking for the schema is the check
    return templates


def _cap(dollars: float | None) -> Decimal | None:
    return None if dollars is None else Decimal(str(dollars))


def _part(limit: int | None, parts: int) -> int | None:
    """A limit of one's own holds for a run, so each of its shards keeps to a part; the endpoint's is everyone's."""
    return None if limit is None else max(1, limit // parts)


def _policy(settings: Settings) -> Policy:
    return Policy(
        retries=settings.request_retries,
        repairs=settings.repairs,
        escalations=settings.escalations,
        wait_max_s=settings.retry_wait_max_s,
        retry_after_cap_s=settings.retry_after_cap_s,
        paid_requests=settings.max_paid_requests,
    )


def _run_row(run: Run, origin: Origin) -> RunRow:
    return RunRow(
        id=run.id,
        resumes_run_id=origin.resumes(run.ledger, run.options.resumes),
        parent_run_id=run.options.shard.parent if run.options.shard else None,
        flow=run.flow,
        deployment=origin.deployment,
        prefect_flow_run_id=origin.flow_run_id,
        trigger="shard" if run.options.shard else origin.trigger,
        parameters=origin.parameters,
        code_version=origin.code_version,
        endpoint=run.endpoint.name,
        mode="live",
        started_at=now(),
        status="running",
        process=this_process(),
        alive_until=now(),
    )
