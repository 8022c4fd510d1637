"""Read PostgreSQL's values exactly: a value that psycopg can't read becomes its text, and every array a list.

psycopg raises errors for `infinity`, years before 1 or after 9999, and 24:00. It reads a month as 30 days, loses digits
of JSON, and returns an array of an unknown type as one text.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection, abc
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.errors import Error
from psycopg.pq import Format
from psycopg.types.array import ArrayLoader
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from db.sources.drivers.texts import read_json

Arrays = dict[int, tuple[int, bytes]]
"""For each array type, its element's type and the delimiter."""
_Makes = Callable[[int, AdaptContext | None], abc.Loader]
_Load = Callable[[Buffer], Any]
_MOMENTS = ("date", "time", "timetz", "timestamp", "timestamptz")
_RANGES = ("int4", "int8", "num", "date", "ts", "tstz")
_UNKNOWN = 0
# An interval with one of these has no fixed length: a month is not 30 days.
_NO_LENGTH = re.compile(rb"mon|year|infinity")
# An element of a domain type is read as its base type, as the server does outside arrays.
_ARRAYS = """
WITH RECURSIVE based (oid, typarray, typdelim, base, typtype, typbasetype) AS (
    SELECT oid, typarray, typdelim, oid, typtype, typbasetype FROM pg_type WHERE typarray <> 0
    UNION ALL
    SELECT b.oid, b.typarray, b.typdelim, t.oid, t.typtype, t.typbasetype
    FROM based b JOIN pg_type t ON t.oid = b.typbasetype AND b.typtype = 'd'
)
SELECT typarray, base, typdelim FROM based WHERE typtype <> 'd'
"""


def prepare(connection: Connection[Any], arrays: Arrays) -> None:
    """Prepare a connection of psycopg. The first connection reads the types of arrays into `arrays`."""
    # A pooler in transaction mode rejects prepared statements.
    connection.prepare_threshold = None
    if not arrays:
        arrays.update(_read_arrays(connection))
    adapters = connection.adapters
    for name in _MOMENTS:
        adapters.register_loader(name, _reading(_known(connection, name), _value_or_text))
    adapters.register_loader("interval", _reading(_known(connection, "interval"), _length_or_text))
    for name in (f"{of}{kind}" for of in _RANGES for kind in ("range", "multirange")):
        adapters.register_loader(name, _reading(_known(connection, name), lambda load, data: _spelled(load(data))))
    for name in ("json", "jsonb"):
        adapters.register_loader(name, _reading(_known(connection, name), lambda _load, data: read_json(_text(data))))
    unknown = _loader_of_unknown(arrays, _known(connection, "text"))
    adapters.register_loader(_UNKNOWN, _reading(unknown, lambda load, data: load(data)))


def _known(connection: Connection[Any], name: str) -> type[abc.Loader]:
    loader = connection.adapters.get_loader(connection.adapters.types[name].oid, Format.TEXT)
    assert loader is not None  # psycopg has a loader for each name that is used here
    return loader


def _read_arrays(connection: Connection[Any]) -> Arrays:
    try:
        with connection.cursor() as cursor:
            cursor.execute(_ARRAYS)
            return {array: (element, delimiter.encode()) for array, element, delimiter in cursor.fetchall()}
    except Error:
        # Some databases speak PostgreSQL's protocol but lack its catalogue.
        return {}
    finally:
        connection.rollback()


def _text(data: Buffer) -> str:
    # db/session.py sets the connection to UTF-8.
    return bytes(data).decode("utf-8", "surrogateescape")


def _reading(known: _Makes, read: Callable[[_Load, Buffer], Any]) -> type[Loader]:
    """Return a loader that calls `read` with the load function of the loader `known`, and with the raw value."""

    class LoaderByFunction(Loader):
        def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            self._known = known(oid, context).load

        def load(self, data: Buffer) -> Any:
            return read(self._known, data)

    return LoaderByFunction


def _value_or_text(load: _Load, data: Buffer) -> Any:
    with suppress(Error, ValueError, OverflowError):
        return load(data)
    return _text(data)


def _length_or_text(load: _Load, data: Buffer) -> Any:
    return _text(data) if _NO_LENGTH.search(data) else _value_or_text(load, data)


def _spelled(value: Any) -> str:
    match value:
        case Multirange():
            return f"{{{', '.join(map(_spelled, value))}}}"
        case Range(isempty=False):
            bounds = str(value.bounds)
            return f"{bounds[0]}{_spelled(value.lower)}, {_spelled(value.upper)}{bounds[1]}"
        case None:
            return ""  # no bound
        case datetime(tzinfo=zone) if zone is not None:
            return str(value.astimezone(UTC))
        case _:
            return str(value)


def _loader_of_unknown(arrays: Arrays, text: _Makes) -> _Makes:
    """Return a function that makes the loader of a type unknown to psycopg: an array's loader, or `text`."""

    def make(oid: int, context: AdaptContext | None) -> abc.Loader:
        if oid not in arrays:
            return text(oid, context)
        element, delimiter = arrays[oid]
        array: type[Loader] = type("Array", (ArrayLoader,), {"base_oid": element, "delimiter": delimiter})
        return array(oid, context)

    return make
