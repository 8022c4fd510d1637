"""`python -m bench.audit URL...`: measure the pages, commands, searches and exports of ledgers that are only read.

`python -m bench.audit.made_ledger` makes such a ledger. Every view is asked for once before it is measured, with other
values: the caches of the database are warm, as they are for someone who reads.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from bench.audit.command_times import command_times
from bench.audit.export_rates import export_rates
from bench.audit.page_times import page_times, search_times

Measured = Mapping[str, Sequence[float]]
PARTS: dict[str, Callable[[str], Measured]] = {
    "pages": page_times,
    "search": search_times,
    "commands": command_times,
}


def main() -> int:
    """Measure the chosen parts, and print the milliseconds of each view: median, 95th percentile, slowest."""
    parser = argparse.ArgumentParser(prog="python -m bench.audit", description="Measure the audit room.")
    parser.add_argument("urls", nargs="+", metavar="URL", help="the ledgers to read")
    parser.add_argument(
        "--parts", default="pages,search,commands,export", metavar="NAME,...", help="default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    asked = options.parts.split(",")
    found = {}
    for url in options.urls:
        times = {part: measure(url) for part, measure in PARTS.items() if part in asked}
        rates = export_rates(url) if "export" in asked else []
        found[url] = {"seconds": times, "exports": rates}
        if not options.json:
            _show(Console(width=None if sys.stdout.isatty() else 160), url, times, rates)
    if options.json:
        print(json.dumps(found, indent=1))
    return 0


def _show(
    console: Console, url: str, times: Mapping[str, Measured], rates: Sequence[Mapping[str, str | float]]
) -> None:
    for part, measured in times.items():
        table = Table("view", "n", "median", "p95", "slowest", title=f"{part} of {url.partition(':')[0]}, milliseconds")
        for name, seconds in measured.items():
            ordered = sorted(seconds)
            marks = (ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)], ordered[-1])
            table.add_row(name, str(len(ordered)), *(f"{each * 1000:,.0f}" for each in marks))
        console.print(table)
    for rate in rates:
        console.print(", ".join(f"{name} {value}" for name, value in rate.items()), highlight=False)


if __name__ == "__main__":
    sys.exit(main())
