"""Wrap a user's select: its columns without a row, the rows of one key, a part in the order of the key.

The user's text stands inside as it was written. SQLAlchemy's dialects write the limits and quote the names; what SQL
Server refuses inside brackets (WITH, a bare ORDER BY, OPTION) is taken out of them by its place in the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Dialect,
    Executable,
    FromClause,
    Select,
    TextClause,
    and_,
    bindparam,
    column,
    literal_column,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import quoted_name
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import NullType

from db.sources.clauses import read_statement
from db.sources.statements import Parameter, bound

# It takes neither a WITH nor a bare ORDER BY nor hints inside of brackets.
_STRICT = frozenset({"mssql"})
_ALL: ColumnElement[Any] = literal_column("*")
# They may drop an ORDER BY in a derived table that has no limit of its own; it says how they write one.
_ORDER_NEEDS_LIMIT = {
    "mysql": "\nLIMIT {0}",
    "mariadb": "\nLIMIT {0}",
    "mssql": "\nOFFSET 0 ROWS FETCH NEXT {0} ROWS ONLY",
}


def no_rows(sql: str, parameters: Mapping[str, Parameter], dialect: Dialect) -> Executable:
    """Wrap a select so that it yields its columns and reads no row; SelectError where it can't be wrapped."""
    wrapped = _Wrapped(sql, parameters, dialect)
    return wrapped.complete(select(_ALL).select_from(wrapped.rows()).where(literal_column("1 = 0")))


def columns_of(sql: str, parameters: Mapping[str, Parameter], dialect: Dialect) -> Executable:
    """Ask DuckDB for a select's columns, one a row with its name first, and execute nothing of it."""
    statement = read_statement(sql, dialect.name)
    return bound(statement, [statement.whole], parameters, dialect, head="DESCRIBE ")


def rows_where(
    sql: str, parameters: Mapping[str, Parameter], dialect: Dialect, columns: Sequence[str], values: Sequence[Any]
) -> Executable:
    """Wrap a select so that it yields the rows whose columns equal the values; SelectError as no_rows."""
    wrapped = _Wrapped(sql, parameters, dialect)
    equal = [
        # Untyped: the driver knows best how a value that it has returned is compared with its column.
        _column(name, dialect) == bindparam(f"presswork_key_{at}", value, NullType())
        for at, (name, value) in enumerate(zip(columns, values, strict=True))
    ]
    return wrapped.complete(select(_ALL).select_from(wrapped.rows()).where(and_(*equal)))


def rows_between(
    sql: str,
    parameters: Mapping[str, Parameter],
    dialect: Dialect,
    order_by: Sequence[str],
    offset: int,
    count: int,
    limit: int | None = None,
) -> Executable:
    """Wrap a select so that it yields `count` rows behind the first `offset` in the order of some columns.

    With `limit` only the first rows in the select's own order are looked at. SelectError as no_rows.
    """
    wrapped = _Wrapped(sql, parameters, dialect)
    part = select(_ALL).select_from(wrapped.rows() if limit is None else wrapped.first_rows(limit))
    ordered = part.order_by(*(_column(name, dialect) for name in order_by))
    return wrapped.complete(ordered.limit(count).offset(offset))


class _Headed(Executable, ClauseElement):
    """A select behind the WITH that was taken out of its brackets."""

    inherit_cache = False

    def __init__(self, head: TextClause, body: Select[Any]) -> None:
        self.head = head
        self.body = body


@compiles(_Headed)
def _compile_headed(element: _Headed, compiler: SQLCompiler, **keywords: Any) -> str:
    return f"{compiler.process(element.head, **keywords)}{compiler.process(element.body, **keywords)}"


class _Wrapped:
    """A select inside of another one."""

    def __init__(self, sql: str, parameters: Mapping[str, Parameter], dialect: Dialect) -> None:
        self._statement = read_statement(sql, dialect.name)
        self._parameters = parameters
        self._dialect = dialect
        self._strict = dialect.name in _STRICT

    def rows(self) -> FromClause:
        """The select as a table."""
        spans = [(self._begin, self._end)]
        order_by = self._statement.order_by
        if self._strict and order_by is not None and not self._statement.bounded:
            spans = [(self._begin, order_by[0])]
        return self._table(spans)

    def first_rows(self, limit: int) -> FromClause:
        """Its first rows, in its own order, as a table."""
        by_order = _ORDER_NEEDS_LIMIT.get(self._dialect.name)
        if by_order is None or self._statement.order_by is None or self._statement.bounded:
            return select(_ALL).select_from(self.rows()).limit(limit).subquery("first_rows")
        return self._table([(self._begin, self._end)], by_order.format(int(limit)))

    def complete(self, body: Select[Any]) -> Executable:
        """The whole, with what can't stand inside of brackets."""
        options = self._statement.options
        if options is not None:
            body = body.with_statement_hint(self._statement.sql[options[0] : options[1]])
        if not self._begin:
            return body
        return _Headed(bound(self._statement, [(0, self._begin)], self._parameters, self._dialect), body)

    @property
    def _begin(self) -> int:
        return self._statement.main if self._strict else 0

    @property
    def _end(self) -> int:
        options = self._statement.options
        return len(self._statement.sql) if options is None else options[0]

    def _table(self, spans: list[tuple[int, int]], tail: str = "") -> FromClause:
        # A comment that ends the user's text is cut off, and can't swallow the bracket.
        return bound(self._statement, spans, self._parameters, self._dialect, tail=tail).columns().subquery("selected")


def _column(name: str, dialect: Dialect) -> ColumnElement[Any]:
    # Always quoted, but where SQLAlchemy folds case itself (Oracle): there it quotes what needs it.
    return column(quoted_name(name, None if dialect.requires_name_normalize else True))
