"""Select: stream records out of any SQL database, in pages by key, each page on a short read-only connection.

A template's SQL is wrapped, never edited, and its parameters are bound with their types. Null and duplicate keys are
found before the first page, so that a run stops before it has asked for anything. Paging by key means that a run
outlives a restart of the source, and that a range of keys is a shard.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import Boolean, Date, DateTime, Engine, Float, Integer, String, TextClause, bindparam, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import TypeEngine

from db.errors import KeyValueError, SelectError

SQL_TYPES: dict[str, TypeEngine[Any]] = {
    "str": String(),
    "int": Integer(),
    "float": Float(),
    "bool": Boolean(),
    "date": Date(),
    "datetime": DateTime(),
}
LONGEST_KEY = 500
NAMED = 5  # keys that an error message names at most


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the user's data: its key as text, its columns as plain JSON values, and the hash of those."""

    key: str
    data: Mapping[str, Any]
    hash: str
    body: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value bound into the select, with the type that PostgreSQL wants to be told (one of SQL_TYPES)."""

    type: str
    value: Any


@dataclass(frozen=True, slots=True)
class Query:
    """A user's select with its key column and bound parameters; `name` is what errors call it.

    `after` and `until` bound the keys (exclusive, inclusive), for a shard.
    """

    name: str
    sql: str
    key: str
    parameters: Mapping[str, Parameter]
    after: Any = None
    until: Any = None


def make_record(key: str, data: Mapping[str, Any]) -> Record:
    """Bring a row into its one canonical form; a value that is no text, number, date or bytes raises KeyValueError."""
    plain = {name: _plain(value) for name, value in data.items()}
    body = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    return Record(key, plain, hashlib.sha256(body).hexdigest(), body.decode())


def count_records(engine: Engine, query: Query) -> int:
    """Count what the select yields and check its keys.

    Raises SelectError where the SQL fails or lacks its key, KeyValueError where keys are null or not unique.
    """
    columns = read_columns(engine, query)
    if query.key not in columns:
        raise SelectError(
            f"{query.name}: the select does not yield the key column {query.key!r}; it yields {', '.join(columns)}. "
            "Add the column, or name another `key`."
        )
    key = _quoted(engine, query.key)
    where = _where(query, key)
    counted = f"SELECT COUNT(*) AS n, COUNT({key}) AS keyed, COUNT(DISTINCT {key}) AS different"
    rows = _run(engine, query, f"{counted} FROM ({_inner(query)}) AS selected{where}")
    total, keyed, different = rows[0]["n"], rows[0]["keyed"], rows[0]["different"]
    if keyed < total:
        raise KeyValueError(
            f"{query.name}: {total - keyed} of {total} records have no {query.key!r} (it is null). "
            "Leave them out in the select, or choose another key."
        )
    if different < total:
        doubled = _run(
            engine,
            query,
            f"SELECT {key} AS k FROM ({_inner(query)}) AS selected{where} "
            f"GROUP BY {key} HAVING COUNT(*) > 1 ORDER BY {key} LIMIT {NAMED}",
        )
        named = ", ".join(repr(row["k"]) for row in doubled)
        raise KeyValueError(
            f"{query.name}: the key {query.key!r} is not unique: {total - different} records repeat one, such as "
            f"{named}. Choose a key that is, or group the select by it."
        )
    return int(total)


def read_pages(engine: Engine, query: Query, *, page_size: int, limit: int | None = None) -> Iterator[list[Record]]:
    """Yield the records in the order of their keys, `page_size` at a time and `limit` in all.

    Each page is a query of its own. Raises SelectError, and KeyValueError for a key longer than LONGEST_KEY.
    """
    key = _quoted(engine, query.key)
    after, left = query.after, limit
    while left is None or left > 0:
        size = page_size if left is None else min(page_size, left)
        statement = (
            f"SELECT * FROM ({_inner(query)}) AS selected{_where(query, key, paged=after is not None)} "
            f"ORDER BY {key} LIMIT {size}"
        )
        rows = _run(engine, query, statement, after=after)
        if not rows:
            return
        after = rows[-1][query.key]
        yield [_record(query, row) for row in rows]
        if len(rows) < size:
            return
        if left is not None:
            left -= len(rows)


def read_columns(engine: Engine, query: Query) -> list[str]:
    """Return the columns that the select yields, reading no record."""
    try:
        with engine.connect() as connection:
            result = connection.execute(
                _bound(query, f"SELECT * FROM ({_inner(query)}) AS selected WHERE 1 = 0"), _values(query)
            )
            return list(result.keys())
    except SQLAlchemyError as error:
        raise _select_error(query, error) from None


def read_record(engine: Engine, query: Query, key: str) -> Record | None:
    """Return the record whose key, as text, is `key`, or None."""
    quoted = _quoted(engine, query.key)
    statement = f"SELECT * FROM ({_inner(query)}) AS selected WHERE CAST({quoted} AS VARCHAR(500)) = :presswork_key"
    rows = _run(engine, query, statement, presswork_key=key)
    return _record(query, rows[0]) if rows else None


def _run(engine: Engine, query: Query, statement: str, **extra: Any) -> list[Mapping[str, Any]]:
    values = _values(query) | {name: value for name, value in extra.items() if value is not None}
    clause = _bound(query, statement)
    if "after" in values:
        values["presswork_after"] = values.pop("after")
    if query.until is not None:
        values["presswork_until"] = query.until
    try:
        with engine.connect() as connection:
            return list(connection.execute(clause, values).mappings())
    except SQLAlchemyError as error:
        raise _select_error(query, error) from None


def _bound(query: Query, statement: str) -> TextClause:
    clause = text(statement)
    binds = [
        bindparam(name, type_=SQL_TYPES[parameter.type])
        for name, parameter in query.parameters.items()
        if name in clause._bindparams  # noqa: SLF001 - the public API has no way to ask which names a text uses
    ]
    return clause.bindparams(*binds)


def _values(query: Query) -> dict[str, Any]:
    used = text(query.sql)._bindparams  # noqa: SLF001 - as above
    missing = sorted(set(used) - set(query.parameters))
    if missing:
        raise SelectError(
            f"{query.name}: the select uses :{missing[0]}, which `params` does not name. Add it to the front matter."
        )
    return {name: parameter.value for name, parameter in query.parameters.items() if name in used}


def _where(query: Query, key: str, *, paged: bool | None = None) -> str:
    conditions = []
    if paged if paged is not None else query.after is not None:
        conditions.append(f"{key} > :presswork_after")
    if query.until is not None:
        conditions.append(f"{key} <= :presswork_until")
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _inner(query: Query) -> str:
    # On a line of its own, so that a trailing comment of the user's can't swallow the bracket.
    return f"\n{query.sql.strip().rstrip(';')}\n"


def _quoted(engine: Engine, name: str) -> str:
    return engine.dialect.identifier_preparer.quote(name).replace(":", "\\:")


def _record(query: Query, row: Mapping[str, Any]) -> Record:
    key = str(row[query.key])
    if len(key) > LONGEST_KEY:
        raise KeyValueError(
            f"{query.name}: the key that begins {key[:40]!r} has {len(key):,} characters; at most {LONGEST_KEY} are kept."
        )
    return make_record(key, dict(row))


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return _whole(value) if isinstance(value, int) else _text(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():
            return _number(value)
        case datetime() | date() | time():
            return value.isoformat()
        case bytes() | memoryview():
            return base64.b64encode(bytes(value)).decode()
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return str(value)


def _text(value: Any) -> Any:
    # A lone surrogate is no text: it can't be sent, stored or hashed. It becomes the mark that stands for it.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and not value.isascii() else value


def _whole(value: int) -> int | str:
    # JSON as orjson writes it holds 64 bits.
    return value if -(2**63) <= value < 2**64 else str(value)


def _number(value: Decimal) -> float | str:
    # A price stays a number, so that templates can format it; digits that a double can't hold stay text.
    return float(value) if value.is_finite() and Decimal(repr(float(value))) == value else str(value)


def _select_error(query: Query, error: SQLAlchemyError) -> SelectError:
    original = str(getattr(error, "orig", None) or error).strip().splitlines()
    reason = original[0].rstrip(".") if original else type(error).__name__
    return SelectError(f"{query.name}: the select fails: {reason}. Try the SQL in the database's own shell.")
