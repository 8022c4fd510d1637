"""Print what follows the records of a trial: its totals, and what to do next."""

import shlex
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from rich.console import Console
from rich.text import Text

from db.words import SANDBOX, SUCCEEDED
from presswork.commands.trying.try_record import ending_of, tokens_in_words
from presswork.commands.trying.try_template import AskedTrials
from presswork.escaping import visible
from presswork.report.amounts import counted, dollars, duration
from presswork.report.summary import HAS_ALL, LACKS_SOME, MET_CAP, SANDBOX_SAYS
from presswork.terminal import screen
from presswork.trying.trials import LABEL_HASH, Trial, TriedRecord

LONGEST_LIST = 200
SCALE = 1_000
"""The number of records whose cost is estimated."""


def print_totals(console: Console, trial: Trial, asked: AskedTrials) -> None:
    """Print a trial's counts, tokens and cost, and the commands that come next."""
    console.print()
    console.print(verdict(trial))
    print_warnings(console, trial)
    screen.print_facts(console, figures(trial), indent=2)
    screen.print_next(console, next_steps(trial, asked))


def print_warnings(console: Console, trial: Trial, *, say_sandbox: bool = True) -> None:
    """Print whatever makes a trial less than it looks: the sandbox, records that are missing, a cap."""
    if trial.endpoint == SANDBOX and say_sandbox:
        console.print(Text(f"  {SANDBOX_SAYS}", "bold yellow"))
    if trial.missing:
        keys = screen.one_line(", ".join(trial.missing), LONGEST_LIST)
        console.print(screen.data(f"  The select no longer finds {keys}.", "bold yellow"))
    for told in (trial.note, trial.stopped):
        if told is not None:
            console.print(screen.data(f"  {told}", "bold yellow"))


def figures(trial: Trial) -> list[tuple[str, str]]:
    """Return rows on a trial: its version and endpoint, and what its requests used and cost."""
    rows = [("version", trial.template_hash[:LABEL_HASH]), ("endpoint", trial.endpoint)]
    if not trial.requests:
        return rows
    as_billed = " (as Claude would bill it)" if trial.endpoint == SANDBOX else ""
    rows += [
        ("requests", f"{trial.requests:,}"),
        ("used", tokens_in_words(trial.tokens)),
        ("cost", dollars(trial.cost_usd, trial.unpriced) + as_billed),
    ]
    if each := cost_each(trial):
        rows.append((f"{SCALE:,} records", f"about ${each * SCALE:,.2f}, if they are like these"))
    return rows


def exit_status(trial: Trial) -> int:
    """Return the exit status of a trial, as that of a run."""
    if trial.stopped is not None:
        return MET_CAP
    return HAS_ALL if all(record.status == SUCCEEDED for record in trial.records) and not trial.missing else LACKS_SOME


def verdict(trial: Trial) -> Text:
    """Say in one line how the records of a trial ended."""
    records = trial.records
    without = sum(record.status != SUCCEEDED for record in records)
    mark, style = ("✔", "green") if not without else ("▲", "yellow")
    counts = Counter(ending_of(record) for record in records)
    endings = ", ".join(f"{count:,} {ending}" for ending, count in counts.items())
    told = f"{counted(len(records), 'record')}: {endings or 'none'}, in {duration(trial.wall_s)}"
    return Text.assemble((f"{mark} ", style), (told, "bold"))


def cost_each(trial: Trial) -> Decimal | None:
    """Return the cost of a record that was asked about; None if it is unknown, or if none was."""
    asked = sum(record.requests > 0 for record in trial.records)
    return None if trial.cost_usd is None or not asked or trial.unpriced else trial.cost_usd / asked


def next_steps(trial: Trial, asked: AskedTrials) -> Sequence[tuple[str, str]]:
    """Return the commands that come next, each with what it does."""
    flags = asked.flags
    name, values = _quoted(flags.name), _typed(flags.sets, "--set")
    limit = f" --limit {flags.limit}" if flags.limit is not None else ""
    again = f"templates try {name}{values}{_typed(flags.keys, '--key')}{limit}"
    good = [record for record in trial.records if record.status == SUCCEEDED]
    steps: list[tuple[str, str]] = []
    if not flags.watch:
        same = (f" --run {flags.run}" if flags.run is not None else "") + (" --sandbox" if flags.sandbox else "")
        steps.append((screen.command(f"{again}{same} --watch"), "asks again each time you save"))
    if flags.run is None and flags.sandbox:
        steps.append((screen.command(again), "asks Claude, if ANTHROPIC_API_KEY is set"))
    elif flags.run is None and good:
        steps.append((screen.command(f"run {name}{values}"), f"all records; {_paid(good, refreshed=flags.refresh)}"))
    return [*steps, *_shown(trial.records)]


def _paid(records: Sequence[TriedRecord], *, refreshed: bool) -> str:
    """Say what a run does with the answers of a trial."""
    if refreshed:
        # Otherwise a run takes the newest answer.
        return "content of the same prompt keeps its answer"
    return f"it pays nothing for {'this one' if len(records) == 1 else f'these {len(records):,}'}"


def _shown(records: Sequence[TriedRecord]) -> Sequence[tuple[str, str]]:
    """Return the command that shows a record in full: one with an answer, or else one that was asked about."""
    answered = [record for record in records if record.output is not None or record.raw is not None]
    told = "an answer whole, with its request and cost" if answered else "a request whole, and why it has no answer"
    asked = answered or [record for record in records if record.requests]
    return [(screen.command(f"show {screen.short(record.generation_id)}"), told) for record in asked[:1]]


def _typed(values: Sequence[str] | None, flag: str) -> str:
    return "".join(f" {flag} {_quoted(value)}" for value in values or ())


def _quoted(value: str) -> str:
    return visible(shlex.quote(value))
