"""Select: stream records out of any SQL database, in pages by key, each page on a short read-only connection.

A template's SQL is wrapped, never edited, and its parameters are bound with their types. Null, duplicate and
unusable keys are found before the first page, so that a run stops before it has asked for anything. Paging by key
means that a run outlives a restart of the source, and that a range of keys is a shard.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine, RowMapping
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from db.errors import KeyValueError, SelectError, SourceUnreachableError
from db.session import reason_of
from db.statements import Parameter, bound, read_statement
from db.values import Record, key_text, make_record, parse_key

__all__ = [
    "LONGEST_KEY",
    "Parameter",
    "Query",
    "Record",
    "count_records",
    "cut",
    "make_record",
    "read_columns",
    "read_pages",
    "read_record",
]

LONGEST_KEY = 500
NAMED = 5  # keys that an error message names at most
PATIENCE_S = 30.0  # for a source that goes away between two pages: a restart takes seconds
_AFTER, _UNTIL, _KEY = "presswork_after", "presswork_until", "presswork_key"


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


def count_records(engine: Engine, query: Query) -> int:
    """Count what the select yields and check its keys.

    Raises SelectError where the SQL fails, lacks its key or yields a column twice, KeyValueError where keys are null,
    not unique or can't be kept, SourceUnreachableError where the source has gone.
    """
    _check_columns(query, read_columns(engine, query))
    key = _quoted(engine, query.key)
    unusable = _unusable(engine, key)
    ((total, keyed, different, unkept),) = _counts(
        engine,
        query,
        f"COUNT(*), COUNT({key}), COUNT(DISTINCT {key}), COUNT(CASE WHEN {unusable} THEN 1 END)",
    )
    if keyed < total:
        raise KeyValueError(
            f"{query.name}: {total - keyed} of {total} records have no {query.key!r} (it is null). "
            "Leave them out in the select, or choose another key."
        )
    if different < total:
        doubled = f"GROUP BY {key} HAVING COUNT(*) > 1 ORDER BY {key} LIMIT {NAMED}"
        raise KeyValueError(
            f"{query.name}: the key {query.key!r} is not unique: {total - different} records repeat one, such as "
            f"{_named(_counts(engine, query, key, doubled))}. Choose a key that is, or group the select by it."
        )
    if unkept:
        found = _named(_counts(engine, query, key, f"ORDER BY {key} LIMIT {NAMED}", unusable))
        raise KeyValueError(
            f"{query.name}: {unkept} keys can't be kept: {found}. A key has at most {LONGEST_KEY} characters and no "
            "NUL among them. Choose another key, or leave these records out in the select."
        )
    return int(total)


def read_pages(engine: Engine, query: Query, *, page_size: int, limit: int | None = None) -> Iterator[list[Record]]:
    """Yield the records in the order of their keys, `page_size` at a time and `limit` in all.

    Each page is a query of its own, and one that meets a source which is away is asked again for PATIENCE_S. Raises
    SelectError, KeyValueError for a key that can't be kept, and SourceUnreachableError.
    """
    key = _quoted(engine, query.key)
    after, left = query.after, limit
    while left is None or left > 0:
        size = page_size if left is None else min(page_size, left)
        rows = _patiently(engine, query, "*", f"ORDER BY {key} LIMIT {size}", after)
        if not rows:
            return
        after = rows[-1][query.key]
        yield [_record(query, row) for row in rows]
        if len(rows) < size:
            return
        if left is not None:
            left -= len(rows)


def cut(engine: Engine, query: Query, *, total: int, part: int, of: int) -> Query | None:
    """Bound a query to one of `of` parts, of about equal counts, of its first `total` records; None: an empty one.

    A part begins and ends where keys stand now: no record is read, and the parts meet whatever type the key has.
    `part` counts from 1.
    """
    first, end = total * (part - 1) // of, total * part // of
    if first >= end:
        return None
    before = _key_at(engine, query, first - 1) if first else []
    if first and not before:
        return None  # records have gone since they were counted
    last = _key_at(engine, query, end - 1)
    return replace(query, after=before[0] if before else query.after, until=last[0] if last else query.until)


def _key_at(engine: Engine, query: Query, position: int) -> list[Any]:
    key = _quoted(engine, query.key)
    return [row[0] for row in _counts(engine, query, key, f"ORDER BY {key} LIMIT 1 OFFSET {position}")]


def read_columns(engine: Engine, query: Query) -> list[str]:
    """Return the columns that the select yields, reading no record."""
    columns, _rows = _run(engine, query, "*", where=["1 = 0"])
    return columns


def read_record(engine: Engine, query: Query, key: str) -> Record | None:
    """Return the record whose key, as text, is `key`, or None."""
    _check_columns(query, read_columns(engine, query))
    quoted = _quoted(engine, query.key)
    _columns, sample = _run(engine, query, quoted, "LIMIT 1", where=[f"{quoted} IS NOT NULL"])
    for candidate in _candidates(engine, key, sample[0][query.key]) if sample else ():
        _columns, rows = _run(engine, query, "*", where=[f"{quoted} = :{_KEY}"], values={_KEY: candidate})
        if rows and key_text(rows[0][query.key]) == key:
            return _record(query, rows[0])
    return None


def _candidates(engine: Engine, key: str, like: Any) -> list[Any]:
    # SQLite lets a column hold values of several types; elsewhere a value of a wrong type would be an error.
    kinds = [like, key, 0] if engine.dialect.name == "sqlite" else [like]
    found = []
    for kind in kinds:
        try:
            found.append(parse_key(key, kind))
        except ValueError:
            continue
    return found


def _check_columns(query: Query, columns: Sequence[str]) -> None:
    if query.key not in columns:
        raise SelectError(
            f"{query.name}: the select does not yield the key column {query.key!r}; it yields {', '.join(columns)}. "
            "Add the column, or name another `key`."
        )
    # SQLite numbers the second one: name:1.
    plain = [re.sub(r":\d+$", "", column) for column in columns]
    twice = [column for column in plain if plain.count(column) > 1]
    if twice:
        raise SelectError(
            f"{query.name}: the select yields {twice[0]!r} more than once. Give each column a name of its own with AS."
        )


def _counts(engine: Engine, query: Query, what: str, tail: str = "", condition: str | None = None) -> list[Any]:
    where = [*_bounds(engine, query, query.after), *([condition] if condition else [])]
    values = _bound_values(query, query.after)
    _columns, rows = _run(engine, query, what, tail, where=where, values=values)
    return [tuple(row.values()) for row in rows]


def _patiently(engine: Engine, query: Query, what: str, tail: str, after: Any) -> list[RowMapping]:
    waited, pause = 0.0, 0.25
    while True:
        try:
            where, values = _bounds(engine, query, after), _bound_values(query, after)
            return _run(engine, query, what, tail, where=where, values=values)[1]
        except SourceUnreachableError:
            if waited >= PATIENCE_S:
                raise
        time.sleep(pause)
        waited, pause = waited + pause, min(pause * 2, 2.0)


def _run(
    engine: Engine,
    query: Query,
    what: str,
    tail: str = "",
    *,
    where: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
) -> tuple[list[str], list[RowMapping]]:
    head = f"SELECT {what} FROM (\n"
    end = " ".join(["\n) selected", *(["WHERE", " AND ".join(where)] if where else []), tail])
    try:
        statement = read_statement(query.sql, engine.dialect.name)
        wrapped = bound(statement, [statement.whole], query.parameters, engine.dialect, end, head)
    except SelectError as error:
        raise SelectError(f"{query.name}: {error}") from None
    try:
        with engine.connect() as connection:
            result = connection.execute(wrapped, values or {})
            return list(result.keys()), list(result.mappings())
    except (SQLAlchemyError, UnicodeError) as error:
        raise _select_error(engine, query, error) from None


def _bounds(engine: Engine, query: Query, after: Any) -> list[str]:
    key = _quoted(engine, query.key)
    lower = [] if after is None else [f"{key} > :{_AFTER}"]
    return lower if query.until is None else [*lower, f"{key} <= :{_UNTIL}"]


def _bound_values(query: Query, after: Any) -> dict[str, Any]:
    # Untyped: the driver knows best how a value that it has returned is compared with its column.
    bounds = {_AFTER: after, _UNTIL: query.until}
    return {name: value for name, value in bounds.items() if value is not None}


def _unusable(engine: Engine, key: str) -> str:
    too_long = f"LENGTH(CAST({key} AS TEXT)) > {LONGEST_KEY}"
    match engine.dialect.name:
        case "sqlite":
            # Its LENGTH() stops at a NUL, and a text may hold one.
            return f"{too_long} OR (TYPEOF({key}) = 'text' AND INSTR({key}, CHAR(0)) > 0)"
        case "postgresql":
            return too_long
        case _:
            return "1 = 0"  # found when the page is read


def _quoted(engine: Engine, name: str) -> str:
    return engine.dialect.identifier_preparer.quote(name).replace("%%", "%").replace(":", "\\:")


def _record(query: Query, row: RowMapping) -> Record:
    key = key_text(row[query.key])
    if len(key) > LONGEST_KEY or "\x00" in key or not _is_text(key):
        raise KeyValueError(
            f"{query.name}: the key {_short(key)} can't be kept: a key is text of at most {LONGEST_KEY} characters, "
            "without a NUL. Leave this record out in the select."
        )
    try:
        return make_record(key, dict(row))
    except ValueError as error:
        raise SelectError(f"{query.name}: the record {_short(key)} can't be kept: {error}.") from None


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(rows: Sequence[Sequence[Any]]) -> str:
    return ", ".join(_short(key_text(row[0])) if isinstance(row[0], str) else key_text(row[0]) for row in rows)


def _short(key: str) -> str:
    return ascii(key) if len(key) <= 40 else f"{key[:40]!a} ... ({len(key):,} characters)"


def _select_error(engine: Engine, query: Query, error: Exception) -> SelectError | SourceUnreachableError:
    reason = reason_of(error, engine.url)
    if _is_away(engine, error):
        return SourceUnreachableError(f"{query.name}: the source can't be reached: {reason}.")
    return SelectError(f"{query.name}: the select fails: {reason}. Try the SQL in the database's own shell.")


def _is_away(engine: Engine, error: Exception) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if engine.dialect.name != "postgresql" or not isinstance(error, OperationalError | InterfaceError):
        return False
    # No SQLSTATE: the server was not reached. 08: connections. 57P0x: it stops, or is starting. 53300: it is full.
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state.startswith(("08", "57P0")) or state == "53300"
