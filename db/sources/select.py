"""Select: run a template's select once, as it stands, and stream its records into a spool.

Parameters are bound with their types, the source is only read, and its connection is given back when the last row has
come. Null, duplicate and unusable keys are found before any record is used. One record, or a shard's part, is asked
for by wrapping the select (wrapping.py).
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import KeyValueError, SelectError, SourceUnreachableError
from db.session import reason_of
from db.sources.drivers import padded_columns
from db.sources.keys import split_key
from db.sources.read_only import is_lost
from db.sources.spool import SpoolFile, Unreadable
from db.sources.statements import Parameter, as_it_stands
from db.sources.values import Record, key_of, make_record, parse_key
from db.sources.wrapping import columns_of, no_rows, rows_between, rows_where

__all__ = [
    "LONGEST_KEY",
    "Parameter",
    "Part",
    "Query",
    "Record",
    "check_columns",
    "make_record",
    "read_record",
    "spool",
]

LONGEST_KEY = 500
NAMED = 5  # keys that an error message names at most
AT_ONCE = 500  # rows that are fetched and written at a time
PATIENCE_S = 30.0  # for a source whose connection is lost: a restart takes seconds
MOST_TRIES = 5  # executions of a select whose connection is lost each time in the middle
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_NUMBERED = re.compile(r":\d+$")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a select in the order of its keys, for a shard: `count` rows from `offset` on."""

    offset: int
    count: int


@dataclass(frozen=True, slots=True)
class Query:
    """A user's select with its key columns and bound parameters; `name` is what errors call it.

    `limit` keeps the first rows in the select's own order; of these, `part` is a shard's.
    """

    name: str
    sql: str
    key: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    limit: int | None = None
    part: Part | None = None

    @property
    def key_name(self) -> str:
        """The key columns, for messages."""
        return ", ".join(repr(column) for column in self.key)


def spool(
    engine: Engine,
    query: Query,
    writing: Callable[[], AbstractContextManager[SpoolFile]],
    *,
    tell: Callable[[int], None] = lambda _count: None,
) -> None:
    """Run the select and write its records into a spool that `writing` opens.

    `tell` hears how many records have come; what it raises ends the reading. A connection that is lost has the spool
    begun again from scratch, for PATIENCE_S. Raises SelectError where the SQL fails, lacks its key or yields a column
    twice, KeyValueError where keys are null, not unique or can't be kept, SpoolError, SourceUnreachableError where
    the source has gone.
    """
    waited, pause, tries = 0.0, 0.25, 0
    while True:
        keys = _Keys(query)
        try:
            with writing() as file:
                _fill(engine, query, keys, file, tell)
                return
        except SourceUnreachableError:
            tries += keys.total > 0
            if waited >= PATIENCE_S or tries >= MOST_TRIES:
                raise
        tell(0)
        time.sleep(pause)
        waited, pause = waited + pause, min(pause * 2, 2.0)


def check_columns(engine: Engine, query: Query) -> None:
    """Ask for the select's columns, executing nothing of it; SelectError where it fails or lacks its key.

    What can't be wrapped is left to the run.
    """
    with _reading(engine, query) as connection:
        # Whether it can run at all.
        as_it_stands(query.sql, query.parameters, engine.dialect)
        columns = _described(connection, query)
        if columns is None:
            try:
                asked = no_rows(query.sql, query.parameters, engine.dialect)
            except SelectError:
                return
            columns = _unnumbered(connection, _columns(query, connection.execute(asked)))
    _check_columns(query, columns)


def read_record(engine: Engine, query: Query, key: str) -> Record | None:
    """Return the record whose key, as text, is `key`, or None."""
    parts = split_key(key, len(query.key))
    with _reading(engine, query) as connection:
        statement = as_it_stands(query.sql, query.parameters, engine.dialect)
        columns, padded, sample = _first(query, connection, statement)
    _check_columns(query, columns)
    if sample is None or parts is None:
        return None
    own = _own(query, columns, padded)
    kinds = [sample[columns.index(column)] for column in query.key]
    each = [_candidates(engine, part, kind) for part, kind in zip(parts, kinds, strict=True)]
    for values in itertools.product(*each):
        with _reading(engine, query) as connection:
            asked = rows_where(query.sql, query.parameters, engine.dialect, query.key, values)
            # Its names are those of the select as it stands: SQLite gives K next to k another one inside of brackets.
            _names, _padded, row = _first(query, connection, asked)
        if row is not None and _key(row, own) == key:
            return _readable(query, _made(key, columns, row))
    return None


