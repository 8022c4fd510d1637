"""Show the rows with their spread, and whether they meet the targets."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.measures.starting import MOST, SLOWEST
from bench.measures.trying import MOST_S
from bench.meter import Sample
from bench.rows import Row

ENOUGH_OF_BARE = 0.95
"""The share of concurrency / latency that a bare loop must reach itself, to be a fair comparison."""

Figure = Callable[[Sample], float]


def per_generation(name: str) -> Figure:
    """Return a figure: the milliseconds of CPU a record."""
    return lambda sample: float(getattr(sample, name)) * 1000 / max(sample.records, 1)


FIGURES: dict[str, Figure] = {
    "wall s": lambda sample: sample.wall_s,
    "records/s": lambda sample: sample.records / max(sample.wall_s, 1e-9),
    "client ms": per_generation("client_cpu_s"),
    "server ms": per_generation("server_cpu_s"),
    "sandbox ms": per_generation("sandbox_cpu_s"),
    "peak MB": lambda sample: sample.peak_mb,
}


COLUMNS = ("wall s", "wall x", "records/s", "client ms", "client x", "own ms", "server ms", "sandbox ms", "peak MB")


def ratios(rows: Sequence[Row], row: Row, figure: Figure) -> list[float]:
    """Divide a row's figure by that of the row to which it is compared, for each repeat."""
    found = next((other for other in rows if other.name == row.against), None)
    if found is None:
        return []
    pairs = zip(row.samples, found.samples, strict=False)
    return [figure(mine) / figure(theirs) for mine, theirs in pairs if figure(theirs) > 0]


def own_ms(rows: Sequence[Row], row: Row) -> list[float]:
    """Return the milliseconds of CPU that a record takes beyond the row `best`, for each repeat."""
    best = next((other for other in rows if other.name == row.best), None)
    pairs = zip(row.samples, best.samples, strict=False) if best else ()
    figure = FIGURES["client ms"]
    return [figure(mine) - figure(theirs) for mine, theirs in pairs]


def differences(rows: Sequence[Row], row: Row) -> list[float]:
    """Return the extra seconds between first request and last answer, against the row to which it is compared."""
    found = next((other for other in rows if other.name == row.against), None)
    pairs = zip(row.samples, found.samples, strict=False) if found else ()
    return [_answering_s(mine) - _answering_s(theirs) for mine, theirs in pairs]


def _answering_s(sample: Sample) -> float:
    return sample.last_answered - sample.first_sent


@dataclass(frozen=True)
class Target:
    """A required bound, the measured values, and whether they meet it."""

    what: str
    wanted: str
    measured: list[float]
    met: bool


def targets(rows: Sequence[Row], concurrency: int) -> Iterator[Target]:
    """Judge each target for which there are rows, by the median."""
    for row in rows:
        if not row.samples:
            continue
        sample = row.samples
        if row.group == "sandbox":
            yield _at_least("the sandbox alone, requests/s", 3000, [s.requests / s.wall_s for s in sample])
        if row.group == "bare" and row.latency_ms:
            most = concurrency / (row.latency_ms / 1000)
            shares = [s.records / s.wall_s / most for s in sample]
            yield _at_least(f"{row.name}: share of concurrency / latency", ENOUGH_OF_BARE, shares)
        yield from _against_bare(rows, row)
        if row.group in {"presswork", "postgres", "memory", "rpm", "itpm", "otpm", "shared"}:
            lost = [float(s.task_runs_expected - s.task_runs) for s in sample]
            yield _at_most(f"{row.name}: task runs not recorded", 0, lost)
        if row.group == "cached":
            yield _at_most(f"{row.name}: wall against reading and rendering", 1.5, ratios(rows, row, FIGURES["wall s"]))
            yield _at_most(f"{row.name}: requests and task runs", 0, [float(s.requests + s.task_runs) for s in sample])
        if row.group in {"rpm", "shared"}:
            yield _at_least(f"{row.name}: share of the allowance", 0.97, [s.share for s in sample])
            most = 0.005 if row.group == "rpm" else 0.01
            yield _at_most(f"{row.name}: answers that were 429", most, [s.rate_limited / s.requests for s in sample])
        yield from _warming(rows, row)
        if row.group in {"itpm", "otpm"}:
            yield _at_least(f"{row.name}: share of the allowance", 0.95, [s.share for s in sample])
        yield from _untold(rows, row)
        yield from _bounded(row)
        yield from _starting(rows, row)
        if row.group == "trying":
            yield _at_most(
                f"{row.name}: seconds to the request", MOST_S, [sample.to_request_s for sample in row.samples]
            )
            yield _at_most(f"{row.name}: the slowest", MOST_S, [sample.slowest_s for sample in row.samples])
        if row.group != "sandbox":
            lost = [float(s.records - s.succeeded) for s in sample]
            yield _at_most(f"{row.name}: rows lost", 0, lost)
    yield from _memory([row for row in rows if row.group == "memory" and row.samples], 1.3)
    yield from _memory([row for row in rows if row.group == "spool" and row.against and row.samples], 1.25)


