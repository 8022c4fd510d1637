"""The service without a server, as a simulation uses it: the responses of HTTP, by the clocks that it gets."""

import json
from typing import Any

import aiohttp
import pytest

from sandbox import Sandbox, Switches
from sandbox.clocks import Clocks
from sandbox.error_shapes import Refusal
from sandbox.service import Service, WholeResponse

LONG = "Mountain Oolong is rolled by hand. " * 300
ASKED: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 512,
    "system": [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": "Name: Mountain Oolong"}],
}
HEADERS = {"x-api-key": "any", "anthropic-version": "2026-10-21"}
OF_A_SERVER = {"content-length", "date", "server", "request-id"}


def answered(service: Service, asked: object = ASKED) -> WholeResponse:
    """Send a body through the service, to the end."""
    exchange = service.open(json.dumps(asked).encode())
    service.begin(exchange)
    response = service.response(exchange)
    service.served(exchange, service.counts)
    return response


def usage(response: WholeResponse) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.body)["usage"]
    return found


@pytest.mark.parametrize("asked", [ASKED, {**ASKED, "max_tokens": 0}], ids=["answer", "refusal"])
async def test_response_is_that_of_the_server(sandbox: Sandbox, asked: dict[str, Any]) -> None:
    sandbox.configure(rpm=100)
    async with (
        aiohttp.ClientSession(headers=HEADERS) as session,
        session.post(f"{sandbox.url}/v1/messages", json=asked) as served,
    ):
        body, headers = await served.json(), {name.lower(): value for name, value in served.headers.items()}
    service = Service(Switches(rpm=100))
    try:
        response = answered(service, asked)
    except Refusal as refusal:
        response = service.refused(refusal)
    assert response.status == served.status
    assert json.loads(response.body) | {"request_id": ""} == body | {"request_id": ""}
    assert response.headers.keys() == headers.keys() - OF_A_SERVER | {"request-id"}
    for name in response.headers.keys() - OF_A_SERVER:
        assert name.endswith("-reset") or response.headers[name] == headers[name], name


def test_two_services_make_the_same_responses_to_the_byte() -> None:
    def night() -> list[WholeResponse]:
        now = 1_800_000_000.0
        service = Service(Switches(rpm=100, seed=4), Clocks(lambda: now, lambda: now))
        found = []
        for number in range(5):
            now += 0.25
            found.append(answered(service, {**ASKED, "messages": [{"role": "user", "content": f"Tea {number}"}]}))
        found.append(service.refused(Refusal(529, "overloaded_error", "Overloaded")))
        return found

    assert night() == night()
    assert len({response.headers["request-id"] for response in night()}) == 6


def test_limits_refill_by_the_wall_clock_that_was_passed() -> None:
    now = 1_800_000_000.0
    service = Service(Switches(rpm=60, burst_seconds=1), Clocks(wall_s=lambda: now))
    answered(service)
    with pytest.raises(Refusal):
        answered(service)
    now += 1
    answered(service)


def test_cache_and_stats_age_by_the_monotonic_clock_that_was_passed() -> None:
    now = 5.0
    service = Service(Switches(), Clocks(monotonic_s=lambda: now))
    assert usage(answered(service))["cache_creation_input_tokens"] > 1024
    now += 299
    assert usage(answered(service))["cache_read_input_tokens"] > 1024
    now += 301
    assert usage(answered(service))["cache_read_input_tokens"] == 0
    assert service.counts.report()["seconds"] == 600
    service.reset()
    assert service.counts.report()["seconds"] == 0


@pytest.mark.parametrize("fault", ["dropped_before", "dropped_after"])
def test_exchange_tells_that_its_connection_is_dropped(fault: str) -> None:
    service = Service(Switches().changed({fault: 1}))
    assert service.open(json.dumps(ASKED).encode()).is_dropped
    assert not Service(Switches()).open(json.dumps(ASKED).encode()).is_dropped
