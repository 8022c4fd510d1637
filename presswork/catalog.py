"""Find a model's limits by its name, correct them by the endpoint's own figures, and warn before it retires.

The figures are in known_models.py; an endpoint's figures replace them one by one. Only known_models.py decides what
goes into a request and so into the prompt's hash (model_rules.py). An endpoint that does not answer must not change a
hash.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache
from typing import Any, TypeVar

from presswork.known_models import EFFORTS, LIFECYCLES, MODELS, THINKING_TYPES, Effort, Lifecycle, Model, ThinkingType

T = TypeVar("T", bound=str)

__all__ = ["DEFAULT_MODEL", "MODELS", "Model", "ModelFacts", "ModelsByName", "NotTold"]

DEFAULT_MODEL = "claude-sonnet-4-6"
SOON_DAYS = 60
"""Anthropic announces a retirement this long before. In that time, templates that name the model get a warning."""

_OF_A_GATEWAY = re.compile(r"^.*/|^(?:[a-z-]+\.)?anthropic\.")
_OF_A_VERSION = re.compile(r"(?<=\d)-v\d+(?::\w+)*$|@(?:\d{8}|latest|default)$")
_DATED = re.compile(r"-(?:20\d{6}|20\d{2}-\d{2}-\d{2}|latest)$")
_VERSION_FIRST = re.compile(r"^claude-([4-9](?:-\d{1,2})?)-([a-z]+)$")
_POINT_ZERO = re.compile(r"^(claude-[a-z]+-\d+)-0$")


def find_model(name: str) -> Model | None:
    """Return a model's limits by its name, in any spelling of a cloud or a gateway. None if it is unknown."""
    return MODELS.get(plain_model_name(name))


@lru_cache(maxsize=256)  # called for each prompt and each answer
def plain_model_name(model: str) -> str:
    """Return Anthropic's name for an id to which a gateway added a prefix, a date or a suffix.

    `us.anthropic.claude-sonnet-4-6-v1:0`, `anthropic/claude-4.6-sonnet-20260217` and `claude-sonnet-4-6@20260101` are
    claude-sonnet-4-6. An id that names no Claude model is returned unchanged. An unknown suffix is kept.
    """
    name = model.lower()
    while (shorter := _OF_A_GATEWAY.sub("", name)) != name:
        name = shorter
    if not name.startswith("claude-"):
        return model
    name = _DATED.sub("", _OF_A_VERSION.sub("", name))
    name = re.sub(r"(?<=\d)\.(?=\d)", "-", name)
    return _POINT_ZERO.sub(r"\1", _VERSION_FIRST.sub(r"claude-\2-\1", name))


def is_other_model(asked: str, answered: str | None) -> bool:
    """Whether another model answered. False if the requested model is unknown, or the answer names none.

    Also False for retired models: only clouds still serve them, under names that are not known here.
    """
    model = find_model(asked)
    if answered is None or model is None or model.lifecycle == "retired":
        return False
    return plain_model_name(answered) != plain_model_name(asked)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """An endpoint's figures of a model (GET /v1/models/{id}). A missing figure is None, a missing name is left out."""

    context: int | None = None
    max_output: int | None = None
    thinking: Mapping[ThinkingType, bool] = field(default_factory=dict)
    efforts: Mapping[Effort, bool] = field(default_factory=dict)
    structured_outputs: bool | None = None
    lifecycle: Lifecycle | None = None
    retires_on: date | None = None


@dataclass(frozen=True, slots=True)
class NotTold:
    """Why an endpoint has no figures of a model. `is_unknown`: it knows other models, but not this one."""

    message: str
    is_unknown: bool = False


ModelsByName = Mapping[str, Model | NotTold]
"""What an endpoint reports about models, by the names that were asked for."""


def read_model_facts(info: Any) -> ModelFacts:
    """Read the body of GET /v1/models/{id}. A field that is missing or malformed is left out."""
    lifecycle = _value(info, "lifecycle")
    efforts = _each(info, EFFORTS, "effort")
    if _supported(info, "effort") is False:
        efforts = dict.fromkeys(efforts, False)
    return ModelFacts(
        context=_count(info, "max_input_tokens"),
        max_output=_count(info, "max_tokens"),
        thinking=_each(info, THINKING_TYPES, "thinking", "types"),
        efforts=efforts,
        structured_outputs=_supported(info, "structured_outputs"),
        lifecycle=next((known for known in LIFECYCLES if known == lifecycle), None),
        retires_on=_day(info, "retires_at"),
    )


