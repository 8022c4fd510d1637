"""Run a template's select once, unchanged, and stream its records into a spool.

Parameters are bound with their types, the source is only read, and its connection is released after the last row. Null,
duplicate and unusable keys are found before any record is used. To read a single record, the select is wrapped
(statements.py).
"""

import itertools
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import SelectError, SourceUnreachableError
from db.machine import pause
from db.session import reason_of
from db.sources.access import is_lost
from db.sources.drivers import padded_columns
from db.sources.spool import SpoolFile, Unreadable
from db.sources.statements import Query, bound, columns_of, no_rows, rows_where
from db.sources.values import KEYS_NAMED, KeyCheck, Record, key_of, make_record, parse_key, split_key

AT_ONCE = 500  # rows that are fetched and written at a time
RECONNECT_WITHIN_S = 30.0  # after a source's connection is lost: a restart takes seconds
MOST_TRIES = 5  # executions of a select that loses its connection after the first rows
_NUMBERED = re.compile(r":\d+$")


def spool(
    engine: Engine,
    query: Query,
    writing: Callable[[], AbstractContextManager[SpoolFile]],
    *,
    tell: Callable[[int], None] = lambda _count: None,
) -> None:
    """Run the select and write its records into a spool that `writing` opens.

    `tell` is called with the number of records so far; its error stops the reading. If the connection is lost, reading
    starts again with a new spool, for up to RECONNECT_WITHIN_S seconds. Raises:
    - SelectError if the SQL fails, a key column is missing or a column name occurs twice;
    - KeyValueError if keys are null, repeated or can't be stored;
    - SpoolError if records can't be written to the disk;
    - SourceUnreachableError if the source stays unavailable.
    """
    waited, next_s, tries = 0.0, 0.25, 0
    while True:
        keys = KeyCheck(query.name, query.key)
        try:
            with writing() as file:
                _fill(engine, query, keys, file, tell)
                return
        except SourceUnreachableError:
            tries += keys.total > 0
            if waited >= RECONNECT_WITHIN_S or tries >= MOST_TRIES:
                raise
        tell(0)
        pause(next_s)
        waited, next_s = waited + next_s, min(next_s * 2, 2.0)


def check_columns(engine: Engine, query: Query) -> None:
    """Check the select's columns without reading a row. Raises SelectError if it fails or lacks a key column."""
    with _reading(engine, query) as connection:
        # The whole text, because wrapping may leave out a piece, which would not be checked.
        bound(query, engine.dialect)
        columns = _described(connection, query)
        _layout(query, columns or _unnumbered(connection, _names(connection.execute(no_rows(query, engine.dialect)))))


def read_first(engine: Engine, query: Query) -> list[Record | Unreadable]:
    """Return the first `query.limit` records without a spool; raises as `spool` does, but tries only once."""
    keys = KeyCheck(query.name, query.key)
    with _reading(engine, query) as connection, _streamed(connection, bound(query, engine.dialect)) as result:
        layout = _layout(query, _names(result), padded_columns(result))
        found = [each for rows in _batches(connection, result, query.limit) for each in layout.records_of(rows, keys)]
    times = Counter(record.key for record in found)
    keys.require_good(len(found) - len(times), sorted(key for key, count in times.items() if count > 1)[:KEYS_NAMED])
    return found


def read_record(engine: Engine, query: Query, key: str) -> Record | None:
    """Return the record with this key, given as text, or None.

    Raises as `find_record` does, and SelectError if the record's values can't be stored.
    """
    record = find_record(engine, query, key)
    if isinstance(record, Unreadable):
        raise SelectError(f"{query.name}: {record.fault}.")
    return record


def find_record(engine: Engine, query: Query, key: str) -> Record | Unreadable | None:
    """Return the record with this key, given as text, also if its values can't be stored; None if there is none.

    Raises KeyValueError if the first two rows that the database finds have this key, SelectError if the select fails.
    """
    parts = split_key(key, len(query.key))
    with _reading(engine, query) as connection:
        statement = bound(query, engine.dialect)
        columns, padded, sample = _first(connection, statement, 1)
        layout = _layout(query, columns, padded)
    if not sample or parts is None:
        return None
    each = [_candidates(engine, part, sample[0][place]) for part, place in zip(parts, layout.key, strict=True)]
    for values in itertools.product(*each):
        with _reading(engine, query) as connection:
            # The names come from the unwrapped select: inside brackets, SQLite renames K next to k.
            _columns, _padded, rows = _first(connection, rows_where(query, engine.dialect, values), 2)
        # A database may compare more loosely than by text, such as without case.
        found = [row for row in rows if layout.key_of(row) == key]
        KeyCheck(query.name, query.key).require_good(len(found[1:]), [key])
        if found:
            return layout.record_of(key, found[0])
    return None


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a row is read: its columns, and the places of the key columns, each with whether it is CHAR(n)."""

    columns: Sequence[str]
    key: Mapping[int, bool]

    def key_of(self, row: Sequence[Any]) -> str | None:
        """Return a row's key as text, or None if a part of it is null."""
        values = [row[place] for place in self.key]
        return None if None in values else key_of(values, self.key.values())

    def records_of(self, rows: Iterable[Sequence[Any]], keys: KeyCheck) -> list[Record | Unreadable]:
        """Make records from rows, without those whose key `keys` finds unusable."""
        keyed = ((keys.usable(self.key_of(row)), row) for row in rows)
        return [self.record_of(key, row) for key, row in keyed if key is not None]

    def record_of(self, key: str, row: Sequence[Any]) -> Record | Unreadable:
        """Make a record from a row. If its values can't be stored, the record fails alone."""
        try:
            return make_record(key, dict(zip(self.columns, row, strict=True)))
        except (ValueError, RecursionError) as error:
            return Unreadable(key, f"the record can't be read: {error}")


