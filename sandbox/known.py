"""List the models that the SDK names, each with its limits and the options that it accepts.

Source: Anthropic's pages on models, effort, thinking, prompt caching and deprecations, read in November 2026. A figure
that is not on them is that of the generation. An unknown release date is the epoch, as in the API.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sandbox.error_shapes import Refusal

_UNKNOWN_DAY = "1970-01-01"


@dataclass(frozen=True, slots=True)
class Rules:
    """The options that the models of one generation accept, and their defaults."""

    thinking: tuple[str, ...]
    thinks: bool = False  # without the field
    off_takes_any_effort: bool = True  # False: turned off, thinking is refused with effort xhigh and max
    shows_thinking: bool = True  # without `display`
    efforts: tuple[str, ...] = ()
    effort: str = "high"  # without the field
    prefill: bool = False
    forced_tools: bool = True
    token_percent: int = 100  # tokens for the same text


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model: its limits in tokens, its rules and its lifecycle."""

    id: str
    name: str
    line: str
    released: str
    rules: Rules
    cache_minimum: int = 1_024
    max_output: int = 128_000
    context: int = 1_000_000
    lifecycle: str = "active"
    retires: str | None = None

    def tokens(self, plain: int) -> int:
        """Convert a count of plain tokens to this model's tokenizer."""
        return plain if self.rules.token_percent == 100 else -(-plain * self.rules.token_percent // 100)


_UP_TO_HIGH = ("low", "medium", "high")
_UP_TO_MAX = (*_UP_TO_HIGH, "max")
_ALL_EFFORTS = (*_UP_TO_HIGH, "xhigh", "max")

_4_5 = Rules(("enabled", "disabled"), prefill=True)
_4_6 = Rules(("adaptive", "enabled", "disabled"), efforts=_UP_TO_MAX)
_4_7 = Rules(("adaptive", "disabled"), shows_thinking=False, efforts=_ALL_EFFORTS, token_percent=130)
_5 = replace(_4_7, thinks=True)
_OPUS_5 = replace(_5, off_takes_any_effort=False)
_FABLE_5 = replace(_5, thinking=("adaptive",))
_FABLE_5_1 = replace(_FABLE_5, forced_tools=False)
_OPUS_5_5 = replace(_FABLE_5_1, effort="medium")
_SONNET_5_5 = replace(_FABLE_5_1, thinking=("adaptive", "between_tools"), off_takes_any_effort=False)
_HAIKU_5_5 = replace(_OPUS_5, effort="medium")

_OPUS_4_5 = replace(_4_5, efforts=_UP_TO_HIGH)

# The newest first, as the API lists them.
_SERVED = (
    ServedModel("claude-fable-5-2", "Claude Fable 5.2", "fable", "2026-11-09", _FABLE_5_1, 512),
    ServedModel("claude-mythos-5-2", "Claude Mythos 5.2", "mythos", "2026-11-09", _FABLE_5_1, 512),
    ServedModel("claude-haiku-5-5", "Claude Haiku 5.5", "haiku", "2026-10-07", _HAIKU_5_5),
    ServedModel("claude-sonnet-5-5", "Claude Sonnet 5.5", "sonnet", "2026-09-28", _SONNET_5_5),
    ServedModel("claude-fable-5-1", "Claude Fable 5.1", "fable", "2026-09-01", _FABLE_5_1, 512),
    ServedModel("claude-opus-5-5", "Claude Opus 5.5", "opus", "2026-09-22", _OPUS_5_5, 512),
    ServedModel("claude-mythos-5-1", "Claude Mythos 5.1", "mythos", "2026-09-01", _FABLE_5_1, 512),
    ServedModel("claude-sonnet-5", "Claude Sonnet 5", "sonnet", "2026-06-30", _5),
    ServedModel("claude-fable-5", "Claude Fable 5", "fable", "2026-06-09", _FABLE_5, 512),
    ServedModel("claude-mythos-5", "Claude Mythos 5", "mythos", "2026-06-09", _FABLE_5, 512),
    ServedModel("claude-opus-5", "Claude Opus 5", "opus", "2026-07-24", _OPUS_5, 512),
    ServedModel("claude-opus-4-8", "Claude Opus 4.8", "opus", "2026-05-28", _4_7),
    ServedModel("claude-opus-4-7", "Claude Opus 4.7", "opus", "2026-04-16", _4_7, 2_048),
    ServedModel("claude-opus-4-6", "Claude Opus 4.6", "opus", "2026-02-05", _4_6, 4_096),
    ServedModel("claude-sonnet-4-6", "Claude Sonnet 4.6", "sonnet", "2026-02-17", _4_6),
    ServedModel("claude-haiku-4-5-20251001", "Claude Haiku 4.5", "haiku", "2025-10-15", _4_5, 4_096, 64_000, 200_000),
    ServedModel("claude-opus-4-5-20251101", "Claude Opus 4.5", "opus", "2025-11-24", _OPUS_4_5, 4_096, 64_000, 200_000),
    replace(
        ServedModel(
            "claude-sonnet-4-5-20250929", "Claude Sonnet 4.5", "sonnet", "2025-09-29", _4_5, 1_024, 64_000, 200_000
        ),
        lifecycle="deprecated",
        retires="2026-11-30",
    ),
)
_RETIRED = {
    "claude-opus-4-1-20250805": ("Claude Opus 4.1", "2026-08-05"),
    "claude-mythos-preview": ("Claude Mythos Preview", "2026-06-30"),
    "claude-opus-4-20250514": ("Claude Opus 4", "2026-06-15"),
    "claude-sonnet-4-20250514": ("Claude Sonnet 4", "2026-06-15"),
    "claude-3-haiku-20240307": ("Claude Haiku 3", "2026-04-19"),
    "claude-3-7-sonnet-20250219": ("Claude Sonnet 3.7", "2026-02-19"),
    "claude-3-5-haiku-20241022": ("Claude Haiku 3.5", "2026-02-19"),
    "claude-3-opus-20240229": ("Claude Opus 3", "2026-01-05"),
    "claude-3-sonnet-20240229": ("Claude Sonnet 3", "2025-07-21"),
    "claude-2.1": ("Claude 2.1", "2025-07-21"),
    "claude-2.0": ("Claude 2.0", "2025-07-21"),
    "claude-1.3": ("Claude 1.3", "2024-11-06"),
    "claude-1.3-100k": ("Claude 1.3 100K", "2024-11-06"),
    "claude-instant-1.2": ("Claude Instant 1.2", "2024-11-06"),
    "claude-instant-1.1": ("Claude Instant 1.1", "2024-11-06"),
    "claude-instant-1.1-100k": ("Claude Instant 1.1 100K", "2024-11-06"),
}
_ALIASES = {
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "claude-opus-4-1": "claude-opus-4-1-20250805",
    "claude-opus-4-0": "claude-opus-4-20250514",
    "claude-sonnet-4-0": "claude-sonnet-4-20250514",
    "claude-3-7-sonnet-latest": "claude-3-7-sonnet-20250219",
    "claude-3-5-haiku-latest": "claude-3-5-haiku-20241022",
}


def _retired(model_id: str, name: str, day: str) -> ServedModel:
    line = next((line for line in ("opus", "sonnet", "haiku", "mythos") if line in model_id), "")
    return ServedModel(model_id, name, line, _UNKNOWN_DAY, _4_5, lifecycle="retired", retires=day)


SERVED_MODELS: Mapping[str, ServedModel] = {model.id: model for model in _SERVED} | {
    model_id: _retired(model_id, name, day) for model_id, (name, day) in _RETIRED.items()
}
_NAMED: Mapping[str, ServedModel] = {
    **SERVED_MODELS,
    **{alias: SERVED_MODELS[model_id] for alias, model_id in _ALIASES.items()},
}


def find_model(name: object, field: str = "model: ") -> ServedModel:
    """The model with this id or alias, retired or not; raises Refusal (404) for an unknown one."""
    model = _NAMED.get(name) if isinstance(name, str) else None
    if model is None:
        raise Refusal(404, "not_found_error", f"{field}{name}")
    return model


def served_model(name: object) -> ServedModel:
    """The model with this id or alias, if it still answers; raises Refusal (404) for an unknown or retired one."""
    model = find_model(name)
    if model.lifecycle == "retired":
        raise Refusal(404, "not_found_error", f"model: {name}")
    return model
