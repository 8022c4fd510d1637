"""Open a run, and close it however its flow ends.

What must be right before anything is asked (settings, templates, endpoint, ledger) is settled first; then the parts of
the run are put together, and its row is written.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from decimal import Decimal
from functools import lru_cache

from httpx import HTTPError

from db.database_errors import DatabaseError
from db.identity import this_process
from db.ledger.clock import new_id, now
from db.ledger.connecting import open_ledger
from db.ledger.rows import RunRow
from db.readers.chains import refreshing_since, resumed_by
from db.session import readable_url
from db.sources.spool import RunSpools, sweep
from db.words import CANCELLED, COMPLETED, FAILED, MODE_LIVE, RUNNING, SHARD, RunStatus
from flows.engine.context import StepContext
from flows.engine.materials.briefs import Briefs, check_templates
from flows.engine.materials.run_selects import Selects, Spooling
from flows.engine.options import RunOptions
from flows.engine.orchestration.host import HOST, Host, RunOrigin
from flows.engine.orchestration.prefect_host import PrefectHost
from flows.engine.pacing.limiter import limiter_for
from flows.engine.pacing.pace import Pace
from flows.engine.report.amounts import dollars
from flows.engine.report.artifacts import SUMMARY_KEY
from flows.engine.report.progress import Progress, announce
from flows.engine.report.totals import Totals
from flows.engine.resources.endpoint import Endpoint, RunEndpoint, open_endpoint, require_files
from flows.engine.resources.lease import HeldLease
from flows.engine.resources.run_ledger import RunLedger, begin, require_parent
from flows.engine.resources.stopping import Stopper, stopped_by_signals
from flows.engine.resources.writer import Writer
from flows.engine.run import Run
from flows.errors import LedgerAwayError, StoppedError
from flows.settings import Settings, ledger_url, load_settings
from flows.steps.answers.outcomes import Policy


@asynccontextmanager
async def open_run(options: RunOptions | None = None, *, flow: str | None = None) -> AsyncIterator[Run]:
    """Open a run inside a Prefect flow, and close it however the flow ends.

    `flow` is the run's name in the ledger, by default that of the flow's function. Raises ConfigurationError or
    db.database_errors.DatabaseError before anything is sent.
    """
    _freeze_loaded_objects()
    host, options = HOST.get() or PrefectHost(), options or RunOptions()
    settings = _settings_of(options)
    origin = await host.origin(flow, settings)
    async with AsyncExitStack() as stack:
        run = await _put_together(stack, host, settings, options, origin)
        progress, stopper, ledger = run.context.progress, run.context.stopper, run.context.ledger
        stack.callback(run.selects.spooling.spools.close)
        await _begin(run, origin)
        ledger.writer.commit = ledger.lease.write
        await asyncio.to_thread(sweep, settings.spool_folder)
        announce(progress)
        _log_opening(run)
        await stack.enter_async_context(host.shown(progress, options.shard))
        stack.callback(stopper.close)
        await stack.enter_async_context(host.watching(stopper))
        stack.enter_context(stopped_by_signals(stopper))
        await stack.enter_async_context(ledger.lease.kept(ledger.writer))
        async with _closing(run):
            yield run


def _settings_of(options: RunOptions) -> Settings:
    """The installation's settings; what a run's options say comes before them."""
    own = {name: getattr(options, name) for name in ("concurrency", "rpm", "chunk_size", "max_cost")}
    return load_settings().model_copy(update={name: value for name, value in own.items() if value is not None})


async def _put_together(
    stack: AsyncExitStack, host: Host, settings: Settings, options: RunOptions, origin: RunOrigin
) -> Run:
    """Check what can be checked before anything is asked, open endpoint, gate and ledger, and make the run of them."""
    opened = await _open_endpoint(stack, settings, origin)
    pace = _open_gate(stack, settings, options, opened)
    ledger, stopper = await _open_ledger(stack, settings, origin.flow, opened.name, pace)
    progress = Progress(ledger.run_id, ledger.flow, ledger.endpoint)
    totals = Totals(ledger.engine, ledger.writer.read, progress, pace)
    progress.is_stopping = lambda: stopper.reason is not None
    progress.ask_pace = totals.pace
    spooling = Spooling(RunSpools(settings.spool_folder, ledger.run_id), progress, host.log)
    endpoint = RunEndpoint(opened, pace.reaches_endpoint, progress)
    run_chunk = await stack.enter_async_context(host.running_chunks(settings, refresh=options.refresh))
    return Run(
        host=host,
        options=options,
        context=StepContext(settings, _policy(settings), ledger, pace, endpoint, run_chunk, progress, stopper),
        selects=Selects(settings, options, ledger.engine.url, spooling, stopper, totals),
        briefs=Briefs(settings.templates_dir, endpoint, ledger.add_template),
        totals=totals,
    )


async def _open_endpoint(stack: AsyncExitStack, settings: Settings, origin: RunOrigin) -> Endpoint:
    require_files(settings.concurrency)
    templates = await asyncio.to_thread(check_templates, settings.templates_dir, origin.source)
    endpoint = await open_endpoint(settings, settings.concurrency)
    await stack.enter_async_context(endpoint.client)
    await endpoint.require_fit(templates)
    return endpoint


def _open_gate(stack: AsyncExitStack, settings: Settings, options: RunOptions, endpoint: Endpoint) -> Pace:
    limiter = limiter_for(endpoint.name)
    # The limits that are set are a run's, so each of its shards keeps to a part of them.
    parts = options.shard.of if options.shard else 1
    limits = {name: getattr(settings, name) for name in ("rpm", "itpm", "otpm")}
    own = {name: None if limit is None else max(1, limit // parts) for name, limit in limits.items()}
    stack.callback(limiter.hold(**own))
    max_cost = None if settings.max_cost is None else Decimal(str(settings.max_cost))
    return Pace(concurrency=settings.concurrency, limiter=limiter, verify=endpoint.verify, max_cost=max_cost)


async def _open_ledger(
    stack: AsyncExitStack, settings: Settings, flow: str, endpoint: str, pace: Pace
) -> tuple[RunLedger, Stopper]:
    """Open the ledger for a new run, and what stops the run where its lease is lost."""
    engine = await asyncio.to_thread(open_ledger, ledger_url(settings, endpoint))
    stack.callback(engine.dispose)
    run_id, interval_s, patience_s = new_id(), settings.commit_interval_s, settings.database_patience_s
    folders = settings.spill_folders
    writer = Writer(engine, run_id=run_id, interval_s=interval_s, patience_s=patience_s, spill_folders=folders)
    await stack.enter_async_context(writer)

    def close_gate(reason: StoppedError) -> None:
        pace.stop(reason)
        writer.stop(reason)

    stopper = Stopper(wait_s=settings.stop_wait_s, close_gate=close_gate)
    lease = HeldLease(engine, run_id, stop=stopper.stop)
    return RunLedger(engine, writer, lease, run_id, flow, endpoint), stopper


def _policy(settings: Settings) -> Policy:
    return Policy(
        retries=settings.request_retries,
        repairs=settings.repairs,
        escalations=settings.escalations,
        wait_max_s=settings.retry_wait_max_s,
        retry_after_cap_s=settings.retry_after_cap_s,
        paid_requests=settings.max_paid_requests,
    )


async def _begin(run: Run, origin: RunOrigin) -> None:
    """Write the run's row, and go on where the runs were that it resumes."""
    ledger, shard = run.context.ledger, run.options.shard
    read = ledger.writer.read
    row = await read(_run_row, run, origin)
    if shard is not None:
        await read(require_parent, ledger.engine, shard)
    await ledger.writer.call(begin, ledger.engine, row, run.context.settings.spill_folders)
    if run.options.refresh:
        # A refresh that was interrupted goes on where it was: what it bought is not bought again.
        ledger.fresh_since = await read(refreshing_since, ledger.engine, row.parent_run_id or row.id)
    if row.resumes_run_id is not None:
        run.context.pace.spending.earlier = await ledger.spent()
        run.selects.spooling.spools.resumed = await read(resumed_by, ledger.engine, row.id)


