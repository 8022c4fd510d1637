"""Find the rows of a batch that a ledger refuses, so that one bad value does not block the other rows.

A refused row is tried again with its texts cleaned, then without the refused values. Its figures of cost are kept. Only
a row that the ledger refuses in every form is left out.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import JSON, Column, Connection, Executable, Float, Integer, String
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, ProgrammingError

from db.columns import Base, Money
from db.ledger.rows import GenerationRow, OpenedRow, ParentRow, Row, SettledRow, id_of, names_of, values_of
from db.session import is_unavailable, reason_of
from db.sources.values import storable_json, storable_text
from db.words import FAILED, LIVE, REFUSED_BY_LEDGER

LARGEST_INTEGER = 2**31 - 1
_NAMED = 5  # a message names at most this many rows
_LARGEST_MONEY = Decimal(10) ** 10
# The texts of our own, which a settled attempt keeps even if its cleaned texts are refused.
_OWN_WORDS = frozenset({"error_type", "price_version"})
RowT = TypeVar("RowT", bound=Row)


@dataclass(frozen=True)
class RefusedRow:
    """A row that a ledger refused; `written` is the row written instead, None if there is none.

    `column` is the one that caused the refusal, if known. `row` contains users' texts, so no message may show it.
    """

    row: Row
    column: str | None
    reason: str
    written: Row | None

    @property
    def id(self) -> str:
        """The id of an attempt or generation, or the hash of a text, record or prompt."""
        return id_of(self.row)

    @property
    def failure(self) -> str | None:
        """The error message of the failed generation that was written instead; None for all other rows."""
        if isinstance(self.written, GenerationRow) and self.written.error_kind == REFUSED_BY_LEDGER:
            return self.written.error_message
        return None

    def __str__(self) -> str:
        where = self.row.table + (f".{self.column}" if self.column else "")
        return f"{where} of {self.id} ({self.reason})"


def is_refusal(error: Exception) -> bool:
    """Whether a database or its driver refuses a row because of its values."""
    if is_unavailable(error):
        return False
    original = getattr(error, "orig", None) or error
    if not isinstance(error, DBAPIError):
        # Errors of a column's type or of the driver's encoder.
        return isinstance(original, TypeError | ValueError | ArithmeticError | RecursionError)
    state = getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorcode", None)
    if state is None and isinstance(error, ProgrammingError | InterfaceError):
        return True  # the driver does not know the value's type
    # 54: the row exceeds a limit of the server. 44, P0: it breaks the rule of a view or trigger.
    return isinstance(error, DataError | IntegrityError) or str(state).startswith(("44", "54", "P0"))


def in_words(refusals: Sequence[RefusedRow]) -> str:
    """Return a message about refused rows that names the first few."""
    named = "; ".join(str(refusal) for refusal in refusals[:_NAMED])
    more = f"; and {len(refusals) - _NAMED:,} more" if len(refusals) > _NAMED else ""
    return (
        f"The ledger refused {len(refusals):,} row{'' if len(refusals) == 1 else 's'}: {named}{more}. Where possible, "
        "the rest of each row was written without the refused values."
    )


@dataclass
class RefusalFinder:
    """Writes a batch's rows except the refused ones, which it finds by bisection and collects in `found`."""

    error: Exception
    """The ledger's error for the whole batch."""
    found: list[RefusedRow] = field(default_factory=list)

    def put(self, connection: Connection, statement: Executable, rows: Sequence[Row]) -> None:
        """Write rows of one kind; refused rows are replaced or left out."""
        failed = {refused.id for refused in self.found if refused.failure is not None}
        # A generation whose source has just failed has no content either.
        rows = [
            _failed(row, f"The generation {row.source_generation_id}, which it repeats, failed")
            if isinstance(row, GenerationRow) and row.source_generation_id in failed
            else row
            for row in rows
        ]
        error = _try(connection, statement, rows)
        if error is not None and len(rows) == 1:
            self._replace(connection, statement, rows[0], error)
        elif error is not None:
            middle = len(rows) // 2
            self.put(connection, statement, rows[:middle])
            self.put(connection, statement, rows[middle:])

    def count_missing_history(self) -> int:
        """Count the attempts, ends of attempts and generations that were left out."""
        history = (OpenedRow, SettledRow, GenerationRow)
        return sum(refused.written is None and isinstance(refused.row, history) for refused in self.found)

    def _replace(self, connection: Connection, statement: Executable, row: Row, error: Exception) -> None:
        column, reason = _column_of(row, error), reason_of(error, connection.engine.url)
        failure = f"The ledger refused {f'the column {column!r} of ' if column else ''}this generation: {reason}"
        for instead in _replacements(row, failure):
            if _try(connection, statement, [instead]) is None:
                self.found.append(RefusedRow(row, column, reason, instead))
                return
        self.found.append(RefusedRow(row, column, reason, None))


