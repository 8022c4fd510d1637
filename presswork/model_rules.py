"""Turn a template's `thinking` and `effort` into fields of a request, and check that its model accepts them.

Models differ: some think unless a request turns it off, some always think, some take a budget of tokens, some reject
one. A model would reject such a request for every record; this check reports it once, before the first request.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from presswork.errors import TemplateError
from presswork.known_models import EFFORTS, Effort, Model, ThinkingType

Thinking = Literal["adaptive", "off"] | int
TURNED_OFF: tuple[ThinkingType, ...] = ("disabled", "between_tools")
"""The types that turn thinking off, in the order of trial. A model accepts at most one of them."""
CAPPED_EFFORTS: frozenset[Effort] = frozenset({"xhigh", "max"})
_NOT_TAKEN: dict[ThinkingType, str] = {
    "enabled": "takes no budget; write `adaptive`, and set the amount with `effort`",
    "adaptive": "does not take `adaptive`; write a budget in tokens",
    **{kind: f"does not take thinking turned off as {kind!r}; write `adaptive`" for kind in TURNED_OFF},
}


class Asks(Protocol):
    """The fields of a template that depend on its model."""

    model: str
    max_tokens: int
    thinking: Thinking | None
    effort: Effort | None


@dataclass(frozen=True, slots=True)
class Misfit:
    """A field of a template that its model does not accept."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def request_settings(asks: Asks, model: Model | None) -> dict[str, Any]:
    """Return the request's `thinking` and `effort` fields, as they are hashed.

    Without `thinking` in the template, a model thinks as little as it can. Nothing is sent if it does not think by
    itself or always thinks. Pass the model of known_models.py, never an endpoint's figures: see catalog.py.
    """
    settings = {"thinking": _thinking(asks.thinking, model), "effort": asks.effort}
    return {name: value for name, value in settings.items() if value is not None}


def _thinking(written: Thinking | None, model: Model | None) -> dict[str, Any] | None:
    if written == "adaptive":
        return {"type": "adaptive"}
    if isinstance(written, int):
        return {"type": "enabled", "budget_tokens": written}
    if model is None or model.thinking is None:
        # For an unknown model, only what the template writes is sent.
        return {"type": "disabled"} if written == "off" else None
    if not model.thinks:
        return None
    return next(({"type": kind} for kind in TURNED_OFF if kind in model.thinking), None)


def misfits(asks: Asks, sent: dict[str, Any], model: Model | None, name: str | None = None) -> list[Misfit]:
    """Return the fields of a template and of its requests that a model does not accept. Unknown limits pass.

    `name` is the model's name if it is not the template's model.
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
    """Raise TemplateError if there is a misfit."""
    if found:
        raise TemplateError(f"the front matter is wrong: {'; '.join(map(str, found))}.", file=file)
