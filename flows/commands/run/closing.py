"""Closing: a run when it has ended, on one screen. What came of it, what it cost, and where to look next."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.commands.terminal import screen
from flows.engine.report.summary import StepSummary, Summary, perhaps_billed, savings
from flows.errors import ConfigurationError

SANDBOX_SAYS = "This ran on the sandbox: its answers are made up, and nothing was billed."
COLUMNS = (
    ("new", "succeeded"),
    ("cached", "cached"),
    ("invalid", "invalid"),
    ("truncated", "truncated"),
    ("refused", "refused"),
    ("failed", "failed"),
    ("skipped", "skipped"),
    ("left out", "left_out"),
)
ALWAYS = ("succeeded", "cached")
LOOKS = {"completed": ("✔", "green"), "capped": ("■", "yellow"), "cancelled": ("■", "yellow")}


def require_summary(job: str, result: object) -> Summary:
    """Return what a flow returned, if it is a summary."""
    if not isinstance(result, Summary):
        raise ConfigurationError(
            f"The flow {job!r} ran, but returned {type(result).__name__} and no Summary: end it with "
            "`return run.summary()`."
        )
    return result


def print_summary(console: Console, summary: Summary) -> None:
    """Print a run's figures."""
    console.print(headline(summary))
    if summary.endpoint == "sandbox":
        console.print(Text(f"  {SANDBOX_SAYS}", "bold yellow"))
    if summary.steps:
        console.print()
        console.print(steps_table(summary.steps))
    console.print()
    screen.print_facts(console, figures(summary))
    if summary.failures:
        console.print()
        print_failures(console, summary)


def headline(summary: Summary) -> Text:
    """Say in one line how a run ended."""
    complete = summary.exit_status == 0
    mark, style = LOOKS.get(summary.status, ("✘", "red"))
    if summary.status == "completed" and not complete:
        mark, style = "▲", "yellow"
    text = Text()
    text.append(f"{mark} ", style)
    text.append(screen.visible(summary.flow), "bold")
    text.append(f" {_how(summary)}: {screen.counted(summary.records, 'record')} in {summary.wall_s:,.1f} s")
    if complete and summary.cached and not summary.requests:
        text.append(", all from the cache, no request was sent")
    return text


def steps_table(steps: Sequence[StepSummary]) -> Table:
    """Lay out how many generations of each step ended how; what happened to none is left out."""
    shown = [(title, name) for title, name in COLUMNS if name in ALWAYS or any(getattr(step, name) for step in steps)]
    made = screen.table("step", *(title for title, _name in shown), right=[title for title, _name in shown])
    for step in steps:
        made.add_row(screen.data(step.step), *(_number(getattr(step, name), name) for _title, name in shown))
    return made


def figures(summary: Summary) -> list[tuple[str, str]]:
    """Say requests, tokens and cost."""
    tokens = f"{summary.input_tokens:,} in, {summary.output_tokens:,} out"
    if summary.cache_read_tokens:
        tokens += f" ({summary.cache_read_tokens:,} of those in were read from the prompt cache)"
    found = [("endpoint", summary.endpoint), ("requests", f"{summary.requests:,}"), ("tokens", tokens)]
    cost = screen.dollars(summary.cost_usd, summary.unpriced)
    found.append(("cost", cost + (" (as Claude would bill it)" if summary.endpoint == "sandbox" else "")))
    found += [("saved", line) for line in savings(summary)]
    found += [("prompt cache", line) for line in summary.prompt_cache.why_not()]
    if summary.perhaps_billed:
        found.append(("perhaps billed", perhaps_billed(summary.perhaps_billed, summary.likely_usd)))
    pace = summary.pace.words()
    if pace:
        found.append(("pace", pace))
    return found + [("note", note) for note in summary.notes]


def print_failures(console: Console, summary: Summary) -> None:
    """Name the records that have no content."""
    lacking = summary.invalid + summary.truncated + summary.refused + summary.failed + summary.skipped
    rows = [
        (found.record_key, found.step, found.status, found.message or found.kind or "", found.generation_id)
        for found in summary.failures
    ]
    print_without_content(console, f"{screen.counted(lacking, 'generation')} without content", lacking, rows)


def print_without_content(
    console: Console, title: str, lacking: int, rows: Sequence[tuple[str, str, str, str, str]]
) -> None:
    """Lay out (record key, step, status, why, id) of generations; a reason that all share is said once."""
    console.print(Text(title, "bold"), end="")
    first = f", the first {len(rows)}" if lacking > len(rows) else ""
    console.print(f"{first} (`{screen.command('show ID')}` tells all of one):")
    reasons = {why for _key, _step, _status, why, _identifier in rows}
    made = screen.table("generation", "record", "step", "status", *(["why"] if len(reasons) > 1 else []))
    for key, step, status, why, identifier in rows:
        cells = [screen.data(screen.short(identifier)), screen.data(key), screen.data(step), Text(status, "red")]
        made.add_row(*cells, *([screen.data(screen.one_line(why, 90))] if len(reasons) > 1 else []))
    if len(reasons) == 1:
        console.print(screen.data(f"  {rows[0][3]}"))
    console.print(made)


def print_next(console: Console, lines: Sequence[tuple[str, str]]) -> None:
    """Say where to look next: commands, and what they show."""
    console.print()
    made = Table.grid(padding=(0, 3, 0, 0))
    for command, what in lines:
        made.add_row(Text(f"  {command}", "cyan"), Text(what, "dim"))
    console.print(made)


def _how(summary: Summary) -> str:
    return {"capped": "stopped by its cost cap", "cancelled": "stopped"}.get(summary.status, summary.status)


def _number(number: int, name: str) -> Text:
    style = "dim" if not number else "" if name in ALWAYS else "red"
    return Text(f"{number:,}", style)
