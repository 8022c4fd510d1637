"""List runs or generations on a terminal, the newest first."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from db.readers.audit.filters import Filter, RunFilter
from db.readers.audit.generation_lists import GenerationLine, list_generations
from db.readers.audit.run_lists import list_runs_page
from db.readers.figures import RunLine
from db.words import SANDBOX, TRY
from presswork.errors import ParameterError
from presswork.report.amounts import dollars, duration
from presswork.terminal import screen
from presswork.terminal.asked_filters import period_of
from presswork.terminal.audit_flags import HistoryFlags
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import ledger_urls, opened, say_ledger

NARROW = 110
"""A terminal with fewer columns gets a list of runs with fewer columns."""
NUMBERS = ("new", "cached", "no content", "requests", "cost", "time")
_OF_RUNS = ("sort",)
_OF_GENERATIONS = ("step", "template", "model", "cause", "origin", "replaced")
_FILTERS = ("flow", "status", "trigger", "endpoint", "since", "until", "before", *_OF_RUNS, *_OF_GENERATIONS)
_KEY_SHOWN, _ANSWER_SHOWN = 40, 70
ListedLine = TypeVar("ListedLine", RunLine, GenerationLine)


def refuse_filters(flags: HistoryFlags, shown: str) -> None:
    """Raise ParameterError if a filter of lists is given where one thing is shown."""
    given = [name for name in _FILTERS if getattr(flags, name) is not None]
    if given:
        raise ParameterError(f"--{given[0]} filters lists, and {shown} is no list. Leave one out.")


def show_runs(command: CommandContext, flags: HistoryFlags) -> None:
    """Print the runs that match."""
    _refuse(flags, _OF_GENERATIONS, "filters generations. Add --generations")
    since, until = period_of(flags.since, flags.until)
    wanted = RunFilter(
        flow=flags.flow,
        status=flags.status,
        trigger=flags.trigger,
        endpoint=flags.endpoint,
        since=since,
        until=until,
    )

    leaves_out_trials = False

    def read(ledger: Engine) -> tuple[list[RunLine], str | None]:
        nonlocal leaves_out_trials
        page = list_runs_page(ledger, wanted, flags.sort or "started", flags.before, flags.limit)
        leaves_out_trials = page.leaves_out_trials
        return page.lines, page.before

    _list(command, flags, read, lambda console, runs: console.print(runs_table(runs, console.width)))
    if leaves_out_trials:
        screen.say(f"Trials of templates are left out. Add `--trigger {TRY}` to list them.", "dim")


def show_generations(command: CommandContext, flags: HistoryFlags) -> None:
    """Print the generations that match."""
    _refuse(flags, _OF_RUNS, "is for runs. Leave out --generations")
    since, until = period_of(flags.since, flags.until)
    wanted = Filter(
        flow=flags.flow,
        step=flags.step,
        endpoint=flags.endpoint,
        template=flags.template,
        model=flags.model,
        status=flags.status,
        cause=flags.cause,
        origin=flags.origin,
        run=flags.run,
        trigger=flags.trigger,
        key=flags.key,
        since=since,
        until=until,
        replaced=flags.replaced,
    )

    def read(ledger: Engine) -> tuple[list[GenerationLine], str | None]:
        page = list_generations(ledger, wanted, flags.before, flags.limit)
        return page.lines, page.before

    _list(command, flags, read, lambda console, found: console.print(_generations_table(found)))


def _list(
    command: CommandContext,
    flags: HistoryFlags,
    read: Callable[[Engine], tuple[list[ListedLine], str | None]],
    show: Callable[[Console, list[ListedLine]], None],
) -> None:
    """Print a page of a list, and on standard error how to go on."""
    noun, one = ("generations", "show ID") if flags.generations else ("runs", "history ID")
    urls = ledger_urls(command.settings, sandbox=flags.sandbox)
    lines: list[ListedLine] = []
    before: str | None = None
    if urls:
        with opened(urls[0]) as ledger:
            lines, before = read(ledger)
        if not command.as_json:
            say_ledger(urls[0], others=len(urls) > 1)

    def show_list(console: Console) -> None:
        if lines:
            show(console, lines)
            console.print(Text(f"\n`{screen.command(one)}` shows one of them.", "dim"))
        elif not urls:
            console.print(f"No {noun} yet: there is no ledger. `presswork demo` or `presswork run NAME` creates one.")
        else:
            console.print(screen.data(_none(flags, noun)))

    command.answer([asdict(line) for line in lines], show_list)
    if before is not None:
        screen.say(f"There are more. Add `--before {before}` to list them.", "dim")


def _none(flags: HistoryFlags, noun: str) -> str:
    given = [f"--{name} {getattr(flags, name)}" for name in (*_FILTERS, "key") if getattr(flags, name) is not None]
    return f"No {noun} match {' '.join(given)}." if given else f"No {noun} yet."


def _refuse(flags: HistoryFlags, names: Sequence[str], why: str) -> None:
    for name in names:
        if getattr(flags, name) is not None:
            raise ParameterError(f"--{name} {why}.")


def runs_table(runs: Sequence[RunLine], width: int) -> Table:
    """Lay out runs, one a line; a narrow terminal gets fewer columns."""
    narrow = width < NARROW
    left_out = {"requests", "time"} if narrow else set()
    if all(line.endpoint == runs[0].endpoint != SANDBOX for line in runs):
        left_out.add("endpoint")
    rows = [{name: cell for name, cell in _run_cells(line).items() if name not in left_out} for line in runs]
    columns = [name.replace(" ", "\n") if narrow and name in NUMBERS else name for name in rows[0]]
    made = screen.table(columns, [list(row.values()) for row in rows], [*NUMBERS, "no\ncontent"])
    for whole in (made.columns[0], made.columns[3]):
        whole.no_wrap = True  # so that ids can be copied
    return made


def _run_cells(line: RunLine) -> dict[str, str | Text]:
    without = line.without_content
    return {
        "run": screen.short(line.id),
        "started (UTC)": screen.moment(line.started_at),
        "flow": line.flow,
        "status": screen.status(line.status),
        "new": f"{line.succeeded:,}",
        "cached": f"{line.cached:,}",
        "no content": Text(f"{without:,}", "red" if without else "dim"),
        "requests": f"{line.usage.requests:,}",
        "cost": "" if line.usage.cost_usd is None else dollars(line.usage.cost_usd),
        "time": run_time(line),
        "endpoint": line.endpoint,
    }


def run_time(line: RunLine) -> str:
    """Format how long a run took; empty until it has ended."""
    return "" if line.ended_at is None else duration((line.ended_at - line.started_at).total_seconds())


def _origin(line: GenerationLine) -> str:
    notes = [*([TRY] if line.trigger == TRY else []), *([] if line.counts_in_run else ["replaced"])]
    return ", ".join([line.origin, *notes])


def _generations_table(found: Sequence[GenerationLine]) -> Table:
    columns = ["generation", "created (UTC)", "step", "record", "status", "origin", "cost", "endpoint", "answer"]
    rows = [
        (
            screen.short(line.id),
            screen.moment(line.created_at),
            line.step,
            screen.one_line(line.record_key, _KEY_SHOWN),
            screen.status(line.status),
            _origin(line),
            "unpriced" if line.unpriced else dollars(line.cost_usd),
            line.endpoint,
            screen.one_line(line.beginning or line.error_message or line.error_kind or "", _ANSWER_SHOWN),
        )
        for line in found
    ]
    made = screen.table(columns, rows, right=["cost"])
    made.columns[0].no_wrap = True  # so that ids can be copied
    return made