def storable(row: RowT) -> RowT:
    """Return a row that its table accepts: texts are cleaned, numbers out of range become None."""
    changed: dict[str, Any] = {}
    for name, clean in _cleaners(row.table, names_of(type(row))):
        value = getattr(row, name)
        if value is not None and (cleaned := clean(value)) is not value:
            changed[name] = cleaned
    return replace(row, **changed) if changed else row


@cache
def _cleaners(table: str, names: tuple[str, ...]) -> list[tuple[str, Callable[[Any], Any]]]:
    # Cached for each kind of row, because every attempt passes through here.
    cleaners = {column.name: _cleaner(column) for column in Base.metadata.tables[table].c}
    return [(name, clean) for name in names if (clean := cleaners.get(name)) is not None]


def _try(connection: Connection, statement: Executable, rows: Sequence[Row]) -> Exception | None:
    savepoint = connection.begin_nested()
    try:
        connection.execute(statement, [values_of(row) for row in rows])
    except Exception as error:
        if not is_refusal(error):
            # SQLite has ended the whole transaction if its disk is full, so there may be no savepoint.
            raise
        savepoint.rollback()
        return error
    savepoint.commit()
    return None


def _replacements(row: Row, failure: str) -> Iterator[Row]:
    """Yield rows to try instead of a refused one, the most complete first."""
    match row:
        case ParentRow():
            return
        case SettledRow():
            clean = storable(row)
            yield clean
            columns = Base.metadata.tables[row.table].c
            texts = {column.name for column in columns if isinstance(column.type, String | JSON)} - _OWN_WORDS
            without: dict[str, Any] = dict.fromkeys(name for name in names_of(SettledRow) if name in texts)
            yield replace(clean, **without)
        case GenerationRow():
            # An output is kept or dropped but never cleaned: changed content would not be the model's answer.
            clean_generation = replace(storable(replace(row, output=None)), output=row.output)
            for generation in (clean_generation, _failed(clean_generation, failure)):
                yield generation
                yield replace(generation, record_hash=None)
        case _:
            yield storable(row)


def _failed(row: GenerationRow, reason: str) -> GenerationRow:
    return replace(
        row,
        status=FAILED,
        origin=LIVE,
        source_generation_id=None,
        output=None,
        output_hash=None,
        error_kind=REFUSED_BY_LEDGER,
        error_message=f"{reason}. The answer is in its attempts. Fix what produces this value, then run again.",
    )


def _cleaner(column: Column[Any]) -> Callable[[Any], Any] | None:
    match column.type:
        case JSON():
            return storable_json
        case String(length=length):
            return lambda value: storable_text(str(value))[:length]
        case Integer():
            return lambda value: value if isinstance(value, int) and 0 <= value <= LARGEST_INTEGER else None
        case Float():
            return lambda value: value if math.isfinite(value) else None
        case Money():
            return lambda value: value if value.is_finite() and abs(value) < _LARGEST_MONEY else None
        case _:
            return None


def _column_of(row: Row, error: Exception) -> str | None:
    original = getattr(error, "orig", None)
    reported = getattr(getattr(original, "diag", None), "column_name", None)
    if reported:
        return str(reported)
    named = re.search(rf"\b{row.table}\.(\w+)", str(original))
    if named and named[1] in Base.metadata.tables[row.table].c:
        return named[1]
    clean = storable(row)
    return next((name for name in names_of(type(row)) if getattr(clean, name) != getattr(row, name)), None)
