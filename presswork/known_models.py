"""List the models that Presswork knows: the limits of each, and when it retires.

There is one table for each kind of figure, as on Anthropic's pages, each with its source; `MODELS` joins them. If a
table leaves out a model, that figure is not checked. The figures of GET /v1/models/{id} replace these (catalog.py).
Prices come from genai-prices, not from here.
Figures and dates are as of 2026-11-25.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal, TypeVar, get_args

T = TypeVar("T")

ThinkingType = Literal["adaptive", "between_tools", "disabled", "enabled"]
Effort = Literal["low", "medium", "high", "xhigh", "max"]
Lifecycle = Literal["active", "deprecated", "retired"]
THINKING_TYPES: tuple[ThinkingType, ...] = get_args(ThinkingType)
EFFORTS: tuple[Effort, ...] = get_args(Effort)
LIFECYCLES: tuple[Lifecycle, ...] = get_args(Lifecycle)


@dataclass(frozen=True, slots=True)
class Model:
    """A model's limits, in tokens. None means that a figure is not known.

    - `cacheable`: the length of the shortest prefix that can be cached.
    - `thinks`: whether it thinks if a request does not set `thinking`.
    - `thinking`: the values of `thinking.type` that it accepts.
    - `capped`: whether it rejects the efforts xhigh and max while thinking is off.
    - `tokens`: its token count divided by that of Claude 4.6 for the same text. `most_tokens`: the highest such ratio.
    - `retires_on`: may be past; a deprecated model may still answer.
    """

    context: int | None = None
    max_output: int | None = None
    cacheable: int | None = None
    thinks: bool | None = None
    thinking: frozenset[ThinkingType] | None = None
    capped: bool = False
    efforts: frozenset[Effort] | None = None
    default_effort: Effort | None = None
    structured_outputs: bool | None = None
    tokens: float | None = None
    most_tokens: float | None = None
    lifecycle: Lifecycle | None = None
    retires_on: date | None = None


_SERVED = (
    "claude-fable-5-2 claude-mythos-5-2 claude-haiku-5-5 claude-sonnet-5-5 claude-opus-5-5 claude-fable-5-1 "
    "claude-mythos-5-1 claude-opus-5 claude-sonnet-5 claude-fable-5 claude-mythos-5 claude-opus-4-8 claude-opus-4-7 "
    "claude-sonnet-4-6 claude-opus-4-6 claude-opus-4-5 claude-haiku-4-5 claude-sonnet-4-5"
).split()
"""The models that Anthropic serves, the newest first."""

_CLAUDE_4_5 = ("claude-opus-4-5", "claude-haiku-4-5", "claude-sonnet-4-5")
_CLAUDE_4_6 = ("claude-sonnet-4-6", "claude-opus-4-6")
_CLAUDE_4_7 = ("claude-opus-4-8", "claude-opus-4-7")
_THINKS_UNLESS_DISABLED = ("claude-haiku-5-5", "claude-opus-5", "claude-sonnet-5")
_THINKS_UNLESS_BETWEEN_TOOLS = ("claude-sonnet-5-5",)
_ALWAYS_THINKS = (
    *("claude-fable-5-2", "claude-mythos-5-2", "claude-opus-5-5", "claude-fable-5-1", "claude-mythos-5-1"),
    *("claude-fable-5", "claude-mythos-5"),
)
_FROM_4_7 = (*_CLAUDE_4_7, *_THINKS_UNLESS_DISABLED, *_THINKS_UNLESS_BETWEEN_TOOLS, *_ALWAYS_THINKS)

_LIMITS: dict[tuple[str, ...], tuple[int, int]] = {
    (*_FROM_4_7, *_CLAUDE_4_6): (1_000_000, 128_000),
    _CLAUDE_4_5: (200_000, 64_000),
}
"""The context and the longest answer. Source: platform.claude.com/docs/en/models/overview and the page of each model
(.../models/NAME/overview); for Fable 5.2 and Mythos 5.2 the platform's release notes of 2026-11-09."""

_CACHEABLE: dict[tuple[str, ...], int] = {
    ("claude-fable-5-1", "claude-mythos-5-1", "claude-opus-5", "claude-fable-5", "claude-mythos-5"): 512,
    ("claude-sonnet-5-5", "claude-sonnet-5", "claude-opus-4-8", "claude-sonnet-4-6", "claude-sonnet-4-5"): 1_024,
    ("claude-opus-4-1", "claude-opus-4", "claude-sonnet-4"): 1_024,
    ("claude-opus-4-7", "claude-mythos-preview", "claude-3-5-haiku"): 2_048,
    ("claude-opus-4-6", "claude-opus-4-5", "claude-haiku-4-5"): 4_096,
}
"""The shortest prefix that is cached. Source: platform.claude.com/docs/en/build-with-claude/prompt-caching. The
available copies of that page are older than the 5.5 models: Sonnet 5.5's figure is the one that this project began
with, and Fable 5.2, Mythos 5.2, Opus 5.5 and Haiku 5.5 have none."""

