"""Run a flow of a test's module, or a piece of code, in its own process, as a worker runs a flow run.

The process is forked from one that has loaded the engine and the SDK, because loading takes three seconds.
"""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.exceptions import Pause

from presswork.settings import ROOT
from tests.engine.plain_host import run_plainly

LEFT = 75
"""The exit status of a process whose run is suspended."""
LONGEST_S = 120.0
"""No process of a test takes longer, in seconds."""
_FORKS = multiprocessing.get_context("forkserver")
# What a run loads late is loaded early.
_LATE = ("presswork.claude.client", "httpcore2", "genai_prices.data", "psycopg")
_FORKS.set_forkserver_preload(["tests.engine.workshop", *_LATE, "sqlglot.dialects.postgres", "sqlglot.dialects.sqlite"])


class Forked:
    """A process that runs a flow or code; `pid` is its number. It has what the tests use of asyncio's `Process`."""

    def __init__(self, process: ForkServerProcess, said: Path | None = None) -> None:
        self._process, self._said = process, said
        assert process.pid is not None
        self.pid: int = process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    async def wait(self) -> int | None:
        """Wait until it has ended, and return its exit status; if a signal ended it, the negative signal number.

        It is killed after `LONGEST_S`, even if it is frozen: pytest waits for its forked processes when it ends.
        """
        await asyncio.to_thread(self._process.join, LONGEST_S)
        if self.returncode is None:
            self.kill()
            raise TimeoutError
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """Wait until it has ended, and return what it wrote: nothing, and its standard error."""
        await self.wait()
        return b"", self._said.read_bytes() if self._said is not None else b""

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


async def fork(
    flow: Flow[Any, Any], *, first: Callable[[], None] | None = None, environment: Mapping[str, str] | None = None
) -> Forked:
    """Run a flow in a new process, which calls `first` before; the process imports both by name."""
    process = _FORKS.Process(
        target=_run,
        args=(flow.fn.__module__, flow.fn.__name__, first, {**os.environ, **(environment or {})}),
        daemon=True,
    )
    await asyncio.to_thread(process.start)
    return Forked(process)


async def fork_code(code: str, folder: Path) -> Forked:
    """Run code in a new process, as `python -c` does; what it says is kept in a file in `folder`."""
    file, said = tempfile.mkstemp(prefix="said-", dir=folder)
    os.close(file)
    process = _FORKS.Process(target=_run_code, args=(code, said, dict(os.environ)), daemon=True)
    await asyncio.to_thread(process.start)
    return Forked(process, Path(said))


def _run_code(code: str, said: str, environment: dict[str, str]) -> None:
    with Path(said).open("wb") as file:
        os.dup2(file.fileno(), 2)
    os.chdir(ROOT)
    _take_over(environment)
    exec(code, {"__name__": "__main__"})  # noqa: S102 - a test wrote it


def _take_over(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    # A shell that starts the tests in the background makes them ignore Ctrl-C, and their processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _run(module: str, name: str, first: Callable[[], None] | None, environment: dict[str, str]) -> None:
    _take_over(environment)
    if first is not None:
        first()
    try:
        asyncio.run(run_plainly(getattr(importlib.import_module(module), name), []))
    except Pause:
        sys.exit(LEFT)
