"""Run a flow of a test's module in its own process, as a worker runs a flow run, but without Prefect.

The process is forked from one that has loaded the engine, because loading takes two seconds.
"""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from typing import Any

from prefect import Flow
from prefect.exceptions import Pause

from tests.engine.plain_host import run_plainly

LEFT = 75
"""The exit status of a process whose run is suspended."""
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.engine.workshop"])


class Forked:
    """A process that runs a flow; `pid` is its number."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        assert process.pid is not None
        self.pid: int = process.pid

    async def ended(self) -> int | None:
        """Wait until it has ended, and return its exit status; if a signal ended it, the negative signal number."""
        await asyncio.to_thread(self._process.join, 120)
        status = self._process.exitcode
        self.kill()
        return status

    def kill(self) -> None:
        """End it, even if it is frozen: pytest's process waits for its forked processes when it ends."""
        self._process.kill()


async def fork(
    flow: Flow[Any, Any], *, first: Callable[[], None] | None = None, environment: Mapping[str, str] | None = None
) -> Forked:
    """Run a flow in a new process, which calls `first` before; the process imports both by name."""
    process = _FORKS.Process(
        target=_run, args=(flow.fn.__module__, flow.fn.__name__, first, {**os.environ, **(environment or {})})
    )
    await asyncio.to_thread(process.start)
    return Forked(process)


def _run(module: str, name: str, first: Callable[[], None] | None, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    if first is not None:
        first()
    try:
        asyncio.run(run_plainly(getattr(importlib.import_module(module), name), []))
    except Pause:
        sys.exit(LEFT)
