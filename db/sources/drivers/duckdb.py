"""Read DuckDB's values unchanged: columns that its driver would change are read as text.

The driver reads `infinity` as the year 9999 and a month as 30 days, and drops nanoseconds and digits of JSON. It has no
hook for types. So its cursor is wrapped: it describes each select, and casts the columns of such types.
"""

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import duckdb

from db.sources.drivers.texts import read_date, read_json, read_moment, read_time

Reader = Callable[[Any], Any]
"""Converts the text of a cast column into a value."""

_CHANGED = re.compile(r"DATE|TIME|INTERVAL|JSON")
_RECAST = "SELECT * REPLACE (%s) FROM (\n%s\n)"
_INTERVAL = re.compile(r"(?:(?P<days>-?\d+) days?)? ?(?P<sign>-)?(?:(?P<hours>\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?")


def prepare(connection: Any, _known: object) -> None:
    """Prepare a connection of duckdb_engine."""
    make = connection.cursor
    connection.cursor = lambda: _Cursor(make())


class _Cursor:
    """A cursor of duckdb_engine whose rows have the database's exact values."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._readers: dict[int, Reader] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, statement: str, parameters: Any = None, context: Any = None) -> None:
        """Execute a statement, after DuckDB has described it without reading a row."""
        statement, self._readers = self._as_text(statement, parameters)
        self._cursor.execute(statement, parameters, context)

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        row = self._cursor.fetchone()
        return None if row is None else self._read(row)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows."""
        return [self._read(row) for row in self._cursor.fetchmany(size)]

    def fetchall(self) -> list[Any]:
        """Return all remaining rows."""
        return [self._read(row) for row in self._cursor.fetchall()]

    def _read(self, row: Sequence[Any]) -> Sequence[Any]:
        if not self._readers:
            return row
        values = list(row)
        for place, reader in self._readers.items():
            values[place] = reader(values[place])
        return tuple(values)

    def _as_text(self, statement: str, parameters: Any) -> tuple[str, dict[int, Reader]]:
        try:
            self._cursor.execute(f"DESCRIBE {statement}", parameters)
            columns = [(name, kind) for name, kind, *_ in self._cursor.fetchall()]
        except duckdb.Error:
            # Not a select, or a wrong one: then its own error explains more.
            return statement, {}
        casts, readers = [], {}
        for place, (name, kind) in enumerate(columns):
            cast_to, reader = _reading_of(duckdb.sqltype(kind)) if _CHANGED.search(kind) else (kind, None)
            if reader is not None:
                casts.append(f"CAST({_quoted(name)} AS {cast_to}) AS {_quoted(name)}")
                readers[place] = _or_null(reader)
        # DuckDB ignores case, so two names may be the same for it.
        if not readers or len({name.lower() for name, _kind in columns}) < len(columns):
            return statement, {}
        return _RECAST % (", ".join(casts), statement), readers


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _reading_of(kind: Any) -> tuple[str, Reader | None]:
    """Return the type to cast a column to, and its reader. The reader is None if the driver's value is exact."""
    id_, name = str(kind.id), str(kind)
    if id_.startswith("timestamp"):
        return "VARCHAR", read_moment
    reader = _TEXTS.get(id_) or _TEXTS.get(name)
    if reader is not None:
        return "VARCHAR", reader
    return _reading_of_parts(kind) if id_ in {"list", "array", "struct", "map"} else (name, None)


def _reading_of_parts(kind: Any) -> tuple[str, Reader | None]:
    children = dict(kind.children)
    size = children.pop("size", "")
    found = {name: _reading_of(child) for name, child in children.items()}
    if not any(reader for _kind, reader in found.values()):
        return str(kind), None
    kinds = {name: cast_to for name, (cast_to, _reader) in found.items()}
    readers = {name: _or_null(reader) for name, (_kind, reader) in found.items()}
    match str(kind.id):
        case "struct":
            named = ", ".join(f"{_quoted(name)} {child}" for name, child in kinds.items())
            return f"STRUCT({named})", lambda value: {name: readers[name](item) for name, item in value.items()}
        case "map":
            return f"MAP({kinds['key']}, {kinds['value']})", lambda value: {
                readers["key"](name): readers["value"](item) for name, item in value.items()
            }
        case _:
            return f"{kinds['child']}[{size}]", lambda value: [readers["child"](item) for item in value]


def _or_null(reader: Reader | None) -> Reader:
    return lambda value: value if reader is None or value is None else reader(value)


def _read_interval(text: str) -> timedelta | str:
    match = _INTERVAL.fullmatch(text)
    if match is None:
        return text  # a month has no fixed number of days
    days, sign, hours, minutes, seconds, fraction = match.groups(default="")
    length = timedelta(
        hours=int(hours or 0),
        minutes=int(minutes or 0),
        seconds=int(seconds or 0),
        microseconds=int(fraction.ljust(6, "0") or 0),
    )
    try:
        return timedelta(days=int(days or 0)) + (-length if sign else length)
    except OverflowError:
        return text


# The readers of types that are cast to text, by id or name. Timestamps have several types: see _reading_of.
_TEXTS: dict[str, Reader] = {"date": read_date, "time_ns": read_time, "interval": _read_interval, "JSON": read_json}
