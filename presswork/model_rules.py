"""What a template's `thinking` and `effort` become in a request, and whether its model takes them.

Models differ: some think unless they are told not to, some always do, some take a budget of tokens, some refuse it.
A request that its model refuses would be refused for each record; here it is one error, before any.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from presswork.errors import TemplateError
from presswork.known_models import EFFORTS, Effort, Model, ThinkingType

Thinking = Literal["adaptive", "off"] | int
TURNED_OFF: tuple[ThinkingType, ...] = ("disabled", "between_tools")
"""The types that turn thinking off, in the order in which they are tried; a model takes one of them, or none."""
CAPPED_EFFORTS: frozenset[Effort] = frozenset({"xhigh", "max"})
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
    return list(_misfits(asks, sent.get("thinking", {}).get("type"), model, name or asks.model))


def _misfits(asks: Asks, kind: ThinkingType | None, model: Model, name: str) -> Iterator[Misfit]:
    if model.thinking is not None and asks.thinking == "off" and kind is None and model.thinks:
        yield Misfit("thinking", f"{name} always thinks; leave the field out, and lower `effort` to have it think less")
    elif model.thinking is not None and kind is not None and kind not in model.thinking:
        yield Misfit("thinking", f"{name} {_NOT_TAKEN[kind]}")
    if asks.effort is not None and model.efforts is not None and asks.effort not in model.efforts:
        levels = ", ".join(level for level in EFFORTS if level in model.efforts)
        takes = f"takes {levels}, not {asks.effort}" if levels else "takes no effort; leave the field out"
        yield Misfit("effort", f"{name} {takes}")
    elif asks.effort in CAPPED_EFFORTS and model.capped and kind in TURNED_OFF:
        yield Misfit("effort", f"{name} takes {asks.effort} only while it thinks; write `thinking: adaptive`")
    if model.max_output is not None and asks.max_tokens > model.max_output:
        yield Misfit("max_tokens", f"{name} answers with {model.max_output:,} tokens at most")
    if model.structured_outputs is False:
        yield Misfit("model", f"{name} takes no output schema")


def require_fit(file: str, found: list[Misfit]) -> None:
    """Raise TemplateError where there is a misfit."""
    if found:
        raise TemplateError(f"the front matter is wrong: {'; '.join(map(str, found))}.", file=file)
