"""Host a run in Prefect: its tasks run the chunks, its UI shows the run, its Cancel stops it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect import get_client, get_run_logger
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import Abort, Pause, PrefectException
from prefect.flow_runs import asuspend_flow_run
from prefect.states import Cancelled, Completed, Scheduled
from sqlalchemy import URL

from db.clock import new_id
from db.words import HELPER, TAG
from presswork.engine.orchestration.chunk_task import running_chunks
from presswork.engine.orchestration.chunks import ChunkRunner
from presswork.engine.orchestration.host import RunOrigin, SpreadRun
from presswork.engine.orchestration.origin import read_origin
from presswork.engine.orchestration.prefect_helpers import open_helper_runs
from presswork.engine.orchestration.spread import spread
from presswork.engine.resources.stopping import Stopper, in_background
from presswork.errors import ConfigurationError
from presswork.options import Helper
from presswork.report.prefect.artifacts import SUMMARY_KEY, publish_summary
from presswork.report.prefect.events import tell_assets, tell_ending
from presswork.report.progress import Log, Progress
from presswork.report.summary import Summary
from presswork.settings import Settings

WATCH_S = 2.0
CANCEL_WAIT_S = 5.0
"""Cancel in the UI ends a run within ten seconds, because a worker would kill it soon after."""
PROGRESS_KEY = "presswork-progress"
LOOK_S = 1.0
"""Seconds between two readings of the pace."""
UPDATE_EVERY_S = 5.0
END_WITHIN_S = 5.0
UNAVAILABLE = (HTTPError, PrefectException, OSError)
"""Errors of Prefect's server that are ignored when a run shows its progress: they must never stop a run."""


