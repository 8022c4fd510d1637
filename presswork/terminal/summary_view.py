"""Print a run's summary: its results, its cost, and the records without content."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from db.words import CACHED, CANCELLED, CAPPED, COMPLETED, SANDBOX, SUCCEEDED
from presswork.escaping import visible
from presswork.report.amounts import counted, duration
from presswork.report.summary import LACKING, SANDBOX_SAYS, Failure, StepSummary, Summary, summary_rows
from presswork.terminal import screen

WITH_CONTENT = {SUCCEEDED: "new", CACHED: "cached"}
COLUMNS = {**WITH_CONTENT, **{status: status.replace("_", " ") for status in (*LACKING, "left_out")}}
MARKS = {COMPLETED: "✔", CAPPED: "■", CANCELLED: "■"}


def print_summary(console: Console, summary: Summary) -> None:
    """Print a run's figures."""
    console.print(headline(summary))
    if summary.endpoint == SANDBOX:
        console.print(Text(f"  {SANDBOX_SAYS}", "bold yellow"))
    print_steps(console, summary.steps)
    console.print()
    screen.print_facts(console, summary_rows(summary))
    if summary.failures:
        print_failures(console, summary.failures, summary.without_content)


def headline(summary: Summary, completed: str = COMPLETED) -> Text:
    """Say in one line how a run ended; `completed` is the word for a completed run."""
    complete = summary.exit_status == 0
    mark, style = MARKS.get(summary.status, "✘"), screen.style_of(summary.status)
    if summary.status == COMPLETED and not complete:
        mark, style = "▲", "yellow"
    hows = {COMPLETED: completed, CAPPED: "stopped by its cost cap", CANCELLED: "stopped"}
    how = hows.get(summary.status, summary.status)
    told = f" {how}: {counted(summary.records, 'record')} in {duration(summary.wall_s)}"
    if complete and summary.cached and not summary.requests:
        told += ", all from the cache, no requests sent"
    return Text.assemble((f"{mark} ", style), (visible(summary.flow), "bold"), told)


def print_steps(console: Console, steps: Sequence[StepSummary]) -> None:
    """Print how the generations of each step ended; columns without any are left out."""
    if not steps:
        return
    shown = [name for name in COLUMNS if name in WITH_CONTENT or any(getattr(step, name) for step in steps)]
    titles = [COLUMNS[name] for name in shown]
    rows = [(step.step, *(_number(getattr(step, name), name) for name in shown)) for step in steps]
    console.print()
    console.print(screen.table(["step", *titles], rows, right=titles))


def print_failures(console: Console, failures: Sequence[Failure], without: int) -> None:
    """Print the first of the `without` generations that have no content; a reason that all share appears once."""
    console.print()
    console.print(Text(f"{counted(without, 'generation')} without content", "bold"), end="")
    first = f", the first {len(failures)}" if without > len(failures) else ""
    console.print(f"{first} (for details: `{screen.command('show ID')}`):")
    reasons = [failure.message or failure.kind or "" for failure in failures]
    alike = len(set(reasons)) == 1
    if alike:
        console.print(screen.data(f"  {reasons[0]}"))
    columns = ["generation", "record", "step", "status", *([] if alike else ["why"])]
    rows = [
        (
            screen.short(failure.generation_id),
            failure.record_key,
            failure.step,
            screen.status(failure.status),
            screen.one_line(reason, 90),
        )[: len(columns)]
        for failure, reason in zip(failures, reasons, strict=True)
    ]
    console.print(screen.table(columns, rows))


def _number(number: int, name: str) -> Text:
    style = "dim" if not number else "" if name in WITH_CONTENT else "red"
    return Text(f"{number:,}", style)
