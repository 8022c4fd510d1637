"""What `presswork status` says of a Prefect server that has more than a page of everything."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect import get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Pending, Running, Scheduled

from flows.control.overview import read_overview
from flows.engine.orchestration.prefect_server import own_server

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

PAGE, COUNT = 5, 7


@pytest.fixture
def short_pages(prefect_api: str, prefect_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of Prefect's whose pages are short, and which refuses to be asked for longer ones."""
    monkeypatch.setenv("PREFECT_SERVER_API_DEFAULT_LIMIT", str(PAGE))
    with own_server(timeout_s=120, home=prefect_home) as url, temporary_settings({PREFECT_API_URL: url}):
        yield


async def test_all_deployments_and_runs_are_seen(short_pages: None) -> None:
    now = datetime.now(UTC)
    async with get_client() as client:
        flow = await client.create_flow_from_name("many")
        for number in range(COUNT):
            made = await client.create_deployment(flow, f"many-{number}")
            # Later ones come first: the next run is found by its time, not by its page.
            for hours in (COUNT, COUNT - number):
                soon: State[None] = Scheduled(scheduled_time=now + timedelta(hours=hours))
                await client.create_flow_run_from_deployment(made, state=soon)
            late: State[None] = Scheduled(scheduled_time=now - timedelta(hours=number + 1))
            await client.create_flow_run_from_deployment(made, state=late)
            running = await client.create_flow_run_from_deployment(made, state=Pending())
            await client.set_flow_run_state(running.id, Running())

    outlook = await read_overview("nowhere", datetime.now(UTC))

    assert outlook.deployments >= COUNT
    names = [f"many/many-{number}" for number in range(COUNT)]
    assert [run.deployment for run in outlook.next if run.deployment in names] == names[::-1]
    assert [run.deployment for run in outlook.waiting if run.deployment in names] == names[::-1]
    assert [run.deployment for run in outlook.running if run.deployment in names] == names[::-1]
