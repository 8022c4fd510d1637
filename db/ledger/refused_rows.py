"""Find the rows of a batch that a ledger refuses, so that one bad value keeps no other row out.

A refused row is written as far as it can be: with its texts cleaned, then without what is refused. What is known of
money stays. Only what can't be written at all is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, Column, Connection, Executable, Float, Integer, String, Table
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, ProgrammingError

from db.ledger.tables import Base, Money
from db.session import is_unavailable, reason_of
from db.sources.values import storable_json, storable_text

REFUSED = "refused_by_ledger"
"""The `error_kind` of a generation whose content the ledger can't keep."""
TABLES = {
    "texts": "texts",
    "records": "records",
    "prompts": "prompts",
    "opened": "attempts",
    "settled": "attempts",
    "generations": "generations",
    "parents": "generation_parents",
}
"""The table in which each part of a batch is written."""
LARGEST_INTEGER = 2**31 - 1
_NAMED = 5  # rows that a message names at most
_LARGEST_MONEY = Decimal(10) ** 10
# What a settled attempt keeps of its texts when these are refused even cleaned.
_OWN_WORDS = frozenset({"error_type", "price_version"})
_Row = Mapping[str, Any]


@dataclass(frozen=True)
class Refusal:
    """A row that a ledger refused as it was; `written` is what stands there instead, None where nothing does.

    `part` is the part of the batch, `column` the one that is to blame, where that is known. `row` holds texts of
    users: it belongs in no message.
    """

    part: str
    row: _Row
    column: str | None
    reason: str
    written: _Row | None

    @property
    def id(self) -> str:
        """The id of the attempt or generation, or the hash of the text, record or prompt."""
        names = ("attempt_id", "id", "hash", "generation_id")
        return next(str(self.row[name]) for name in names if name in self.row)

    @property
    def is_failed_generation(self) -> bool:
        """Whether a generation stands as failed for this reason."""
        return self.part == "generations" and self.written is not None and self.written["error_kind"] == REFUSED

    def __str__(self) -> str:
        where = TABLES[self.part] + (f".{self.column}" if self.column else "")
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


def in_words(refusals: Sequence[Refusal]) -> str:
    """Say which rows a ledger refused, the first few by name."""
    named = "; ".join(str(refusal) for refusal in refusals[:_NAMED])
    more = f"; and {len(refusals) - _NAMED:,} more" if len(refusals) > _NAMED else ""
    return (
        f"The ledger refused {len(refusals):,} row{'' if len(refusals) == 1 else 's'}: {named}{more}. What could be "
        "written of them is there, without the refused values."
    )


@dataclass
class Sifter:
    """Writes the rows of one batch but for those that are refused, which it finds by halving and keeps."""

    found: list[Refusal] = field(default_factory=list)
    _failed: set[str] = field(default_factory=set)

    def put(self, connection: Connection, part: str, statement: Executable, rows: Sequence[_Row]) -> None:
        """Write rows of one part, each as far as it can be."""
        rows = [self._after_its_source(part, row) for row in rows]
        error = _try(connection, statement, rows) if rows else None
        if error is None:
            return
        if len(rows) == 1:
            self._replace(connection, part, statement, rows[0], error)
            return
        middle = len(rows) // 2
        self.put(connection, part, statement, rows[:middle])
        self.put(connection, part, statement, rows[middle:])

    def count_left_out(self, *parts: str) -> int:
        """How many rows of these parts are not there at all."""
        return sum(refusal.written is None for refusal in self.found if refusal.part in parts)

    def _after_its_source(self, part: str, row: _Row) -> _Row:
        # A generation that points at one which has just failed has no content either.
        if part == "generations" and row["source_generation_id"] in self._failed:
            return _failed(row, f"The generation {row['source_generation_id']}, which it repeats, failed")
        return row

    def _replace(self, connection: Connection, part: str, statement: Executable, row: _Row, error: Exception) -> None:
        table = Base.metadata.tables[TABLES[part]]
        column, reason = _column_of(table, row, error), reason_of(error, connection.engine.url)
        said = f"The ledger refused {f'the column {column!r} of ' if column else ''}this generation: {reason}"
        for instead in _REPLACEMENTS.get(part, _cleaned)(table, row, said):
            if _try(connection, statement, [instead]) is None:
                self.found.append(Refusal(part, row, column, reason, instead))
                if part == "generations" and instead["error_kind"] == REFUSED:
                    self._failed.add(str(row["id"]))
                return
        self.found.append(Refusal(part, row, column, reason, None))


def storable(table: Table, row: _Row) -> dict[str, Any]:
    """Return a row that has no value which its table can't take: texts cleaned, numbers out of range unknown."""
    return {name: _storable(table.c[name], value) if name in table.c else value for name, value in row.items()}


def _try(connection: Connection, statement: Executable, rows: Sequence[_Row]) -> Exception | None:
    try:
        with connection.begin_nested():
            connection.execute(statement, list(rows))
    except Exception as error:
        if not is_refusal(error):
            raise
        return error
    return None


def _cleaned(table: Table, row: _Row, _said: str) -> Iterator[_Row]:
    yield storable(table, row)


def _settled_instead(table: Table, row: _Row, _said: str) -> Iterator[_Row]:
    clean = storable(table, row)
    yield clean
    texts = {column.name for column in table.c if isinstance(column.type, String | JSON)} - _OWN_WORDS
    yield {**clean, **dict.fromkeys(texts.intersection(clean))}


def _generation_instead(table: Table, row: _Row, said: str) -> Iterator[_Row]:
    # Content that was changed would not be what the model answered: an output stays as it is, or there is none.
    clean = storable(table, {**row, "output": None}) | {"output": row["output"]}
    yield clean
    yield clean | {"record_hash": None}
    failed = _failed(clean, said)
    yield failed
    yield failed | {"record_hash": None}


_REPLACEMENTS: Mapping[str, Callable[[Table, _Row, str], Iterator[_Row]]] = {
    "settled": _settled_instead,
    "generations": _generation_instead,
    "parents": lambda _table, _row, _said: iter(()),
}


def _failed(row: _Row, said: str) -> dict[str, Any]:
    return {
        **row,
        "status": "failed",
        "origin": "live",
        "source_generation_id": None,
        "output": None,
        "output_hash": None,
        "error_kind": REFUSED,
        "error_message": f"{said}. Its attempts have the answer. Fix what makes this value, then run again.",
    }


def _storable(column: Column[Any], value: Any) -> Any:
    match column.type:
        case _ if value is None:
            return None
        case JSON():
            return storable_json(value)
        case String(length=length):
            return storable_text(str(value))[:length]
        case Integer():
            return value if isinstance(value, int) and abs(value) <= LARGEST_INTEGER else None
        case Float():
            return value if math.isfinite(value) else None
        case Money():
            return value if value.is_finite() and abs(value) < _LARGEST_MONEY else None
        case _:
            return value


def _column_of(table: Table, row: _Row, error: Exception) -> str | None:
    original = getattr(error, "orig", None)
    told = getattr(getattr(original, "diag", None), "column_name", None)
    if told:
        return str(told)
    named = re.search(rf"\b{table.name}\.(\w+)", str(original))
    if named and named[1] in table.c:
        return named[1]
    clean = storable(table, row)
    return next((name for name, value in row.items() if clean[name] != value), None)
