"""Measure the sandbox alone: send requests as plain bytes over aiohttp."""

from __future__ import annotations

import asyncio
import os

import aiohttp
import anthropic
import orjson

from bench.clients.client import Options, run_client
from bench.material import bodies
from bench.meter import Meter, Sample
from flows.outputs import SubjectLine

HEADERS = {"x-api-key": "bench", "anthropic-version": "2023-06-01", "content-type": "application/json"}


async def run_load(meter: Meter, options: Options) -> Sample:
    """Send all items' requests and read the answers as bytes."""
    url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
    schema = anthropic.transform_schema(SubjectLine)
    raw = [orjson.dumps(body) for body in bodies(options.source, schema, options.records)]
    sample = Sample(records=options.records)
    connector = aiohttp.TCPConnector(limit=options.concurrency)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS, skip_auto_headers=["User-Agent"]) as session:
        meter.start()

        async def work() -> None:
            while raw:
                async with session.post(url, data=raw.pop()) as response:
                    await response.read()
                    sample.succeeded += response.status == 200

        await asyncio.gather(*(work() for _ in range(options.concurrency)))
        meter.read(sample)
    sample.requests = sample.succeeded
    return sample


if __name__ == "__main__":
    run_client({"load": lambda meter, options: asyncio.run(run_load(meter, options))})
