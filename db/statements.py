"""Read a user's select: where it begins and ends, what it is made of, and bind its parameters with their types.

The text itself is never rewritten. It stands alone because wrapping needs pieces of it, and running it as it stands
needs all of it, bound in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any

from sqlalchemy import BigInteger, Boolean, Date, DateTime, Dialect, Integer, String, TextClause, bindparam, text
from sqlalchemy.types import TypeEngine, UserDefinedType
from sqlglot.tokenizer_core import Token, TokenType

from db.errors import SelectError
from db.parameters import CLOSING, OPENING, Found, parameters_in, tokens_of

_READS = frozenset({
    TokenType.SELECT, TokenType.VALUES, TokenType.TABLE, TokenType.FROM, TokenType.PIVOT, TokenType.UNPIVOT,
    TokenType.L_PAREN,
})  # fmt: skip
_WRITES = frozenset({TokenType.INSERT, TokenType.UPDATE, TokenType.DELETE, TokenType.MERGE})
_LOCKS = frozenset({"UPDATE", "SHARE", "NO", "KEY"})
_ONE_TEXT = frozenset({"XML", "JSON", "BROWSE"})
_COMBINES = frozenset({TokenType.UNION, TokenType.EXCEPT, TokenType.INTERSECT})
_BOUNDS = frozenset({TokenType.LIMIT, TokenType.OFFSET, TokenType.FETCH})

Span = tuple[int, int]


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
    """A select without what trails it; where in `sql` its parts stand, outside of all brackets.

    `main` follows the WITH and its members. `order_by` is the clause of the whole select, `bounded` whether a limit or
    an offset belongs to it, and `options` the hints that SQL Server wants behind everything.
    """

    sql: str
    parameters: tuple[Found, ...]
    main: int
    order_by: Span | None
    bounded: bool
    options: Span | None

    @property
    def whole(self) -> Span:
        """All of it."""
        return 0, len(self.sql)


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


@lru_cache(maxsize=256)
def read_statement(sql: str, dialect: str) -> Statement:
    """Read a select as a database writes it (`dialect` is SQLAlchemy's name); SelectError where it is no select."""
    try:
        tokens = tokens_of(sql, dialect)
    except ValueError as error:
        raise SelectError(f"the select can't be read: {error}. Try the SQL in the database's own shell.") from None
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    begin = len(sql) - len(sql.lstrip())
    if begin:
        return read_statement(sql[begin:], dialect)
    outer = _outside_of_brackets(tokens)
    main = _main(outer)
    _refuse_what_does_not_read(outer, main)
    order_by, bounded, options = _clauses(outer[main:], tokens[-1].end + 1)
    return Statement(
        sql=sql[: tokens[-1].end + 1],
        parameters=tuple(parameters_in(sql, tokens)),
        main=outer[main].start if main else 0,
        order_by=order_by,
        bounded=bounded,
        options=options,
    )


def _outside_of_brackets(tokens: Sequence[Token]) -> list[Token]:
    """Return the tokens at the top; an opening bracket stands for all that it holds."""
    depth, outer = 0, []
    for token in tokens:
        if token.token_type in CLOSING:
            depth -= 1
        elif depth == 0:
            outer.append(token)
        if token.token_type in OPENING:
            depth += 1
        if depth < 0:
            break
    if depth:
        raise SelectError(
            "the select can't be read: its brackets do not match. Try the SQL in the database's own shell."
        )
    return outer


def _main(outer: Sequence[Token]) -> int:
    """Return where the select proper begins, behind the members of a WITH."""
    if not outer or outer[0].token_type is not TokenType.WITH:
        return 0
    for at in range(1, len(outer)):
        kind, before = outer[at].token_type, outer[at - 1].token_type
        if kind is TokenType.L_PAREN and before is TokenType.L_PAREN:
            return at  # WITH a AS (...) (SELECT ...) UNION ...
        if kind in _WRITES or (kind in _READS and kind is not TokenType.L_PAREN):
            return at
    return 0


def _refuse_what_does_not_read(outer: Sequence[Token], main: int) -> None:
    if not outer:
        raise SelectError("the select is empty. Write one SELECT.")
    if any(token.token_type is TokenType.SEMICOLON for token in outer):
        raise SelectError("the select has several statements. Leave one, which reads.")
    first = outer[main]
    if first.token_type not in _READS and first.token_type is not TokenType.WITH:
        raise SelectError(f"the select begins with {first.text.upper()}: it may only read. Write a SELECT.")
    for token, following in pairwise(outer[main:]):
        word = following.text.upper()
        if token.token_type is TokenType.INTO:
            raise SelectError("the select writes INTO something: it may only read. Leave INTO out.")
        if token.token_type is TokenType.FOR and word in _LOCKS:
            raise SelectError(f"the select locks rows (FOR {word}): it may only read. Leave FOR {word} out.")
        if token.token_type is TokenType.FOR and word in _ONE_TEXT:
            raise SelectError(f"the select makes one text of all records (FOR {word}). Leave FOR {word} out.")


def _clauses(outer: Sequence[Token], end: int) -> tuple[Span | None, bool, Span | None]:
    """Find the ORDER BY of the whole select, whether it is bounded, and SQL Server's OPTION."""
    order_by = options = None
    bounded = any(token.token_type is TokenType.TOP for token in outer[1:3])
    for at, token in enumerate(outer):
        if at and outer[at - 1].token_type in {TokenType.DOT, TokenType.ALIAS}:
            continue  # a name
        if token.token_type is TokenType.ORDER_BY:
            order_by = token.start, end
        elif token.token_type in _COMBINES:
            order_by, bounded = None, False
        elif token.token_type in _BOUNDS:
            bounded = True
            order_by = order_by and (order_by[0], min(order_by[1], token.start))
        elif token.token_type is TokenType.OPTION:
            options = token.start, end
            order_by = order_by and (order_by[0], min(order_by[1], token.start))
    return order_by, bounded, options


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