def _against_bare(rows: Sequence[Row], row: Row) -> Iterator[Target]:
    """Judge the runs of presswork against the loops that only send requests."""
    wall, cpu, server = FIGURES["wall s"], FIGURES["client ms"], FIGURES["server ms"]
    if row.group in {"presswork", "postgres"}:
        slow = 1.05 if row.group == "postgres" else 1.015 if row.latency_ms else 1.3
        yield _at_most(f"{row.name}: wall against bare", slow, ratios(rows, row, wall))
    if row.group == "presswork":
        most = 1.4 if row.latency_ms else 1.25
        yield _at_most(f"{row.name}: client CPU against bare", most, ratios(rows, row, cpu))
        yield _at_most(f"{row.name}: server ms a generation", 1.5, [server(sample) for sample in row.samples])
        if not row.latency_ms:
            yield _at_most(f"{row.name}: own CPU ms over the best loop", 0.45, own_ms(rows, row))
    if row.group in {"presswork", "postgres", "memory"}:
        amiss = [float(sample.not_once) for sample in row.samples]
        yield _at_most(f"{row.name}: records without exactly one row", 0, amiss)


def _starting(rows: Sequence[Row], row: Row) -> Iterator[Target]:
    for what, most, figure in (("CPU", MOST, lambda sample: sample.client_cpu_s), ("wall", SLOWEST, FIGURES["wall s"])):
        if row.name in most:
            yield _at_most(f"{row.name}: {what} against {row.against}", most[row.name], ratios(rows, row, figure))


def _untold(rows: Sequence[Row], row: Row) -> Iterator[Target]:
    """Judge the rows at an endpoint that does not report its limits."""
    if row.group == "random" and row.against:
        slower = ratios(rows, row, lambda sample: sample.p95_s)
        yield _at_least(f"{row.name}: time to 95 % without against with", 0.75, [1 / ratio for ratio in slower])
    if row.group == "hidden":
        yield _at_least(f"{row.name}: share of the limit", 0.9, [s.share for s in row.samples])
        yield _at_most(f"{row.name}: 429s after the first minute", 0.05, [s.late_429 for s in row.samples])
    if row.group == "changing":
        for what, rates in (
            ("60 s after it fell", [s.after_fall for s in row.samples]),
            ("60 s after it rose", [s.after_rise for s in row.samples]),
        ):
            yield _at_most(f"{row.name}: off the limit {what}", 0.2, [abs(rate - 1) for rate in rates])


