"""Host the runs of a night by Prefect's rules: retries of chunks and flows, cancel, suspension, and a run's helpers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import URL

from db.words import TRY
from presswork.engine.orchestration.chunks import Chunk, ChunkRunner, InterruptedChunkError
from presswork.engine.orchestration.host import RunOrigin, SpreadRun
from presswork.engine.resources.stopping import Stopper, in_background
from presswork.errors import ConfigurationError
from presswork.options import Helper
from presswork.prompts.flow_source import FlowSource
from presswork.report.progress import Log, Progress
from presswork.report.summary import Summary
from presswork.settings import Settings
from tests.nights.plan import Start
from tests.nights.simulated.machines import EPOCH
from tests.nights.simulated.world import World

LONGEST_DELAY_S = 300.0
WATCH_S = 2.0
CANCEL_WAIT_S = 5.0
"""As presswork/engine/orchestration/prefect_host.py and chunk_task.py have them, which load Prefect."""
_log = logging.getLogger("nights")
STEPS = {"note": ("note",), "titled": ("note", "title"), "reviewed": ("note", "title")}


class LeavingError(BaseException):
    """The flow run has its final state, as Prefect's Abort and Pause say."""


@dataclass
class FlowRun:
    """A flow run as Prefect's server knows it. `states` are those that it had, the newest last."""

    id: str
    start: Start
    states: list[str] = field(default_factory=lambda: ["Scheduled"])
    cancelling: bool = False
    helper: Helper | None = None
    due: float = 0.0
    approved: bool = False

    @property
    def state(self) -> str:
        return self.states[-1]


@dataclass
class SimulatedHost:
    """Implements presswork.engine.orchestration.host.Host for one attempt at a flow run."""

    world: World
    flow_run: FlowRun
    flow: str
    resume_later: Callable[[FlowRun], None]
    helping: Callable[[SpreadRun, "SimulatedHost"], Awaitable[None]] | None = None
    summary: Summary | None = None
    stopper: Stopper | None = None
    log: Log = _log
    leaves_upkeep: bool = field(init=False)
    also_shown = ""

    def __post_init__(self) -> None:
        # As `templates try` does: the next run does it.
        self.leaves_upkeep = self.flow_run.start.trial

    @property
    def can_end_process(self) -> bool:
        return self.flow_run.start.deployed and not self.flow_run.start.trial

    async def origin(self, flow: str | None, _settings: Settings) -> RunOrigin:
        start = self.flow_run.start
        return RunOrigin(
            flow=flow or self.flow,
            deployment=self.flow if start.deployed else None,
            flow_run_id=None if start.trial else self.flow_run.id,
            trigger=TRY if start.trial else "command",
            parameters={},
            code_version="0",
            source=FlowSource(generates=STEPS[start.job]),
        )

    @asynccontextmanager
    async def running_chunks(self, settings: Settings, *, refresh: bool) -> AsyncIterator[ChunkRunner]:
        async def run(chunk: Chunk) -> bool:
            for number in range(settings.chunk_retries + 1):
                # Prefect looks for a result before each try.
                if not refresh and await chunk.find_hits():
                    return True
                try:
                    await chunk.run()
                except InterruptedChunkError as error:
                    if not error.will_continue:
                        return False
                    delay = min(settings.chunk_retry_delay_s * 2**number, LONGEST_DELAY_S)
                    await asyncio.sleep(delay * (1 + 0.3 * self.world.rng.random()))
                else:
                    return False
            return False

        yield run

    @asynccontextmanager
    async def shown(self, _progress: Progress, _helper: Helper | None) -> AsyncIterator[None]:
        yield

    def watching(self, stopper: Stopper) -> AbstractAsyncContextManager[None]:
        self.stopper = stopper
        return in_background(self._watch(stopper), "presswork-watch")

    async def _watch(self, stopper: Stopper) -> None:
        while stopper.reason is None:
            await asyncio.sleep(WATCH_S)
            if self.flow_run.cancelling:
                stopper.stop("Cancel in Prefect", CANCEL_WAIT_S)

    async def spread(self, run: SpreadRun) -> None:
        if self.helping is None:
            raise ConfigurationError("There are no helpers in this night.")
        await self.helping(run, self)

    async def publish(
        self, summary: Summary, _ledger: URL, _read_from: Mapping[str, URL], _audit_url: str | None
    ) -> None:
        self.summary = summary

    async def suspended(self, why: str, due: datetime) -> BaseException:
        self.flow_run.states.append("Suspended")
        self.flow_run.due = due.timestamp() - EPOCH
        self.resume_later(self.flow_run)
        return LeavingError(why)

    async def stopped(self, why: str, *, cancelled: bool) -> BaseException:
        if cancelled:
            self.flow_run.states.append("Cancelled")
        return LeavingError(why)

    async def nothing_to_do(self, why: str) -> BaseException:
        self.flow_run.states.append("Completed")
        return LeavingError(why)
