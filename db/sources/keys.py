"""Keys: the text by which the ledger knows a record, made from one column or from several, and back.

It stands alone because the same rule is needed where rows are read, where one record is looked up by its key, and in
the SQL that joins content back to its records (docs/templates.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from db.database_errors import KeyValueError
from db.sources.values import UNSTORABLE, in_utc

LONGEST_KEY = 500
NAMED = 5  # keys that an error message names at most
_PART = re.compile(r"(?:^|\|)((?:[^|\\]|\\.)*)", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
# Dates and times that Python has not, as databases write them.
_NO_CALENDAR = re.compile(r"-?infinity|\d{5,}-.*|\d{4}-.* \(?BC\)?.*|24:00.*|0000-.*|\d{4}-00-.*|\d{4}-\d\d-00.*")


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
            self.named += [_short(key)] if len(self.named) < NAMED else []
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
