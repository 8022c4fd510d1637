"""Wrap a user's select: its columns without a row, the rows of one key, a part in the order of the key.

The user's text stands inside as it was written. SQLAlchemy's dialects write the limits and quote the names; what SQL
Server refuses inside brackets (WITH, a bare ORDER BY, OPTION) is taken out of them by its place in the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Dialect, Executable, FromClause
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import quoted_name
from sqlalchemy.sql.compiler import SQLCompiler

from db.sources.clauses import read_statement
from db.sources.statements import Part, Query, bound

# It takes neither a WITH nor a bare ORDER BY nor hints inside of brackets.
_STRICT = frozenset({"mssql"})
_ALL: sa.ColumnElement[Any] = sa.literal_column("*")
# They may drop an ORDER BY in a derived table that has no limit of its own; it says how they write one.
_ORDER_NEEDS_LIMIT = {
    "mysql": "\nLIMIT {0}",
    "mariadb": "\nLIMIT {0}",
    "mssql": "\nOFFSET 0 ROWS FETCH NEXT {0} ROWS ONLY",
}


def no_rows(query: Query, dialect: Dialect) -> Executable:
    """Wrap a select so that it yields its columns and reads no row; SelectError where it can't be wrapped."""
    wrapped = _Wrapped(query, dialect)
    return wrapped.complete(sa.select(_ALL).select_from(wrapped.rows()).where(sa.literal_column("1 = 0")))


def columns_of(query: Query, dialect: Dialect) -> Executable:
    """Ask DuckDB for a select's columns, one a row with its name first, and execute nothing of it."""
    return _Headed(sa.text("DESCRIBE "), bound(query, dialect))


def rows_where(query: Query, dialect: Dialect, values: Sequence[Any]) -> Executable:
    """Wrap a select so that it yields the rows whose key columns equal the values; SelectError as no_rows."""
    wrapped = _Wrapped(query, dialect)
    equal = [
        # Untyped: the driver knows best how a value that it has returned is compared with its column.
        _column(name, dialect) == sa.bindparam(f"presswork_key_{at}", value, sa.types.NullType())
        for at, (name, value) in enumerate(zip(query.key, values, strict=True))
    ]
    return wrapped.complete(sa.select(_ALL).select_from(wrapped.rows()).where(sa.and_(*equal)))


def rows_of_part(query: Query, part: Part, dialect: Dialect) -> Executable:
    """Wrap a select so that it yields a part of its rows in the order of its key; SelectError as no_rows.

    With the query's limit, only the first rows in the select's own order are looked at.
    """
    wrapped = _Wrapped(query, dialect)
    rows = wrapped.rows() if query.limit is None else wrapped.first_rows(query.limit)
    ordered = sa.select(_ALL).select_from(rows).order_by(*(_column(name, dialect) for name in query.key))
    return wrapped.complete(ordered.limit(part.count).offset(part.offset))


class _Headed(Executable, sa.ClauseElement):
    """A statement behind what can't stand inside of its brackets."""

    inherit_cache = False

    def __init__(self, head: sa.ClauseElement, body: sa.ClauseElement) -> None:
        self.head = head
        self.body = body


@compiles(_Headed)
def _compile_headed(element: _Headed, compiler: SQLCompiler, **keywords: Any) -> str:
    return f"{compiler.process(element.head, **keywords)}{compiler.process(element.body, **keywords)}"


class _Wrapped:
    """A select inside of another one."""

    def __init__(self, query: Query, dialect: Dialect) -> None:
        self._statement = read_statement(query.sql, dialect.name)
        self._query = query
        self._dialect = dialect
        self._strict = dialect.name in _STRICT
        self._begin = self._statement.main if self._strict else 0

    def rows(self) -> FromClause:
        """The select as a table."""
        takes_order = not self._strict or self._statement.bounded
        return self._table(None if takes_order else self._statement.order_by)

    def first_rows(self, limit: int) -> FromClause:
        """Its first rows, in its own order, as a table."""
        by_order = _ORDER_NEEDS_LIMIT.get(self._dialect.name)
        if by_order is None or self._statement.order_by is None or self._statement.bounded:
            return sa.select(_ALL).select_from(self.rows()).limit(limit).subquery("first_rows")
        return self._table(tail=by_order.format(int(limit)))

    def complete(self, body: sa.Select[Any]) -> Executable:
        """The whole, with what can't stand inside of brackets."""
        if self._statement.options is not None:
            body = body.with_statement_hint(self._statement.sql[self._statement.options :])
        if not self._begin:
            return body
        return _Headed(bound(self._query, self._dialect, 0, self._begin), body)

    def _table(self, end: int | None = None, *, tail: str = "") -> FromClause:
        end = self._statement.options if end is None else end
        # A comment that ends the user's text is cut off, and can't swallow the bracket.
        rows = bound(self._query, self._dialect, self._begin, end, tail=tail)
        return rows.columns().subquery("selected")


def _column(name: str, dialect: Dialect) -> sa.ColumnElement[Any]:
    # Always quoted, but where SQLAlchemy folds case itself (Oracle): there it quotes what needs it.
    return sa.column(quoted_name(name, None if dialect.requires_name_normalize else True))
