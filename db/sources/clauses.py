"""Read a user's select by its tokens: its parameters (`:name`), where its clauses stand, and whether it only reads.

The one reader of a select: what binds and wraps it, and the lint, which knows no database, both use it, so that a run
refuses what the lint tells, in the same words. sqlglot's tokenizers know how each database writes texts, names and
comments; a colon inside of them, in a cast, in a slice or in a struct is no parameter. Without SQLAlchemy, so that
steps may import it.
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

# What SQLAlchemy and sqlglot call differently.
_DIALECTS = {"postgresql": "postgres", "mssql": "tsql", "mariadb": "mysql"}
_KNOWN = frozenset(dialect.value for dialect in sqlglot.Dialects)
_NAME = re.compile(r"[^\W\d]\w*")  # wider than what `params` allows, so that a name which it refuses is named
# A value or a closed bracket ends here: a colon that follows separates a key from its value, or bounds a slice.
_ENDS_A_VALUE = frozenset({TokenType.NUMBER, TokenType.IDENTIFIER, TokenType.R_PAREN, TokenType.R_BRACKET})
_OPENING = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE})
_CLOSING = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE})
_READS = frozenset({
    TokenType.SELECT, TokenType.VALUES, TokenType.TABLE, TokenType.FROM, TokenType.PIVOT, TokenType.UNPIVOT,
})  # fmt: skip
_BEGINS = _READS | {TokenType.L_PAREN, TokenType.WITH}
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

# It warns of what it falls back from; whether that matters, its callers say.
logging.getLogger("sqlglot").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class ParameterPlace:
    """A parameter in a text: its name, where its colon stands and where the text goes on."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A select without what trails it; where in `sql` its parts begin, outside of all brackets.

    `main` follows the WITH and its members. `order_by` is the clause of the whole select, `bounded` whether a limit or
    an offset belongs to it, and `options` the hints that SQL Server wants behind everything.
    """

    sql: str
    parameters: tuple[ParameterPlace, ...]
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
    if not outer:
        raise SelectError("the select is empty. Write one SELECT.")
    if any(token.token_type is TokenType.SEMICOLON for token in outer):
        raise SelectError("the select has several statements. Leave one, which reads.")
    main = _main(outer)
    first = outer[main]
    if first.token_type not in _BEGINS:
        raise SelectError(f"the select begins with {first.text.upper()}: it may only read. Write a SELECT.")
    _refuse_what_does_more(outer[main:], is_whole=True)
    for group in inner:
        _refuse_what_does_more(group)
    begin = outer[main].start if main else 0
    parameters = tuple(parameters_in(sql, tokens))
    return Statement(sql[: tokens[-1].end + 1], parameters, begin, *_clauses(outer[main:]))


def _by_brackets(tokens: Sequence[Token]) -> tuple[list[Token], list[list[Token]]]:
    """Return the tokens at the top, and those of each bracket; an opening bracket stands for all that it holds."""
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
    """Return where the select proper begins, behind the members of a WITH."""
    if outer[0].token_type is not TokenType.WITH:
        return 0
    for at, (before, token) in enumerate(pairwise(outer), start=1):
        # WITH a AS (...) (SELECT ...) UNION ...
        follows_members = before.token_type is token.token_type is TokenType.L_PAREN
        if follows_members or token.token_type in _WRITES or token.token_type in _READS:
            return at
    return 0


def _refuse_what_does_more(part: Sequence[Token], *, is_whole: bool = False) -> None:
    """Refuse a select, or a part of it in brackets, that writes or locks; the whole must not make one text of all."""
    first = part[0].token_type if part else None
    if first in _WRITES and any(token.token_type is _WRITES[first] for token in part[1:]):
        raise SelectError(f"the select contains {part[0].text.upper()}: it may only read. Leave that out.")
    if first not in _BEGINS:
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


def tokens_of(sql: str, dialect: str | None = None) -> list[Token]:
    """Split SQL into tokens; `dialect` is SQLAlchemy's or sqlglot's name, None where it is not known.

    Raises ValueError where a quote or a comment is not closed.
    """
    named = _DIALECTS.get(dialect or "", dialect or "")
    own = named if named in _KNOWN else None
    # A setting of the database can change what a backslash or a quote means, and the SQL of a database that is not
    # known is close to one of these.
    for read in (own, None, "postgres", "mysql", "oracle", "tsql"):
        with suppress(SqlglotError):
            return sqlglot.tokenize(sql, read=read)
    raise ValueError("a quote or a comment in it is not closed")


def parameters_in(sql: str, tokens: Sequence[Token]) -> Iterator[ParameterPlace]:
    """Yield the parameters of a text that tokens_of has split, in their order."""
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
    """Whether a colon stands between what is left and right of it: a key and its value, two bounds, an alias."""
    if at == 0:
        return False
    before, colon = tokens[at - 1], tokens[at]
    if before.token_type in _ENDS_A_VALUE or before.token_type.name.endswith("STRING"):
        return True
    if before.end + 1 == colon.start and (before.text[-1:].isalnum() or before.text[-1:] in "_$:"):
        return True
    # A struct whose colon has a blank before it.
    in_struct = brackets[-1:] == [TokenType.L_BRACE]
    return in_struct and at > 1 and tokens[at - 2].token_type in {TokenType.L_BRACE, TokenType.COMMA}
