"""What a template's `thinking` and `effort` become in a request, and whether its model takes them.

Models differ: some think unless they are told not to, some always do, some take a budget of tokens, some refuse it.
A request that its model refuses would be refused for each record; here it is one error, before any.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from flows.errors import TemplateError
from flows.steps.known_models import EFFORTS, Effort, Model, ThinkingType

Thinking = Literal["adaptive", "off"] | int
TURNED_OFF: tuple[ThinkingType, ...] = ("disabled", "between_tools")
"""The types that turn thinking off, in the order in which they are tried; a model takes one of them, or none."""
CAPPED: frozenset[Effort] = frozenset({"xhigh", "max"})
_NOT_TAKEN: dict[ThinkingType, str] = {
    "enabled": "takes no budget; write `adaptive`, and say how much with `effort`",
    "adaptive": "does not take `adaptive`; write a budget in tokens",
    **{kind: f"does not take thinking turned off as {kind!r}; write `adaptive`" for kind in TURNED_OFF},
}


class Asks(Protocol):
    """What a template asks of its model."""

    model: str
    max_tokens: int
    thinking: Thinking | None
    effort: Effort | None


@dataclass(frozen=True, slots=True)
class Misfit:
    """A field of a template that its model does not take as it is."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def request_settings(asks: Asks, model: Model | None) -> dict[str, Any]:
    """Return what a request carries of `thinking` and `effort`, as it is hashed.

    Without `thinking` a model thinks as little as it can: nothing is sent where it does not think by itself, or can't
    be kept from it. Pass what known_models.py has, never what an endpoint says: see catalog.py.
    """
    settings = {"thinking": _thinking(asks.thinking, model), "effort": asks.effort}
    return {name: value for name, value in settings.items() if value is not None}


def _thinking(written: Thinking | None, model: Model | None) -> dict[str, Any] | None:
    if written == "adaptive":
        return {"type": "adaptive"}
    if isinstance(written, int):
        return {"type": "enabled", "budget_tokens": written}
    if model is None or model.thinking is None:
        # What is not known can only be asked for in so many words.
        return {"type": "disabled"} if written == "off" else None
    if not model.thinks:
        return None
    return next(({"type": kind} for kind in TURNED_OFF if kind in model.thinking), None)


def misfits(asks: Asks, sent: dict[str, Any], model: Model | None, name: str | None = None) -> list[Misfit]:
    """Compare what a template asks, and what its requests carry, with what a model takes; what is not known passes.

    `name` is the model's where it is not the template's own.
    """
    if model is None:
        return []
    name = name or asks.model
    found = [*_thinking_misfits(asks, sent, model, name), *_effort_misfits(asks, sent, model, name)]
    if model.max_output is not None and asks.max_tokens > model.max_output:
        found.append(Misfit("max_tokens", f"{name} answers with {model.max_output:,} tokens at most"))
    if model.structured_outputs is False:
        found.append(Misfit("model", f"{name} takes no output schema"))
    return found


def _thinking_misfits(asks: Asks, sent: dict[str, Any], model: Model, name: str) -> Iterator[Misfit]:
    kind = sent.get("thinking", {}).get("type")
    if model.thinking is None:
        return
    if asks.thinking == "off" and kind is None and model.thinks:
        yield Misfit("thinking", f"{name} always thinks; leave the field out, and lower `effort` to have it think less")
    elif kind is not None and kind not in model.thinking:
        yield Misfit("thinking", f"{name} {_NOT_TAKEN[kind]}")


def _effort_misfits(asks: Asks, sent: dict[str, Any], model: Model, name: str) -> Iterator[Misfit]:
    if asks.effort is None:
        return
    if model.efforts is not None and asks.effort not in model.efforts:
        levels = ", ".join(level for level in EFFORTS if level in model.efforts)
        takes = f"takes {levels}, not {asks.effort}" if levels else "takes no effort; leave the field out"
        yield Misfit("effort", f"{name} {takes}")
    elif model.capped and asks.effort in CAPPED and sent.get("thinking", {}).get("type") in TURNED_OFF:
        yield Misfit("effort", f"{name} takes {asks.effort} only while it thinks; write `thinking: adaptive`")


def require_fit(file: str, found: list[Misfit]) -> None:
    """Raise TemplateError where there is a misfit."""
    if found:
        raise TemplateError(f"the front matter is wrong: {'; '.join(map(str, found))}.", file=file)