def _fill(engine: Engine, query: Query, keys: _Keys, file: SpoolFile, tell: Callable[[int], None]) -> None:
    with _reading(engine, query) as connection:
        # As the run has them that is divided: records with other names would have other prompts.
        described = _described(connection, query) if query.part else None
        with _streamed(connection, _statement(engine, query)) as result:
            columns = _columns(query, result)
            if query.part:
                columns = described or _unnumbered(connection, columns)
            _check_columns(query, columns)
            own = _own(query, columns, _padded(result))
            for rows in _batches(connection, result, query):
                file.add([_made(key, columns, row) for row in rows if (key := keys.usable(_key(row, own))) is not None])
                tell(keys.total)
    keys.check(file)
    file.trimmed = any(own.values())


def _own(query: Query, columns: Sequence[str], padded: frozenset[str]) -> dict[int, bool]:
    """Return where the key columns stand in a row, and whether each is CHAR(n)."""
    return {columns.index(column): column in padded for column in query.key}


def _padded(result: CursorResult[Any]) -> frozenset[str]:
    return padded_columns(result.cursor.description if result.cursor is not None else None)


def _statement(engine: Engine, query: Query) -> Executable:
    if query.part is None:
        return as_it_stands(query.sql, query.parameters, engine.dialect)
    offset, count = query.part.offset, query.part.count
    return rows_between(query.sql, query.parameters, engine.dialect, query.key, offset, count, query.limit)


def _batches(connection: Connection, result: CursorResult[Any], query: Query) -> Iterator[Sequence[Any]]:
    left = query.part.count if query.part else query.limit
    while left is None or left > 0:
        size = AT_ONCE if left is None else min(AT_ONCE, left)
        rows = result.fetchmany(size)
        if rows:
            yield rows
        if len(rows) < size:
            return
        left = None if left is None else left - size
    _break_off(connection, result)


def _first(query: Query, connection: Connection, statement: Executable) -> tuple[list[str], frozenset[str], Any]:
    """Return the columns, which of them are CHAR(n), and the first row."""
    with _streamed(connection, statement) as result:
        columns, padded, row = _columns(query, result), _padded(result), result.fetchone()
        _break_off(connection, result)
    return columns, padded, row


@contextmanager
def _streamed(connection: Connection, statement: Executable) -> Iterator[CursorResult[Any]]:
    if connection.dialect.name == "postgresql":
        # It plans a cursor for its first rows, and here all are read.
        connection.exec_driver_sql("SET LOCAL cursor_tuple_fraction = 1")
    result = connection.execution_options(stream_results=True, max_row_buffer=AT_ONCE).execute(statement)
    try:
        yield result
    except BaseException:
        _break_off(connection, result)
        raise
    finally:
        result.close()


def _break_off(connection: Connection, result: CursorResult[Any]) -> None:
    # Some drivers read all that is left before they close a cursor: so the connection is closed first. SQLite's reads
    # nothing then, and can't close a cursor whose connection is closed: SQLAlchemy would log a traceback.
    if connection.dialect.name == "sqlite":
        result.close()
    connection.invalidate()
    pending = getattr(result.cursor, "_result", None)
    if pending is not None and hasattr(pending, "unbuffered_active"):
        # PyMySQL would go on to read from the closed connection.
        pending.unbuffered_active = False


def _columns(query: Query, result: CursorResult[Any]) -> list[str]:
    if not result.returns_rows:
        raise SelectError(
            f"{query.name}: the select fails: it yields no rows. Try the SQL in the database's own shell."
        )
    return list(result.keys())


def _described(connection: Connection, query: Query) -> list[str] | None:
    """Return the names that the select's columns have where it stands by itself, where only asking tells.

    DuckDB gives the second of two that differ by case alone another name inside of brackets: K_1.
    """
    if connection.dialect.name != "duckdb":
        return None
    return list(connection.scalars(columns_of(query.sql, query.parameters, connection.dialect)))


def _unnumbered(connection: Connection, wrapped: Sequence[str]) -> list[str]:
    """Return the names that a wrapped select's columns have where it stands by itself.

    SQLite numbers the second of two that are the same, or differ by case alone, inside of brackets: K:1.
    """
    if connection.dialect.name != "sqlite":
        return list(wrapped)
    known = {name.lower() for name in wrapped}
    plain = [_NUMBERED.sub("", name) for name in wrapped]
    return [plain if plain.lower() in known else name for plain, name in zip(plain, wrapped, strict=True)]