class PrefectHost:
    """Implements presswork.engine.orchestration.host.Host for the current flow run."""

    leaves_upkeep = False
    also_shown = f", or the artifact {SUMMARY_KEY}"

    def __init__(self) -> None:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None or context.flow is None:
            raise ConfigurationError("open_run() works only inside a Prefect flow. Decorate the function with @flow.")
        self._context = context
        self._flow_run = context.flow_run
        self.log: Log = get_run_logger()

    async def origin(self, flow: str | None, settings: Settings) -> RunOrigin:
        """Read what started the run; raises ConfigurationError if its deployment was made for another ledger."""
        return await read_origin(self._context, flow, settings)

    def running_chunks(self, settings: Settings, *, refresh: bool) -> AbstractAsyncContextManager[ChunkRunner]:
        """Run chunks as tasks of the flow run while the context is open."""
        return running_chunks(settings, refresh=refresh)

    async def spread(self, run: SpreadRun) -> None:
        """Let helpers, which are flow runs of a deployment, do a run's first step."""
        await spread(run, open_helper_runs(self._context), self.log)

    @asynccontextmanager
    async def shown(self, progress: Progress, helper: Helper | None) -> AsyncIterator[None]:
        """Tag or name the flow run, and update an artifact with the run's progress."""
        flow_run = self._flow_run
        change: dict[str, Any] = {}
        if helper is None:
            # A helper keeps only its own tag, so that automations for tagged runs ignore it.
            change["tags"] = sorted({*flow_run.tags, TAG, progress.flow, progress.endpoint})
        else:
            # Prefect has just renamed it by the flow's `flow_run_name`.
            change["name"] = f"{flow_run.name.partition(f', {HELPER} ')[0]}, {helper}"
            progress.worker = str(helper)
        with suppress(*UNAVAILABLE):
            async with get_client() as client:
                await client.update_flow_run(flow_run.id, **change)
        async with _shown_live(progress):
            yield

    def watching(self, stopper: Stopper) -> AbstractAsyncContextManager[None]:
        """Stop the run on Cancel; Prefect itself would let the tasks of a cancelled flow run finish."""
        return in_background(self._watch(stopper), "presswork-watch")

    async def _watch(self, stopper: Stopper) -> None:
        async with get_client() as client:
            while stopper.reason is None:
                await asyncio.sleep(WATCH_S)
                # Errors are ignored: without the server there is no cancellation to see.
                with suppress(Exception):
                    state = (await client.read_flow_run(self._flow_run.id)).state
                    if state is not None and (state.is_cancelling() or state.is_cancelled()):
                        stopper.stop("Cancel in Prefect", CANCEL_WAIT_S)

    async def publish(self, summary: Summary, ledger: URL, read_from: Mapping[str, URL], audit_url: str | None) -> None:
        """Send an event and assets, and attach the summary to the flow run; without the server, only log that."""
        tell_ending(summary, str(self._flow_run.id))
        tell_assets(summary, ledger, read_from)
        try:
            await publish_summary(summary, audit_url)
        except HTTPError as error:
            self.log.warning("Could not attach the summary to the flow run: %s.", type(error).__name__)

    @property
    def can_end_process(self) -> bool:
        """Whether Prefect can start the flow run again: it has a deployment and is not a subflow."""
        return self._flow_run.deployment_id is not None and self._flow_run.parent_task_run_id is None

    async def suspended(self, why: str, due: datetime) -> BaseException:
        """Suspend the flow run, then schedule it for its due time in the state Resuming.

        Prefect resumes a suspended flow run only if a person does, and fails it after a timeout. A worker starts a
        scheduled one when it is due, or at once if anyone schedules it for now, and Cancel ends it at once. Both steps
        are Prefect's own, in its order, so they use up no retries and no attempts after a crash.
        """
        leaving: BaseException = Pause(why)
        try:
            try:
                # A new key, because Prefect treats a known one as a suspension that has ended.
                await asuspend_flow_run(key=new_id())
            except Pause as paused:
                leaving = paused
            async with get_client() as client:
                message = f"The run is suspended until {why}"
                resuming: State[Any] = Scheduled(scheduled_time=due, name="Resuming", message=message)
                await client.set_flow_run_state(self._flow_run.id, resuming)
        except (*UNAVAILABLE, RuntimeError) as error:
            self.log.warning(
                "Could not schedule the run in Prefect (%s). Resume it by hand when it is due.", type(error).__name__
            )
        return leaving

    async def stopped(self, why: str, *, cancelled: bool) -> BaseException:
        """Set the flow run to cancelled, and return the error that makes Prefect keep the state."""
        return await self._ended(Cancelled(message=why) if cancelled else None, why)

    async def nothing_to_do(self, why: str) -> BaseException:
        """Set the flow run to completed, and return the error that makes Prefect keep the state."""
        self.log.info(why)
        return await self._ended(Completed(message=why), why)

    async def _ended(self, state: State[Any] | None, why: str) -> BaseException:
        if state is not None:
            # If the server is unavailable, the run ends without this.
            with suppress(Exception):
                async with get_client() as client:
                    await client.set_flow_run_state(self._flow_run.id, state, force=True)
        return Abort(why)


@asynccontextmanager
async def _shown_live(progress: Progress) -> AsyncIterator[None]:
    """Update an artifact of the flow run with the run's progress while the context is open."""
    artifact: UUID | None = None

    async def update() -> None:
        nonlocal artifact
        percent, words = progress.percent, progress.words()
        if artifact is None:
            artifact = await acreate_progress_artifact(percent, key=PROGRESS_KEY, description=words)
        else:
            await aupdate_progress_artifact(artifact, percent, description=words)

    async def update_again() -> None:
        while True:
            with suppress(*UNAVAILABLE):
                await update()
            for _look in range(round(UPDATE_EVERY_S / LOOK_S)):
                progress.pace = progress.ask_pace()
                await asyncio.sleep(LOOK_S)

    try:
        async with in_background(update_again(), "presswork-live"):
            yield
    finally:
        with suppress(*UNAVAILABLE, TimeoutError):
            await asyncio.wait_for(update(), END_WITHIN_S)
