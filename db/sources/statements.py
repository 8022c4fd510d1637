"""Make statements from a user's select: bind its parameters by their types, and wrap it.

The user's text is never rewritten. A wrapped select contains it unchanged, and yields its columns without a row, or the
rows of one key. SQLAlchemy's dialects quote the names. Parts that SQL Server rejects inside brackets (WITH, an ORDER BY
without a limit, OPTION) are moved out, by their place in the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Dialect, Executable, FromClause, TextClause
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine, UserDefinedType

from db.database_errors import SelectError
from db.sources.clauses import read_statement


class _TypedFloat(UserDefinedType[float]):
    # The driver sends PostgreSQL the type of a number or a boolean, but not of a NULL.
    render_bind_cast = True
    cache_ok = True

    def get_col_spec(self, **_keywords: Any) -> str:
        return "DOUBLE PRECISION"


class _TypedBoolean(sa.Boolean):
    render_bind_cast = True


_TEXT = sa.String()
_TYPES: dict[str, TypeEngine[Any]] = {"float": _TypedFloat(), "bool": _TypedBoolean(), "date": sa.Date()}

# Rejects a WITH, an ORDER BY without a limit, and hints inside brackets.
_STRICT = frozenset({"mssql"})
_ALL: sa.ColumnElement[Any] = sa.literal_column("*")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value to bind into the select, with its type: str, int, float, bool, date or datetime."""

    type: str
    value: Any


@dataclass(frozen=True, slots=True)
class Query:
    """A user's select with its key columns and parameters; errors call it by its `name`.

    `limit` keeps the first rows in the select's own order.
    """

    name: str
    sql: str
    key: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    limit: int | None = None


def bound(query: Query, dialect: Dialect, begin: int = 0, end: int | None = None) -> TextClause:
    """Bind a select without its trailing semicolons and comments, or only the piece from `begin` to `end`.

    Raises SelectError if it can't be read, or if a parameter has no value.
    """
    statement = read_statement(query.sql, dialect.name)
    end = len(statement.sql) if end is None else end
    written, binds = "", {}
    for found in statement.parameters:
        if begin <= found.start < end:
            if found.name not in query.parameters:
                raise SelectError(
                    f"the select uses :{found.name}, which `params` does not declare. Add it to the front matter."
                )
            # A prefix avoids names that SQLAlchemy generates, such as param_1, or that Oracle reserves, such as date.
            own = f"given_{found.name}"
            binds[own] = _bound(own, query.parameters[found.name], dialect.name)
            written += f"{_escaped(statement.sql[begin : found.start])}:{own}"
            begin = found.end
    return sa.text(written + _escaped(statement.sql[begin:end])).bindparams(*binds.values())


def _escaped(piece: str) -> str:
    # SQLAlchemy's text() would take some of these colons for parameters.
    return piece.replace(":", r"\:")


def _bound(name: str, parameter: Parameter, dialect: str) -> Any:
    value = parameter.value
    if isinstance(value, datetime) and value.tzinfo is not None:
        # Always in UTC, and without the time zone for databases whose columns have none.
        moment = value.astimezone(UTC)
        value = moment.replace(tzinfo=None) if dialect in {"sqlite", "mysql", "mariadb"} else moment
    if isinstance(value, datetime) and dialect == "sqlite":
        # In the format of SQLite's datetime() and strftime('%Y-%m-%d %H:%M:%f'); SQLAlchemy always writes six digits.
        fraction = "microseconds" if value.microsecond % 1000 else "milliseconds" if value.microsecond else "seconds"
        return sa.bindparam(name, value.isoformat(" ", timespec=fraction), _TEXT)
    return sa.bindparam(name, value, _type(parameter.type, value))


def _type(kind: str, value: Any) -> TypeEngine[Any]:
    if kind == "int":
        # BIGINT only if needed, because PostgreSQL's substr() and similar functions don't accept it.
        return sa.BigInteger() if isinstance(value, int) and not -(2**31) <= value < 2**31 else sa.Integer()
    if kind == "datetime":
        return sa.DateTime(timezone=isinstance(value, datetime) and value.tzinfo is not None)
    return _TYPES.get(kind, _TEXT)


def no_rows(query: Query, dialect: Dialect) -> Executable:
    """Wrap a select so that it yields its columns and reads no row. Raises SelectError if it can't be read."""
    wrapped = _Wrapped(query, dialect)
    return wrapped.complete(sa.select(_ALL).select_from(wrapped.rows()).where(sa.literal_column("1 = 0")))


def columns_of(query: Query, dialect: Dialect) -> Executable:
    """Make DuckDB describe a select's columns (one row each, name first) without executing the select."""
    return _Headed(sa.text("DESCRIBE "), bound(query, dialect))


def rows_where(query: Query, dialect: Dialect, values: Sequence[Any]) -> Executable:
    """Wrap a select so that it yields the rows whose key columns equal the values. Raises SelectError like no_rows."""
    wrapped = _Wrapped(query, dialect)
    equal = [
        # Without a type: the driver knows best how to compare a value that it returned with its column.
        _column(name, dialect) == sa.bindparam(f"presswork_key_{at}", value, sa.types.NullType())
        for at, (name, value) in enumerate(zip(query.key, values, strict=True))
    ]
    return wrapped.complete(sa.select(_ALL).select_from(wrapped.rows()).where(sa.and_(*equal)))


class _Headed(Executable, sa.ClauseElement):
    """A statement after a head that must be outside its brackets."""

    inherit_cache = False

    def __init__(self, head: sa.ClauseElement, body: sa.ClauseElement) -> None:
        self.head = head
        self.body = body


@compiles(_Headed)
def _compile_headed(element: _Headed, compiler: SQLCompiler, **keywords: Any) -> str:
    return f"{compiler.process(element.head, **keywords)}{compiler.process(element.body, **keywords)}"


class _Wrapped:
    """A select inside another one."""

    def __init__(self, query: Query, dialect: Dialect) -> None:
        self._statement = read_statement(query.sql, dialect.name)
        self._query = query
        self._dialect = dialect
        self._strict = dialect.name in _STRICT
        self._begin = self._statement.main if self._strict else 0

    def rows(self) -> FromClause:
        """Return the select as a table."""
        takes_order = not self._strict or self._statement.bounded
        end = None if takes_order else self._statement.order_by
        end = self._statement.options if end is None else end
        # The text is bound without a comment at its end, which would hide the closing bracket.
        return bound(self._query, self._dialect, self._begin, end).columns().subquery("selected")

    def complete(self, body: sa.Select[Any]) -> Executable:
        """Return the whole statement, with the parts that can't be inside brackets."""
        if self._statement.options is not None:
            body = body.with_statement_hint(self._statement.sql[self._statement.options :])
        if not self._begin:
            return body
        return _Headed(bound(self._query, self._dialect, 0, self._begin), body)


def _column(name: str, dialect: Dialect) -> sa.ColumnElement[Any]:
    # Always quoted, except if SQLAlchemy folds the case itself (Oracle): then it decides what to quote.
    return sa.column(sa.sql.quoted_name(name, None if dialect.requires_name_normalize else True))
