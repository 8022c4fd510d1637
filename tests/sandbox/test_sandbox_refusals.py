"""What the API refuses, the sandbox refuses, in the API's error shapes."""

import io
import json
from typing import Any

import aiohttp
import pytest

from sandbox import Sandbox

HEADERS = {"x-api-key": "any", "anthropic-version": "2026-10-21"}
USER = {"role": "user", "content": "Hello"}
TEXT = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
TOOL = {"name": "look", "input_schema": {"type": "object"}}
HOUR = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}


def body(**changes: Any) -> dict[str, Any]:
    asked = {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": [USER]} | changes
    return {name: value for name, value in asked.items() if value is not None}


def field(**schema: Any) -> dict[str, Any]:
    outer = {"type": "object", "properties": {"it": schema}, "additionalProperties": False, "required": ["it"]}
    return body(output_config={"format": {"type": "json_schema", "schema": outer}})


async def post(sandbox: Sandbox, sent: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    kept = {name: value for name, value in (HEADERS | headers).items() if value}
    data = io.BytesIO(sent if isinstance(sent, bytes) else json.dumps(sent).encode())
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{sandbox.url}/v1/messages", headers=kept, data=data) as response,
    ):
        return response.status, await response.json()


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (body(temperature=0.5), "temperature: Extra inputs are not permitted"),
        (body(top_p=0.5), "top_p: Extra inputs are not permitted"),
        (body(top_k=5), "top_k: Extra inputs are not permitted"),
        (body(prompt="x"), "prompt: Extra inputs are not permitted"),
        (body(max_tokens=None), "max_tokens: Field required"),
        (body(max_tokens="9"), "max_tokens: Input should be a valid integer"),
        (body(max_tokens=-1), "greater than or equal to 0"),
        (body(max_tokens=128_001), "128001 > 128000"),
        (body(model="claude-haiku-4-5", max_tokens=64_001), "64001 > 64000"),
        (body(model=None), "model: Field required"),
        (body(messages=None), "messages: Field required"),
        (body(messages=[]), "at least one message"),
        (body(messages="hi"), "valid list"),
        (body(messages=[{"role": "assistant", "content": "x"}]), 'first message must use the "user" role'),
        (body(messages=[{"role": "system", "content": "x"}]), "messages.0.role"),
        (body(messages=[{"role": "user", "content": ""}]), "non-empty content"),
        (body(messages=[{"role": "user", "content": [{"type": "text", "text": " "}]}]), "non-empty"),
        (body(messages=[{"role": "user"}]), "messages.0.content: Field required"),
        (body(messages=[USER, {"role": "assistant", "content": "{"}]), "prefill"),
        (body(system=[TEXT] * 5), "maximum of 4 blocks"),
        (body(system=[TEXT, HOUR]), "must not come after"),
        (body(cache_control={"type": "ephemeral", "ttl": "2h"}), "cache_control.ttl"),
        (body(system=3), "system"),
        (body(stop_sequences=[" "]), "non-whitespace"),
        (body(output_config={"effort": "huge"}), "output_config.effort"),
        (body(model="claude-haiku-4-5", output_config={"effort": "low"}), "not supported by claude-haiku-4-5"),
        (body(output_config={"format": {"type": "json"}}), "json_schema"),
        (body(output_config={"format": {"type": "json_schema", "schema": {}}}), "non-empty"),
        (body(thinking={"type": "enabled", "budget_tokens": 2000}), "must be greater than"),
        (body(model="claude-haiku-4-5", messages=[{"role": "user", "content": "x" * 900_000}]), "prompt is too long"),
        (body(stream=1), "stream: Input should be a valid boolean"),
        (body(metadata={"user": "x"}), "metadata.user: Extra inputs are not permitted"),
        (body(metadata={"user_id": 3}), "metadata.user_id: Input should be a valid string"),
        (body(service_tier="fast"), "service_tier: Input should be 'auto' or 'standard_only'"),
        (body(inference_geo=1), "inference_geo: Input should be a valid string"),
        (body(speed="slow"), "speed: Input should be 'standard' or 'fast'"),
        (body(container={"skills": [{"type": "own", "skill_id": "x"}]}), "skills.0.type: Input should be"),
        (body(diagnostics={"id": "x"}), "diagnostics.id: Extra inputs are not permitted"),
        (body(tools={}), "tools: Input should be a valid list"),
        (body(tools=[1]), "tools.0: Input should be a valid dictionary"),
        (body(tools=[{"name": "look"}]), "tools.0.custom.input_schema: Field required"),
        (body(tools=[TOOL | {"name": "look up"}]), "tools.0.custom.name: String should match"),
        (body(tools=[TOOL | {"shape": {}}]), "tools.0.custom.shape: Extra inputs are not permitted"),
        (body(tool_choice={"type": "auto"}), "only be specified while providing tools"),
        (body(tool_choice={"type": "must"}, tools=[TOOL]), "Input tag 'must'"),
        (body(tool_choice={"type": "tool", "name": "see"}, tools=[TOOL]), "Tool 'see' not found"),
        (body(messages=[{"role": "user", "content": [{"type": "sound"}]}]), "messages.0.content.0.type"),
        (body(messages=[{"role": "user", "content": [TEXT | {"title": "x"}]}]), "title: Extra inputs"),
        (body(cache_control={"type": "ephemeral", "for": "1h"}), "cache_control.ephemeral.for: Extra inputs"),
        (body(thinking={"type": "sometimes"}), "thinking: Input tag 'sometimes'"),
        (body(thinking="adaptive"), "thinking: Input should be a valid dictionary"),
        (body(thinking={"type": "adaptive", "budget_tokens": 2000}), "adaptive.budget_tokens: Extra inputs"),
        (body(thinking={"type": "adaptive", "display": "all"}), "adaptive.display: Input should be"),
        (body(thinking={"type": "enabled", "budget_tokens": True}), "budget_tokens: Input should be a valid integer"),
        (body(thinking={"type": "enabled", "budget_tokens": 99}), "greater than or equal to 1024"),
        (b'{"model": ', "not valid JSON"),
        (b"[]", "valid dictionary"),
        (field(type="integer", minimum=1), "'minimum'"),
        (field(type="number", maximum=1), "'maximum'"),
        (field(type="string", minLength=1), "'minLength'"),
        (field(type="string", maxLength=1), "'maxLength'"),
        (field(type="string", pattern="a"), "'pattern'"),
        (field(type="string", format="text"), "format 'text'"),
        (field(type="array", items={"type": "string"}, maxItems=2), "'maxItems'"),
        (field(type="array", items={"type": "string"}, minItems=2), "'minItems'"),
        (field(type="object", properties={}), "'additionalProperties'"),
        (field(oneOf=[{"type": "string"}]), "'oneOf'"),
        (field(type="string", foo="bar"), "'foo'"),
        (field(title="It"), "must have a 'type'"),
        (field(**{"$ref": "#/$defs/Missing"}), "cannot be resolved"),
        (field(type="array", items={"type": "string", "minLength": 2}), "'minLength'"),
    ],
)
async def test_bad_request_is_refused_with_what_is_wrong(sandbox: Sandbox, sent: Any, message: str) -> None:
    status, answer = await post(sandbox, sent)
    assert status == 400
    assert answer["type"] == "error"
    assert answer["error"]["type"] == "invalid_request_error"
    assert message in answer["error"]["message"]
    assert answer["request_id"].startswith("req_")


