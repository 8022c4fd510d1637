"""The shapes of the API, as the real SDK reads them."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from anthropic import AsyncAnthropic, AuthenticationError

from sandbox import SANDBOX_HEADER, Sandbox

SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "urgent": {"type": "boolean"}},
    "required": ["title", "urgent"],
    "additionalProperties": False,
}
ASKED: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 512,
    "system": "You write product copy for a tea shop.",
    "messages": [{"role": "user", "content": "Name: Mountain Oolong\nFeatures: hand rolled, floral aroma"}],
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
}
HEADERS = {"authorization": "Bearer any", "anthropic-version": "2026-10-21"}


async def test_answer_has_content_usage_and_headers(client: AsyncAnthropic) -> None:
    raw = await client.messages.with_raw_response.create(**ASKED)
    message = await raw.parse()
    assert message.content[0].type == "text"
    assert json.loads(message.content[0].text).keys() == {"title", "urgent"}
    assert (message.stop_reason, message.model, message.role) == ("end_turn", "claude-sonnet-4-6", "assistant")
    assert message.usage.input_tokens > 30
    assert message.usage.output_tokens == -(-len(message.content[0].text) // 4)
    assert message.usage.output_tokens_details is not None
    assert message.usage.cache_creation is not None
    assert raw.headers[SANDBOX_HEADER] == "1"
    assert raw.request_id
    assert raw.request_id.startswith("req_")
    for kind in ("requests", "input-tokens", "output-tokens", "tokens"):
        assert int(raw.headers[f"anthropic-ratelimit-{kind}-remaining"]) > 0
        assert raw.headers[f"anthropic-ratelimit-{kind}-reset"].endswith("Z")


async def test_stream_says_the_same_as_a_plain_answer(client: AsyncAnthropic) -> None:
    plain = await client.messages.create(**ASKED)
    async with client.messages.stream(**ASKED) as stream:
        deltas = [text async for text in stream.text_stream]
        streamed = await stream.get_final_message()
    assert len(deltas) > 1
    assert streamed.content[0].type == plain.content[0].type == "text"
    assert "".join(deltas) == streamed.content[0].text == plain.content[0].text
    assert streamed.usage.output_tokens == plain.usage.output_tokens
    assert streamed.stop_reason == "end_turn"


@pytest.mark.parametrize("model", ["claude-sonnet-5", "claude-sonnet-5-5", "claude-fable-5-2"])
@pytest.mark.parametrize("display", ["omitted", "summarized"])
async def test_stream_thinks_as_a_plain_answer_does(client: AsyncAnthropic, model: str, display: Any) -> None:
    asked = ASKED | {"model": model, "thinking": {"type": "adaptive", "display": display}}
    plain = await client.messages.create(**asked)
    async with client.messages.stream(**asked) as stream:
        streamed = await stream.get_final_message()
    assert [block.to_dict() for block in streamed.content] == [block.to_dict() for block in plain.content]
    assert streamed.usage.output_tokens == plain.usage.output_tokens


async def test_options_that_change_no_word_are_taken_and_told_in_usage(client: AsyncAnthropic) -> None:
    plain = await client.messages.create(**ASKED)
    options: dict[str, Any] = {
        "container": {"id": "container_1", "skills": [{"type": "anthropic", "skill_id": "pdf"}]},
        "diagnostics": {"previous_message_id": None},
        "inference_geo": "us",
        "metadata": {"user_id": "13803d75"},
        "service_tier": "standard_only",
        "speed": "fast",
    }
    answer = await client.messages.create(**ASKED, **options)
    assert answer.content == plain.content
    assert (plain.usage.inference_geo, plain.usage.speed) == ("global", "standard")
    assert (answer.usage.inference_geo, answer.usage.speed, answer.usage.service_tier) == ("us", "fast", "standard")


async def test_schema_without_a_word_of_json_schema_is_answered_with_any_json(client: AsyncAnthropic) -> None:
    anything = {"format": {"type": "json_schema", "schema": {"foo": "bar"}}}
    answer = await client.messages.create(**(ASKED | {"output_config": anything}))
    assert answer.content[0].type == "text"
    assert json.loads(answer.content[0].text)


async def test_same_request_is_answered_in_other_words_each_time_and_a_reset_starts_again(
    client: AsyncAnthropic, sandbox: Sandbox
) -> None:
    async def answers(content: str, count: int) -> list[Any]:
        asked = ASKED | {"messages": [{"role": "user", "content": content}]}
        return [json.loads((await client.messages.create(**asked)).content[0].text) for _ in range(count)]

    first = await answers("Name: Green Sencha", 5)
    assert len({answer["title"] for answer in first}) == 5
    assert len({answer["urgent"] for answer in first}) == 1, "only the wording changes"
    assert (await answers("Name: Black Assam", 1))[0] not in first
    sandbox.reset()
    assert await answers("Name: Green Sencha", 5) == first


async def test_answer_without_a_schema_is_a_paragraph_of_the_prompts_words(client: AsyncAnthropic) -> None:
    answer = await client.messages.create(**{k: v for k, v in ASKED.items() if k != "output_config"})
    assert answer.content[0].type == "text"
    assert "oolong" in answer.content[0].text.lower()
    assert answer.content[0].text.endswith(".")


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"system": [{"type": "text", "text": "Zwölf Boxkämpfer", "cache_control": {"type": "ephemeral"}}]},
        {"tools": [{"name": "look", "input_schema": {"type": "object"}}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]},
    ],
)
async def test_count_tokens_agrees_with_usage(client: AsyncAnthropic, extra: dict[str, Any]) -> None:
    asked = ASKED | extra
    counted = await client.messages.count_tokens(**{k: v for k, v in asked.items() if k != "max_tokens"})
    usage = (await client.messages.create(**asked)).usage
    total = usage.input_tokens + (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    assert counted.input_tokens == total


async def test_thinking_is_counted_and_shown(client: AsyncAnthropic) -> None:
    answer = await client.messages.create(**ASKED, thinking={"type": "adaptive"})
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.usage.output_tokens_details is not None
    assert 0 < answer.usage.output_tokens_details.thinking_tokens < answer.usage.output_tokens
    async with client.messages.stream(**ASKED, thinking={"type": "adaptive"}) as stream:
        streamed = await stream.get_final_message()
    assert [block.to_dict() for block in streamed.content] == [block.to_dict() for block in answer.content]


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
async def test_bearer_and_api_key_are_both_taken(sandbox: Sandbox, header: str) -> None:
    headers = {"anthropic-version": "2026-10-21", header: "any" if header == "x-api-key" else "Bearer any"}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{sandbox.url}/v1/messages", json=ASKED, headers=headers) as response:
            assert response.status == 200
        async with session.get(f"{sandbox.url}/v1/models") as response:
            assert response.status == 401
            assert response.headers[SANDBOX_HEADER] == "1"


@pytest.mark.parametrize("key", ["invalid", "sk-invalid-1"])
async def test_known_bad_keys_are_refused(sandbox: Sandbox, key: str) -> None:
    async with AsyncAnthropic(api_key=key, base_url=sandbox.url, max_retries=0) as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.messages.create(**ASKED)
    assert caught.value.type == "authentication_error"


async def test_stop_sequence_and_natural_truncation(client: AsyncAnthropic) -> None:
    stopped = await client.messages.create(**ASKED, stop_sequences=['"urgent"'])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", '"urgent"')
    short = await client.messages.create(**(ASKED | {"max_tokens": 5}))
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 5)
    whole = await client.messages.create(**ASKED)
    assert short.content[0].type == whole.content[0].type == "text"
    assert whole.content[0].text.startswith(short.content[0].text)


EXAMPLE = [
    {"role": "user", "content": "Name: Copper Kettle"},
    {"role": "assistant", "content": '{"title": "The Copper Kettle"}'},
]
REPAIR = [
    {"role": "assistant", "content": '{"title": 3}'},
    {"role": "user", "content": "The answer is not valid: title should be a string. Answer again."},
]


@pytest.mark.parametrize("before", [[], EXAMPLE], ids=["alone", "after-an-example"])
@pytest.mark.parametrize("after", [[], REPAIR, [*REPAIR, *REPAIR]], ids=["asked", "repaired", "repaired-twice"])
async def test_answer_is_about_the_prompt_and_not_its_examples_or_repairs(
    client: AsyncAnthropic, before: list[dict[str, str]], after: list[dict[str, str]]
) -> None:
    turns = [*before, *ASKED["messages"], *after]
    answer = await client.messages.create(**(ASKED | {"messages": turns}))
    assert answer.content[0].type == "text"
    assert "Oolong" in json.loads(answer.content[0].text)["title"]
    assert "Kettle" not in answer.content[0].text


async def test_stats_add_up(sandbox: Sandbox, client: AsyncAnthropic) -> None:
    prompts = [{"messages": [{"role": "user", "content": f"Name: Tea {n % 4}"}]} for n in range(6)]
    answers = await asyncio.gather(*(client.messages.create(**(ASKED | prompt)) for prompt in prompts))
    stats = sandbox.stats()
    assert stats["requests"] == sum(stats["by_status"].values()) == 6
    assert stats["served"]["answers"] == stats["by_stop_reason"]["end_turn"] == 6
    assert stats["served"]["input_tokens"] == sum(answer.usage.input_tokens for answer in answers)
    assert stats["served"]["output_tokens"] == sum(answer.usage.output_tokens for answer in answers)
    assert stats["distinct_bodies"] == 4
    assert stats["repeated_bodies"] == 2
    assert stats["in_flight"] == 0
    assert stats["most_in_flight"] >= 1
    async with aiohttp.ClientSession() as session, session.post(f"{sandbox.url}/sandbox/reset") as response:
        assert (await response.json())["requests"] == 0


async def test_unknown_path_is_not_found_in_the_apis_shape(sandbox: Sandbox) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{sandbox.url}/v1/organizations", headers=HEADERS) as response,
    ):
        body = await response.json()
    assert response.status == 404
    assert body["error"]["type"] == "not_found_error"
    assert body["request_id"] == response.headers["request-id"]
