r"""Make text that matches a regular expression, for hints such as {pattern: ^[A-Z]{3}-\d{2,4}$}.

It walks the standard library's parse of the pattern and ignores look-arounds and back references, which few patterns of
fields use. So each result is tried against the pattern.
"""

import re
from re import Pattern, _constants, _parser  # type: ignore[attr-defined] # no public parser
from typing import Any

from sandbox.draws import Draw

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CLASSES = {
    _constants.CATEGORY_DIGIT: "0123456789",
    _constants.CATEGORY_WORD: _LETTERS + "0123456789",
    _constants.CATEGORY_SPACE: " ",
    _constants.CATEGORY_NOT_DIGIT: _LETTERS,
    _constants.CATEGORY_NOT_WORD: "-",
    _constants.CATEGORY_NOT_SPACE: _LETTERS,
}
# Characters for a negated class or a dot. Letters come first, since they suit most fields.
_ANY = _LETTERS + _LETTERS.upper() + "0123456789 -_.,"
# How far an open repeat first exceeds its minimum. Later attempts make it longer.
_OPEN = 6


def matching(pattern: Pattern[str], draw: Draw, low: int = 0, high: int | None = None) -> str | None:
    """A matching text of low to high characters; None after 40 failed attempts."""
    parsed = _parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)
    for attempt in range(40):
        stretch = _OPEN + (low * attempt // 20 if attempt % 2 else 0)
        text = _sequence(parsed, draw, stretch if attempt < 30 else 0)
        fits = len(text) >= low and (high is None or len(text) <= high)
        if fits and pattern.search(text):
            return text
    return None


def _sequence(parsed: Any, draw: Draw, stretch: int) -> str:
    return "".join(_one(op, value, draw, stretch) for op, value in parsed)


def _one(op: Any, value: Any, draw: Draw, stretch: int) -> str:
    match op:
        case _constants.LITERAL:
            return chr(value)
        case _constants.IN:
            return draw.choice(_members(value))
        case _constants.ANY:
            return draw.choice(_LETTERS)
        case _constants.NOT_LITERAL:
            return draw.choice([char for char in _LETTERS if ord(char) != value])
        case _constants.BRANCH:
            return _sequence(draw.choice(value[1]), draw, stretch)
        case _constants.SUBPATTERN:
            return _sequence(value[3], draw, stretch)
        case _constants.MAX_REPEAT | _constants.MIN_REPEAT | _constants.POSSESSIVE_REPEAT:
            least, most, inner = value
            most = min(int(most), least + stretch)
            return "".join(_sequence(inner, draw, stretch) for _ in range(draw.between(least, most)))
        case _constants.ATOMIC_GROUP:
            return _sequence(value, draw, stretch)
        case _:  # anchors produce nothing; look-arounds and back references are ignored
            return ""


def _members(items: Any) -> str:
    negated = items[0][0] is _constants.NEGATE
    chars = "".join(_member(op, value) for op, value in items if op is not _constants.NEGATE)
    if negated:
        chars = "".join(char for char in _ANY if char not in chars)
    return chars or "-"


def _member(op: Any, value: Any) -> str:
    if op is _constants.RANGE:
        return "".join(map(chr, range(value[0], min(value[1], value[0] + 255) + 1)))
    return _CLASSES.get(value, "") if op is _constants.CATEGORY else chr(value)
