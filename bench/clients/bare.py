"""Measure the best loop that uses only the SDK. It stores nothing, validates nothing and retries nothing."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import anthropic
import httpx2

from bench.clients.client import Options, run_client
from bench.material import bodies
from bench.meter import Meter, Sample
from flows.outputs import SubjectLine


async def run_bare(meter: Meter, options: Options) -> Sample:
    """Send the requests of all items, with `concurrency` workers over one queue."""
    concurrency = options.concurrency
    schema = anthropic.transform_schema(SubjectLine)
    limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    sample = Sample(records=options.records)
    async with anthropic.AsyncAnthropic(
        max_retries=0,
        http_client=anthropic.DefaultAioHttpClient(limits=limits),
        open_telemetry={"traces": {"enabled": False}},
    ) as client:
        gc.collect()
        gc.freeze()
        meter.start()
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for body in bodies(options.source, schema, options.records):
            queue.put_nowait(body)

        async def work() -> None:
            while not queue.empty():
                await client.messages.create(**queue.get_nowait())
                sample.succeeded += 1

        await asyncio.gather(*(work() for _ in range(concurrency)))
        meter.read(sample)
    sample.requests = sample.succeeded
    return sample


if __name__ == "__main__":
    run_client({"bare": lambda meter, options: asyncio.run(run_bare(meter, options))})