_THINKING: dict[tuple[str, ...], tuple[bool, frozenset[ThinkingType]]] = {
    _CLAUDE_4_5: (False, frozenset({"enabled", "disabled"})),
    _CLAUDE_4_6: (False, frozenset({"adaptive", "enabled", "disabled"})),
    _CLAUDE_4_7: (False, frozenset({"adaptive", "disabled"})),
    _THINKS_UNLESS_DISABLED: (True, frozenset({"adaptive", "disabled"})),
    _THINKS_UNLESS_BETWEEN_TOOLS: (True, frozenset({"adaptive", "between_tools"})),
    _ALWAYS_THINKS: (True, frozenset({"adaptive"})),
    # The SDK warns about a budget for this one (MODELS_TO_WARN_WITH_THINKING_ENABLED), so the API accepts it.
    ("claude-mythos-preview",): (True, frozenset({"adaptive", "enabled"})),
}
"""Whether a request without `thinking` thinks, and the accepted types. Source: the migration guide of each model
(platform.claude.com/docs/en/models/NAME/migration-guide), and Anthropic's own table of them (github.com/anthropics/
skills, skills/claude-api/SKILL.md, 2026-10-06); tried live by the authors of pydantic-ai (profiles/anthropic.py)."""

_CAPPED = ("claude-sonnet-5-5", "claude-haiku-5-5", "claude-opus-5")
"""Models that reject the efforts xhigh and max while thinking is off. Source: as for `_THINKING`."""

_EFFORTS: dict[tuple[str, ...], frozenset[Effort]] = {
    _FROM_4_7: frozenset(EFFORTS),
    _CLAUDE_4_6: frozenset({"low", "medium", "high", "max"}),
    ("claude-opus-4-5",): frozenset({"low", "medium", "high"}),
    ("claude-haiku-4-5", "claude-sonnet-4-5"): frozenset(),
}
_MEDIUM_BY_DEFAULT = ("claude-opus-5-5", "claude-haiku-5-5")
"""The accepted levels of `effort`. Without the field it is high, for these two models medium. Source:
platform.claude.com/docs/en/build-with-claude/effort, and the migration guide of Fable 5.2."""

_STRUCTURED_OUTPUTS = (*_SERVED, "claude-opus-4-1")
"""Models that accept an output schema. Source: platform.claude.com/docs/en/build-with-claude/structured-outputs, and
pydantic-ai's profiles for those that the page does not list yet."""

_TOKENIZER_OF_4_7 = (*_FROM_4_7, "claude-mythos-preview")
_MORE_TOKENS, _MOST_TOKENS = 1.3, 1.35
"""Claude 4.7 and later models count about 30 % more tokens for the same text than Claude 4.6 and older, at most
35 %. Source: the pages of Haiku 5.5 and Sonnet 5, the migration guides of Opus 4.7 (1 to 1.35 times) and Fable 5."""

_DEPRECATED = {"claude-sonnet-4-5": date(2026, 11, 30)}
"""When a deprecated model retires. Source: DEPRECATED_MODELS of the SDK, anthropic 2.12.0."""

_RETIRED: dict[str, date] = {
    "claude-opus-4-1": date(2026, 8, 5),
    "claude-mythos-preview": date(2026, 6, 30),
    "claude-opus-4": date(2026, 6, 15),
    "claude-sonnet-4": date(2026, 6, 15),
    "claude-3-haiku": date(2026, 4, 19),
    "claude-3-7-sonnet": date(2026, 2, 19),
    "claude-3-5-haiku": date(2026, 2, 19),
    "claude-3-opus": date(2026, 1, 5),
    "claude-3-5-sonnet": date(2025, 10, 28),
    "claude-3-sonnet": date(2025, 7, 21),
    "claude-2-1": date(2025, 7, 21),
    "claude-2-0": date(2025, 7, 21),
    "claude-1-3": date(2024, 11, 6),
    "claude-1-3-100k": date(2024, 11, 6),
    "claude-instant-1-1": date(2024, 11, 6),
    "claude-instant-1-1-100k": date(2024, 11, 6),
    "claude-instant-1-2": date(2024, 11, 6),
}
"""Models that Anthropic has retired, and when. Source: DEPRECATED_MODELS of the SDK, anthropic 2.12.0; for
Opus 4.1, Haiku 3 and Sonnet 3.5 platform.claude.com/docs/en/about-claude/model-deprecations."""


def _model(name: str) -> Model:
    context, max_output = _figure(name, _LIMITS) or (None, None)
    thinks, thinking = _figure(name, _THINKING) or (None, None)
    efforts = _figure(name, _EFFORTS)
    more = name in _TOKENIZER_OF_4_7
    return Model(
        context=context,
        max_output=max_output,
        cacheable=_figure(name, _CACHEABLE),
        thinks=thinks,
        thinking=thinking,
        capped=name in _CAPPED,
        efforts=efforts,
        default_effort=("medium" if name in _MEDIUM_BY_DEFAULT else "high") if efforts else None,
        structured_outputs=True if name in _STRUCTURED_OUTPUTS else None,
        tokens=_MORE_TOKENS if more else 1.0,
        most_tokens=_MOST_TOKENS if more else 1.0,
        lifecycle="deprecated" if name in _DEPRECATED else "retired" if name in _RETIRED else "active",
        retires_on=_DEPRECATED.get(name) or _RETIRED.get(name),
    )


def _figure(name: str, table: Mapping[tuple[str, ...], T]) -> T | None:
    return next((figure for names, figure in table.items() if name in names), None)


MODELS: dict[str, Model] = {name: _model(name) for name in (*_SERVED, *_RETIRED)}
"""All known models by Anthropic's name (catalog.plain_model_name)."""
