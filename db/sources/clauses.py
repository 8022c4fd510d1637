"""Read a user's select by its tokens: what parameters it has, where its clauses stand, and whether it only reads.

A run refuses by this what it does not send to a database, and the lint tells the same in the same words. Without
SQLAlchemy, so that steps may import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from sqlglot.tokenizer_core import Token, TokenType

from db.database_errors import SelectError
from db.sources.parameters import CLOSING, OPENING, Found, parameters_in, tokens_of

_READS = frozenset({
    TokenType.SELECT, TokenType.VALUES, TokenType.TABLE, TokenType.FROM, TokenType.PIVOT, TokenType.UNPIVOT,
    TokenType.L_PAREN,
})  # fmt: skip
# What writes, and the word that follows it sooner or later: without it, it is a function or a column of that name.
_WRITES = {
    TokenType.INSERT: TokenType.INTO,
    TokenType.UPDATE: TokenType.SET,
    TokenType.DELETE: TokenType.FROM,
    TokenType.MERGE: TokenType.INTO,
}
_LOCKS = frozenset({"UPDATE", "SHARE", "NO", "KEY"})
_ONE_TEXT = frozenset({"XML", "JSON", "BROWSE"})
_COMBINES = frozenset({TokenType.UNION, TokenType.EXCEPT, TokenType.INTERSECT})
_BOUNDS = frozenset({TokenType.LIMIT, TokenType.OFFSET, TokenType.FETCH})


@dataclass(frozen=True, slots=True)
class Statement:
    """A select without what trails it; where in `sql` its parts begin, outside of all brackets.

    `main` follows the WITH and its members. `order_by` is the clause of the whole select, `bounded` whether a limit or
    an offset belongs to it, and `options` the hints that SQL Server wants behind everything.
    """

    sql: str
    parameters: tuple[Found, ...]
    main: int
    order_by: int | None
    bounded: bool
    options: int | None


def refusal(sql: str, dialect: str | None) -> str | None:
    """Say why a run refuses a select before it is sent; None where it does not. `dialect` as for tokens_of."""
    try:
        read_statement(sql, dialect)
    except SelectError as error:
        return str(error)
    return None


@lru_cache(maxsize=256)
def read_statement(sql: str, dialect: str | None) -> Statement:
    """Read a select as a database writes it (`dialect` as for tokens_of); SelectError where it does not only read."""
    sql = sql.lstrip()
    try:
        tokens = tokens_of(sql, dialect)
    except ValueError as error:
        raise SelectError(f"the select can't be read: {error}. Try the SQL in the database's own shell.") from None
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    outer, inner = _by_brackets(tokens)
    main = _main(outer)
    _refuse_what_does_not_read(outer, main)
    for group in inner:
        _refuse_what_does_more(group)
    order_by, bounded, options = _clauses(outer[main:])
    return Statement(
        sql=sql[: tokens[-1].end + 1],
        parameters=tuple(parameters_in(sql, tokens)),
        main=outer[main].start if main else 0,
        order_by=order_by,
        bounded=bounded,
        options=options,
    )


def _by_brackets(tokens: Sequence[Token]) -> tuple[list[Token], list[list[Token]]]:
    """Return the tokens at the top, and those of each bracket; an opening bracket stands for all that it holds."""
    open_, closed = [list[Token]()], []
    for token in tokens:
        if token.token_type in CLOSING:
            closed.append(open_.pop())
            if not open_:
                break
            continue
        open_[-1].append(token)
        if token.token_type in OPENING:
            open_.append([])
    if len(open_) != 1:
        raise SelectError(
            "the select can't be read: its brackets do not match. Try the SQL in the database's own shell."
        )
    return open_[0], closed


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
    _refuse_what_does_more(outer[main:], is_whole=True)


def _refuse_what_does_more(part: Sequence[Token], *, is_whole: bool = False) -> None:
    """Refuse a select, or a part of it in brackets, that writes or locks; the whole must not make one text of all."""
    first = part[0].token_type if part else None
    if first in _WRITES and any(token.token_type is _WRITES[first] for token in part[1:]):
        raise SelectError(f"the select contains {part[0].text.upper()}: it may only read. Leave that out.")
    if first not in _READS and first is not TokenType.WITH:
        return  # the arguments of a function, a list of values
    words = [token.text.upper() for token in part]
    for at, (token, word) in enumerate(zip(part, words[1:], strict=False)):
        if token.token_type is TokenType.INTO:
            raise SelectError("the select writes INTO something: it may only read. Leave INTO out.")
        if token.token_type is TokenType.FOR and word in _LOCKS:
            raise SelectError(f"the select locks rows (FOR {word}): it may only read. Leave FOR {word} out.")
        if token.token_type is TokenType.FOR and word in _ONE_TEXT and is_whole:
            raise SelectError(f"the select makes one text of all records (FOR {word}). Leave FOR {word} out.")
        if words[at : at + 3] == ["LOCK", "IN", "SHARE"]:
            raise SelectError("the select locks rows (LOCK IN SHARE MODE): it may only read. Leave that out.")


def _clauses(outer: Sequence[Token]) -> tuple[int | None, bool, int | None]:
    """Find the ORDER BY of the whole select, whether it is bounded, and SQL Server's OPTION."""
    order_by = options = None
    bounded = any(token.token_type is TokenType.TOP for token in outer[1:3])
    for before, token in pairwise(outer):
        if before.token_type in {TokenType.DOT, TokenType.ALIAS}:
            continue  # a name
        if token.token_type is TokenType.ORDER_BY:
            order_by = token.start
        elif token.token_type in _COMBINES:
            order_by, bounded = None, False
        elif token.token_type in _BOUNDS:
            bounded = True
        elif token.token_type is TokenType.OPTION:
            options = token.start
    return order_by, bounded, options
