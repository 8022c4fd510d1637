"""What one attempt adds to the figures, as SQL expressions; each word of a figure is defined here and nowhere else.

Money is added in whole units of 1e-10 USD, the last digit that the ledger stores, because SQLite would add doubles.
"""

from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, Integer, case, cast, func, literal_column

from db.tables import Attempt
from db.words import PERHAPS_BILLED, UNSENT

UNITS_A_DOLLAR = 10**10
NOTHING: ColumnElement[str] = literal_column("''")
"""Stands for null in columns by which rows are grouped. It is no bound value: PostgreSQL would not find two equal."""


def _number(value: int) -> ColumnElement[int]:
    return literal_column(str(value), Integer)


_ERROR = func.coalesce(Attempt.error_type, NOTHING)
# A large zero, because PostgreSQL would add small integers, and an endpoint may report the largest of these.
_NO_TOKENS: ColumnElement[int] = literal_column("CAST(0 AS BIGINT)", BigInteger)


def _tokens(column: Column[int | None]) -> ColumnElement[int]:
    found: ColumnElement[int] = func.coalesce(column, _NO_TOKENS)
    return found


_PLAIN = _tokens(Attempt.input_tokens)
WRITTEN_5M, WRITTEN_1H = _tokens(Attempt.cache_creation_5m_tokens), _tokens(Attempt.cache_creation_1h_tokens)
READ = _tokens(Attempt.cache_read_tokens)
WRITTEN: ColumnElement[int] = WRITTEN_5M + WRITTEN_1H
ALL_IN: ColumnElement[int] = _PLAIN + WRITTEN + READ
"""The whole input of a request, with the tokens written to the prompt cache and read from it."""
LENGTH: ColumnElement[int] = (ALL_IN + _number(999)) // _number(1000) * _number(1000)
"""The whole input rounded up to a thousand: price lists change at whole thousands."""

# An answer counts even if the endpoint did not report its usage.
ANSWERED = Attempt.input_tokens.is_not(None) | Attempt.output_text.is_not(None)
WAS_SENT = case((_ERROR.in_(UNSENT), 0), else_=1)
IS_UNPRICED = case((ANSWERED & Attempt.cost_usd.is_(None), 1), else_=0)
MAY_BE_BILLED = _ERROR.in_(PERHAPS_BILLED)
IS_RATE_LIMITED = case((Attempt.http_status == 429, 1), else_=0)


def in_units(dollars: Any) -> ColumnElement[int]:
    """Turn an amount into whole units; null stays null."""
    return cast(func.round(dollars * _number(UNITS_A_DOLLAR)), BigInteger)


def dollars_of(units: Any) -> Decimal:
    """Turn a sum of units into dollars, exactly."""
    return Decimal(int(units)).scaleb(-10) if units else Decimal(0)


COST = in_units(Attempt.cost_usd)
LIKELY_COST = case((MAY_BE_BILLED, in_units(Attempt.likely_cost_usd)))
"""The likely cost of a request that was perhaps billed; null for others, and if there is no estimate."""


def total(expression: Any) -> ColumnElement[int]:
    """Add an expression up; 0 if there is nothing to add."""
    return func.coalesce(func.sum(expression), 0)
