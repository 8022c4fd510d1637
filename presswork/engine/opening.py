"""Open a run, and close it however its flow ends.

What must be right before anything is asked (settings, templates, endpoint, ledger) is settled first; then the parts of
the run are put together, and its row is written.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from decimal import Decimal
from functools import lru_cache, partial

from httpx import HTTPError

from db.clock import new_id
from db.database_errors import DatabaseError
from db.ledger.connecting import open_ledger
from db.readers.chains import Spent, refreshing_since, resumed_by
from db.session import readable_url
from db.sources.spool import RunSpools, sweep
from db.words import CANCELLED, COMPLETED, FAILED, SUSPENDED, RunStatus
from presswork.answers.outcomes import Policy
from presswork.engine.context import StepContext
from presswork.engine.materials.briefs import Briefs, check_templates
from presswork.engine.materials.run_selects import Selects, Spooling
from presswork.engine.orchestration.host import HOST, Host, RunOrigin
from presswork.engine.orchestration.prefect_host import PrefectHost
from presswork.engine.resources.endpoint import Endpoint, RunEndpoint, open_endpoint, require_files
from presswork.engine.resources.lease import HeldLease
from presswork.engine.resources.run_ledger import RunLedger, begin, require_run
from presswork.engine.resources.stopping import Stopper, stopped_by_signals
from presswork.engine.resources.writer import Writer
from presswork.engine.run import LeavingError, Run
from presswork.errors import LedgerAwayError, RunEndedError, StoppedError
from presswork.options import RunOptions
from presswork.pacing.limiter import limiter_for
from presswork.pacing.pace import Pace
from presswork.report.amounts import dollars
from presswork.report.prefect.artifacts import SUMMARY_KEY
from presswork.report.prefect.totals import Totals, paced_since
from presswork.report.progress import Progress, announce, counts_in_words
from presswork.settings import Settings, ledger_url, load_settings


@asynccontextmanager
async def open_run(options: RunOptions | None = None, *, flow: str | None = None) -> AsyncIterator[Run]:
    """Open a run inside a Prefect flow, and close it however the flow ends.

    `flow` is the run's name in the ledger, by default that of the flow's function. Raises ConfigurationError or
    db.database_errors.DatabaseError before anything is sent.
    """
    _freeze_loaded_objects()
    host = HOST.get() or PrefectHost()
    options = options or RunOptions()
    settings = _settings_of(options)
    origin = await host.origin(flow, settings)
    async with AsyncExitStack() as stack:
        stack.enter_context(origin.alone())
        try:
            run = await _put_together(stack, host, settings, options, origin)
        except RunEndedError as error:
            raise await host.left_undone(str(error)) from None
        stopper = run.context.stopper
        stack.callback(run.selects.spooling.spools.close)
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


def _settings_of(options: RunOptions) -> Settings:
    """The installation's settings; what a run's options say comes before them."""
    own = {name: getattr(options, name) for name in ("concurrency", "rpm", "chunk_size", "max_cost")}
    return load_settings().model_copy(update={name: value for name, value in own.items() if value is not None})


async def _put_together(
    stack: AsyncExitStack, host: Host, settings: Settings, options: RunOptions, origin: RunOrigin
) -> Run:
    """Check what can be checked before anything is asked, open endpoint and ledger, and make the run of them."""
    opened = await _open_endpoint(stack, settings, origin)
    run_chunk = await stack.enter_async_context(host.running_chunks(settings, refresh=options.refresh))
    ledger, resumed = await _open_ledger(stack, settings, options, origin, opened.name)
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


async def _open_ledger(
    stack: AsyncExitStack, settings: Settings, options: RunOptions, origin: RunOrigin, endpoint: str
) -> tuple[RunLedger, Sequence[str]]:
    """Open the ledger and take a lease on a run; returns the ledger, and the runs whose spools this one goes on with.

    These are itself where others have worked on it, and the runs that it resumes.
    """
    engine = await asyncio.to_thread(open_ledger, ledger_url(settings, endpoint))
    stack.callback(engine.dispose)
    helper = options.helper
    # Whoever has started a helper finds by its flow run whether it is at work, and what it has spent.
    lease_id = origin.flow_run_id if helper else new_id()
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
        # A refresh that was interrupted goes on where it was: what it bought is not bought again.
        fresh_since = await writer.read(refreshing_since, engine, run_id)
    resumed = [run_id] if has_past else []
    if has_past or row.resumes_run_id is not None:
        resumed += await writer.read(resumed_by, engine, run_id)
    return RunLedger(engine, writer, lease, run_id, origin.flow, endpoint, has_past, fresh_since), resumed


def _open_gate(
    stack: AsyncExitStack, settings: Settings, options: RunOptions, endpoint: Endpoint, earlier: Spent
) -> Pace:
    limiter = limiter_for(endpoint.name)
    # The limits that are set are a run's, so each of its helpers keeps to a part of them.
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
    except LeavingError:
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
            # Last, so that whoever starts it at once finds its lease given back.
            raise await run.host.left(str(run.suspended), run.suspended.due)


async def _superseded(run: Run, by: str) -> BaseException:
    ledger = run.ledger
    if run.options.helper is not None:
        try:
            await ledger.writer.read(require_run, ledger.engine, run.options.helper, ledger.flow, ledger.endpoint)
        except RunEndedError as error:
            return await run.host.left_undone(str(error))
    # Who goes on with it decides what becomes of the flow run.
    return await run.host.stopped(f"The run was stopped ({by}).", cancelled=False)


async def _close(run: Run, status: RunStatus) -> None:
    """Write how a run ended, and have its summary shown; what fails here must not hide why the run ended."""
    writer = run.ledger.writer
    lease = run.ledger.lease
    log = run.host.log
    try:
        # How the last requests ended is still on its way: what is not settled when a run closes counts as not sent.
        with suppress(LedgerAwayError):
            await writer.committed()
        if run.suspended is not None:
            await writer.call(lease.suspend, run.suspended.reason, run.suspended.due)
        else:
            await writer.call(lease.close, status)
        if run.options.helper is not None:
            await asyncio.to_thread(run.selects.spooling.spools.remove, own_only=True)
            counts = ", ".join(counts_in_words(run.context.progress.counts).values()) or "nothing done"
            log.info("The %s of run %s %s: %s.", run.options.helper, run.ledger.run_id, status, counts)
            return
        if status == COMPLETED and lease.superseded_by is None:
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
            await run.host.publish(summary, run.ledger.engine.url, run.selects.read_from)
    except (DatabaseError, LedgerAwayError, StoppedError, HTTPError, OSError) as error:
        log.warning("The run's end could not be written: %s.", type(error).__name__)


def _log_opening(run: Run) -> None:
    settings = run.context.settings
    ledger = run.ledger
    spending = run.pace.spending
    set_limits = {"limit": run.options.limit, "requests a minute": settings.rpm, "cost cap $": settings.max_cost}
    limits = [f"{name} {value}" for name, value in set_limits.items() if value is not None]
    if spending.max_usd is not None and spending.earlier.total_usd > 0:
        limits.append(f"of which ${spending.earlier.total_usd:,.4f} was spent before")
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