def _run_row(run: Run, origin: RunOrigin) -> RunRow:
    ledger, shard = run.context.ledger, run.options.shard
    return RunRow(
        id=ledger.run_id,
        resumes_run_id=origin.resumes(ledger.engine, run.options.resumes),
        parent_run_id=shard.parent if shard else None,
        flow=origin.flow,
        deployment=origin.deployment,
        prefect_flow_run_id=origin.flow_run_id,
        trigger=SHARD if shard else origin.trigger,
        parameters=origin.parameters,
        code_version=origin.code_version,
        endpoint=ledger.endpoint,
        mode=MODE_LIVE,
        started_at=now(),
        status=RUNNING,
        process=this_process(),
        alive_until=now(),
    )


@asynccontextmanager
async def _closing(run: Run) -> AsyncIterator[None]:
    status: RunStatus = FAILED
    lease, stopper, progress = run.context.ledger.lease, run.context.stopper, run.context.progress
    try:
        yield
        status = run.totals.status()
    except (StoppedError, asyncio.CancelledError):
        status = CANCELLED
        raise
    finally:
        progress.status = status
        await _close(run, status)
        if lease.superseded_by is not None:
            # The newer run decides what becomes of the flow run.
            raise await run.host.stopped(f"The run was stopped ({lease.superseded_by}).", cancelled=False)
        if status == CANCELLED and stopper.reason is not None:
            raise await run.host.stopped(str(stopper.reason), cancelled=True)


