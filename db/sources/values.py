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
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson

from db.sources.keys import joined_key

_AS_IT_IS = frozenset({str, int, bool, type(None)})
_SURROGATES = re.compile("[\ud800-\udfff]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# Dates and times that Python has not, as databases write them.
_NO_CALENDAR = re.compile(r"-?infinity|\d{5,}-.*|\d{4}-.* \(?BC\)?.*|24:00.*|0000-.*|\d{4}-00-.*|\d{4}-\d\d-00.*")
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
        body = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # Rare, and so not looked for in every text: what JSON can't hold.
        plain = storable_json(plain)
        body = _dumped(plain)
    return Record(key, plain, hashlib.sha256(body).hexdigest(), body.decode())


def storable_text(text: str) -> str:
    """Return a text as every database keeps it: a mark stands for each NUL and lone surrogate."""
    return _UNSTORABLE.sub("\ufffd", text)


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


def key_of(values: Iterable[Any], padded: Iterable[bool]) -> str:
    """Return the text of a record's key, of one column's value or of several, joined as keys.py says.

    `padded` tells for each column whether it is CHAR(n): the blanks at its end are the column's and no part of the key.
    """
    pairs = zip(values, padded, strict=True)
    return joined_key([key_text(value).rstrip(" ") if pad else key_text(value) for value, pad in pairs])


def key_text(value: Any) -> str:
    """Return one column of a key as the text that the ledger knows it by; bytes are hexadecimal."""
    match value:
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case datetime():
            return str(_utc(value))
        case _:
            return str(value)


def parse_key(text: str, like: Any) -> Any:
    """Return the value whose key_text is `text`, of the type that `like` has; ValueError where there is none."""
    match like:
        case bool():
            return {"True": True, "False": False}.get(text)
        case int() | float() | UUID():
            return type(like)(text)
        case Decimal():
            try:
                return Decimal(text)
            except ArithmeticError:
                raise ValueError(text) from None
        case datetime() | date() | time():
            return text if _NO_CALENDAR.fullmatch(text) else type(like).fromisoformat(text)
        case bytes() | bytearray() | memoryview():
            return bytes.fromhex(text)
        case _:
            return text


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return _number(value)
        case Decimal():
            # A price is a number, so that templates can format it; digits that a double can't hold stay text.
            return _number(float(value)) if _fits_double(value) else _digits(value)
        case datetime():
            return _utc(value).isoformat()
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


def _fits_double(value: Decimal) -> bool:
    return value.is_finite() and Decimal(repr(float(value))) == value


def _digits(value: Decimal) -> str:
    # Without an exponent, unless it is so large that the zeros would be a page of their own.
    return f"{value:f}" if value.is_finite() and abs(value.adjusted()) < _LONGEST else str(value)


def _number(value: float) -> int | float | str:
    if not math.isfinite(value):
        return str(value)
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def _utc(moment: datetime) -> datetime:
    # PostgreSQL answers in the session's time zone, which must not change a hash.
    if moment.tzinfo is not None:
        with suppress(OverflowError):
            return moment.astimezone(UTC)
    return moment


def _dumped(plain: Any) -> bytes:
    try:
        return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise ValueError(str(error)) from None
