"""Find the rows of a batch that a ledger refuses, so that one bad value keeps no other row out.

A refused row is written as far as it can be: with its texts cleaned, then without what is refused. What is known of
money stays. Only what can't be written at all is left out.
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
_NAMED = 5  # rows that a message names at most
_LARGEST_MONEY = Decimal(10) ** 10
# What a settled attempt keeps of its texts when these are refused even cleaned.
_OWN_WORDS = frozenset({"error_type", "price_version"})
RowT = TypeVar("RowT", bound=Row)


@dataclass(frozen=True)
class RefusedRow:
    """A row that a ledger refused as it was; `written` is what stands there instead, None where nothing does.

    `column` is the one that is to blame, where that is known. `row` holds texts of users: it belongs in no message.
    """

    row: Row
    column: str | None
    reason: str
    written: Row | None

    @property
    def id(self) -> str:
        """The id of the attempt or generation, or the hash of the text, record or prompt."""
        return id_of(self.row)

    @property
    def failure(self) -> str | None:
        """What the generation says that stands as failed for this reason; None where none does."""
        if isinstance(self.written, GenerationRow) and self.written.error_kind == REFUSED_BY_LEDGER:
            return self.written.error_message
        return None

    def __str__(self) -> str:
        where = self.row.table + (f".{self.column}" if self.column else "")
        return f"{where} of {self.id} ({self.reason})"


def is_refusal(error: Exception) -> bool:
    """Whether a database or its driver refuses a row for what is in it."""
    if is_unavailable(error):
        return False
    original = getattr(error, "orig", None) or error
    if not isinstance(error, DBAPIError):
        # What a column's type or the driver's encoder says of a value.
        return isinstance(original, TypeError | ValueError | ArithmeticError | RecursionError)
    state = getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorcode", None)
    if state is None and isinstance(error, ProgrammingError | InterfaceError):
        return True  # the driver does not know the value's type
    # 54: it is larger than a limit of the server's. 44, P0: a view's or trigger's own rule.
    return isinstance(error, DataError | IntegrityError) or str(state).startswith(("44", "54", "P0"))


def in_words(refusals: Sequence[RefusedRow]) -> str:
    """Say which rows a ledger refused, the first few by name."""
    named = "; ".join(str(refusal) for refusal in refusals[:_NAMED])
    more = f"; and {len(refusals) - _NAMED:,} more" if len(refusals) > _NAMED else ""
    return (
        f"The ledger refused {len(refusals):,} row{'' if len(refusals) == 1 else 's'}: {named}{more}. Where possible, "
        "the rest of each row was written without the refused values."
    )


@dataclass
class Sifter:
    """Writes the rows of one batch but for those that are refused, which it finds by halving and keeps."""

    error: Exception
    """What the ledger said of the batch as a whole."""
    found: list[RefusedRow] = field(default_factory=list)

    def put(self, connection: Connection, statement: Executable, rows: Sequence[Row]) -> None:
        """Write rows of one kind, each as far as it can be."""
        failed = {refused.id for refused in self.found if refused.failure is not None}
        # A generation that points at one which has just failed has no content either.
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
        """How many attempts, ends of attempts and generations are not there at all."""
        history = (OpenedRow, SettledRow, GenerationRow)
        return sum(refused.written is None and isinstance(refused.row, history) for refused in self.found)

    def _replace(self, connection: Connection, statement: Executable, row: Row, error: Exception) -> None:
        column, reason = _column_of(row, error), reason_of(error, connection.engine.url)
        said = f"The ledger refused {f'the column {column!r} of ' if column else ''}this generation: {reason}"
        for instead in _replacements(row, said):
            if _try(connection, statement, [instead]) is None:
                self.found.append(RefusedRow(row, column, reason, instead))
                return
        self.found.append(RefusedRow(row, column, reason, None))


def storable(row: RowT) -> RowT:
    """Return a row that has no value which its table can't take: texts cleaned, numbers out of range unknown."""
    changed: dict[str, Any] = {}
    for name, clean in _cleaners(row.table, names_of(type(row))):
        value = getattr(row, name)
        if value is not None and (cleaned := clean(value)) is not value:
            changed[name] = cleaned
    return replace(row, **changed) if changed else row


@cache
def _cleaners(table: str, names: tuple[str, ...]) -> list[tuple[str, Callable[[Any], Any]]]:
    # Once for each kind of row: every attempt's row goes through here.
    cleaners = {column.name: _cleaner(column) for column in Base.metadata.tables[table].c}
    return [(name, clean) for name in names if (clean := cleaners.get(name)) is not None]


def _try(connection: Connection, statement: Executable, rows: Sequence[Row]) -> Exception | None:
    try:
        with connection.begin_nested():
            connection.execute(statement, [values_of(row) for row in rows])
    except Exception as error:
        if not is_refusal(error):
            raise
        return error
    return None


def _replacements(row: Row, said: str) -> Iterator[Row]:
    """Yield what may be written instead of a row, the fullest first."""
    match row:
        case ParentRow():
            return
        case SettledRow():
            clean = storable(row)
            yield clean
            columns = Base.metadata.tables[row.table].c
            texts = {column.name for column in columns if isinstance(column.type, String | JSON)} - _OWN_WORDS
            without: dict[str, Any] = dict.fromkeys(texts.intersection(names_of(SettledRow)))
            yield replace(clean, **without)
        case GenerationRow():
            # Content that was changed would not be what the model answered: an output stays as it is, or there is none.
            clean_generation = replace(storable(replace(row, output=None)), output=row.output)
            for generation in (clean_generation, _failed(clean_generation, said)):
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
    told = getattr(getattr(original, "diag", None), "column_name", None)
    if told:
        return str(told)
    named = re.search(rf"\b{row.table}\.(\w+)", str(original))
    if named and named[1] in Base.metadata.tables[row.table].c:
        return named[1]
    clean = storable(row)
    return next((name for name in names_of(type(row)) if getattr(clean, name) != getattr(row, name)), None)
