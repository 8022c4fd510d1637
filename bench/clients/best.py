"""Measure the best loop that one can write: raw posts by the SDK's client, on uvloop. It stores and validates nothing.

What a run costs beyond it is Presswork's own work.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from typing import Any

import anthropic
import httpx2
import orjson
import uvloop

from bench.clients.client import Options, run_client
from bench.material import bodies
from bench.meter import Meter, Sample
from flows.outputs import SubjectLine


async def run_best(meter: Meter, options: Options) -> Sample:
    """Send the requests of all items with `concurrency` workers, and read the text of each answer."""
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
        queue = deque(bodies(options.source, schema, options.records))

        async def work() -> None:
            while queue:
                body = orjson.dumps(queue.popleft())
                response = await client.post("/v1/messages", content=body, cast_to=httpx2.Response)
                sample.succeeded += bool(_text(response.content))

        await asyncio.gather(*(work() for _ in range(concurrency)))
        meter.read(sample)
    sample.requests = sample.succeeded
    return sample


def _text(body: bytes) -> Any:
    return orjson.loads(body)["content"][0]["text"]


if __name__ == "__main__":
    run_client({"best": lambda meter, options: uvloop.run(run_best(meter, options))})
