"""Context: what a step works with, handed down by its run.

Nothing below run.py knows the run: a step runs in a test with stand-ins for these, without Prefect and a database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from flows.engine.orchestration.chunks import ChunkRunner
from flows.engine.pacing.pace import Pace
from flows.engine.report.progress import Progress
from flows.engine.resources.endpoint import RunEndpoint
from flows.engine.resources.run_ledger import RunLedger
from flows.engine.resources.stopping import Stopper
from flows.errors import LedgerAwayError, StoppedError, StoppingCallError
from flows.settings import Settings
from flows.steps.answers.outcomes import Policy


@dataclass(frozen=True, slots=True)
class StepContext:
    """All that the steps of one run share; `ledger` looks up, claims and writes."""

    settings: Settings
    policy: Policy
    ledger: RunLedger
    pace: Pace
    endpoint: RunEndpoint
    run_chunk: ChunkRunner
    progress: Progress
    stopper: Stopper


class StepTasks:
    """The tasks of one step. Each goes on to its end; `failure` is the first that went wrong with one of them."""

    def __init__(self, stop: Callable[[StoppingCallError], None]) -> None:
        self._stop = stop
        self.running: set[asyncio.Task[None]] = set()
        self.failure: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task; it raises nothing."""
        task = asyncio.create_task(self._guarded(work))
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return task

    async def join(self) -> None:
        """Wait until all have ended, those too that the last ones start."""
        while self.running:
            await asyncio.gather(*self.running)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except BaseException as error:  # noqa: BLE001 - kept, and raised when the other tasks have ended
            if self.failure is None and isinstance(error, LedgerAwayError):
                self._stop(StoppedError(str(error)))
            self.failure = self.failure or error
