"""`presswork cost`: add up what was requested, used and paid."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.text import Text

from db.readers.audit.filters import Filter, resolved
from db.readers.audit.sums import sums_by, whole_days
from db.readers.figures import TotalUsage
from db.words import SANDBOX
from presswork.errors import ParameterError
from presswork.report.amounts import dollars
from presswork.terminal import screen
from presswork.terminal.asked_filters import wanted_by
from presswork.terminal.audit_flags import CostFlags
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import NoLedgerError, ledger_urls, opened, say_ledger

ENDPOINT, MODEL, TEMPLATE = "endpoint", "model", "template"
GROUPED_BY = ("day", "flow", "step", TEMPLATE, MODEL, ENDPOINT, "trigger")
HASH_PRINTED = 12
_NUMBERS = ("requests", "input", "output", "cost")


@dataclass(frozen=True)
class CostLine:
    """A sum: the values that its requests have in common, by name, and what of its cost is of the sandbox."""

    of: Mapping[str, str]
    usage: TotalUsage
    sandbox_usd: Decimal

    def for_programs(self) -> dict[str, Any]:
        """Return the line as JSON for programs."""
        return {**self.of, **asdict(self.usage), "sandbox_usd": self.sandbox_usd}


def show_cost(command: CommandContext, flags: CostFlags) -> None:
    """Print the sums, and their total."""
    by = _by(flags.by)
    wanted = wanted_by(flags)
    urls = ledger_urls(command.settings, sandbox=flags.sandbox)
    if not urls:
        raise NoLedgerError
    with opened(urls[0]) as ledger:
        wanted = resolved(ledger, wanted)
        # The endpoint says what is of the sandbox, so it is asked for in any case.
        found = sums_by(ledger, [*dict.fromkeys([*by, ENDPOINT])], wanted)
    if not command.as_json:
        say_ledger(urls[0], others=len(urls) > 1)
    parts = [({name: str(getattr(each.alike, name)) for name in (*by, ENDPOINT)}, each.usage) for each in found]
    lines = _folded(parts, by)
    (total,) = _folded(parts, ()) or [CostLine({}, TotalUsage(cost_usd=Decimal(0)), Decimal(0))]
    first, after = whole_days(wanted.since, wanted.until)
    answer = {
        "by": by,
        "days_from": first,
        "days_before": after,
        "lines": [line.for_programs() for line in lines],
        "total": total.for_programs(),
    }
    command.answer(answer, lambda console: _print_cost(console, by, lines, total, wanted))


def _by(text: str) -> list[str]:
    by = [word.strip().lower() for word in text.split(",") if word.strip()]
    for word in by:
        if word not in GROUPED_BY:
            raise ParameterError(f"--by: {word!r} is nothing to add up by. Available: {', '.join(GROUPED_BY)}.")
    return list(dict.fromkeys(by))


def _folded(parts: Sequence[tuple[Mapping[str, str], TotalUsage]], by: Sequence[str]) -> list[CostLine]:
    """Add up the parts that are alike in `by`, in their order."""
    groups: dict[tuple[str, ...], list[tuple[Mapping[str, str], TotalUsage]]] = {}
    for part in parts:
        groups.setdefault(tuple(part[0][name] for name in by), []).append(part)
    return [
        CostLine(
            of=dict(zip(by, values, strict=True)),
            usage=_added([usage for _of, usage in alike]),
            sandbox_usd=sum(
                (usage.cost_usd or Decimal(0) for of, usage in alike if of[ENDPOINT] == SANDBOX), Decimal(0)
            ),
        )
        for values, alike in groups.items()
    ]


def _added(usages: Sequence[TotalUsage]) -> TotalUsage:
    """Add up usages; money of which nothing is known stays unknown."""
    rows = [asdict(usage) for usage in usages]
    sums: dict[str, Any] = {name: sum(row[name] or 0 for row in rows) for name in rows[0]}
    found = TotalUsage(**sums)
    cost = None if found.unpriced and not found.cost_usd else found.cost_usd
    return replace(found, cost_usd=cost, likely_usd=(found.likely_usd or None) if found.perhaps_billed else Decimal(0))


def _print_cost(
    console: Console, by: Sequence[str], lines: Sequence[CostLine], total: CostLine, wanted: Filter
) -> None:
    first, after = whole_days(wanted.since, wanted.until)
    if first or after:
        last = (date.fromisoformat(after) - timedelta(days=1)).isoformat() if after else "today"
        console.print(Text(f"Whole UTC days, {first or 'the first'} to {last}", "dim"))
    if not lines:
        console.print("Nothing was requested.")
        return
    columns = [*by, *_NUMBERS, "not in the cost"]
    rows: list[list[Any]] = [[*(_named(name, line.of[name]) for name in by), *_cells(line)] for line in lines]
    bold = [Text(cell, "bold") if isinstance(cell, str) else cell for cell in _cells(total)]
    rows.append([Text("total", "bold"), *[""] * (len(by) - 1), *bold] if by else bold)
    console.print(screen.table(columns, rows, right=_NUMBERS))
    if total.sandbox_usd:
        said = f"\n{dollars(total.sandbox_usd)} of it is of the sandbox, which bills nothing."
        console.print(Text(said, "yellow"))


def _named(name: str, value: str) -> str | Text:
    if not value:
        return Text("no answer" if name == MODEL else "none", "dim")
    return value[:HASH_PRINTED] if name == TEMPLATE else value


def _cells(line: CostLine) -> list[str | Text]:
    usage = line.usage
    notes = [f"{usage.unpriced:,} unpriced"] if usage.unpriced else []
    if usage.perhaps_billed:
        likely = "" if usage.likely_usd is None else f", about {dollars(usage.likely_usd)}"
        notes.append(f"{usage.perhaps_billed:,} perhaps billed{likely}")
    return [
        f"{usage.requests:,}",
        f"{usage.input_tokens:,}",
        f"{usage.output_tokens:,}",
        "unknown" if usage.cost_usd is None else dollars(usage.cost_usd),
        Text(", ".join(notes), "yellow"),
    ]