async def _close(run: Run, status: RunStatus) -> None:
    """Write how a run ended, and have its summary shown; what fails here must not hide why the run ended."""
    writer, lease, log = run.context.ledger.writer, run.context.ledger.lease, run.host.log
    try:
        # How the last requests ended is still on its way: what is not settled when a run closes counts as not sent.
        with suppress(LedgerAwayError):
            await writer.committed()
        await writer.call(lease.close, status)
        if status == COMPLETED:
            await asyncio.to_thread(run.selects.spooling.spools.remove)
        summary = await writer.read(run.totals.summary, status)
        log.info(
            "Run %s %s after %.1f s: %d requests, cost %s. `presswork history %s` shows it, as does the artifact %s.",
            summary.run_id,
            status,
            summary.wall_s,
            summary.requests,
            dollars(summary.cost_usd, summary.unpriced),
            summary.run_id,
            SUMMARY_KEY,
        )
        if lease.superseded_by is None:
            is_shard = run.options.shard is not None
            await run.host.publish(summary, run.context.ledger.engine.url, run.selects.read_from, is_shard=is_shard)
    except (DatabaseError, LedgerAwayError, StoppedError, HTTPError, OSError) as error:
        log.warning("The run's end could not be written: %s.", type(error).__name__)


def _log_opening(run: Run) -> None:
    settings, ledger, spending = run.context.settings, run.context.ledger, run.context.pace.spending
    set_limits = {"limit": run.options.limit, "requests a minute": settings.rpm, "cost cap $": settings.max_cost}
    limits = [f"{name} {value}" for name, value in set_limits.items() if value is not None]
    if spending.max_usd is not None and spending.earlier.total_usd > 0:
        limits.append(f"of which earlier runs have spent ${spending.earlier.total_usd:,.4f}")
    run.host.log.info(
        "Run %s of %s opened: endpoint %s, ledger %s, %s.",
        ledger.run_id,
        ledger.flow,
        ledger.endpoint,
        readable_url(ledger.engine.url),
        ", ".join([f"{settings.concurrency} requests in flight at most", *limits]),
    )


@lru_cache(maxsize=1)
def _freeze_loaded_objects() -> None:
    # Prefect and its libraries leave half a million objects that live as long as the process. Each full collection
    # would walk through them, for a tenth of a run's CPU; so would one more before they are set aside.
    gc.freeze()
