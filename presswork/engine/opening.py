"""Open a run on a host, and close it when its work ends, with or without an error.

Settings, templates, endpoint and ledger are checked before the first request. Then the run is built, and its row is
written. This module knows nothing of Prefect: flow_runs.py opens the runs of flows.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from functools import partial

from db.clock import new_id
from db.database_errors import DatabaseError
from db.ledger.connecting import check, open_ledger
from db.readers.chains import Spent, refreshing_since, resumed_by
from db.session import readable_url
from db.sources.spool import RunSpools, sweep
from db.words import CANCELLED, COMPLETED, FAILED, SUSPENDED, RunStatus
from presswork.answers.outcomes import Policy
from presswork.engine.context import StepContext
from presswork.engine.materials.briefs import Briefs, check_templates
from presswork.engine.materials.run_selects import Selects, Spooling
from presswork.engine.orchestration.host import Host, Kept, RunOrigin
from presswork.engine.resources.endpoint import Endpoint, RunEndpoint, open_endpoint, require_files
from presswork.engine.resources.lease import HeldLease
from presswork.engine.resources.run_ledger import RunLedger, begin, require_run
from presswork.engine.resources.stopping import Stopper, stopped_by_signals
from presswork.engine.resources.writer import Writer
from presswork.engine.run import Run, SuspendingError
from presswork.errors import LedgerAwayError, RunEndedError, StoppedError
from presswork.options import RunOptions
from presswork.pacing.limiter import limiter_for
from presswork.pacing.pace import Pace
from presswork.prompts.templates import Template
from presswork.report.amounts import dollars
from presswork.report.progress import Progress, announce, counts_in_words
from presswork.report.totals import Totals, paced_since
from presswork.settings import Settings, ledger_url


@asynccontextmanager
async def open_hosted_run(
    host: Host, settings: Settings, options: RunOptions, flow: str | None = None, kept: Kept | None = None
) -> AsyncIterator[Run]:
    """Open a run on a host, and close it when the block ends, with or without an error.

    The options override the settings. `flow` is the run's name in the ledger; the default is the host's. What is
    `kept` stays open. Raises ConfigurationError or db.database_errors.DatabaseError before the first request.
    """
    settings = _overridden(settings, options)
    origin = await host.origin(flow, settings)
    async with AsyncExitStack() as stack:
        stack.enter_context(origin.alone())
        try:
            require_files(settings.concurrency)
            templates = await asyncio.to_thread(check_templates, settings.templates_dir, origin.source)
            kept = await _opened(stack, settings, templates, kept)
            run = await _put_together(stack, host, settings, options, origin, templates, kept)
        except RunEndedError as error:
            raise await host.nothing_to_do(str(error)) from None
        stopper = run.context.stopper
        stack.callback(run.selects.spooling.spools.close)
        if not host.leaves_upkeep:
            await asyncio.to_thread(sweep, settings.spool_folder)
        announce(run.context.progress)
        _log_opening(run)
        await stack.enter_async_context(host.shown(run.context.progress, options.helper))
        stack.callback(stopper.close)
        await stack.enter_async_context(host.watching(stopper))
        stack.enter_context(stopped_by_signals(stopper))
        await stack.enter_async_context(run.ledger.lease.kept(run.ledger.writer, stopper.stop))
        async with _closing(run):
            yield run


def _overridden(settings: Settings, options: RunOptions) -> Settings:
    own = {name: getattr(options, name) for name in ("concurrency", "rpm", "chunk_size", "max_cost")}
    return settings.model_copy(update={name: value for name, value in own.items() if value is not None})


async def _put_together(
    stack: AsyncExitStack,
    host: Host,
    settings: Settings,
    options: RunOptions,
    origin: RunOrigin,
    templates: Sequence[Template],
    kept: Kept,
) -> Run:
    """Take a lease on the run, and build it."""
    opened = kept.endpoint
    run_chunk = await stack.enter_async_context(host.running_chunks(settings, refresh=options.refresh))
    ledger, resumed = await _begin(stack, settings, options, origin, kept)
    pace = _open_gate(stack, settings, options, opened, await ledger.spent() if resumed else Spent())
    stopper = _stopper(settings, pace, ledger.writer)
    progress = Progress(
        ledger.run_id,
        ledger.flow,
        ledger.endpoint,
        ask_pace=partial(paced_since, pace.limiter, pace.limiter.report()),
        is_stopping=lambda: stopper.reason is not None,
    )
    totals = Totals(ledger.engine, ledger.writer.read, progress, pace)
    spools = RunSpools(settings.spool_folder, ledger.helper_id or ledger.run_id, resumed)
    spooling = Spooling(spools, progress, host.log, is_helper=options.helper is not None)
    endpoint = RunEndpoint(opened, pace.reaches_endpoint, progress)
    return Run(
        host=host,
        options=options,
        context=StepContext(
            settings, _policy(settings), ledger, ledger.writer, pace, endpoint, run_chunk, progress, stopper
        ),
        ledger=ledger,
        pace=pace,
        selects=Selects(settings, options, ledger.engine.url, spooling, stopper, totals),
        briefs=Briefs(settings.templates_dir, templates, endpoint, ledger.add_template),
        totals=totals,
    )


async def _opened(stack: AsyncExitStack, settings: Settings, templates: Sequence[Template], kept: Kept | None) -> Kept:
    """Open endpoint and ledger, unless they are kept open; the endpoint must accept the templates' settings."""
    if kept is None:
        endpoint = await open_endpoint(settings, settings.concurrency)
        await stack.enter_async_context(endpoint.client)
    else:
        endpoint = kept.endpoint
    await endpoint.require_fit(templates)
    if kept is not None:
        # Another process may have migrated it meanwhile.
        await asyncio.to_thread(check, kept.ledger)
        return kept
    ledger = await asyncio.to_thread(open_ledger, ledger_url(settings, endpoint.name))
    stack.callback(ledger.dispose)
    return Kept(endpoint, ledger)


