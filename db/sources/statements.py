"""A user's select, and its text with the parameters bound by their types.

The text itself is never rewritten. It stands alone because wrapping needs pieces of it, and running it as it stands
needs all of it, bound in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Date, DateTime, Dialect, Integer, String, TextClause, bindparam, text
from sqlalchemy.types import TypeEngine, UserDefinedType

from db.database_errors import SelectError
from db.sources.clauses import read_statement


class _TypedFloat(UserDefinedType[float]):
    # The driver tells PostgreSQL what a number or a truth value is, and nothing of a NULL.
    render_bind_cast = True
    cache_ok = True

    def get_col_spec(self, **_keywords: Any) -> str:
        return "DOUBLE PRECISION"


class _TypedBoolean(Boolean):
    render_bind_cast = True


_TEXT = String()
_TYPES: dict[str, TypeEngine[Any]] = {"float": _TypedFloat(), "bool": _TypedBoolean(), "date": Date()}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value bound into the select, with its type: str, int, float, bool, date or datetime."""

    type: str
    value: Any


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


def bound(query: Query, dialect: Dialect, begin: int = 0, end: int | None = None, *, tail: str = "") -> TextClause:
    """Bind a select, without the semicolons and comments that trail it, or its piece from `begin` to `end` with a tail.

    Raises SelectError where it can't be read, and for a parameter without a value.
    """
    statement = read_statement(query.sql, dialect.name)
    end = len(statement.sql) if end is None else end
    written, binds = "", {}
    for found in statement.parameters:
        if begin <= found.start < end:
            if found.name not in query.parameters:
                raise SelectError(
                    f"the select uses :{found.name}, which `params` does not name. Add it to the front matter."
                )
            # So that no parameter has a name that SQLAlchemy gives, such as param_1, or that Oracle reserves: date.
            own = f"given_{found.name}"
            binds[own] = _bound(own, query.parameters[found.name], dialect.name)
            written += f"{_escaped(statement.sql[begin : found.start])}:{own}"
            begin = found.end
    return text(written + _escaped(statement.sql[begin:end]) + tail).bindparams(*binds.values())


def _escaped(piece: str) -> str:
    # For SQLAlchemy's text(), which would take some of these colons for parameters.
    return piece.replace(":", r"\:")


def _bound(name: str, parameter: Parameter, dialect: str) -> Any:
    value = parameter.value
    if isinstance(value, datetime) and value.tzinfo is not None:
        # In UTC, whatever zone it was given in; without the zone where columns have none.
        moment = value.astimezone(UTC)
        value = moment.replace(tzinfo=None) if dialect in {"sqlite", "mysql", "mariadb"} else moment
    if isinstance(value, datetime) and dialect == "sqlite":
        # As its datetime() and strftime('%Y-%m-%d %H:%M:%f') do; SQLAlchemy always adds six digits and equals neither.
        fraction = "microseconds" if value.microsecond % 1000 else "milliseconds" if value.microsecond else "seconds"
        return bindparam(name, value.isoformat(" ", timespec=fraction), _TEXT)
    return bindparam(name, value, _type(parameter.type, value))


def _type(kind: str, value: Any) -> TypeEngine[Any]:
    if kind == "int":
        # Not always the wider: PostgreSQL's substr() and its like take no BIGINT.
        return BigInteger() if isinstance(value, int) and not -(2**31) <= value < 2**31 else Integer()
    if kind == "datetime":
        return DateTime(timezone=isinstance(value, datetime) and value.tzinfo is not None)
    return _TYPES.get(kind, _TEXT)
