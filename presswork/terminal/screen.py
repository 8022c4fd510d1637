"""Print anything, for people and for programs.

Answers go to standard output. Progress, warnings and errors go to standard error, so that a pipe carries the answer
alone. Data is never read as markup: pass values from records through `data()`.
"""

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from db.words import CACHED, CANCELLED, CAPPED, COMPLETED, PROGRAM, RUNNING, SKIPPED, SUCCEEDED, SUSPENDED
from presswork.escaping import visible

STYLES = {
    **dict.fromkeys((SUCCEEDED, COMPLETED), "green"),
    **dict.fromkeys((CACHED, RUNNING), "cyan"),
    **dict.fromkeys((SKIPPED, CAPPED, CANCELLED, SUSPENDED), "yellow"),
}
SHORT_ID = 12  # characters of an id's end, which is random, so that ids of one second differ
WIDE = 200  # columns if the output is no terminal: a log or a pipe has no edge to wrap at


def out() -> Console:
    """Return the console for answers; a new one each time, because tests and pipes change the stream."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def err() -> Console:
    """Return the console for progress, warnings and errors."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else WIDE)


def say(text: str, style: str = "") -> None:
    """Print a line on standard error."""
    err().print(data(text, style), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as JSON, see json_text."""
    sys.stdout.write(json_text(value).decode() + "\n")
    sys.stdout.flush()


def print_json_line(value: Any) -> None:
    """Print a value as JSON on one line, for commands that print several."""
    sys.stdout.write(orjson.dumps(value, default=_exact, option=orjson.OPT_NON_STR_KEYS).decode() + "\n")
    sys.stdout.flush()


def json_text(value: Any) -> bytes:
    """Write a value as JSON: times as ISO 8601, money as a number of dollars with all its digits."""
    return orjson.dumps(value, default=_exact, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)


def _exact(value: Any) -> orjson.Fragment:
    if not isinstance(value, Decimal):
        raise TypeError(f"{type(value).__name__} can't be printed as JSON")
    return orjson.Fragment(f"{value.normalize():f}")


def data(value: Any, style: str = "") -> Text:
    """Wrap a value from records, prompts or answers, so that it is printed literally."""
    return Text(visible(str(value)), style=style)


def _shown(value: Any) -> Text:
    return value if isinstance(value, Text) else data(value)


def one_line(text: str, longest: int) -> str:
    """Put a text on one line, cut to `longest` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else flat[: longest - 1].rstrip() + "…"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[str] = ()) -> Table:
    """Make a plain table; cells that are not Text are data, and the columns in `right` hold numbers."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    numbers = set(right)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", no_wrap=column in numbers)
    for cells in rows:
        made.add_row(*map(_shown, cells))
    return made


def print_facts(console: Console, pairs: Sequence[tuple[str, Any]], indent: int = 0) -> None:
    """Print names and values; values that are not Text are data. Values wrap only on a terminal."""
    if console.is_terminal:
        made = Table.grid(padding=(0, 2, 0, 0))
        made.add_column(style="dim", no_wrap=True)
        made.add_column(overflow="fold")
        for name, value in pairs:
            made.add_row(" " * indent + visible(name), _shown(value))
        console.print(made)
        return
    width = max((len(name) for name, _value in pairs), default=0)
    for name, value in pairs:
        console.print(Text.assemble(data(f"{' ' * indent}{name:<{width}}  "), _shown(value)), soft_wrap=True)


def print_next(console: Console, lines: Sequence[tuple[str, str]]) -> None:
    """Print where to look next: commands, and what they show; below each other if a terminal is too narrow."""
    console.print()
    if console.is_terminal and sum(max(map(len, texts)) for texts in zip(*lines, strict=True)) + 5 > console.width:
        for command, what in lines:
            console.print(Padding(Text(command, "cyan"), (0, 0, 0, 2)))
            console.print(Padding(Text(what, "dim"), (0, 0, 0, 6)))
        return
    made = Table.grid(padding=(0, 3, 0, 0))
    for command, what in lines:
        made.add_row(Text(f"  {command}", "cyan"), Text(what, "dim"))
    console.print(made)


def print_text(console: Console, text: str, indent: int = 0) -> None:
    """Print a text indented and without added line breaks, so that it can be copied."""
    for line in text.split("\n"):
        console.print(data(" " * indent + line if line else ""), soft_wrap=True)


def print_request(console: Console, request: Mapping[str, Any]) -> None:
    """Print a request's body: model and limits, each text under its role, the output schema."""
    shown = {name: value for name, value in request.items() if name not in ("system", "messages", "output_config")}
    print_facts(console, [(name, value_of(value)) for name, value in shown.items()], indent=2)
    for part in request.get("system", []):
        note = f" (cached for {part['cache_control'].get('ttl', '5m')})" if "cache_control" in part else ""
        turn(console, f"system{note}", part["text"])
    for message in request["messages"]:
        content = message["content"]
        turn(console, message["role"], content if isinstance(content, str) else pretty(content))
    turn(console, "output schema and settings", pretty(request.get("output_config", {})))


def section(console: Console, title: str) -> None:
    """Print the title of a section."""
    console.print()
    console.print(Text(title, "bold"))


def turn(console: Console, title: str, text: str) -> None:
    """Print a text under its title."""
    console.print(Text(f"  {title}", "cyan"))
    print_text(console, text, indent=4)


def pretty(value: Any) -> str:
    """Write a value as JSON for people."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def value_of(value: Any) -> str:
    """Write a value on one line."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def short(identifier: str) -> str:
    """Shorten an id to the part that `presswork show` and `presswork history` need."""
    return identifier[-SHORT_ID:]


def command(arguments: str) -> str:
    """Return a command as it can be typed here, with its path if `presswork` is not on the search path."""
    typed = sys.argv[0]
    found = PROGRAM if shutil.which(PROGRAM) or Path(typed).name != PROGRAM else typed
    return f"{found} {arguments}"


def style_of(status: str) -> str:
    """Return the style for the status of a run or a generation; failures are red."""
    return STYLES.get(status, "red")


def status(status: str) -> Text:
    """Show a status in its style."""
    return Text(status, style_of(status))


def moment(when: datetime | None) -> str:
    """Write a time in UTC, to the second."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if when else ""
