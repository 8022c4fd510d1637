"""Read the labelled lines of a prompt ("price_usd: 21.00") as the fields of a record, and put each in words.

A number keeps its label and unit: "a price of 21.00 USD", "7 orders". Ids, addresses and times appear only in a field
of the same name. Null is no value.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from sandbox.lazy import Lazy
from sandbox.plain_text import clauses, enumerated

_LABEL = re.compile(r"[ \t]*(?:[-*\u2022][ \t]+)?([\"']?)([^\W\d_][\w ,()'/&-]{0,40}?)[\"']?[ \t]*")
_LONGEST_LABEL = 48
_AFTER = frozenset((" ", "\t", ""))
# A line that starts with a clause and a colon is prose.
_CLAUSAL = frozenset("is are was were be it i we you they he she have has had do does did will would can".split())
_NOTHING = frozenset(
    "none null nil nan n/a na - -- unknown undefined ? {} [] () \"\" '' (none) (null) (empty) (no_text) (no_subject)"
    " none_given not_given no_text no_subject".split()
)
_UNITS = {
    "usd": "USD", "eur": "EUR", "gbp": "GBP", "chf": "CHF", "jpy": "JPY", "kg": "kg", "g": "g", "mg": "mg", "lb": "lb",
    "oz": "oz", "km": "km", "m": "m", "cm": "cm", "mm": "mm", "l": "l", "ml": "ml", "pct": "%", "percent": "%",
}  # fmt: skip
_NUMBER = re.compile(
    r"[-+\u2212]?[^\w\s-]{0,2}\d[\d.,]*(?:[ \u00a0]?[^\W\d]{1,4}|[ \u00a0]?[%\u20ac$\u00a3\u00a5\u00b0][CF]?)?"
)
_BARE = re.compile(r"[-+\u2212]?\d[\d.,]*")
_VALUE = re.compile(
    r"[^\d-]{0,3}(?P<sign>-?)(?:"
    r"(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?:\.(?P<point>\d+))?"
    r"|(?P<dotted>\d{1,3}(?:\.\d{3})+|\d+),(?P<comma>\d+))\D{0,8}"
)
_DAY = re.compile(r"\d{4}-\d\d-\d\d|\d\d?[./]\d\d?[./]\d{2,4}")
_CODED = re.compile(r"[\d@]|://|www\.")
_OPAQUE = re.compile(
    r"\S+@\S+|(?:https?://|www\.)\S+|\d{4}-\d\d-\d\d[T ]\d\d:\d\d\S*"
    r"|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|[A-Z]{0,5}[-_]?\d{3,}[\w-]*"
)
_UNTOLD = frozenset(
    "id sku key uuid ref code ticket email mail phone tel fax url link website image photo language locale lang"
    " currency hash token zip postcode received created updated modified timestamp answerable sentiment urgent order"
    " slug category section type kind group status author version".split()
)
_TELLS = re.compile(
    r"feature|descri|note|summar|detail|comment|message|body|text|highlight|ingredient|bullet|intro|teaser|benefit"
    r"|material|spec|takeaway|content|about|review|abstract|feedback|question|request"
)
_TWO = 2
_LONGEST_CODE, _LONGEST_MEASURE = 200, 30
_LONG_NAME = 5  # spaces
# The records of one run repeat their shorter lines ("Category: tea"); each of these is read once.
_KNOWN_LINE = 300
_MEASURES = frozenset(
    "price weight size total amount cost length height width depth age rate score rating volume value balance discount"
    " stock quantity capacity duration".split()
)
_SEVERAL = re.compile(r"(\w\w+(?<![su]))s\b|\b(people|children)\b")


class Fact(NamedTuple):
    """A statement of a prompt, as a part of a sentence and as a separate line."""

    phrase: str
    line: str


@dataclass(frozen=True, slots=True)
class Label:
    """The text before the colon, in lower case, with spaces and without its unit."""

    name: str
    unit: str = ""
    told: bool = True  # texts may mention it
    tells: bool = False  # its value is text, not a name
    quoted: bool = False  # it is of JSON


@dataclass(frozen=True)
class Field:
    """A labelled line with its value, which is empty for null."""

    label: Label
    value: str

    @Lazy
    def facts(self) -> tuple[bool, list[Fact]]:
        """The facts of the value, and whether they are words to write about: a name or a measure is not."""
        label, value = self.label.name, self.value
        if not self.label.told:
            return False, []
        if len(value) < _LONGEST_CODE and _CODED.search(value):
            if len(value) < _LONGEST_MEASURE and _DAY.fullmatch(value):
                return False, [self._named(value)]
            if value.count(" ") < _TWO and _OPAQUE.fullmatch(value):
                return False, []
            if len(value) < _LONGEST_MEASURE and _NUMBER.fullmatch(value):
                return False, [self._measure()]
        named = not self.label.tells
        few = enumerated(value)[:3] if named and ";" not in value else []
        if few:
            line = f"{_capital(label.partition(',')[0])}: {', '.join(few)}"
            return False, [Fact(f"{', '.join(few[:-1])} and {few[-1]}", line)]
        parts = _joined([part for part in map(trimmed, clauses(value)) if part])
        if named and len(parts) == 1 and value.count(" ") <= _LONG_NAME:
            return False, [self._named(parts[0])]
        return True, [Fact(part, _capital(part)) for part in parts]

    def _measure(self) -> Fact:
        label, value = self.label.name, self.value
        if self.label.unit and _BARE.fullmatch(value):
            value = f"{value} {self.label.unit}"
        words = label.split()
        if value[0].isdigit() and _BARE.fullmatch(value) and _SEVERAL.search(label):
            return Fact(f"{value} {_SEVERAL.sub(_one, label, 1) if value == '1' else label}", self._line(value))
        if words[-1] in _MEASURES or (len(words) == 1 and not label.endswith("ed")):
            return Fact(f"{'an' if label[0] in 'aeio' else 'a'} {label} of {value}", self._line(value))
        return self._named(value)

    def _named(self, value: str) -> Fact:
        label = self.label.name.partition(",")[0]
        if " " not in label and "," not in value and value[0].isalpha():
            label = _SEVERAL.sub(_one, label)
        return Fact(f"{label} {value}", self._line(value))

    def _line(self, value: str) -> str:
        return f"{_capital(self.label.name)}: {value}"


def _joined(parts: list[str]) -> list[str]:
    """The parts, with each bare measure ("100 g") appended to the part before it."""
    joined: list[str] = []
    for part in parts:
        if joined and len(part) < _LONGEST_MEASURE and _NUMBER.fullmatch(part):
            joined[-1] += f", {part}"
        else:
            joined.append(part)
    return joined


def field_of(line: str) -> Field | None:
    """Read a labelled line as a field; None for a line without a label."""
    return _known_field(line) if len(line) <= _KNOWN_LINE else _field(line)


def _field(line: str) -> Field | None:
    at = line.find(":", 1, _LONGEST_LABEL)
    if at < 0 or line[at + 1 : at + 2] not in _AFTER:
        at = line.find("\uff1a", 1, _LONGEST_LABEL)
    label = _label(line[:at]) if at > 0 else None
    value = line[at + 1 :].strip()
    if label is None:
        return None
    if label.quoted:
        value = value.rstrip(",").strip('"')
    return Field(label, "" if is_nothing(value) else value)


_known_field = lru_cache(maxsize=4096)(_field)


def label_of(name: str) -> str:
    """The label of a line for a field of that name: "price" for price_usd, "list price" for listPrice."""
    return _without_unit(re.sub(r"([a-z])([A-Z])", r"\1 \2", name))[0]


@lru_cache(maxsize=1024)
def _label(text: str) -> Label | None:
    """Read the text before a colon. Cached, since all records of a template have the same labels."""
    match = _LABEL.fullmatch(text)
    if match is None:
        return None
    name, unit = _without_unit(match[2])
    words = name.split()
    if not _CLAUSAL.isdisjoint(words):
        return None
    return Label(name, unit, _UNTOLD.isdisjoint(words), _TELLS.search(name) is not None, bool(match[1]))


def _without_unit(name: str) -> tuple[str, str]:
    label = name.replace("_", " ").replace("-", " ").strip().lower()
    start, _, unit = label.rpartition(" ")
    return (start, _UNITS[unit]) if start and unit in _UNITS else (label, "")


def number_of(value: str) -> float | None:
    """The number of a value with at most a unit, with decimals as in "1,250.00 USD" or "1.250,00 EUR"."""
    match = _VALUE.fullmatch(value)
    if match is None:
        return None
    whole = match["whole"] or match["dotted"]
    return float(f"{match['sign']}{whole.replace(',', '').replace('.', '')}.{match['point'] or match['comma'] or 0}")


def is_nothing(value: str) -> bool:
    """Whether a value means null."""
    return len(value) < 14 and (not value.strip() or value.strip().lower().replace(" ", "_") in _NOTHING)


def trimmed(part: str) -> str:
    """A clause without punctuation at its end."""
    return part.strip().rstrip(".,;:\u3002").strip() if not part.endswith("...") else part


def _one(match: re.Match[str]) -> str:
    return match[1] or match[0]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