def _check_columns(query: Query, columns: Sequence[str]) -> None:
    missing = [column for column in query.key if column not in columns]
    if missing:
        raise SelectError(
            f"{query.name}: the select does not yield the key column {missing[0]!r}; it yields {', '.join(columns)}. "
            "Add the column, or name another `key`."
        )
    twice = [column for column in columns if columns.count(column) > 1]
    if twice:
        raise SelectError(
            f"{query.name}: the select yields {twice[0]!r} more than once. Give each column a name of its own with AS."
        )


@contextmanager
def _reading(engine: Engine, query: Query) -> Iterator[Connection]:
    try:
        with engine.connect() as connection:
            yield connection
    except SelectError as error:
        # What the SQL itself tells knows nothing of the template.
        raise (error if str(error).startswith(query.name) else SelectError(f"{query.name}: {error}")) from None
    except (SQLAlchemyError, ValueError, ArithmeticError, RecursionError) as error:
        # A driver raises any of these where it can't read a value.
        raise _select_error(engine, query, error) from None


def _key(row: Sequence[Any], own: Mapping[int, bool]) -> str | None:
    """Return a row's key as text; None where a part of it is null."""
    values = [row[column] for column in own]
    return None if None in values else key_of(values, own.values())


def _made(key: str, columns: Sequence[str], row: Sequence[Any]) -> Record | Unreadable:
    """Make a record of a row; one whose values can't be kept fails alone."""
    try:
        return make_record(key, dict(zip(columns, row, strict=True)))
    except (ValueError, RecursionError) as error:
        return Unreadable(key, f"the record can't be read: {error}")


def _readable(query: Query, record: Record | Unreadable) -> Record:
    if isinstance(record, Unreadable):
        raise SelectError(f"{query.name}: {record.fault}.")
    return record


@dataclass
class _Keys:
    """What is known of the keys of a select that is being read; the first that can't be kept are named."""

    query: Query
    total: int = 0
    null: int = 0
    unfit: int = 0
    named: list[str] = field(default_factory=list)

    def usable(self, key: str | None) -> str | None:
        """Count a record, and return its key where it can be kept."""
        self.total += 1
        if key is None:
            self.null += 1
        elif len(key) > LONGEST_KEY or "\x00" in key or not (key.isascii() or _is_text(key)):
            self.unfit += 1
            self.named += [_short(key)] if len(self.named) < NAMED else []
        else:
            return key
        return None

    def check(self, file: SpoolFile) -> None:
        """Raise KeyValueError where the keys don't tell the records apart."""
        name, key = self.query.name, self.query.key_name
        if self.null:
            what = "it is null" if len(self.query.key) == 1 else "one of them is null"
            raise KeyValueError(
                f"{name}: {self.null} of {self.total} records {'has' if self.null == 1 else 'have'} no {key} ({what}). "
                "Leave them out in the select, or choose another key."
            )
        surplus, repeated = file.repeated(NAMED)
        if surplus:
            raise KeyValueError(
                f"{name}: the key {key} is not unique: {_many(surplus, 'record repeats', 'records repeat')} one, "
                f"such as {', '.join(map(_shown, repeated))}. Choose a key that is, or group the select by it. Keys "
                "are compared as text."
            )
        if self.unfit:
            raise KeyValueError(
                f"{name}: {_many(self.unfit, 'key', 'keys')} can't be kept: {', '.join(self.named)}. A key has at most "
                f"{LONGEST_KEY} characters and no NUL among them. Choose another key, or leave these records out in "
                "the select."
            )


def _candidates(engine: Engine, key: str, like: Any) -> list[Any]:
    # SQLite lets a column hold values of several types; elsewhere a value of a wrong type would be an error.
    kinds = [like, key, 0, 0.0, b""] if engine.dialect.name == "sqlite" else [like]
    found: list[Any] = []
    for kind in kinds:
        with suppress(ValueError):
            value = parse_key(key, kind)
            # Each is another execution of the select.
            found += [] if value in found else [value]
    return found


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(key: str) -> str:
    return key if _NUMBER.fullmatch(key) else _short(key)


def _short(key: str) -> str:
    return ascii(key) if len(key) <= 40 else f"{key[:40]!a} ... ({len(key):,} characters)"


def _select_error(engine: Engine, query: Query, error: Exception) -> SelectError | SourceUnreachableError:
    reason = reason_of(error, engine.url)
    if is_lost(engine, error):
        return SourceUnreachableError(f"{query.name}: the source can't be reached: {reason}.")
    return SelectError(f"{query.name}: the select fails: {reason}. Try the SQL in the database's own shell.")
