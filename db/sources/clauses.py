"""Read a user's select by its tokens: find its parameters (`:name`) and clauses, and check that it only reads.

Every part that reads a select uses this module: binding, wrapping, and the lint, which has no database. So a run and
the lint reject the same selects in the same words. sqlglot's tokenizers know how each database writes texts, names and
comments. A colon inside one of these, in a cast, in a slice or in a struct is not a parameter. This module does not
import SQLAlchemy, so that steps may import it.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import sqlglot
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from db.database_errors import SelectError

# Names that differ between SQLAlchemy and sqlglot.
_DIALECTS = {"postgresql": "postgres", "mssql": "tsql", "mariadb": "mysql"}
_KNOWN = frozenset(dialect.value for dialect in sqlglot.Dialects)
_NAME = re.compile(r"[^\W\d]\w*")  # wider than `params` allows, so that an error can name a wrong parameter
# Each of these ends a value or a bracket. A colon after it separates a key from its value, or the bounds of a slice.
_ENDS_A_VALUE = frozenset({TokenType.NUMBER, TokenType.IDENTIFIER, TokenType.R_PAREN, TokenType.R_BRACKET})
_OPENING = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE})
_CLOSING = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE})
_READS = frozenset({
    TokenType.SELECT, TokenType.VALUES, TokenType.TABLE, TokenType.FROM, TokenType.PIVOT, TokenType.UNPIVOT,
})  # fmt: skip
_BEGINS = _READS | {TokenType.L_PAREN, TokenType.WITH}
# Statements that write, each with a word that must follow. Without it, the name is a function or a column.
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

# sqlglot warns about each fallback, but only its callers know whether that matters.
logging.getLogger("sqlglot").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class ParameterPlace:
    """A parameter in a text: its name, the place of its colon, and the end of its name."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A select without trailing semicolons and comments, and the places in `sql` where its outer parts begin.

    `main` is after the WITH and its members. `order_by` is the clause of the whole select. `bounded` means that the
    whole select has a limit or an offset. `options` are the hints that SQL Server requires at the end.
    """

    sql: str
    parameters: tuple[ParameterPlace, ...]
    main: int
    order_by: int | None
    bounded: bool
    options: int | None


def refusal(sql: str, dialect: str | None) -> str | None:
    """Return why a run rejects a select before it is sent, or None. `dialect` as for tokens_of."""
    try:
        read_statement(sql, dialect)
    except SelectError as error:
        return str(error)
    return None


@lru_cache(maxsize=256)
def read_statement(sql: str, dialect: str | None) -> Statement:
    """Read a select in a database's SQL (`dialect` as for tokens_of). Raises SelectError if it does more than read."""
    sql = sql.lstrip()
    try:
        tokens = tokens_of(sql, dialect)
    except ValueError as error:
        raise SelectError(f"the select can't be read: {error}. Try the SQL in the database's own shell.") from None
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    outer, inner = _by_brackets(tokens)
    if not outer:
        raise SelectError("the select is empty. Write one SELECT.")
    if any(token.token_type is TokenType.SEMICOLON for token in outer):
        raise SelectError("the select has several statements. Keep only one SELECT.")
    main = _main(outer)
    first = outer[main]
    if first.token_type not in _BEGINS:
        raise SelectError(f"the select begins with {first.text.upper()}, but it may only read. Write a SELECT.")
    _refuse_what_does_more(outer[main:], is_whole=True)
    for group in inner:
        _refuse_what_does_more(group)
    begin = outer[main].start if main else 0
    parameters = tuple(parameters_in(sql, tokens))
    return Statement(sql[: tokens[-1].end + 1], parameters, begin, *_clauses(outer[main:]))


def _by_brackets(tokens: Sequence[Token]) -> tuple[list[Token], list[list[Token]]]:
    """Return the outer tokens, and the tokens of each bracket. An opening bracket represents its whole content."""
    open_, closed = [list[Token]()], []
    for token in tokens:
        if token.token_type in _CLOSING:
            closed.append(open_.pop())
            if not open_:
                break
            continue
        open_[-1].append(token)
        if token.token_type in _OPENING:
            open_.append([])
    if len(open_) != 1:
        raise SelectError(
            "the select can't be read: its brackets do not match. Try the SQL in the database's own shell."
        )
    return open_[0], closed


