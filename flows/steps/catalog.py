"""What the models can take: the limits that are checked before a request is paid for.

Source: Anthropic's models page as of 2026-11; a model that is not listed here is unknown to the lint.
"""

from __future__ import annotations

import re
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

_OF_A_GATEWAY = re.compile(r"^.*/|^(?:[a-z-]+\.)?anthropic\.")
_OF_A_VERSION = re.compile(r"(?<=\d)-v\d+(?::\w+)*$|@(?:\d{8}|latest|default)$")
_DATED = re.compile(r"-(?:20\d{6}|20\d{2}-\d{2}-\d{2}|latest)$")
_VERSION_FIRST = re.compile(r"^claude-([4-9](?:-\d{1,2})?)-([a-z]+)$")
_POINT_ZERO = re.compile(r"^(claude-[a-z]+-\d+)-0$")


def find_model(name: str) -> Model | None:
    """Return a model's limits by its name, however a cloud or a gateway writes it; None where it is unknown."""
    return MODELS.get(plain_model_name(name))


def plain_model_name(model: str) -> str:
    """Return a model's own name for an id that a gateway gave a prefix, a date or a suffix.

    `us.anthropic.claude-sonnet-4-6-v1:0`, `anthropic/claude-4.6-sonnet-20260217` and `claude-sonnet-4-6@20260101` are
    claude-sonnet-4-6. An id that names no Claude model, and a suffix that is not known here, are left as they are.
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
    """Whether another model answered than was asked; judged only where one of MODELS was asked, and one is named."""
    if answered is None or find_model(asked) is None:
        return False
    return plain_model_name(answered) != plain_model_name(asked)


def estimate_tokens(characters: int) -> int:
    """Estimate the tokens of a text from its length: about four characters of English make one.

    An estimate for notes and for pacing only; what is billed is what the endpoint says.
    """
    return -(-characters // 4)


def likely_tokens(text: str) -> int:
    """Estimate a text's tokens on the high side: one for three bytes, as code and most scripts have it."""
    return len(text.encode("utf-8", "surrogatepass")) // 3


def most_tokens(text: str) -> int:
    """Return a number of tokens that a text does not pass: one for two ASCII characters, one for each other byte."""
    ascii_only = len(text.encode("ascii", "ignore"))
    return ascii_only // 2 + len(text.encode("utf-8", "surrogatepass")) - ascii_only
