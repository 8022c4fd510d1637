"""Read a request into a MessageCall, or refuse it as the API would."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.blocks import prompt_blocks, prompt_text
from sandbox.error_shapes import bad_request
from sandbox.known import ServedModel, served_model
from sandbox.prompt_cache import CacheBlock
from sandbox.request_options import read_options
from sandbox.request_schemas import Schema, read_schema
from sandbox.thinking import ThinkingPlan, read_thinking

_COUNTED = frozenset(
    "messages model cache_control output_config speed system thinking tool_choice tools user_profile_id"
    " workspace_id".split()
)
_CREATED = _COUNTED | frozenset(
    "max_tokens container diagnostics inference_geo metadata service_tier stop_sequences stream".split()
)


@dataclass(frozen=True, slots=True)
class MessageCall:
    """A request that the API would answer."""

    model: ServedModel
    max_tokens: int
    stream: bool
    schema: Schema | None
    stops: tuple[str, ...]
    thinking: ThinkingPlan
    blocks: tuple[CacheBlock, ...]
    prompt: str
    inference_geo: str
    speed: str


def read_call(body: Mapping[str, Any]) -> MessageCall:
    """Check a body of POST /v1/messages; raises Refusal."""
    model = _read_common(body, _CREATED)
    max_tokens = _max_tokens(body, model)
    stream = body.get("stream", False)
    if not isinstance(stream, bool):
        raise bad_request("stream: Input should be a valid boolean")
    schema, thinking = _output(body, model, max_tokens)
    blocks = _fitting(body, model, schema)
    prompt = prompt_text(body["messages"], answered=schema is not None)
    geo, speed = body.get("inference_geo") or "global", body.get("speed") or "standard"
    return MessageCall(model, max_tokens, stream, schema, _stops(body), thinking, blocks, prompt, geo, speed)


def count_tokens(body: Mapping[str, Any]) -> int:
    """The input tokens of a body of POST /v1/messages/count_tokens, equal to the sum in `usage`; raises Refusal."""
    model = _read_common(body, _COUNTED)
    schema, _ = _output(body, model, None)
    return sum(block.tokens for block in prompt_blocks(body, schema, model))


def _read_common(body: Mapping[str, Any], fields: frozenset[str]) -> ServedModel:
    if not fields.issuperset(body):
        extra = next(name for name in body if name not in fields)
        raise bad_request(f"{extra}: Extra inputs are not permitted")
    if "model" not in body or "messages" not in body:
        raise bad_request(f"{'messages' if 'model' in body else 'model'}: Field required")
    if not isinstance(body["model"], str):
        raise bad_request("model: Input should be a valid string")
    model = served_model(body["model"])
    read_options(body, forced_tools=model.rules.forced_tools)
    return model


def _max_tokens(body: Mapping[str, Any], model: ServedModel) -> int:
    if "max_tokens" not in body:
        raise bad_request("max_tokens: Field required")
    value = body["max_tokens"]
    if not isinstance(value, int) or isinstance(value, bool):
        raise bad_request("max_tokens: Input should be a valid integer")
    if value < 0:
        raise bad_request("max_tokens: Input should be greater than or equal to 0")
    if value > model.max_output:
        raise bad_request(
            f"max_tokens: {value} > {model.max_output},"
            f" which is the maximum allowed number of output tokens for {model.id}"
        )
    return value


def _output(body: Mapping[str, Any], model: ServedModel, max_tokens: int | None) -> tuple[Schema | None, ThinkingPlan]:
    config = body.get("output_config", {})
    if not isinstance(config, dict):
        raise bad_request("output_config: Input should be a valid dictionary")
    for name in config:
        if name not in ("effort", "format"):
            raise bad_request(f"output_config.{name}: Extra inputs are not permitted")
    effort, format_ = config.get("effort"), config.get("format")
    if effort is not None and effort not in model.rules.efforts:
        raise bad_request(f"output_config.effort: {effort!r} is not supported by {model.id}")
    thinking = read_thinking(body.get("thinking"), effort, model, max_tokens)
    return None if format_ is None else _schema(format_), thinking


def _schema(format_: object) -> Schema:
    if not isinstance(format_, dict) or format_.get("type") != "json_schema":
        raise bad_request("output_config.format.type: Input should be 'json_schema'")
    if extra := sorted(set(format_) - {"type", "schema"}):
        raise bad_request(f"output_config.format.{extra[0]}: Extra inputs are not permitted")
    return read_schema(format_.get("schema"))


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    stops = body.get("stop_sequences") or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise bad_request("stop_sequences: Input should be a valid list of strings")
    if any(not stop.strip() for stop in stops):
        raise bad_request("stop_sequences: each stop sequence must contain non-whitespace")
    return tuple(stops)


def _fitting(body: Mapping[str, Any], model: ServedModel, schema: Schema | None) -> tuple[CacheBlock, ...]:
    blocks = prompt_blocks(body, schema, model)
    total = sum(block.tokens for block in blocks)
    if total > model.context:
        raise bad_request(f"prompt is too long: {total} tokens > {model.context} maximum")
    if body["messages"][-1]["role"] == "assistant" and (not model.rules.prefill or schema is not None):
        raise bad_request(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    return blocks
