"""Measure `templates try --watch`: the time from a save to the arrival of its first request at the endpoint.

The measurement saves the template as editors do, by renaming, and a proxy before the sandbox notes when requests come.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from bench.material import TEMPLATE
from bench.meter import Sample
from bench.stage import ClientError, Stage
from presswork.settings import ROOT

RECORDS = 3
MOST_S = 0.3
"""The seconds that may pass from a save to its request."""
_PAUSE_S = 0.4
_WITHIN_S = 60
_REQUEST = b"POST /v1/messages"
_COMMAND = ("-c", "from presswork.cli import main; main()", "templates", "try", TEMPLATE, "--watch", "--json")


def saving(saves: int) -> Callable[[Stage], Sample]:
    """Return a measurement of this many saves, one after the other."""

    def take(stage: Stage) -> Sample:
        stage.set_sandbox()
        return asyncio.run(_save(stage, saves))

    return take


async def _save(stage: Stage, saves: int) -> Sample:
    file = stage.folder / f"{TEMPLATE}.md.j2"
    text = file.read_text()
    took = []
    async with _arrivals(stage.sandbox_url) as (url, arrived), _watching(stage, url) as version:
        await version()
        for number in range(saves):
            await asyncio.sleep(_PAUSE_S)
            arrived.clear()
            saved = _rename(file, text.replace("one particular thing", f"one particular thing, number {number}"))
            await version()
            took.append(arrived[0] - saved)
    file.write_text(text)
    return Sample(records=saves, succeeded=len(took), wall_s=sum(took), to_request_s=median(took), slowest_s=max(took))


def _rename(file: Path, text: str) -> float:
    """Save a file as editors do, and return when."""
    new = file.with_suffix(".saving")
    new.write_text(text)
    new.replace(file)
    return time.monotonic()


@asynccontextmanager
async def _watching(stage: Stage, url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Start the command; the block gets a function that waits until a version was asked."""
    ledger = stage.new_sqlite()
    environment = {**stage.environment(f"sqlite:///{stage.source(100)}", ledger), "ANTHROPIC_BASE_URL": url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *_COMMAND, "--max-cost", "100", cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield partial(_until_waiting, process.stdout)
    finally:
        process.terminate()
        await process.communicate()


async def _until_waiting(lines: asyncio.StreamReader) -> None:
    while line := await asyncio.wait_for(lines.readline(), _WITHIN_S):
        if json.loads(line)["event"] == "waiting":
            return
    raise ClientError("the command ended; its error is above")


@asynccontextmanager
async def _arrivals(endpoint: str) -> AsyncIterator[tuple[str, list[float]]]:
    """Start a proxy of an endpoint; the block gets its URL, and a list that grows with each request's arrival."""
    target = urlsplit(endpoint)
    arrived: list[float] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, to_upstream = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(_pass_on(reader, to_upstream, arrived), _pass_on(upstream, writer, []))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", arrived


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, arrived: list[float]) -> None:
    try:
        while data := await source.read(65_536):
            if data.startswith(_REQUEST):
                arrived.append(time.monotonic())
            target.write(data)
            await target.drain()
    except ConnectionError:
        pass
    finally:
        target.close()
