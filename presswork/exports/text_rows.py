"""Write exported rows as JSON lines or as CSV.

JSON lines carry each text as it is stored. CSV is for spreadsheets and terminals: its cells are made safe, see
presswork/escaping.py, so they are not always what is stored.
"""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from db.readers.audit.exports import EXPORT_COLUMNS, ColumnKind, ExportedRow
from db.rollups.attempt_sums import UNITS_A_DOLLAR
from presswork.escaping import spreadsheet_cell

Encode = Callable[[Sequence[ExportedRow]], bytes]
BOM = "\ufeff"
_PLACES = 10
# Their values are made by Presswork itself, and none begins like a formula.
_OWN_WORDS = frozenset(
    "generation_id created_at run_id status origin template_hash prompt_hash record_hash output_hash "
    "source_generation_id replaced_by".split()
)


def dollars_text(units: int) -> str:
    """Write whole units of 1e-10 USD as dollars, exactly, and without zeros at the end."""
    whole, rest = divmod(abs(units), UNITS_A_DOLLAR)
    sign = "-" if units < 0 else ""
    return f"{sign}{whole}" + (f".{rest:0{_PLACES}d}".rstrip("0") if rest else "")


def json_lines(rows: Sequence[ExportedRow]) -> bytes:
    """Write rows as JSON, one a line."""
    return b"".join(map(_json_line, rows))


def csv_lines(rows: Sequence[ExportedRow]) -> bytes:
    """Write rows as lines of CSV; the cells are safe in a spreadsheet."""
    return _csv(
        [[cell if cell is None else write(cell) for write, cell in zip(_AS_CELLS, row, strict=True)] for row in rows]
    )


def csv_header(*, bom: bool) -> bytes:
    """Write the line with the columns' names; `bom` begins it with the mark by which Excel knows UTF-8."""
    return (BOM if bom else "").encode() + _csv([list(EXPORT_COLUMNS)])


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _json_line(row: ExportedRow) -> bytes:
    # Stored JSON and exact numbers are inserted as they are: parsing them, or orjson's Fragment, takes twice as long.
    texts = [
        "null" if cell is None else write(cell) for write, cell in zip(_INSERTED, row[len(_ENCODED) :], strict=True)
    ]
    values = dict(zip(_ENCODED, row, strict=False))
    return b"%s%s" % (orjson.dumps(values)[:-1], (_INSERT % tuple(texts)).encode())


def _on_one_line(text: str) -> str:
    """Return stored JSON; Presswork writes it on one line, and anything else might not."""
    return text if "\n" not in text else orjson.dumps(orjson.loads(text)).decode()


def _same(cell: Any) -> Any:
    return cell


_AS_JSON: dict[ColumnKind, Callable[[Any], str]] = {"json": _on_one_line, "dollars": dollars_text}
# The columns that orjson writes come first; see EXPORT_COLUMNS.
_ENCODED = [name for name, kind in EXPORT_COLUMNS.items() if kind not in _AS_JSON]
_INSERTED = [_AS_JSON[kind] for kind in list(EXPORT_COLUMNS.values())[len(_ENCODED) :]]
_INSERT = "".join(f',"{name}":%s' for name in list(EXPORT_COLUMNS)[len(_ENCODED) :]) + "}\n"
_WRITTEN: dict[ColumnKind, Callable[[Any], Any]] = {
    "text": spreadsheet_cell,
    "json": spreadsheet_cell,
    "dollars": dollars_text,
    "moment": _same,
    "integer": _same,
}
_AS_CELLS = [_same if name in _OWN_WORDS else _WRITTEN[kind] for name, kind in EXPORT_COLUMNS.items()]
