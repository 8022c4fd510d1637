"""The shape of an answer: a request's JSON schema and its hints, read once and filled many times."""

from dataclasses import dataclass, field
from re import Pattern
from typing import Any

from sandbox.hints import ANY_COUNT, ANY_MOMENT, Moment, Span


@dataclass(frozen=True, slots=True)
class Text:
    """A string. `about` is its name and description in lower case; `form` is the kind of text."""

    name: str
    about: str
    form: str
    chars: Span = ANY_COUNT
    words: Span = ANY_COUNT
    sentences: Span = ANY_COUNT
    pattern: Pattern[str] | None = None
    format: str = ""
    firm: bool = False  # its length is in the hints, so a validator probably checks it
    target: int = 6  # about how many words to write
    labels: tuple[str, ...] = ()  # the field repeats the prompt's line with one of these labels, if it fits
    moment: Moment = ANY_MOMENT


@dataclass(frozen=True, slots=True)
class Numeric:
    """An integer, or a number with this many decimals, from low to high."""

    name: str
    about: str
    low: float | None
    high: float | None
    decimals: int = 0
    step: float | None = None
    firm: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean."""

    name: str
    about: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values: an enum, a const, or null."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class List:
    """An array of distinct items."""

    name: str
    item: "AnyShape"
    count: Span
    firm: bool = False
    positions: tuple["AnyShape", ...] = ()  # of a tuple: one shape for each item


@dataclass(frozen=True, slots=True)
class Object:
    """An object. Answers contain all its properties, also optional ones."""

    name: str
    fields: tuple[tuple[str, "AnyShape"], ...]
    required: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of several shapes. Null is left out if there is another."""

    options: tuple["AnyShape", ...]


AnyShape = Text | Numeric | Flag | Choice | List | Object | OneOf