def _layout(query: Query, columns: Sequence[str], padded: Collection[str] = ()) -> _Layout:
    """Check the columns of a select. Raises SelectError if a key column is missing or a name occurs twice."""
    missing = [column for column in query.key if column not in columns]
    if missing:
        raise SelectError(
            f"the select does not yield the key column {missing[0]!r}. Add the column, or choose another `key`. "
            f"Available: {', '.join(columns)}."
        )
    twice = [column for column in columns if columns.count(column) > 1]
    if twice:
        raise SelectError(f"the select yields the column {twice[0]!r} more than once. Use AS to rename one of them.")
    return _Layout(columns, {columns.index(column): column in padded for column in query.key})


def _fill(engine: Engine, query: Query, keys: KeyCheck, file: SpoolFile, tell: Callable[[int], None]) -> None:
    with _reading(engine, query) as connection, _streamed(connection, bound(query, engine.dialect)) as result:
        layout = _layout(query, _names(result), padded_columns(result))
        for rows in _batches(connection, result, query.limit):
            file.add(layout.records_of(rows, keys))
            tell(keys.total)
    keys.require_good(*file.repeated(KEYS_NAMED))
    file.trimmed = any(layout.key.values())


def _batches(connection: Connection, result: CursorResult[Any], most: int | None) -> Iterator[Sequence[Any]]:
    left = sys.maxsize if most is None else most
    while left > 0:
        size = min(AT_ONCE, left)
        rows = result.fetchmany(size)
        if rows:
            yield rows
        if len(rows) < size:
            return
        left -= size
    _break_off(connection, result)


def _first(
    connection: Connection, statement: Executable, most: int
) -> tuple[list[str], frozenset[str], Sequence[Sequence[Any]]]:
    """Return the columns, the names of those of type CHAR(n), and the first rows."""
    with _streamed(connection, statement) as result:
        columns, padded, rows = _names(result), padded_columns(result), result.fetchmany(most)
        _break_off(connection, result)
    return columns, padded, rows


@contextmanager
def _streamed(connection: Connection, statement: Executable) -> Iterator[CursorResult[Any]]:
    if connection.dialect.name == "postgresql":
        # PostgreSQL plans a cursor for its first rows only, but here all rows are read.
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
    # Some drivers read all remaining rows before they close a cursor, so the connection is closed first. SQLite's does
    # not, and can't close a cursor after its connection: SQLAlchemy would log a traceback.
    if connection.dialect.name == "sqlite":
        result.close()
    connection.invalidate()
    pending = getattr(result.cursor, "_result", None)
    if pending is not None and hasattr(pending, "unbuffered_active"):
        # PyMySQL would continue to read from the closed connection.
        pending.unbuffered_active = False


def _names(result: CursorResult[Any]) -> list[str]:
    if not result.returns_rows:
        raise SelectError("the select fails: it is not a query. Try the SQL in the database's own shell.")
    return list(result.keys())


def _described(connection: Connection, query: Query) -> list[str] | None:
    """Return the column names of the unwrapped select, or None if the database is not DuckDB.

    If two names differ only by case, DuckDB renames the second one inside brackets: K_1.
    """
    if connection.dialect.name != "duckdb":
        return None
    return list(connection.scalars(columns_of(query, connection.dialect)))


def _unnumbered(connection: Connection, wrapped: Sequence[str]) -> list[str]:
    """Return the column names of the unwrapped select, from those of the wrapped one.

    If two names are equal or differ only by case, SQLite numbers the second one inside brackets: K:1.
    """
    if connection.dialect.name != "sqlite":
        return list(wrapped)
    known = {name.lower() for name in wrapped}
    plain = [_NUMBERED.sub("", name) for name in wrapped]
    return [plain if plain.lower() in known else name for plain, name in zip(plain, wrapped, strict=True)]


@contextmanager
def _reading(engine: Engine, query: Query) -> Iterator[Connection]:
    try:
        with engine.connect() as connection:
            yield connection
    except SelectError as error:
        # Errors about the SQL alone do not name the template.
        raise SelectError(f"{query.name}: {error}") from None
    except (SQLAlchemyError, ValueError, ArithmeticError, RecursionError) as error:
        # A driver raises any of these if it can't read a value.
        reason = reason_of(error, engine.url)
        if is_lost(engine, error):
            raise SourceUnreachableError(f"{query.name}: the source can't be reached: {reason}.") from None
        raise SelectError(
            f"{query.name}: the select fails: {reason}. Try the SQL in the database's own shell."
        ) from None


def _candidates(engine: Engine, key: str, like: Any) -> list[Any]:
    # A SQLite column may hold values of several types. In other databases, a value of a wrong type is an error.
    kinds = [like, key, 0, 0.0, b""] if engine.dialect.name == "sqlite" else [like]
    found: list[Any] = []
    for kind in kinds:
        with suppress(ValueError, ArithmeticError):
            value = parse_key(key, kind)
            # Without duplicates, because each candidate is another execution of the select.
            found += [] if value in found else [value]
    return found
