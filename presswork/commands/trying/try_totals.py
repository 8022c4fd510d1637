"""Print what follows the records of a trial: its totals, and what to do next."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from rich.console import Console
from rich.text import Text

from db.words import SANDBOX, SUCCEEDED
from presswork.commands.trying.try_record import ending_of
from presswork.commands.trying.try_template import AskedTrials
from presswork.report.amounts import counted, dollars, duration
from presswork.report.summary import SANDBOX_SAYS
from presswork.terminal import screen
from presswork.trying.trials import Trial, TriedRecord

HASH_SHOWN, LONGEST_LIST = 12, 200
SCALE = 1_000
"""The number of records whose cost is estimated."""


def print_totals(console: Console, trial: Trial, asked: AskedTrials) -> None:
    """Print a trial's counts, tokens and cost, and the commands that come next."""
    console.print()
    console.print(verdict(trial))
    print_warnings(console, trial)
    screen.print_facts(console, figures(trial), indent=2)
    screen.print_next(console, next_steps(trial, asked))


def print_warnings(console: Console, trial: Trial) -> None:
    """Print whatever makes a trial less than it looks: the sandbox, records that are missing, a cap."""
    if trial.endpoint == SANDBOX:
        console.print(Text(f"  {SANDBOX_SAYS}", "bold yellow"))
    if trial.missing:
        keys = screen.one_line(", ".join(trial.missing), LONGEST_LIST)
        console.print(screen.data(f"  The select no longer finds {keys}.", "bold yellow"))
    if trial.stopped is not None:
        console.print(screen.data(f"  {trial.stopped}", "bold yellow"))


def figures(trial: Trial) -> list[tuple[str, str]]:
    """Return rows on a trial: its version and endpoint, and what its requests used and cost."""
    rows = [("version", trial.template_hash[:HASH_SHOWN]), ("endpoint", trial.endpoint)]
    if not trial.requests:
        return rows
    used = trial.tokens
    cached = f" ({used.cache_read_tokens:,} of them from the prompt cache)" if used.cache_read_tokens else ""
    as_billed = " (as Claude would bill it)" if trial.endpoint == SANDBOX else ""
    rows += [
        ("requests", f"{trial.requests:,}"),
        ("tokens", f"{used.input_tokens:,} in{cached}, {used.output_tokens:,} out"),
        ("cost", dollars(trial.cost_usd, trial.unpriced) + as_billed),
    ]
    if each := cost_each(trial):
        rows.append((f"{SCALE:,} records", f"about ${each * SCALE:,.2f}, if they are like these"))
    return rows


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
    flags, name = asked.flags, asked.flags.name
    good = [record for record in trial.records if record.status == SUCCEEDED]
    steps: list[tuple[str, str]] = []
    if not flags.watch:
        steps.append((screen.command(f"templates try {name} --watch"), "asks again each time you save"))
    if good and flags.run is None:
        steps.append((screen.command(f"run {name}"), f"all records; it pays nothing for {_these(good)}"))
    if trial.records:
        shown = screen.short(trial.records[0].generation_id)
        steps.append((screen.command(f"show {shown}"), "an answer whole, with its request and cost"))
    return steps


def _these(records: Sequence[TriedRecord]) -> str:
    return "this one" if len(records) == 1 else f"these {len(records):,}"
