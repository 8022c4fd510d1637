"""What the models can take: the limits that are checked before a request is paid for.

Source: Anthropic's models page as of 2026-11; a model that is not listed here is unknown to the lint.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """Limits of a model, in tokens; a system block below `cacheable` is silently not cached."""

    max_output: int
    context: int
    cacheable: int


MODELS = {
    "claude-sonnet-4-6": Model(max_output=128_000, context=1_000_000, cacheable=1_024),
    "claude-opus-4-6": Model(max_output=128_000, context=1_000_000, cacheable=4_096),
    "claude-haiku-4-5": Model(max_output=64_000, context=200_000, cacheable=4_096),
    "claude-sonnet-5-5": Model(max_output=128_000, context=1_000_000, cacheable=1_024),
}
DEFAULT_MODEL = "claude-sonnet-4-6"


def find_model(name: str) -> Model | None:
    """Return a model's limits by its name or a dated version of it (name-20260101); None where it is unknown."""
    return MODELS.get(name) or MODELS.get(name.rpartition("-")[0] if name[-8:].isdigit() else name)


def estimate_tokens(characters: int) -> int:
    """Estimate the tokens of a text from its length: about four characters of English make one.

    An estimate for notes and for pacing only; what is billed is what the endpoint says.
    """
    return -(-characters // 4)