async def test_recursive_schema_is_refused(sandbox: Sandbox) -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}, "additionalProperties": False}
    schema = {"$defs": {"Node": node}, "$ref": "#/$defs/Node"}
    status, answer = await post(sandbox, body(output_config={"format": {"type": "json_schema", "schema": schema}}))
    assert status == 400
    assert "Recursive" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("sent", "headers", "status", "kind"),
    [
        (body(), {"x-api-key": ""}, 401, "authentication_error"),
        (body(), {"x-api-key": "sk-invalid"}, 401, "authentication_error"),
        (body(), {"anthropic-version": ""}, 400, "invalid_request_error"),
        (body(model="claude-3"), {}, 404, "not_found_error"),
        (b"[" + b" " * (32 * 1024 * 1024) + b"]", {}, 413, "request_too_large"),
    ],
    ids=["no key", "bad key", "no version", "unknown model", "over-long"],
)
async def test_refusals_with_a_status_of_their_own(
    sandbox: Sandbox, sent: Any, headers: dict[str, str], status: int, kind: str
) -> None:
    found, answer = await post(sandbox, sent, **headers)
    assert (found, answer["error"]["type"]) == (status, kind)
    assert sandbox.stats()["served"]["answers"] == 0
    assert sandbox.stats()["by_status"] == {str(status): 1}


async def test_schema_that_trips_the_sandbox_is_a_failure_in_the_apis_shape(sandbox: Sandbox) -> None:
    status, answer = await post(sandbox, field(type="object", properties=[1], additionalProperties=False))
    assert (status, answer["error"]["type"]) == (500, "api_error")
    assert sandbox.stats()["by_status"] == {"500": 1}
