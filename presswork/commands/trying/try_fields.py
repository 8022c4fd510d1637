"""Write an answer field by field, with what validation says of each field, and print it for any width.

All of it is data from outside, so it is printed literally. What is long is cut: `presswork show ID` prints the rest.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from presswork.escaping import visible
from presswork.output_classes.validate import Fault
from presswork.terminal import screen
from presswork.trying.trials import TriedRecord

FieldRow: TypeAlias = tuple[str, Text]
"""The name of a field, and what is printed of its value."""
WHOLE = "the answer"
"""The name of an answer without fields, and of the place of a fault that is in none of them."""
LONGEST_SHOWN, MOST_LINES = 1_200, 16
"""Characters and lines of a text that are printed."""
LONGEST_CHANGE = 3_000
"""Characters of a change that are printed, old and new together."""
MOST_FIELDS = 40
LONGEST_LINE = 76
"""An object or a list whose JSON is shorter is printed on one line."""
WIDEST_NAME = 24


def field_rows(output: Any, faults: Sequence[Fault] = ()) -> list[FieldRow]:
    """Return a row for each field of an answer, with its faults, and one for each fault of a field that it lacks."""
    if not isinstance(output, Mapping):
        output = {WHOLE: output}
    rows = [(name, _with_faults(name, value, faults)) for name, value in list(output.items())[:MOST_FIELDS]]
    elsewhere = [fault for fault in faults if not any(_is_in(fault, name) for name in output)]
    rows += [(fault.where or WHOLE, _fault(fault.what)) for fault in elsewhere]
    if (more := len(output) - MOST_FIELDS) > 0:
        rows.append(("", Text(f"… {more:,} more fields", "dim")))
    return rows


def answer_rows(record: TriedRecord) -> list[FieldRow]:
    """Return rows for a record's answer, field by field also if it is not content but a JSON object."""
    if record.output is not None:
        return field_rows(record.output)
    if record.raw is None:
        return []
    try:
        read = json.loads(record.raw)
    except (ValueError, RecursionError):
        read = None
    return field_rows(read if isinstance(read, dict) and read else record.raw, record.faults)


def value_text(value: Any) -> Text:
    """Write the beginning of a value, see value_in_full; an empty text in quotes, because it would not be seen."""
    if isinstance(value, str) and not value.strip():
        return Text(f'"{visible(value)}"', "dim")
    return cut(value_in_full(value))


def value_in_full(value: Any) -> str:
    """Write a value: a text as it is, a list of texts as lines, everything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "\n".join(f"• {item}" for item in value)
    # Not orjson: an answer that is no content may hold half a surrogate pair.
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= LONGEST_LINE else json.dumps(value, ensure_ascii=False, indent=2)


def cut(text: str, lines: int = MOST_LINES) -> Text:
    """Return the beginning of a text, and how much of it is left out."""
    kept = "\n".join(text[:LONGEST_SHOWN].split("\n")[:lines])
    return with_rest(screen.data(kept), len(text) - len(kept))


def clipped(marked: Text) -> Text:
    """Return the beginning of a text with marks, and how much of it is left out."""
    return with_rest(marked[:LONGEST_CHANGE], max(len(marked) - LONGEST_CHANGE, 0))


def with_rest(kept: Text, rest: int) -> Text:
    """Add how many characters are left out, if any are."""
    return kept.append(f" … {rest:,} more characters", "dim") if rest else kept


def print_rows(console: Console, rows: Sequence[FieldRow], indent: int = 4) -> None:
    """Print names and values: next to each other if there is room, else one below the other."""
    if not rows:
        return
    widest = max(cell_len(visible(name)) for name, _value in rows)
    if not console.is_terminal:
        _print_lines(console, rows, indent, min(widest, WIDEST_NAME))
    elif widest <= max(console.width // 3, 12):
        made = Table.grid(padding=(0, 2, 0, 0))
        made.add_column(style="cyan", no_wrap=True)
        made.add_column(overflow="fold")
        for name, value in rows:
            made.add_row(screen.data(name), value)
        console.print(Padding(made, (0, 0, 0, indent)))
    else:
        for name, value in rows:
            console.print(Padding(screen.data(name, "cyan"), (0, 0, 0, indent)))
            console.print(Padding(value, (0, 0, 0, indent + 2)))


def print_block(console: Console, text: Text, indent: int = 4) -> None:
    """Print a text indented; its lines wrap only on a terminal."""
    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, indent)))
        return
    for line in _lines(text):
        console.print(Text(" " * indent).append_text(line), soft_wrap=True)


def _print_lines(console: Console, rows: Iterable[FieldRow], indent: int, width: int) -> None:
    for name, value in rows:
        first, *others = _lines(value)
        shown = visible(name)
        console.print(Text(f"{' ' * indent}{shown:<{width}}  ").append_text(first), soft_wrap=True)
        for line in others:
            console.print(Text(" " * (indent + width + 2)).append_text(line), soft_wrap=True)


def _lines(text: Text) -> list[Text]:
    return list(text.split("\n", allow_blank=True)) or [Text()]


def _with_faults(name: str, value: Any, faults: Sequence[Fault]) -> Text:
    made = value_text(value)
    for fault in faults:
        if _is_in(fault, name):
            place = "" if fault.where == name else f"{fault.where}: "
            is_length = isinstance(value, str) and "character" in fault.what
            length = f" (it has {len(value):,})" if is_length else ""
            made.append("\n").append_text(_fault(f"{place}{fault.what}{length}"))
    return made


def _fault(what: str) -> Text:
    return screen.data(f"✘ {what}", "red")


def _is_in(fault: Fault, name: str) -> bool:
    return fault.where == name or fault.where.startswith(f"{name}.")