def _main(outer: Sequence[Token]) -> int:
    """Return the place where the main select begins, after the members of a WITH."""
    if outer[0].token_type is not TokenType.WITH:
        return 0
    for at, (before, token) in enumerate(pairwise(outer), start=1):
        # WITH a AS (...) (SELECT ...) UNION ...
        follows_members = before.token_type is token.token_type is TokenType.L_PAREN
        if follows_members or token.token_type in _WRITES or token.token_type in _READS:
            return at
    return 0


def _refuse_what_does_more(part: Sequence[Token], *, is_whole: bool = False) -> None:
    """Raise SelectError if a select or a part in brackets writes or locks, or if the whole returns one text."""
    first = part[0].token_type if part else None
    if first in _WRITES and any(token.token_type is _WRITES[first] for token in part[1:]):
        raise SelectError(f"the select contains {part[0].text.upper()}, but it may only read. Leave that part out.")
    if first not in _BEGINS:
        return  # the arguments of a function, a list of values
    words = [token.text.upper() for token in part]
    for at, (token, word) in enumerate(zip(part, words[1:], strict=False)):
        if token.token_type is TokenType.INTO:
            raise SelectError("the select contains INTO, but it may only read. Leave INTO out.")
        if token.token_type is TokenType.FOR and word in _LOCKS:
            raise SelectError(f"the select locks rows (FOR {word}), but it may only read. Leave FOR {word} out.")
        if token.token_type is TokenType.FOR and word in _ONE_TEXT and is_whole:
            raise SelectError(f"the select returns all records as one text (FOR {word}). Leave FOR {word} out.")
        if words[at : at + 3] == ["LOCK", "IN", "SHARE"]:
            raise SelectError("the select locks rows (LOCK IN SHARE MODE), but it may only read. Leave that part out.")


def _clauses(outer: Sequence[Token]) -> tuple[int | None, bool, int | None]:
    """Find the ORDER BY of the whole select, whether it has a limit or an offset, and SQL Server's OPTION."""
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


def tokens_of(sql: str, dialect: str | None = None) -> list[Token]:
    """Split SQL into tokens. `dialect` is SQLAlchemy's or sqlglot's name, or None if it is not known.

    Raises ValueError if a quote or a comment is not closed.
    """
    named = _DIALECTS.get(dialect or "", dialect or "")
    own = named if named in _KNOWN else None
    # A database's setting can change the meaning of a backslash or a quote, and an unknown database's SQL is close to
    # one of these.
    for read in (own, None, "postgres", "mysql", "oracle", "tsql"):
        with suppress(SqlglotError):
            return sqlglot.tokenize(sql, read=read)
    raise ValueError("a quote or a comment in it is not closed")


def parameters_in(sql: str, tokens: Sequence[Token]) -> Iterator[ParameterPlace]:
    """Yield the parameters of a text in their order, from the tokens that tokens_of returned."""
    brackets: list[TokenType] = []
    for at, token in enumerate(tokens):
        if token.token_type in _OPENING:
            brackets.append(token.token_type)
        elif token.token_type in _CLOSING and brackets:
            brackets.pop()
        elif token.token_type is TokenType.COLON:
            name = _NAME.match(sql, token.end + 1)
            if name is not None and not _separates(tokens, at, brackets):
                yield ParameterPlace(name[0], token.start, name.end())


def _separates(tokens: Sequence[Token], at: int, brackets: Sequence[TokenType]) -> bool:
    """Whether a colon separates two things: a key and its value, two bounds, or an alias and its target."""
    if at == 0:
        return False
    before, colon = tokens[at - 1], tokens[at]
    if before.token_type in _ENDS_A_VALUE or before.token_type.name.endswith("STRING"):
        return True
    if before.end + 1 == colon.start and (before.text[-1:].isalnum() or before.text[-1:] in "_$:"):
        return True
    # A struct with a blank before its colon.
    in_struct = brackets[-1:] == [TokenType.L_BRACE]
    return in_struct and at > 1 and tokens[at - 2].token_type in {TokenType.L_BRACE, TokenType.COMMA}