async def _begin(
    stack: AsyncExitStack, settings: Settings, options: RunOptions, origin: RunOrigin, kept: Kept
) -> tuple[RunLedger, Sequence[str]]:
    """Take a lease on a run; returns its ledger, and the runs whose spools this process may use.

    These are the run itself if other processes have worked on it, and the runs that it resumes.
    """
    engine, endpoint, helper = kept.ledger, kept.endpoint.name, options.helper
    # By the flow run's id, the process that started a helper finds whether it is running and what it has spent.
    lease_id = (helper and origin.flow_run_id) or new_id()
    writer = Writer(
        engine,
        lease_id=lease_id,
        interval_s=settings.commit_interval_s,
        patience_s=settings.database_patience_s,
        spill_folders=settings.spill_folders,
    )
    await stack.enter_async_context(writer)
    row = await writer.read(origin.row, engine, endpoint, options.resumes)
    if helper is not None:
        await writer.read(require_run, engine, helper, origin.flow, endpoint)
    taken = await writer.call(begin, engine, row, lease_id, helper, settings.spill_folders)
    run_id, has_past = taken.run_id, taken.run_id != row.id
    lease = HeldLease(engine, taken)
    writer.run_id, writer.commit = run_id, lease.write
    fresh_since = None
    if options.refresh:
        # An interrupted refresh resumes: the answers that it has paid for are not requested again.
        fresh_since = await writer.read(refreshing_since, engine, run_id)
    resumed = [run_id] if has_past else []
    if has_past or row.resumes_run_id is not None:
        resumed += await writer.read(resumed_by, engine, run_id)
    return RunLedger(engine, writer, lease, run_id, origin.flow, endpoint, has_past, fresh_since), resumed


