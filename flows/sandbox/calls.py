"""Reading a request: what the API refuses is refused here, the rest becomes a Call."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.sandbox.blocks import prompt_blocks, prompt_text
from flows.sandbox.models import Model, find_model
from flows.sandbox.prompt_cache import Block
from flows.sandbox.refusals import bad_request
from flows.sandbox.schemas import Schema, read_schema

_COUNTED = frozenset(
    "messages model cache_control output_config speed system thinking tool_choice tools user_profile_id"
    " workspace_id".split()
)
_CREATED = _COUNTED | frozenset(
    "max_tokens container diagnostics inference_geo metadata service_tier stop_sequences stream".split()
)
_THINKING = {"low": 32, "medium": 64, "high": 96, "xhigh": 128, "max": 160}


@dataclass(frozen=True, slots=True)
class Call:
    """A request that the API would answer."""

    model: Model
    max_tokens: int
    stream: bool
    schema: Schema | None
    stops: tuple[str, ...]
    thinking_tokens: int
    shows_thinking: bool
    blocks: tuple[Block, ...]
    prompt: str


def read_call(body: Mapping[str, Any]) -> Call:
    """Check a body of POST /v1/messages; raises Refusal."""
    model = _read_common(body, _CREATED)
    max_tokens = _max_tokens(body, model)
    stream = body.get("stream", False)
    if not isinstance(stream, bool):
        raise bad_request("stream: Input should be a valid boolean")
    if body.get("service_tier", "auto") not in ("auto", "standard_only"):
        raise bad_request("service_tier: Input should be 'auto' or 'standard_only'")
    schema = _output(body, model)
    thinking, shown = _thinking(body, model, max_tokens)
    blocks = _fitting(body, model, schema)
    prompt = prompt_text(body["messages"], answered=schema is not None)
    return Call(model, max_tokens, stream, schema, _stops(body), thinking, shown, blocks, prompt)


def count_tokens(body: Mapping[str, Any]) -> int:
    """The input tokens of a body of POST /v1/messages/count_tokens: what its usage would add up to; raises Refusal."""
    model = _read_common(body, _COUNTED)
    return sum(block.tokens for block in prompt_blocks(body, _output(body, model)))


def _read_common(body: Mapping[str, Any], fields: frozenset[str]) -> Model:
    for name in body:
        if name not in fields:
            raise bad_request(f"{name}: Extra inputs are not permitted")
    for name in ("model", "messages"):
        if name not in body:
            raise bad_request(f"{name}: Field required")
    if not isinstance(body["model"], str):
        raise bad_request("model: Input should be a valid string")
    return find_model(body["model"])


def _max_tokens(body: Mapping[str, Any], model: Model) -> int:
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


def _output(body: Mapping[str, Any], model: Model) -> Schema | None:
    config = body.get("output_config")
    if config is None:
        return None
    if not isinstance(config, dict):
        raise bad_request("output_config: Input should be a valid dictionary")
    for name in config:
        if name not in ("effort", "format"):
            raise bad_request(f"output_config.{name}: Extra inputs are not permitted")
    effort, format_ = config.get("effort"), config.get("format")
    if effort is not None and effort not in model.efforts:
        raise bad_request(f"output_config.effort: {effort!r} is not supported by {model.id}")
    if format_ is None:
        return None
    if not isinstance(format_, dict) or format_.get("type") != "json_schema":
        raise bad_request("output_config.format.type: Input should be 'json_schema'")
    if extra := sorted(set(format_) - {"type", "schema"}):
        raise bad_request(f"output_config.format.{extra[0]}: Extra inputs are not permitted")
    return read_schema(format_.get("schema"))


def _thinking(body: Mapping[str, Any], model: Model, max_tokens: int) -> tuple[int, bool]:
    """How many tokens to think, and whether the thinking is shown."""
    config = body.get("thinking")
    if config is None:
        return 0, False
    kind = config.get("type") if isinstance(config, dict) else None
    if kind == "disabled":
        return 0, False
    if kind not in ("enabled", "adaptive") or (kind == "adaptive" and not model.adaptive_thinking):
        raise bad_request(f"thinking.type: {kind!r} is not supported by {model.id}")
    tokens = _THINKING.get((body.get("output_config") or {}).get("effort") or "high", 96)
    if kind == "enabled":
        budget = config.get("budget_tokens")
        if not isinstance(budget, int) or budget < 1024:
            raise bad_request("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if budget >= max_tokens:
            raise bad_request("max_tokens: must be greater than thinking.budget_tokens")
        tokens = min(tokens, budget)
    return tokens, config.get("display") != "omitted"


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    stops = body.get("stop_sequences") or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise bad_request("stop_sequences: Input should be a valid list of strings")
    if any(not stop.strip() for stop in stops):
        raise bad_request("stop_sequences: each stop sequence must contain non-whitespace")
    return tuple(stops)


def _fitting(body: Mapping[str, Any], model: Model, schema: Schema | None) -> tuple[Block, ...]:
    blocks = prompt_blocks(body, schema)
    total = sum(block.tokens for block in blocks)
    if total > model.context:
        raise bad_request(f"prompt is too long: {total} tokens > {model.context} maximum")
    if body["messages"][-1]["role"] == "assistant" and (not model.prefill or schema is not None):
        raise bad_request(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    return blocks
