"""Values: a row as any database returns it, brought into the one form that is hashed, stored and rendered.

It stands alone because the hash of a record says whether its content is stale: the same data must give the same hash
from every database. Numbers therefore have one spelling (10, 10.0 and 10.00 are 10, as in RFC 8785), and moments with
a time zone are UTC.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import orjson

_AS_IT_IS = frozenset({str, int, bool, type(None)})
_SURROGATES = re.compile("[\ud800-\udfff]")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""What no database keeps in a text."""
_EXACT = 2**53  # a double holds every whole number below
_LONGEST = 20_000  # digits: PostgreSQL's numeric has at most 16,383 behind the point


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the user's data: its key as text, its columns as plain JSON values, and the hash of those."""

    key: str
    data: Mapping[str, Any]
    hash: str
    body: str


def make_record(key: str, data: Mapping[str, Any]) -> Record:
    """Bring a row into its one canonical form.

    ValueError says why a value can't be kept, such as one nested too deep, and holds no value.
    """
    try:
        plain = {name: value if type(value) in _AS_IT_IS else _plain(value) for name, value in data.items()}
    except RecursionError:
        raise ValueError("a value is nested too deep") from None
    try:
        body = sorted_json(plain)
    except TypeError:
        # Rare, and so not looked for in every text: what JSON can't hold.
        plain = storable_json(plain)
        try:
            body = sorted_json(plain)
        except TypeError as error:
            raise ValueError(str(error)) from None
    return Record(key, plain, hashlib.sha256(body).hexdigest(), body.decode())


def sorted_json(data: Mapping[str, Any]) -> bytes:
    """Write plain JSON values in the one form that is hashed; TypeError where JSON can't hold one."""
    return orjson.dumps(data, option=orjson.OPT_SORT_KEYS)


def storable_text(text: str) -> str:
    """Return a text as every database keeps it: a mark stands for each NUL and lone surrogate."""
    return UNSTORABLE.sub("\ufffd", text)


def storable_json(value: Any) -> Any:
    """Return a JSON value that every database keeps: a mark for each lone surrogate, numbers beyond 64 bits as text."""
    match value:
        case str():
            # A lone surrogate is no text and can't be sent: the mark says that something stood there.
            return _SURROGATES.sub("\ufffd", value)
        case int():
            return value if isinstance(value, bool) or -(2**63) <= value < 2**64 else str(value)
        case dict():
            return {storable_json(name): storable_json(item) for name, item in value.items()}
        case list() | tuple():
            return [storable_json(item) for item in value]
        case _:
            return value


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return _number(value)
        case Decimal() if value.is_finite() and Decimal(repr(float(value))) == value:
            # A price is a number, so that templates can format it; digits that a double can't hold stay text.
            return _number(float(value))
        case Decimal():
            # Without an exponent, unless it is so large that the zeros would be a page of their own.
            return f"{value:f}" if value.is_finite() and abs(value.adjusted()) < _LONGEST else str(value)
        case datetime():
            return in_utc(value).isoformat()
        case date() | time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(bytes(value)).decode()
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case set() | frozenset():
            # A driver's set has no order, and its hash must not change from one process to the next.
            return sorted((_plain(item) for item in value), key=repr)
        case _:
            return str(value)


def _number(value: float) -> int | float | str:
    if not math.isfinite(value):
        return str(value)
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def in_utc(moment: datetime) -> datetime:
    """Return a moment in UTC: PostgreSQL answers in the session's time zone, which must change no hash and no key."""
    if moment.tzinfo is not None:
        with suppress(OverflowError):
            return moment.astimezone(UTC)
    return moment
