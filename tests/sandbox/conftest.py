"""A sandbox for each test, and the real SDK pointed at it."""

from collections.abc import AsyncIterator

import pytest
from anthropic import AsyncAnthropic, DefaultAioHttpClient

from sandbox import Sandbox


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(
        api_key="any", base_url=sandbox.url, max_retries=0, http_client=DefaultAioHttpClient()
    ) as sdk:
        yield sdk
