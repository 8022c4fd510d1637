"""Load: requests as plain bytes over aiohttp, to see what the sandbox by itself can answer."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import aiohttp
import anthropic
import orjson

from bench.material import bodies
from bench.meter import Meter, Sample
from flows.outputs import SubjectLine

HEADERS = {"x-api-key": "bench", "anthropic-version": "2023-06-01", "content-type": "application/json"}


async def run_load(meter: Meter, source: Path, records: int, concurrency: int) -> Sample:
    """Send all items' requests and read the answers as bytes."""
    url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
    raw = [orjson.dumps(body) for body in bodies(source, anthropic.transform_schema(SubjectLine), records)]
    sample = Sample(records=records)
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS, skip_auto_headers=["User-Agent"]) as session:
        meter.start()

        async def work() -> None:
            while raw:
                async with session.post(url, data=raw.pop()) as response:
                    await response.read()
                    sample.succeeded += response.status == 200

        await asyncio.gather(*(work() for _ in range(concurrency)))
        meter.read(sample)
    sample.requests = sample.succeeded
    return sample
