"""Statements: a user's select made ready to be wrapped, and its parameters typed.

It stands alone because it is all that has to know how SQL is written: which colons are parameters, and which stand
in texts, comments, casts and slices, where SQLAlchemy's text() would take some for parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Boolean, Date, DateTime, Dialect, Integer, String, TextClause, bindparam, text
from sqlalchemy.types import TypeEngine, UserDefinedType

from db.errors import SelectError

_PARTS = re.compile(
    r"""
    (?P<comment> --[^\n]* | /\*.*?\*/ )
  | (?P<quoted> (?<!\w)[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*`
              | (?<!\w)\$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
  | (?<![:\w]):(?P<name>[^\W\d]\w*)
  | (?P<colon> : )
    """,
    re.VERBOSE | re.DOTALL,
)


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


@dataclass(frozen=True, slots=True)
class Statement:
    """A select as text() wants it, without what trails it, and the parameters that it uses."""

    body: str
    names: tuple[str, ...]


@lru_cache(maxsize=256)
def read_statement(sql: str) -> Statement:
    """Take a user's SQL apart as far as wrapping it needs."""
    pieces: list[tuple[str, bool]] = []  # text, and whether it can be left out at the end
    names: dict[str, None] = {}
    begin = 0
    for match in _PARTS.finditer(sql):
        pieces.append((sql[begin : match.start()], True))
        begin = match.end()
        if match["name"]:
            names[match["name"]] = None
            pieces.append((match[0], False))
        else:
            pieces.append((match[0].replace(":", r"\:"), match["comment"] is not None))
    pieces.append((sql[begin:], True))
    while pieces and pieces[-1][1]:
        trailing, _ = pieces.pop()
        kept = "" if trailing.startswith(("--", "/*")) else trailing.rstrip("; \t\r\n")
        if kept:
            pieces.append((kept, False))
    return Statement("".join(piece for piece, _ in pieces).strip(), tuple(names))


def as_it_stands(sql: str, parameters: Mapping[str, Parameter], dialect: Dialect) -> TextClause:
    """Make a user's select ready to run, without what trails it; SelectError where it uses an unknown parameter."""
    statement = read_statement(sql)
    unknown = [name for name in statement.names if name not in parameters]
    if unknown:
        raise SelectError(f"the select uses :{unknown[0]}, which `params` does not name. Add it to the front matter.")
    return bound(statement.body, {name: parameters[name] for name in statement.names}, dialect.name)


def bound(statement: str, parameters: dict[str, Parameter], dialect: str) -> TextClause:
    """Bind values with the types that PostgreSQL wants to be told: it refuses an untyped NULL."""
    return text(statement).bindparams(*(_bound(name, value, dialect) for name, value in parameters.items()))


def _bound(name: str, parameter: Parameter, dialect: str) -> Any:
    value = parameter.value
    if dialect == "sqlite" and isinstance(value, datetime):
        # SQLite's own functions write moments so; SQLAlchemy's would always add microseconds and equal none of them.
        return bindparam(name, value.isoformat(" "), String())
    return bindparam(name, value, _type(parameter))


def _type(parameter: Parameter) -> TypeEngine[Any]:
    value = parameter.value
    match parameter.type:
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
