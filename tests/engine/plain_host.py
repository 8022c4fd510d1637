"""Host runs without Prefect: run chunks as Prefect would, and keep what a run reports."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, cast

from prefect import Flow
from prefect.exceptions import Abort, Pause
from pydantic import TypeAdapter
from sqlalchemy import URL

from db.clock import new_id
from presswork.engine.orchestration.chunk_task import LONGEST_DELAY_S
from presswork.engine.orchestration.chunks import Chunk, ChunkRunner, InterruptedChunkError
from presswork.engine.orchestration.host import HOST, Host, RunOrigin, SpreadRun
from presswork.engine.resources.stopping import Stopper
from presswork.options import Helper
from presswork.prompts.flow_source import read_function
from presswork.report.progress import Log, Progress
from presswork.report.summary import Summary
from presswork.settings import Settings

FLOW_RUN = "TEST_FLOW_RUN"
"""The variable with the id of the flow run, as if a worker gives a flow run to a new process."""
HELPING: ContextVar[Callable[[SpreadRun], Awaitable[None]] | None] = ContextVar("helping", default=None)
"""Does the work of the helpers for split runs in this context; None: they do nothing."""


class RunLog(logging.Logger):
    """A log that only keeps its lines; it ends with its host, because no other code can look it up by name."""

    def __init__(self) -> None:
        super().__init__("run")
        self.lines: list[str] = []

    def handle(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class PlainHost:
    """Hosts one run of a flow.

    `states` are the states that Prefect would give the task runs of its chunks; `logged` has its log lines.
    `can_end_process`: a suspended run ends its process, as the run of a deployment does.
    """

    can_end_process = True
    also_shown = ""
    leaves_upkeep = False

    def __init__(self, flow: Flow[Any, Any], parameters: Mapping[str, Any], flow_run_id: str) -> None:
        log = RunLog()
        self.log: Log = log
        self.logged = log.lines
        self.states: list[str] = []
        self.spread_runs: list[SpreadRun] = []
        self.helper: Helper | None = None
        self.summary: Summary | None = None
        self.stopper: Stopper | None = None
        self._flow = flow
        self._parameters = dict(parameters)
        self._flow_run_id = flow_run_id

    async def origin(self, flow: str | None, _settings: Settings) -> RunOrigin:
        return RunOrigin(
            flow=flow or self._flow.fn.__name__,
            deployment=None,
            flow_run_id=self._flow_run_id,
            trigger="command",
            parameters=TypeAdapter(dict[str, Any]).dump_python(self._parameters, mode="json"),
            code_version="0",
            source=read_function(self._flow.fn),
        )

    @asynccontextmanager
    async def running_chunks(self, settings: Settings, *, refresh: bool) -> AsyncIterator[ChunkRunner]:
        async def run(chunk: Chunk) -> bool:
            for number in range(settings.chunk_retries + 1):
                # Prefect looks for a result before each try.
                if not refresh and await chunk.find_hits():
                    self.states.append("Cached")
                    return True
                try:
                    await chunk.run()
                except InterruptedChunkError as error:
                    if not error.will_continue:
                        break
                    await asyncio.sleep(min(settings.chunk_retry_delay_s * 2**number, LONGEST_DELAY_S))
                else:
                    self.states.append("Completed")
                    return False
            self.states.append("Failed")
            return False

        yield run

    @asynccontextmanager
    async def shown(self, progress: Progress, helper: Helper | None) -> AsyncIterator[None]:
        self.helper = helper
        yield

    @asynccontextmanager
    async def watching(self, stopper: Stopper) -> AsyncIterator[None]:
        self.stopper = stopper
        yield

    async def spread(self, run: SpreadRun) -> None:
        self.spread_runs.append(run)
        helping = HELPING.get()
        if helping is not None:
            await helping(run)

    async def publish(
        self, summary: Summary, _ledger: URL, _read_from: Mapping[str, URL], _audit_url: str | None
    ) -> None:
        self.summary = summary

    async def nothing_to_do(self, why: str) -> BaseException:
        self.log.info(why)
        return Abort(why)

    async def stopped(self, why: str, *, cancelled: bool) -> BaseException:
        return Abort(why)

    async def suspended(self, _why: str, _due: datetime) -> BaseException:
        return Pause()


async def run_plainly(flow: Flow[Any, Any], hosts: list[PlainHost], *args: Any, **kwargs: Any) -> Any:
    """Call a flow as Prefect would, its retries included, and add the host of each of its runs to `hosts`."""
    bound = inspect.signature(flow.fn).bind(*args, **kwargs)
    bound.apply_defaults()
    parameters = flow.validate_parameters(dict(bound.arguments))
    flow_run_id = os.environ.get(FLOW_RUN) or new_id()
    for tries_left in range(flow.retries or 0, -1, -1):
        host = PlainHost(flow, parameters, flow_run_id)
        hosts.append(host)
        token = HOST.set(cast("Host", host))
        try:
            return await cast("Any", flow.fn)(**parameters)
        except Exception:
            if not tries_left:
                raise
        finally:
            HOST.reset(token)
    raise AssertionError("the last try returns or raises")
