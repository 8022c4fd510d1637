"""Show a record's history: each content that it has had, in order of time."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text
from sqlalchemy import Engine

from db.readers.audit.filters import Filter
from db.readers.audit.life_reasons import ExplainedPeriod, explain_periods
from db.readers.audit.ways.matching_ids import ids_of_record
from db.readers.lives import read_life
from db.words import SUCCEEDED, TRY
from presswork.errors import ConfigurationError, ParameterError
from presswork.escaping import visible
from presswork.terminal import screen
from presswork.terminal.audit_flags import HistoryFlags
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import NoLedgerError, first_with, ledger_name, ledger_urls, say_ledger

HASH_SHOWN = 8
"""Characters of a hash that distinguish versions of a template or a record."""


def show_life(command: CommandContext, flags: HistoryFlags, key: str) -> None:
    """Print a record's history in a flow or a step. Raises ConfigurationError if it has none there."""
    name = flags.run
    if name is None:
        raise ParameterError(f"--key needs a flow or a step. Use `{screen.command('history NAME --key KEY')}`.")
    urls = ledger_urls(command.settings, sandbox=flags.sandbox)
    if not urls:
        raise NoLedgerError
    found = first_with(urls, lambda ledger: _read(ledger, name, key))
    if found is None:
        raise ConfigurationError(
            f"No record with this key was found in the flow or step {name!r} in "
            f"{' or '.join(map(ledger_name, urls))}. Give the key as in the column record_key of current_content."
        )
    url, life = found
    if not command.as_json:
        say_ledger(url, others=False)
    command.answer(list(map(period_json, life.periods)), lambda console: _print_life(console, key, life))


@dataclass(frozen=True)
class _Life:
    """A record's periods, and the number of its generations that are of trials."""

    periods: Sequence[ExplainedPeriod]
    trials: int


def _read(ledger: Engine, name: str, key: str) -> _Life | None:
    periods = explain_periods(ledger, read_life(ledger, name, key))
    of_trials = (Filter(flow=name, trigger=TRY), Filter(step=name, trigger=TRY))
    tried = {each for wanted in of_trials for each in ids_of_record(ledger, key, wanted)}
    return _Life(periods, len(tried)) if periods or tried else None


def period_json(explained: ExplainedPeriod) -> dict[str, Any]:
    """Return a period of a life as JSON for programs."""
    given = asdict(explained)
    return {**given.pop("period"), **given}


def _print_life(console: Console, key: str, life: _Life) -> None:
    for place, group in groupby(
        life.periods, key=lambda each: (each.period.flow, each.period.step, each.period.endpoint)
    ):
        flow, step, endpoint = map(visible, place)
        screen.section(console, f"{visible(key)}: flow {flow}, step {step}, endpoint {endpoint}")
        of_step = list(group)
        columns = ["from (UTC)", "until (UTC)", "status", "confirmed", "last (UTC)", "why", "generation"]
        console.print(screen.table(columns, map(_cells, of_step), right=["confirmed"]))
    if life.trials:
        command = screen.command(f"history --generations --key KEY --trigger {TRY}")
        are = "is of a trial and was" if life.trials == 1 else "are of trials and were"
        console.print(f"\n{life.trials:,} of its generations {are} never its content. `{command}` lists them.")
    console.print(
        Text(
            f"\n`{screen.command('show ID')}` shows a generation and its record, "
            f"`{screen.command('diff ID')}` what it changed.",
            "dim",
        )
    )


def _cells(explained: ExplainedPeriod) -> list[str | Text]:
    period = explained.period
    return [
        screen.moment(period.since),
        screen.moment(period.until) or Text("now", "bold"),
        screen.status(period.status),
        f"{period.confirmed:,}",
        screen.moment(period.confirmed_at),
        _why(explained),
        screen.short(period.generation_id),
    ]


def _why(explained: ExplainedPeriod) -> str:
    """Say what had changed since the content before, and for a failure also its error."""
    period = explained.period
    said = [str(reason) for reason in explained.reasons]
    if any(reason.kind == "template" for reason in explained.reasons):
        said.append(f"{(explained.before_template or '')[:HASH_SHOWN]} to {period.template_hash[:HASH_SHOWN]}")
    if period.status != SUCCEEDED:
        said.insert(0, period.error_message or period.error_kind or "")
    elif explained.same_answer:
        said.append("same answer")
    return screen.one_line("; ".join(filter(None, said)), 140)
