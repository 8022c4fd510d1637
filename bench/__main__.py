"""`make bench`, or `python -m bench [--rows NAME,...] [--quick] [--records N,...] [--repeat N] [--json]`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from bench.rows import GROUPS, QUICK, Row, Sizes, make_rows
from bench.stage import ClientError, open_stage
from bench.table import as_json, show


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show the results; return 1 if the measurement was interrupted."""
    options = _parser().parse_args(arguments)
    # However it ends, it stops the servers and removes the folder.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sizes = QUICK if options.quick else Sizes()
    if options.records:
        sizes = replace(sizes, records=options.records)
    if options.memory:
        sizes = replace(sizes, memory=(sizes.memory[0], options.memory))
    if options.growth:
        sizes = replace(sizes, growth=(options.growth, sizes.growth[1]))
    if options.limited:
        sizes = replace(sizes, limited=options.limited)
    repeat = options.repeat or (1 if options.quick else 3)
    rows = make_rows(sizes, frozenset(options.rows))
    status = _measure(rows, repeat, options.concurrency)
    if options.json:
        print(json.dumps(as_json(rows, options.concurrency), indent=1))
    else:
        # In a file, a table must not be broken at 80 columns.
        show(Console(width=None if sys.stdout.isatty() else 240), rows, options.concurrency)
    return status


def _measure(rows: Sequence[Row], repeat: int, concurrency: int) -> int:
    progress = Console(stderr=True)
    progress.print(f"{len(rows)} rows, {repeat} times each; starting the sandbox and Prefect's server ...")
    try:
        with open_stage(concurrency) as stage:
            for number in range(1, repeat + 1):
                for row in rows:
                    sample = row.take(stage)
                    row.samples.append(sample)
                    rate = sample.records / max(sample.wall_s, 1e-9)
                    progress.print(
                        f"{number}/{repeat} {row.name}: {sample.wall_s:.2f} s, {rate:,.0f}/s", highlight=False
                    )
    except (KeyboardInterrupt, ClientError) as error:
        progress.print(f"Interrupted{f' ({error})' if str(error) else ''}. The measurements so far follow.")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure Presswork and a bare loop side by side."
    )
    names = ", ".join(GROUPS)
    parser.add_argument(
        "--rows",
        type=_groups,
        default=GROUPS,
        metavar="NAME,...",
        help=f"measure only these rows (default: all); available: {names}",
    )
    parser.add_argument("--quick", action="store_true", help="measure small sizes once, to see whether it works")
    parser.add_argument("--records", type=_numbers, metavar="N,...", help="sizes of the main rows")
    parser.add_argument("--memory", type=_positive, metavar="N", help="the larger size of the memory rows")
    parser.add_argument("--growth", type=_positive, metavar="N", help="records of the growth rows")
    parser.add_argument("--limited", type=_positive, metavar="N", help="the size of the rows at a limit")
    parser.add_argument("--repeat", type=_positive, metavar="N", help="measure each row N times (default: 3)")
    parser.add_argument(
        "--concurrency", type=_positive, default=100, metavar="N", help="requests at a time (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print all samples as JSON")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _groups(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    wrong = [name for name in names if name not in GROUPS]
    if wrong:
        raise argparse.ArgumentTypeError(f"there is no row {', '.join(wrong)}. Available: {', '.join(GROUPS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
