"""Read constraints from descriptions.

The API does not enforce lengths, ranges or patterns, so the SDK's transform_schema moves them into the description as
"{minLength: 10, maxLength: 80}", and people write "40 to 80 words". An answer validates if it follows both.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_KEYWORDS = (
    "minLength|maxLength|pattern|minimum|maximum|exclusiveMinimum|exclusiveMaximum|minItems|maxItems|multipleOf"
    "|uniqueItems|format|default|examples|deprecated|readOnly|writeOnly|contentMediaType|discriminator|propertyNames"
    "|minProperties|maxProperties|prefixItems|contains"
    "|decimal_places|max_digits|must lie in the|time zone|schemes|characters|pattern \\d+|g[et]|l[et]"
)
_BLOCK = re.compile(r"(?:^|\n\n)\{(.*)\}\s*$", re.DOTALL)
_KEY = re.compile(rf"(?:^|, )({_KEYWORDS}): ")
_NUMBERS = {w: i for i, w in enumerate("zero one two three four five six seven eight nine ten twelve".split())} | {
    "twelve": 12
}
_COUNT = rf"(\d+|{'|'.join(_NUMBERS)})"
_AT_MOST = "at most|up to|no more than|not more than|maximum|max|within|or fewer"
_BELOW = "under|fewer than|less than|below"
_AT_LEAST = "at least|no fewer than|no less than|not less than|minimum|min"
_ABOVE = "more than|over|above"
_PHRASE = re.compile(
    rf"(?:\b({_AT_MOST}|{_BELOW}|{_AT_LEAST}|{_ABOVE})\s+(?:of\s+)?)?\b{_COUNT}(?:\s*(?:to|-|\u2013|and|or)\s*{_COUNT})?"
    r"[\s-]+(?:short |full |plain |complete )?(word|sentence|character|item|bullet|point|tag|keyword|entr|phrase|line)",
    re.IGNORECASE,
)
_SPAN = re.compile(r"(-?\d+(?:\.\d+)?)\s*(?:to|-|\u2013|and)\s*(-?\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Span:
    """A range of counts, both ends included; None for an open end."""

    low: int = 0
    high: int | None = None


ANY_COUNT = Span()


@dataclass(frozen=True, slots=True)
class Moment:
    """The ends of a date, with or without a time, as texts of ISO 8601; `zone` says whether it has a time zone."""

    above: str = ""
    below: str = ""
    zone: bool = True


ANY_MOMENT = Moment()


def keyword_hints(description: str) -> Mapping[str, str]:
    """The keywords in the braces at the end of a description, as the text of their values."""
    block = _BLOCK.search(description)
    if block is None:
        return {}
    text = block.group(1)
    keys = list(_KEY.finditer(text))
    ends = [key.start() for key in keys[1:]] + [len(text)]
    return {key.group(1): text[key.end() : end] for key, end in zip(keys, ends, strict=True)}


def number_hint(hints: Mapping[str, str], key: str) -> float | None:
    """A hint's value as a number; None if it is absent or not a number."""
    try:
        return float(hints[key])
    except (KeyError, ValueError):
        return None


def count_hints(hints: Mapping[str, str], low: str, high: str) -> Span:
    """A pair such as minLength and maxLength."""
    least, most = number_hint(hints, low), number_hint(hints, high)
    return Span(int(least or 0), None if most is None else int(most))


def moment_hints(hints: Mapping[str, str]) -> Moment:
    """Where a date must lie."""
    when = hints.get("must lie in the")
    return Moment(
        above=hints.get("exclusiveMinimum") or hints.get("minimum") or ("2098-01-01" if when == "future" else ""),
        below=hints.get("exclusiveMaximum") or hints.get("maximum") or ("2002-01-01" if when == "past" else ""),
        zone=hints.get("time zone") != "none",
    )


def spoken_counts(description: str) -> dict[str, Span]:
    """Counts that a description requests in words: "40 to 80 words", "at most two sentences"."""
    counts: dict[str, Span] = {}
    for match in _PHRASE.finditer(description):
        bound, first, second, unit = match.groups()
        low = _number(first)
        kind = unit.lower() if unit.lower() in ("word", "sentence", "character") else "item"
        counts.setdefault(kind, _span((bound or "").lower(), low, None if second is None else _number(second)))
    return counts


def spoken_range(description: str) -> tuple[float, float] | None:
    """The first range in a description: "from 1 to 5", "0-100"."""
    match = _SPAN.search(description)
    if match is None:
        return None
    low, high = float(match.group(1)), float(match.group(2))
    return (low, high) if low < high else None


def _number(text: str) -> int:
    return _NUMBERS[text.lower()] if text.lower() in _NUMBERS else int(text)


def _span(bound: str, low: int, high: int | None) -> Span:
    if high is not None:
        return Span(min(low, high), max(low, high))
    if bound and re.fullmatch(_AT_MOST, bound):
        return Span(0, low)
    if bound and re.fullmatch(_BELOW, bound):
        return Span(0, max(1, low - 1))
    if bound and re.fullmatch(_AT_LEAST, bound):
        return Span(low, None)
    if bound and re.fullmatch(_ABOVE, bound):
        return Span(low + 1, None)
    return Span(low, low)
