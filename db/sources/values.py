"""Convert a row of any database into the one form that is hashed, stored and rendered, and make its key.

The hash of a record shows whether its content is stale, so the same data must give the same hash from every database.
Therefore numbers have one spelling (10, 10.0 and 10.00 are 10, as in RFC 8785), and moments with a time zone are UTC.
The key is the text that identifies a record in the ledger, made from one or several columns. The same rule applies to
rows that are read, to a record that is looked up by its key, and to the SQL that joins content to its records
(docs/templates.md).
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
"""Characters that no database can store in a text."""
_EXACT = 2**53  # a double holds every whole number below
LONGEST_KEY = 500
KEYS_NAMED = 5  # an error message lists at most this many keys
_PART = re.compile(r"(?:^|\|)((?:[^|\\]|\\.)*)", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
# Dates and times that Python does not have, as databases write them.
_NO_CALENDAR = re.compile(r"-?infinity|\d{5,}-.*|\d{4}-.* \(?BC\)?.*|24:00.*|0000-.*|\d{4}-00-.*|\d{4}-\d\d-00.*")
_LONGEST = 20_000  # digits: PostgreSQL's numeric has at most 16,383 after the point


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the user's data: its key as text, its columns as plain JSON values, and the hash of those."""

    key: str
    data: Mapping[str, Any]
    hash: str

    @property
    def body(self) -> str:
        """The columns as the text that is hashed. It is made on demand, because few records need it again."""
        return sorted_json(self.data).decode()


def make_record(key: str, data: Mapping[str, Any]) -> Record:
    """Convert a row into its one canonical form.

    Raises ValueError if a value can't be stored, such as one nested too deep. The message contains no value.
    """
    try:
        plain = {name: value if type(value) in _AS_IT_IS else _plain(value) for name, value in data.items()}
    except RecursionError:
        raise ValueError("a value is nested too deep") from None
    try:
        body = sorted_json(plain)
    except TypeError:
        # Values that JSON can't hold are rare, so they are not looked for in advance.
        plain = storable_json(plain)
        try:
            body = sorted_json(plain)
        except TypeError as error:
            raise ValueError(str(error)) from None
    return Record(key, plain, hashlib.sha256(body).hexdigest())


def sorted_json(data: Mapping[str, Any]) -> bytes:
    """Write plain JSON values in the one form that is hashed. Raises TypeError if JSON can't hold one."""
    return orjson.dumps(data, option=orjson.OPT_SORT_KEYS)


def storable_text(text: str) -> str:
    """Return a text that every database can store, with a mark for each NUL and lone surrogate."""
    return UNSTORABLE.sub("\ufffd", text)


def storable_json(value: Any) -> Any:
    """Return a JSON value that every database can store: lone surrogates as marks, numbers beyond 64 bits as text."""
    match value:
        case str():
            # A lone surrogate can't be sent. The mark shows that a character is missing.
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
            # A price becomes a number that templates can format. Digits that a double can't hold stay text.
            return _number(float(value))
        case Decimal():
            # Without an exponent, unless the zeros would fill a page.
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
            # A driver's set has no order, but its hash must be the same in every process.
            return sorted((_plain(item) for item in value), key=repr)
        case _:
            return str(value)


def _number(value: float) -> int | float | str:
    if not math.isfinite(value):
        return str(value)
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def in_utc(moment: datetime) -> datetime:
    """Return a moment in UTC. PostgreSQL uses the session's time zone, which must not change a hash or a key."""
    if moment.tzinfo is not None:
        with suppress(OverflowError):
            return moment.astimezone(UTC)
    return moment


def joined_key(parts: Sequence[str]) -> str:
    r"""Join the texts of a key's columns with `|`, with `|` and `\` escaped. A single text is returned unchanged."""
    if len(parts) == 1:
        return parts[0]
    return "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in parts)


def split_key(key: str, count: int) -> list[str] | None:
    """Return the texts of the `count` columns from which joined_key made a key, or None if it is not such a key."""
    if count == 1:
        return [key]
    parts = [re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in _PART.findall(key)]
    return parts if len(parts) == count and joined_key(parts) == key else None


def key_of(values: Iterable[Any], padded: Iterable[bool]) -> str:
    """Return a record's key as text, from the values of its key columns.

    `padded` is true for each column of type CHAR(n), whose trailing blanks are not part of the key.
    """
    pairs = zip(values, padded, strict=True)
    return joined_key([key_text(value).rstrip(" ") if pad else key_text(value) for value, pad in pairs])


def key_text(value: Any) -> str:
    """Return one column of a key as the text in the ledger. Bytes are hexadecimal."""
    match value:
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case datetime():
            return str(in_utc(value))
        case _:
            return str(value)


def parse_key(text: str, like: Any) -> Any:
    """Return the value whose key_text is `text`, of the same type as `like`.

    Raises ValueError or ArithmeticError if there is no such value.
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
    """Counts the bad keys of a select while it is read, and lists the first ones that can't be stored.

    `name` is the select's name in errors, `columns` are the columns of its key.
    """

    name: str
    columns: Sequence[str]
    total: int = 0
    null: int = 0
    unfit: int = 0
    named: list[str] = field(default_factory=list)

    def usable(self, key: str | None) -> str | None:
        """Count a record, and return its key, or None if the key can't be stored."""
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
        """Raise KeyValueError if keys are null, repeated or can't be stored.

        `surplus` is the number of records that have the key of an earlier one; `repeated` are the first such keys.
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
                " Choose a unique key, or group the select by it. Keys are compared as text."
            )
        if self.unfit:
            raise KeyValueError(
                f"{self.name}: {_many(self.unfit, 'key', 'keys')} can't be stored: {', '.join(self.named)}. A key has "
                f"at most {LONGEST_KEY} characters, without NUL. Choose another key, or leave these records out in the "
                "select."
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