def _open_gate(
    stack: AsyncExitStack, settings: Settings, options: RunOptions, endpoint: Endpoint, earlier: Spent
) -> Pace:
    limiter = limiter_for(endpoint.name)
    # The limits in the settings apply to the whole run, so each helper gets a part of them.
    parts = options.helper.of if options.helper else 1
    limits = {name: getattr(settings, name) for name in ("rpm", "itpm", "otpm")}
    own = {name: None if limit is None else max(1, limit // parts) for name, limit in limits.items()}
    stack.callback(limiter.hold(**own))
    return Pace(
        concurrency=settings.concurrency,
        limiter=limiter,
        verify=endpoint.verify,
        max_cost=None if settings.max_cost is None else Decimal(str(settings.max_cost)),
        earlier=earlier,
    )


def _stopper(settings: Settings, pace: Pace, writer: Writer) -> Stopper:
    def close_gate(reason: StoppedError) -> None:
        pace.stop(reason)
        writer.stop(reason)

    return Stopper(wait_s=settings.stop_wait_s, close_gate=close_gate)


def _policy(settings: Settings) -> Policy:
    return Policy(
        retries=settings.request_retries,
        repairs=settings.repairs,
        escalations=settings.escalations,
        wait_max_s=settings.retry_wait_max_s,
        retry_after_cap_s=settings.retry_after_cap_s,
        paid_requests=settings.max_paid_requests,
    )


@asynccontextmanager
async def _closing(run: Run) -> AsyncIterator[None]:
    status: RunStatus = FAILED
    lease, stopper = run.ledger.lease, run.context.stopper
    try:
        yield
        status = run.totals.status()
    except SuspendingError:
        status = SUSPENDED
    except (StoppedError, asyncio.CancelledError):
        status = CANCELLED
        raise
    finally:
        run.context.progress.status = status
        await _close(run, status)
        if lease.superseded_by is not None:
            raise await _superseded(run, lease.superseded_by)
        if status == CANCELLED and stopper.reason is not None:
            raise await run.host.stopped(str(stopper.reason), cancelled=True)
        if run.suspended is not None:
            # Last, so that a process that resumes the run at once finds its lease released.
            raise await run.host.suspended(str(run.suspended), run.suspended.due)


async def _superseded(run: Run, by: str) -> BaseException:
    ledger = run.ledger
    if run.options.helper is not None:
        try:
            await ledger.writer.read(require_run, ledger.engine, run.options.helper, ledger.flow, ledger.endpoint)
        except RunEndedError as error:
            return await run.host.nothing_to_do(str(error))
    # The process that now has the run decides the flow run's state.
    return await run.host.stopped(f"The run was stopped ({by}).", cancelled=False)


async def _close(run: Run, status: RunStatus) -> None:
    """Write how a run ended and publish its summary. A failure here must not hide why the run ended."""
    writer, lease = run.ledger.writer, run.ledger.lease
    host, log = run.host, run.host.log
    try:
        # Settled attempts may not be committed yet. One that is open when a run closes counts as not sent.
        await run.ledger.finish_writing()
        if run.suspended is not None:
            await writer.call(lease.suspend, run.suspended.reason, run.suspended.due)
        else:
            await writer.call(lease.close, status)
        if run.options.helper is not None:
            await asyncio.to_thread(run.selects.spooling.spools.remove, own_only=True)
            counts = ", ".join(counts_in_words(run.context.progress.counts).values()) or "nothing done"
            log.info("Run %s: %s %s (%s).", run.ledger.run_id, run.options.helper, status, counts)
            return
        if status == COMPLETED and lease.superseded_by is None:
            await asyncio.to_thread(run.selects.spooling.spools.remove)
        summary = await writer.read(run.totals.summary, status)
        log.info(
            "Run %s %s after %.1f s: %d requests, cost %s. Details: `presswork history %s`%s.",
            summary.run_id,
            status,
            summary.wall_s,
            summary.requests,
            dollars(summary.cost_usd, summary.unpriced),
            summary.run_id,
            host.also_shown,
        )
        if lease.superseded_by is None:
            audit_url = run.context.settings.audit_url
            await host.publish(summary, run.ledger.engine.url, run.selects.read_from, audit_url)
        if status != CANCELLED and not host.leaves_upkeep:
            await run.ledger.index_words()
    except (DatabaseError, LedgerAwayError, StoppedError, OSError) as error:
        log.warning("Could not write how the run ended: %s.", type(error).__name__)


def _log_opening(run: Run) -> None:
    settings = run.context.settings
    ledger = run.ledger
    spending = run.pace.spending
    set_limits = {"limit": run.options.limit, "requests a minute": settings.rpm, "cost cap $": settings.max_cost}
    limits = [f"{name} {value}" for name, value in set_limits.items() if value is not None]
    if spending.max_usd is not None and spending.earlier.total_usd > 0:
        limits.append(f"${spending.earlier.total_usd:,.4f} of it already spent")
    run.host.log.info(
        "Run %s of %s opened: endpoint %s, ledger %s, %s.",
        ledger.run_id,
        ledger.flow,
        ledger.endpoint,
        readable_url(ledger.engine.url),
        ", ".join([f"at most {settings.concurrency} requests in flight", *limits]),
    )
