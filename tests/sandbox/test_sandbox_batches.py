"""Message batches, as the real SDK sees them: states, results, rules for ids, cancelling, expiry."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from anthropic import AsyncAnthropic, BadRequestError, NotFoundError
from anthropic.types.messages import MessageBatch

from sandbox import Sandbox, Switches
from sandbox.batches import Batches
from sandbox.clocks import Clocks
from sandbox.service import Service
from tests.waiting import until


def params(content: str = "Name: Mountain Oolong", **changes: Any) -> dict[str, Any]:
    asked = {"model": "claude-sonnet-4-6", "max_tokens": 512, "messages": [{"role": "user", "content": content}]}
    return asked | changes


def requests(*ids: str, **changes: Any) -> Any:
    return [{"custom_id": custom_id, "params": params(f"Name: Tea {custom_id}", **changes)} for custom_id in ids]


async def ended(client: AsyncAnthropic, batch_id: str) -> MessageBatch:
    for _ in range(6000):
        batch = await client.messages.batches.retrieve(batch_id)
        if batch.processing_status == "ended":
            return batch
        await asyncio.sleep(0.01)
    raise AssertionError("it did not end")


async def results(client: AsyncAnthropic, batch_id: str) -> dict[str, Any]:
    return {line.custom_id: line.result async for line in await client.messages.batches.results(batch_id)}


async def test_batch_answers_as_single_requests_do_at_the_batch_tier(client: AsyncAnthropic, sandbox: Sandbox) -> None:
    sandbox.configure(batch_ms=200)
    created = await client.messages.batches.create(requests=requests("one", "two", "three"))
    assert (created.processing_status, created.request_counts.processing) == ("in_progress", 3)
    assert (created.expires_at - created.created_at).total_seconds() == 24 * 3600
    assert created.results_url is None
    batch = await ended(client, created.id)
    assert (batch.request_counts.succeeded, batch.request_counts.processing) == (3, 0)
    assert batch.ended_at is not None
    assert (batch.ended_at - batch.created_at).total_seconds() >= 0.2
    answers = await results(client, batch.id)
    assert answers.keys() == {"one", "two", "three"}
    for custom_id, result in answers.items():
        alone = await client.messages.create(**params(f"Name: Tea {custom_id}"))
        assert result.message.content == alone.content
        assert result.message.usage.service_tier == "batch"
        assert alone.usage.service_tier == "standard"
    assert sandbox.stats()["served"]["answers"] == 6


async def test_each_request_is_checked_when_its_turn_comes(client: AsyncAnthropic) -> None:
    mixed = [
        *requests("good"),
        *requests("large", max_tokens=128_001),
        *requests("old", model="claude-2.1"),
        *requests("streamed", stream=True),
        {"custom_id": "empty", "params": {}},
    ]
    batch = await ended(client, (await client.messages.batches.create(requests=mixed)).id)
    assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 4)
    answers = await results(client, batch.id)
    assert "128001 > 128000" in answers["large"].error.error.message
    assert answers["old"].error.error.type == "not_found_error"
    assert answers["streamed"].error.error.type == answers["empty"].error.error.type == "invalid_request_error"
    assert answers["good"].message.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({}, "requests: Field required"),
        ({"requests": []}, "at least 1 item"),
        ({"requests": requests("a"), "metadata": {}}, "metadata: Extra inputs are not permitted"),
        ({"requests": [{"custom_id": "a"}]}, "requests.0.params: Field required"),
        ({"requests": [{"params": params()}]}, "requests.0.custom_id: Field required"),
        ({"requests": requests("a b")}, "requests.0.custom_id: String should match pattern"),
        ({"requests": requests("")}, "requests.0.custom_id: String should match pattern"),
        ({"requests": requests("a" * 65)}, "requests.0.custom_id: String should match pattern"),
        ({"requests": requests("a", "b", "a")}, "unique"),
        ({"requests": [{"custom_id": 1, "params": {}}]}, "requests.0.custom_id: Input should be a valid string"),
        ([], "object"),
    ],
)
async def test_wrong_envelope_is_refused_and_makes_no_batch(client: AsyncAnthropic, sent: Any, message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        await client.post("/v1/messages/batches", body=sent, cast_to=object)
    assert (await client.messages.batches.list()).data == []


async def test_cancelled_batch_ends_early(client: AsyncAnthropic, sandbox: Sandbox) -> None:
    sandbox.configure(batch_ms=600_000)
    created = await client.messages.batches.create(requests=requests("one", "two"))
    for refused in (client.messages.batches.delete(created.id), raw_results(sandbox, created.id)):
        with pytest.raises(BadRequestError):
            await refused
    canceling = await client.messages.batches.cancel(created.id)
    assert canceling.processing_status == "canceling"
    assert canceling.cancel_initiated_at is not None
    batch = await ended(client, created.id)
    assert batch.request_counts.canceled == 2
    assert {result.type for result in (await results(client, batch.id)).values()} == {"canceled"}
    with pytest.raises(BadRequestError):
        await client.messages.batches.cancel(created.id)


async def raw_results(sandbox: Sandbox, batch_id: str) -> None:
    async with AsyncAnthropic(api_key="any", base_url=sandbox.url, max_retries=0) as client:
        await client.get(f"/v1/messages/batches/{batch_id}/results", cast_to=object)


async def test_deleted_batch_is_gone(client: AsyncAnthropic) -> None:
    created = await client.messages.batches.create(requests=requests("one"))
    await ended(client, created.id)
    assert (await client.messages.batches.delete(created.id)).id == created.id
    for gone in (client.messages.batches.retrieve, client.messages.batches.cancel, client.messages.batches.delete):
        with pytest.raises(NotFoundError):
            await gone(created.id)


async def test_batches_are_listed_newest_first_in_pages(client: AsyncAnthropic) -> None:
    made = [(await client.messages.batches.create(requests=requests("same"))).id for _ in range(3)]
    assert len(set(made)) == 3
    assert [batch.id async for batch in client.messages.batches.list(limit=1)] == made[::-1]
    before = await client.messages.batches.list(before_id=made[0], limit=1)
    assert [batch.id for batch in before.data] == [made[1]]
    assert before.has_more
    with pytest.raises(NotFoundError):
        await client.messages.batches.list(after_id="msgbatch_unknown")


async def test_faults_meet_requests_of_a_batch_but_limits_and_connections_do_not(
    client: AsyncAnthropic, sandbox: Sandbox
) -> None:
    sandbox.configure(rpm=1, server_error=0.3, dropped_after=0.3, truncated=0.3)
    ids = [f"tea_{number}" for number in range(40)]
    batch = await ended(client, (await client.messages.batches.create(requests=requests(*ids))).id)
    answers = (await results(client, batch.id)).values()
    assert {result.error.error.type for result in answers if result.type == "errored"} == {"api_error"}
    reasons = {result.message.stop_reason for result in answers if result.type == "succeeded"}
    assert reasons == {"end_turn", "max_tokens"}
    assert batch.request_counts.succeeded + batch.request_counts.errored == 40


async def test_what_trips_the_sandbox_fails_alone(client: AsyncAnthropic) -> None:
    schema = {"type": "object", "properties": [1], "additionalProperties": False}
    odd = requests("odd", output_config={"format": {"type": "json_schema", "schema": schema}})
    batch = await ended(client, (await client.messages.batches.create(requests=[*odd, *requests("good")])).id)
    answers = await results(client, batch.id)
    assert answers["odd"].error.error.type == "api_error"
    assert answers["good"].type == "succeeded"


async def test_results_come_as_lines_in_another_order_than_the_requests(
    sandbox: Sandbox, client: AsyncAnthropic
) -> None:
    ids = [f"tea_{number:02}" for number in range(30)]
    batch = await ended(client, (await client.messages.batches.create(requests=requests(*ids))).id)
    assert batch.results_url == f"{sandbox.url}/v1/messages/batches/{batch.id}/results"
    headers = {"x-api-key": "any", "anthropic-version": "2026-10-21"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(batch.results_url) as response:
        lines = (await response.text()).splitlines()
    found = [json.loads(line)["custom_id"] for line in lines]
    assert found != ids
    assert sorted(found) == ids


async def test_what_is_not_answered_in_a_day_expires() -> None:
    now = 1_000_000.0
    service = Service(Switches(batch_ms=20), Clocks(wall_s=lambda: now))
    batches = Batches(service)
    batch = batches.create(json.dumps({"requests": requests("one", "two")}).encode())
    now += 24 * 3600
    async with asyncio.timeout(60):
        await until(lambda: batch.ended_at is not None)
    info = batch.info("")
    assert info["request_counts"] == {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 2}
    assert service.counts.served.answers == 0
    assert [json.loads(line)["result"]["type"] for line in batches.results(batch.id).splitlines()] == ["expired"] * 2


async def test_sandbox_that_stops_drops_its_batches() -> None:
    sandbox = Sandbox(switches=Switches(batch_ms=600_000))
    await sandbox.start()
    async with AsyncAnthropic(api_key="any", base_url=sandbox.url, max_retries=0) as client:
        await client.messages.batches.create(requests=requests("one"))
    await sandbox.stop()
    assert len(asyncio.all_tasks()) == 1, "only this test itself"
