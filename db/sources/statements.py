"""Bind the parameters of a user's select with their types.

The text itself is never rewritten. It stands alone because wrapping needs pieces of it, and running it as it stands
needs all of it, bound in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Date, DateTime, Dialect, Integer, String, TextClause, bindparam, text
from sqlalchemy.types import TypeEngine, UserDefinedType

from db.database_errors import SelectError
from db.sources.clauses import Span, Statement, read_statement


class _TypedFloat(UserDefinedType[float]):
    # The driver tells PostgreSQL what a number or a truth value is, and nothing of a NULL.
    render_bind_cast = True
    cache_ok = True

    def get_col_spec(self, **_keywords: Any) -> str:
        return "DOUBLE PRECISION"


class _TypedBoolean(Boolean):
    render_bind_cast = True


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value bound into the select, with its type: str, int, float, bool, date or datetime."""

    type: str
    value: Any


def as_it_stands(sql: str, parameters: Mapping[str, Parameter], dialect: Dialect) -> TextClause:
    """Bind a select, without the semicolons and comments that trail it; raises SelectError where it can't be read."""
    statement = read_statement(sql, dialect.name)
    return bound(statement, [statement.whole], parameters, dialect)


def bound(
    statement: Statement,
    spans: Sequence[Span],
    parameters: Mapping[str, Parameter],
    dialect: Dialect,
    *,
    head: str = "",
    tail: str = "",
) -> TextClause:
    """Bind some pieces of a select, in one text from `head` to `tail`; SelectError for a parameter without a value."""
    written, used = [], {}
    for span in spans:
        begin = span[0]
        for found in statement.parameters:
            if begin <= found.start < span[1]:
                written += [_escaped(statement.sql[begin : found.start]), f":{_own(found.name)}"]
                used[found.name] = _value_of(found.name, parameters)
                begin = found.end
        written.append(_escaped(statement.sql[begin : span[1]]))
    binds = [_bound(_own(name), parameter, dialect.name) for name, parameter in used.items()]
    return text("".join([head, *written, tail])).bindparams(*binds)


def _value_of(name: str, parameters: Mapping[str, Parameter]) -> Parameter:
    if name not in parameters:
        raise SelectError(f"the select uses :{name}, which `params` does not name. Add it to the front matter.")
    return parameters[name]


def _own(name: str) -> str:
    # So that no parameter has a name that SQLAlchemy gives, such as param_1, or that Oracle reserves, such as date.
    return f"given_{name}"


def _escaped(piece: str) -> str:
    # For SQLAlchemy's text(), which would take some of these colons for parameters.
    return piece.replace(":", r"\:")


def _bound(name: str, parameter: Parameter, dialect: str) -> Any:
    value = parameter.value
    if isinstance(value, datetime):
        value = _moment(value, dialect)
        if dialect == "sqlite":
            return bindparam(name, _as_sqlite_writes(value), String())
    return bindparam(name, value, _type(parameter.type, value))


def _moment(value: datetime, dialect: str) -> datetime:
    """Return a moment in UTC, whatever zone it was given in; without the zone where columns have none."""
    if value.tzinfo is None:
        return value
    moment = value.astimezone(UTC)
    return moment.replace(tzinfo=None) if dialect in {"sqlite", "mysql", "mariadb"} else moment


def _as_sqlite_writes(value: datetime) -> str:
    # As its datetime() and strftime('%Y-%m-%d %H:%M:%f') do; SQLAlchemy would always add six digits and equal neither.
    fraction = "seconds" if not value.microsecond else "microseconds" if value.microsecond % 1000 else "milliseconds"
    return value.isoformat(" ", timespec=fraction)


def _type(kind: str, value: Any) -> TypeEngine[Any]:
    match kind:
        case "int":
            # Not always the wider: PostgreSQL's substr() and its like take no BIGINT.
            return BigInteger() if isinstance(value, int) and not -(2**31) <= value < 2**31 else Integer()
        case "float":
            return _TypedFloat()
        case "bool":
            return _TypedBoolean()
        case "date":
            return Date()
        case "datetime":
            return DateTime(timezone=isinstance(value, datetime) and value.tzinfo is not None)
        case _:
            return String()