def _value(info: Any, *path: str) -> Any:
    """Return the value at a path of names in any JSON value. None if there is nothing."""
    for name in path:
        info = info.get(name) if isinstance(info, dict) else None
    return info


def _supported(info: Any, *path: str) -> bool | None:
    said = _value(info, "capabilities", *path, "supported")
    return said if isinstance(said, bool) else None


def _each(info: Any, names: tuple[T, ...], *path: str) -> dict[T, bool]:
    return {name: said for name in names if (said := _supported(info, *path, name)) is not None}


def _count(info: Any, name: str) -> int | None:
    said = _value(info, name)
    return said if isinstance(said, int) and not isinstance(said, bool) and said > 0 else None


def _day(info: Any, name: str) -> date | None:
    try:
        return date.fromisoformat(str(_value(info, name))[:10])
    except ValueError:
        return None


def corrected(known: Model | None, reported: ModelFacts) -> Model:
    """Replace the known figures of a model by those of an endpoint."""
    model = known or Model()
    return replace(
        model,
        context=reported.context or model.context,
        max_output=reported.max_output or model.max_output,
        thinking=_corrected(model.thinking, reported.thinking, THINKING_TYPES),
        efforts=_corrected(model.efforts, reported.efforts, EFFORTS),
        structured_outputs=model.structured_outputs
        if reported.structured_outputs is None
        else reported.structured_outputs,
        lifecycle=reported.lifecycle or model.lifecycle,
        # An endpoint that reports the lifecycle also reports any date. None means that the retirement was postponed.
        retires_on=model.retires_on if reported.lifecycle is None else reported.retires_on,
    )


def ending(name: str, model: Model | None, today: date) -> str | None:
    """Return a warning that a model is retired, deprecated or about to retire, or None."""
    if model is None or model.lifecycle is None:
        return None
    on = model.retires_on
    days = (on - today).days if on else 0
    if model.lifecycle == "retired":
        return f"{name} is retired{f' since {on}' if on else ''}: requests that name it fail"
    if on is not None and days < 0:
        return f"{name} should have retired on {on} and may stop answering any day"
    if on is not None and (model.lifecycle == "deprecated" or days <= SOON_DAYS):
        deprecated = "is deprecated and " if model.lifecycle == "deprecated" else ""
        soon = "today" if days == 0 else f"in {days} day{'' if days == 1 else 's'}"
        return f"{name} {deprecated}retires on {on}, {soon}"
    return f"{name} is deprecated; its retirement date is not known" if model.lifecycle == "deprecated" else None


def estimate_tokens(characters: int, model: Model | None = None) -> int:
    """Estimate a text's tokens from its length: Claude 4.6 counts about one for four characters of English.

    Use it for notes and pacing only. The endpoint's own count is billed.
    """
    return _scaled(-(-characters // 4), model.tokens if model else None)


def likely_tokens(text: str, model: Model | None = None) -> int:
    """Estimate a text's tokens on the high side: one for three bytes, as in code and most scripts."""
    return _scaled(len(text.encode("utf-8", "surrogatepass")) // 3, model.tokens if model else None)


def most_tokens(text: str, model: Model | None = None) -> int:
    """Return an upper bound of a text's tokens: one for two ASCII characters, and one for each other byte."""
    ascii_only = len(text.encode("ascii", "ignore"))
    most = ascii_only // 2 + len(text.encode("utf-8", "surrogatepass")) - ascii_only
    return _scaled(most, model.most_tokens if model else None)


def _scaled(tokens: int, ratio: float | None) -> int:
    # Rounded first: 1.3 times ten is 13, not 14.
    return tokens if ratio is None else math.ceil(round(tokens * ratio, 6))


def _corrected(
    known: frozenset[T] | None, reported: Mapping[T, bool], all_there_are: tuple[T, ...]
) -> frozenset[T] | None:
    """Return the supported values: the endpoint's word first, else the known ones. None if neither covers all."""
    if known is None and len(reported) < len(all_there_are):
        return None
    return frozenset(one for one in all_there_are if reported.get(one, one in (known or ())))
