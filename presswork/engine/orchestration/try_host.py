"""Host a trial in this process, without Prefect: nothing is shown elsewhere, and an outage is not waited for."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import URL

from db.words import TRY
from presswork.engine.orchestration.chunks import Chunk, ChunkRunner, InterruptedChunkError
from presswork.engine.orchestration.host import RunOrigin, SpreadRun
from presswork.engine.orchestration.running_code import code_version
from presswork.engine.resources.stopping import Stopper
from presswork.errors import ConfigurationError, StoppedError
from presswork.options import Helper
from presswork.prompts.flow_source import FlowSource
from presswork.report.progress import Log, Progress
from presswork.report.summary import Summary
from presswork.settings import Settings

_log = logging.getLogger("prefect.presswork")


@dataclass
class TryHost:
    """Implements presswork.engine.orchestration.host.Host for one trial of a template.

    `parameters` are those of the run's row.
    """

    flow: str
    template: str
    parameters: dict[str, Any]
    log: Log = _log
    also_shown = ""
    leaves_upkeep = True
    can_end_process = False

    async def origin(self, flow: str | None, settings: Settings) -> RunOrigin:
        """Say that a person tries a template."""
        return RunOrigin(
            flow=flow or self.flow,
            deployment=None,
            flow_run_id=None,
            trigger=TRY,
            parameters=self.parameters,
            # In a thread, as git can be slow; later trials know it.
            code_version=await asyncio.to_thread(code_version),
            source=FlowSource(generates=(self.template,)),
        )

    @asynccontextmanager
    async def running_chunks(self, settings: Settings, *, refresh: bool) -> AsyncIterator[ChunkRunner]:
        """Run each chunk once: someone waits for it, and can see the error of an endpoint that is unavailable."""
        yield _run_once

    def shown(self, progress: Progress, helper: Helper | None) -> AbstractAsyncContextManager[None]:
        """Show nothing: the session watches its progress."""
        return nullcontext()

    def watching(self, stopper: Stopper) -> AbstractAsyncContextManager[None]:
        """Watch nothing: only a signal stops a trial."""
        return nullcontext()

    async def spread(self, run: SpreadRun) -> None:
        """Refuse to split a trial."""
        raise ConfigurationError("A trial can't be split into shards.")

    async def publish(self, summary: Summary, ledger: URL, read_from: Mapping[str, URL], audit_url: str | None) -> None:
        """Publish nothing."""

    async def suspended(self, why: str, due: datetime) -> BaseException:
        """Return the error of a trial that ends before its work is done."""
        return StoppedError(why)

    async def stopped(self, why: str, *, cancelled: bool) -> BaseException:
        """Return the error of a trial that was stopped."""
        return StoppedError(why)

    async def nothing_to_do(self, why: str) -> BaseException:
        """Return the error of a trial without work."""
        return ConfigurationError(why)


async def _run_once(chunk: Chunk) -> bool:
    try:
        await chunk.run()
    except InterruptedChunkError as error:
        if error.will_continue:
            raise
    return False
