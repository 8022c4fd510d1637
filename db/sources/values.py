"""Values: a row as any database returns it, brought into the one form that is hashed, stored and rendered; its key.

They stand alone because the hash of a record says whether its content is stale: the same data must give the same hash
from every database. Numbers therefore have one spelling (10, 10.0 and 10.00 are 10, as in RFC 8785), and moments with
a time zone are UTC. The key is the text by which the ledger knows a record, made from one column or from several, and
back: the same rule is needed where rows are read, where one record is looked up by its key, and in the SQL that joins
content back to its records (docs/templates.md).
"""

import base64
import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson

from db.database_errors import KeyValueError

_AS_IT_IS = frozenset({str, int, bool, type(None)})
_SURROGATES = re.compile("[\ud800-\udfff]")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""What no database keeps in a text."""
_EXACT = 2**53  # a double holds every whole number below
LONGEST_KEY = 500
KEYS_NAMED = 5  # keys that an error message names at most
_PART = re.compile(r"(?:^|\|)((?:[^|\\]|\\.)*)", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
# Dates and times that Python has not, as databases write them.
_NO_CALENDAR = re.compile(r"-?infinity|\d{5,}-.*|\d{4}-.* \(?BC\)?.*|24:00.*|0000-.*|\d{4}-00-.*|\d{4}-\d\d-00.*")
_LONGEST = 20_000  # digits: PostgreSQL's numeric has at most 16,383 behind the point


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the user's data: its key as text, its columns as plain JSON values, and the hash of those."""

    key: str
    data: Mapping[str, Any]
    hash: str

    @property
    def body(self) -> str:
        """Its columns as the text that is hashed; few records need it again."""
        return sorted_json(self.data).decode()


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
    return Record(key, plain, hashlib.sha256(body).hexdigest())


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


def joined_key(parts: Sequence[str]) -> str:
    r"""Join the texts of a key's columns: one stays as it is; several stand between `|`, with `|` and `\` escaped."""
    if len(parts) == 1:
        return parts[0]
    return "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in parts)


def split_key(key: str, count: int) -> list[str] | None:
    """Return the texts of `count` columns that joined_key made a key from; None where it is no such key."""
    if count == 1:
        return [key]
    parts = [re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in _PART.findall(key)]
    return parts if len(parts) == count and joined_key(parts) == key else None


def key_of(values: Iterable[Any], padded: Iterable[bool]) -> str:
    """Return the text of a record's key, of one column's value or of several.

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
            return str(in_utc(value))
        case _:
            return str(value)


def parse_key(text: str, like: Any) -> Any:
    """Return the value whose key_text is `text`, of the type that `like` has.

    Raises ValueError or ArithmeticError where there is none.
    """
    match like:
        case bool():
            return {"True": True, "False": False}.get(text)
        case int() | float() | Decimal() | UUID():
            return type(like)(text)
        case datetime() | date() | time():
            return text if _NO_CALENDAR.fullmatch(text) else type(like).fromisoformat(text)
        case bytes() | bytearray() | memoryview():
            return bytes.fromhex(text)
        case _:
            return text


@dataclass
class KeyCheck:
    """What is known of the keys of a select that is being read; the first that can't be kept are named.

    `name` is what errors call the select, `columns` are those of its key.
    """

    name: str
    columns: Sequence[str]
    total: int = 0
    null: int = 0
    unfit: int = 0
    named: list[str] = field(default_factory=list)

    def usable(self, key: str | None) -> str | None:
        """Count a record, and return its key where it can be kept."""
        self.total += 1
        if key is None:
            self.null += 1
        elif len(key) > LONGEST_KEY or UNSTORABLE.search(key):
            self.unfit += 1
            self.named += [_short(key)] if len(self.named) < KEYS_NAMED else []
        else:
            return key
        return None

    def require_good(self, surplus: int, repeated: Sequence[str]) -> None:
        """Raise KeyValueError where the keys don't tell the records apart, or can't be kept.

        `surplus` records have the key of an earlier one; `repeated` are the first such keys.
        """
        if self.null:
            what = "it is null" if len(self.columns) == 1 else "one of them is null"
            raise KeyValueError(
                f"{self.name}: {self.null} of {self.total} records {'has' if self.null == 1 else 'have'} no "
                f"{self._key} ({what}). Leave them out in the select, or choose another key."
            )
        if surplus:
            raise KeyValueError(
                f"{self.name}: the key {self._key} is not unique: "
                f"{_many(surplus, 'record repeats', 'records repeat')} one, such as {', '.join(map(_shown, repeated))}."
                " Choose a key that is, or group the select by it. Keys are compared as text."
            )
        if self.unfit:
            raise KeyValueError(
                f"{self.name}: {_many(self.unfit, 'key', 'keys')} can't be kept: {', '.join(self.named)}. A key has at "
                f"most {LONGEST_KEY} characters and no NUL among them. Choose another key, or leave these records out "
                "in the select."
            )

    @property
    def _key(self) -> str:
        return ", ".join(map(repr, self.columns))


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _shown(key: str) -> str:
    return key if _NUMBER.fullmatch(key) else _short(key)


def _short(key: str) -> str:
    return ascii(key) if len(key) <= 40 else f"{key[:40]!a} ... ({len(key):,} characters)"
