"""Find the bound parameters (`:name`) in a select, and the tokens that it is made of.

The one reader of parameters: what binds them and the lint, which knows no database, both use it. sqlglot's tokenizers
know how each database writes texts, names and comments; a colon inside of them, in a cast, in a slice or in a struct
is no parameter. Without SQLAlchemy, so that steps may import it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import sqlglot
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

# What SQLAlchemy and sqlglot call differently.
_DIALECTS = {"postgresql": "postgres", "mssql": "tsql", "mariadb": "mysql"}
_KNOWN = frozenset(dialect.value for dialect in sqlglot.Dialects)
_NAME = re.compile(r"[^\W\d]\w*")  # wider than what `params` allows, so that a name which it refuses is named
# A value or a closed bracket ends here: a colon that follows separates a key from its value, or bounds a slice.
_ENDS_A_VALUE = frozenset({TokenType.NUMBER, TokenType.IDENTIFIER, TokenType.R_PAREN, TokenType.R_BRACKET})
OPENING = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE})
CLOSING = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE})

# It warns of what it falls back from; whether that matters, its callers say.
logging.getLogger("sqlglot").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Found:
    """A parameter in a text: its name, where its colon stands and where the text goes on."""

    name: str
    start: int
    end: int


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


def parameters_in(sql: str, tokens: Sequence[Token]) -> Iterator[Found]:
    """Yield the parameters of a text that tokens_of has split, in their order."""
    brackets: list[TokenType] = []
    for at, token in enumerate(tokens):
        if token.token_type in OPENING:
            brackets.append(token.token_type)
        elif token.token_type in CLOSING and brackets:
            brackets.pop()
        elif token.token_type is TokenType.COLON:
            name = _NAME.match(sql, token.end + 1)
            if name is not None and not _separates(tokens, at, brackets):
                yield Found(name[0], token.start, name.end())


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
