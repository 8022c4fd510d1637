"""Show a record's history: each content that it has had, in order of time."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

from rich.console import Console
from rich.text import Text

from db.readers.lives import LifePeriod, read_life
from db.words import SUCCEEDED
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
    found = first_with(urls, lambda ledger: read_life(ledger, name, key))
    if found is None:
        raise ConfigurationError(
            f"No record with this key was found in the flow or step {name!r} in "
            f"{' or '.join(map(ledger_name, urls))}. Give the key as in the column record_key of current_content."
        )
    url, periods = found
    if not command.as_json:
        say_ledger(url, others=False)
    command.answer([asdict(period) for period in periods], lambda console: _print_life(console, key, periods))


def _print_life(console: Console, key: str, periods: Sequence[LifePeriod]) -> None:
    for place, group in groupby(periods, key=lambda period: (period.flow, period.step, period.endpoint)):
        flow, step, endpoint = map(visible, place)
        screen.section(console, f"{visible(key)}: flow {flow}, step {step}, endpoint {endpoint}")
        of_step = list(group)
        columns = ["from (UTC)", "until (UTC)", "status", "confirmed", "last (UTC)", "template", "record", "generation"]
        rows = [_cells(period) for period in of_step]
        if any(period.status != SUCCEEDED for period in of_step):
            columns.append("why")
            rows = [[*cells, _why(period)] for cells, period in zip(rows, of_step, strict=True)]
        console.print(screen.table(columns, rows, right=["confirmed"]))
    console.print(Text(f"\n`{screen.command('show ID')}` shows a generation and its record.", "dim"))


def _cells(period: LifePeriod) -> list[str | Text]:
    return [
        screen.moment(period.since),
        screen.moment(period.until) or Text("now", "bold"),
        screen.status(period.status),
        f"{period.confirmed:,}",
        screen.moment(period.confirmed_at),
        period.template_hash[:HASH_SHOWN],
        (period.record_hash or "")[:HASH_SHOWN],
        screen.short(period.generation_id),
    ]


def _why(period: LifePeriod) -> str:
    return screen.one_line(period.error_message or period.error_kind or "", 90)
