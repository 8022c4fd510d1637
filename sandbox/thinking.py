"""Decide whether a request thinks, and how much, by the modes and defaults of its model.

Thinking is output: it counts within max_tokens and is billed.
"""

from dataclasses import dataclass
from typing import Any

from sandbox.error_shapes import bad_request
from sandbox.known import ServedModel

_FIELDS = {
    "adaptive": {"type", "display"},
    "between_tools": {"type"},
    "disabled": {"type"},
    "enabled": {"type", "display", "budget_tokens"},
}
_TOKENS = {"low": 32, "medium": 64, "high": 96, "xhigh": 128, "max": 160}
_LEAST_BUDGET = 1024


@dataclass(frozen=True, slots=True)
class ThinkingPlan:
    """How many tokens to think, and whether the thinking is shown."""

    tokens: int = 0
    shown: bool = False


_NONE = ThinkingPlan()


def read_thinking(config: Any, effort: str | None, model: ServedModel, max_tokens: int | None) -> ThinkingPlan:
    """Check the field `thinking` of a request, None if it is absent; raises Refusal.

    Without max_tokens, as for count_tokens, any budget is valid.
    """
    rules = model.rules
    if config is None:
        return _thought(model, effort, None) if rules.thinks else _NONE
    kind = _kind(config)
    if kind not in rules.thinking:
        advice = ' Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.'
        raise bad_request(
            f'"thinking.type.{kind}" is not supported for this model.{advice if "adaptive" in rules.thinking else ""}'
        )
    if kind in ("disabled", "between_tools"):
        if effort in ("xhigh", "max") and not rules.off_takes_any_effort:
            raise bad_request(f'"thinking.type.{kind}" is not supported with effort {effort!r} for this model.')
        return _NONE
    thought = _thought(model, effort, config.get("display"))
    if kind == "adaptive":
        return thought
    return ThinkingPlan(min(thought.tokens, _budget(config, max_tokens)), thought.shown)


def _thought(model: ServedModel, effort: str | None, display: str | None) -> ThinkingPlan:
    shown = model.rules.shows_thinking if display is None else display == "summarized"
    return ThinkingPlan(_TOKENS[effort or model.rules.effort], shown)


def _kind(config: Any) -> str:
    if not isinstance(config, dict):
        raise bad_request("thinking: Input should be a valid dictionary")
    kind = config.get("type")
    if kind not in _FIELDS:
        expected = ", ".join(map(repr, _FIELDS))
        raise bad_request(f"thinking: Input tag {kind!r} found using 'type' does not match any of: {expected}")
    if extra := sorted(config.keys() - _FIELDS[kind]):
        raise bad_request(f"thinking.{kind}.{extra[0]}: Extra inputs are not permitted")
    if config.get("display") not in (None, "summarized", "omitted"):
        raise bad_request(f"thinking.{kind}.display: Input should be 'summarized' or 'omitted'")
    return str(kind)


def _budget(config: dict[str, Any], max_tokens: int | None) -> int:
    budget = config.get("budget_tokens")
    if not isinstance(budget, int) or isinstance(budget, bool):
        raise bad_request("thinking.enabled.budget_tokens: Input should be a valid integer")
    if budget < _LEAST_BUDGET:
        raise bad_request(f"thinking.enabled.budget_tokens: Input should be greater than or equal to {_LEAST_BUDGET}")
    if max_tokens is not None and budget >= max_tokens:
        raise bad_request("max_tokens: must be greater than thinking.budget_tokens")
    return budget
