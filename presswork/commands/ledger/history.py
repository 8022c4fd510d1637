"""Choose what `presswork history` shows, and show one run with its steps and failures.

listings.py lists runs and generations, life.py shows the history of one record.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text
from sqlalchemy import Engine

from db.ledger.leases import LivingLease
from db.readers.failures import count_unlisted
from db.readers.figures import RunLine, StepCount, count_generations, find_run
from db.readers.old_shards import shards_of
from db.readers.runs import read_run, steps_of, workers_of
from db.words import RUNNING, SUSPENDED, TRY
from presswork.commands.ledger.life import show_life
from presswork.commands.ledger.listings import refuse_filters, run_time, show_generations, show_runs
from presswork.escaping import visible
from presswork.report.amounts import dollars
from presswork.report.summary import Failure, list_failures, usage_rows
from presswork.terminal import screen
from presswork.terminal.audit_flags import HistoryFlags
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import find_by_id, say_ledger
from presswork.terminal.summary_view import print_failures

FAILURES = 50
_UNLISTED = ("later runs have processed these records again", "a trial keeps no list of these records")


def show_history(command: CommandContext, flags: HistoryFlags) -> None:
    """Print runs or generations that match, one run, or the history of one record."""
    settings = command.settings
    if flags.generations:
        show_generations(command, flags)
        return
    if flags.key is not None:
        refuse_filters(flags, "a record's history")
        show_life(command, flags, flags.key)
        return
    if flags.run is not None:
        refuse_filters(flags, "a single run")
        url, found = find_by_id(settings, _read_run, "run", flags.run, sandbox=flags.sandbox)
        if not command.as_json:
            say_ledger(url, others=False)
        command.answer(found.for_programs(), lambda console: _print_run(console, found))
        return
    show_runs(command, flags)


@dataclass(frozen=True)
class _RunHistory:
    """A run as `history RUN` shows it: its row, how its generations ended, and the first failures.

    `steps` have the progress of each step, `workers` the workers that are active on the run. `unlisted` counts
    generations without content that can't be listed, see count_unlisted.
    """

    line: RunLine
    row: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    workers: Sequence[LivingLease]
    shards: Sequence[str]
    counts: Sequence[StepCount]
    failures: Sequence[Failure]
    unlisted: int

    def for_programs(self) -> dict[str, Any]:
        return {
            **self.row,
            **asdict(self.line),
            "steps": [asdict(count) for count in self.counts],
            "failures": [failure.model_dump() for failure in self.failures],
            "failures_unlisted": self.unlisted,
            "shards": self.shards,
            "progress": self.steps,
            "workers": [{"worker": lease.worker, "process": lease.process} for lease in self.workers],
        }


def _read_run(ledger: Engine, asked: str) -> _RunHistory | None:
    line = find_run(ledger, asked)
    if line is None:
        return None
    return _RunHistory(
        line=line,
        row=read_run(ledger, line.id) or {},
        steps=steps_of(ledger, line.id),
        workers=workers_of(ledger, line.id),
        shards=shards_of(ledger, line.id),
        counts=count_generations(ledger, line.id),
        failures=list_failures(ledger, line.id, FAILURES),
        unlisted=count_unlisted(ledger, line.id),
    )


def _print_run(console: Console, found: _RunHistory) -> None:
    screen.print_facts(console, _facts(found))
    if found.counts:
        rows = [(count.step, count.status, count.origin, f"{count.count:,}") for count in found.counts]
        console.print()
        console.print(screen.table(["step", "status", "origin", "generations"], rows, right=["generations"]))
    _print_progress(console, found.steps)
    if found.failures:
        print_failures(console, found.failures, found.line.without_content - found.unlisted)
    if found.unlisted:
        command = screen.command(f"history {visible(found.line.flow)} --key KEY")
        console.print(
            f"\n{found.unlisted:,} without content can't be listed: they failed as in an earlier run, and "
            f"{_UNLISTED[found.line.trigger == TRY]}. `{command}` shows the history of one."
        )


def _print_progress(console: Console, steps: Sequence[Mapping[str, Any]]) -> None:
    """Lay out each step's progress, and how many of its records wrote no row because nothing had changed."""
    if not steps:
        return
    counts = {
        "total": "records",
        "unchanged": "unchanged",
        "failed_again": "failed again",
        "skipped_again": "skipped again",
    }
    shown = [name for name in counts if any(step[name] for step in steps)]
    titles = [counts[name] for name in shown]
    rows = [
        (step["step"], step["state"], *("" if step[name] is None else f"{step[name]:,}" for name in shown))
        for step in steps
    ]
    console.print()
    console.print(screen.table(["step", "state", *titles], rows, right=titles))


def _facts(found: _RunHistory) -> list[tuple[str, Any]]:
    line, row = found.line, found.row
    parameters = ", ".join(f"{name}={value}" for name, value in _given(row.get("parameters") or {}).items())
    related = (("shard of", row.get("parent_run_id")), ("resumes", row.get("resumes_run_id")))
    shards = ", ".join(screen.short(shard) for shard in found.shards)
    return [
        ("run", line.id),
        ("flow", line.flow),
        *(fact for fact in related if fact[1]),
        ("status", _state(found)),
        ("started", f"{screen.moment(line.started_at)} UTC, by {line.trigger}"),
        ("time", run_time(line) or "not ended yet"),
        ("endpoint", line.endpoint),
        ("parameters", parameters or "none"),
        ("code", row.get("code_version", "")),
        ("Prefect flow run", row.get("prefect_flow_run_id") or "none"),
        ("generations", f"{line.succeeded:,} new, {line.cached:,} cached, {line.generations:,} total"),
        *usage_rows(line.usage, line.endpoint),
        *_saved(found.steps),
        *([("shards", shards)] if shards else []),
    ]


def _saved(steps: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Say what the ledger's cache saved a closed run, if a price is known."""
    known = [step["saved_usd"] for step in steps if step["saved_usd"] is not None]
    return [("saved", f"about {dollars(sum(known))} by answers from the ledger")] if known else []


def _state(found: _RunHistory) -> Text:
    """Say which workers are active on a run, or until when it is suspended and why."""
    said = screen.status(found.line.status)
    if found.line.status == RUNNING and found.workers:
        by = ", ".join(f"{lease.worker} ({_place(lease.process)})" for lease in found.workers)
        said.append(f", by {visible(by)}")
    elif found.line.status == SUSPENDED:
        due, reason = found.row.get("due_at"), found.row.get("suspended_for")
        said.append(f" until {screen.moment(due)} UTC" if due else "")
        said.append(f": {visible(reason)}" if reason else "")
    return said


def _place(process: str) -> str:
    """Name the process of an identity, which is host/number/more; the rest distinguishes later processes."""
    host, _, rest = process.partition("/")
    return f"process {rest.partition('/')[0]} on {host}"


def _given(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters that were given, with those of options and selection in one level; empty ones are left out."""
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return {name: value for name, value in flat.items() if value not in (None, False, {}, [])}