def _warming(rows: Sequence[Row], row: Row) -> Iterator[Target]:
    if row.group != "warming" or row.against is None:
        return
    yield _at_most(f"{row.name}: cache writes", 1, [float(sample.cache_writes) for sample in row.samples])
    yield _at_most(f"{row.name}: bill against off", 0.6, ratios(rows, row, lambda sample: sample.cost_usd))
    yield _at_most(f"{row.name}: seconds more than off", 2, differences(rows, row))


def _bounded(row: Row) -> Iterator[Target]:
    if row.group == "spool":
        executions = [float(sample.executions) for sample in row.samples]
        yield _at_most(f"{row.name}: executions of the select", 1, executions)
    if row.group == "cap":
        yield _at_most(f"{row.name}: billed in all, $", 1.02, [sample.billed_usd for sample in row.samples])
    if row.group == "growth":
        yield _at_most(f"{row.name}: bytes a record and run", 5, [sample.grown_b for sample in row.samples])
        yield _at_most(f"{row.name}: size against the first", 1.2, [sample.times_first for sample in row.samples])


def _memory(rows: Sequence[Row], most: float) -> Iterator[Target]:
    if len(rows) == 2:
        small, large = rows
        grown = [big.peak_mb / less.peak_mb for big, less in zip(large.samples, small.samples, strict=False)]
        yield _at_most(f"peak memory, {large.records:,} against {small.records:,}", most, grown)


def _at_most(what: str, bound: float, measured: list[float]) -> Target:
    return Target(what, f"at most {bound:g}", measured, bool(measured) and median(measured) <= bound)


def _at_least(what: str, bound: float, measured: list[float]) -> Target:
    return Target(what, f"at least {bound:g}", measured, bool(measured) and median(measured) >= bound)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Format a median with the least and the greatest value."""
    if not values:
        return "-"
    middle = f"{median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f}..{max(values):,.{digits}f})"


def show(console: Console, rows: Sequence[Row], concurrency: int) -> None:
    """Print the tables for people."""
    table = Table(box=box.MARKDOWN, title=f"{machine()}; concurrency {concurrency}; median (least..most)")
    table.add_column("row", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = {
            name: spread([figure(sample) for sample in row.samples], 0 if name in {"records/s", "peak MB"} else 2)
            for name, figure in FIGURES.items()
        }
        cells["wall x"] = spread(ratios(rows, row, FIGURES["wall s"]))
        cells["client x"] = spread(ratios(rows, row, FIGURES["client ms"]))
        cells["own ms"] = spread(own_ms(rows, row))
        if row.group in {"sandbox", "bare", "best", "reading", "standing"}:
            cells["server ms"] = "-"
        table.add_row(row.name, *(cells[str(column.header)] for column in table.columns[1:]))
    console.print(table)
    judged = Table(box=box.MARKDOWN, title="Targets")
    for name in ("what", "wanted", "measured", ""):
        judged.add_column(name, no_wrap=True)
    for target in targets(rows, concurrency):
        digits = 0 if target.wanted.endswith((" 0", "3000")) else 3
        judged.add_row(target.what, target.wanted, spread(target.measured, digits), "met" if target.met else "MISSED")
    console.print(judged)
    console.print(
        "ms: milliseconds of CPU a generation (sandbox: a request); own: beyond the best row. x: compared to the bare "
        "row of the same run."
    )
    console.print("Start-up is not included; --json shows it.")


def as_json(rows: Sequence[Row], concurrency: int) -> Mapping[str, Any]:
    """Return all samples and judgements for programs."""
    return {
        "machine": machine(),
        "concurrency": concurrency,
        "rows": [
            {
                "row": row.name,
                "group": row.group,
                "records": row.records,
                "latency_ms": row.latency_ms,
                "against": row.against,
                "samples": [sample.as_json() for sample in row.samples],
            }
            for row in rows
        ],
        "targets": [
            {"what": target.what, "wanted": target.wanted, "measured": target.measured, "met": target.met}
            for target in targets(rows, concurrency)
        ],
    }


def machine() -> str:
    """Describe this machine in a few words."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
