"""List the rows of the table, each with its measurement.

A repeat measures all rows in turn, so that it compares rows measured at about the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bench.material import SHARED
from bench.measures.cap import capped
from bench.measures.growth import growing
from bench.measures.pace import at_changing_limit, at_hidden_limit, at_random_refusals
from bench.measures.spooling import reading
from bench.measures.standing import standing
from bench.measures.starting import BOTH, FIRST, KEPT, PREFECT, READING, importing, reading_command, running
from bench.measures.trying import RECORDS, saving
from bench.meter import Sample
from bench.stage import Stage

GROUPS = (
    *("sandbox", "bare", "best", "presswork", "cached", "postgres", "rpm", "shared", "itpm", "otpm", "memory"),
    *("warming", "cap", "random", "hidden", "changing", "spool", "reading", "growth", "standing"),
    *("starting", "trying"),
)
LATENCY_MS = 350
WARMING, WARMING_LATENCY_MS = 40, 1_000


@dataclass(frozen=True)
class Sizes:
    """The sizes of the measurements."""

    records: tuple[int, ...] = (1_000, 10_000)
    limited: int = 10_000
    shared: int = 1_500
    memory: tuple[int, int] = (10_000, 50_000)
    random: int = 2_000
    hidden: int = 3_000
    change_s: float = 120.0
    load: int = 20_000
    spool: tuple[int, int] = (10_000, 1_000_000)
    growth: tuple[int, int] = (1_000, 100)
    standing: int = 1_000_000
    saves: int = 20


QUICK = Sizes(
    records=(500,),
    limited=500,
    shared=150,
    memory=(500, 2_000),
    random=500,
    hidden=300,
    change_s=15,
    load=3_000,
    spool=(1_000, 20_000),
    growth=(200, 5),
    standing=20_000,
    saves=3,
)


@dataclass
class Row:
    """A line of the table; its times are divided by those of the row `against`.

    Its own CPU is what it takes a record beyond the row `best`.
    """

    name: str
    group: str
    records: int
    latency_ms: int
    take: Callable[[Stage], Sample]
    against: str | None = None
    best: str | None = None
    samples: list[Sample] = field(default_factory=list)


def make_rows(sizes: Sizes, wanted: frozenset[str]) -> list[Row]:
    """List the rows of the wanted groups, together with the bare rows to which they are compared."""
    if wanted & {"presswork", "postgres"}:
        wanted |= {"bare", "best"}
    if "cached" in wanted:
        wanted |= {"reading"}
    return [row for row in _all_rows(sizes) if row.group in wanted]


def _all_rows(sizes: Sizes) -> Iterator[Row]:
    yield Row("sandbox alone", "sandbox", sizes.load, 0, _plain("load", sizes.load, 0))
    for latency in (0, LATENCY_MS):
        for records in sizes.records:
            bare = f"bare loop, {records:,} at {latency} ms"
            best = f"best loop, {records:,} at {latency} ms"
            yield Row(bare, "bare", records, latency, _plain("bare", records, latency))
            yield Row(best, "best", records, latency, _plain("best", records, latency), bare)
            name = f"Presswork, {records:,} at {latency} ms"
            yield Row(name, "presswork", records, latency, _plain("content", records, latency), bare, best)
            if latency and records == max(sizes.records):
                name = f"Presswork on PostgreSQL, {records:,} at {latency} ms"
                yield Row(name, "postgres", records, latency, _on_postgres(records, latency), bare)
    most = max(sizes.records)
    bare = f"bare reading and rendering, {most:,}"
    yield Row(bare, "reading", most, 0, _plain("reading", most, 0))
    yield Row(f"Presswork, {most:,} all cached", "cached", most, 0, _cached(most), bare)
    # A small burst: with the API's burst of a minute, most of a run would be the burst.
    limited = {"rpm": 10_000, "itpm": 1_500_000, "otpm": 150_000}
    for name, limit in limited.items():
        # The limits of tokens allow fewer records a second, so half of the records are enough.
        records = sizes.limited if name == "rpm" else sizes.limited // 2
        taker = _limited(records, name, limit, burst_s=2)
        yield Row(f"Presswork, {name} {limit:,}", name, records, 0, taker)
    yield Row("Presswork twice, rpm 1,000 shared", "shared", 2 * sizes.shared, 0, _shared(sizes.shared))
    yield Row("Presswork, cap of $1.00, killed and resumed", "cap", 1_500, LATENCY_MS, capped(1_500, LATENCY_MS))
    for records in sizes.memory:
        yield Row(f"Presswork, memory at {records:,}", "memory", records, 0, _plain("content", records, 0))
    # With `cache: off` no request waits for another. The comparison shows how much time the waiting costs.
    for cache, template in reversed(SHARED.items()):
        name = f"Presswork, {WARMING} sharing 5,000 tokens, cache: {cache}"
        against = f"Presswork, {WARMING} sharing 5,000 tokens, cache: off" if cache == "5m" else None
        yield Row(name, "warming", WARMING, WARMING_LATENCY_MS, _sharing(template), against)
    yield from _untold(sizes)
    for records in sizes.spool:
        bare = f"bare cursor loop, a view of {records:,} rows"
        yield Row(bare, "spool", records, 0, reading("cursor", records))
        yield Row(f"Presswork, a view of {records:,} rows", "spool", records, 0, reading("spool", records), bare)
    for where, on_postgres in (("SQLite", False), ("PostgreSQL", True)):
        records, runs = sizes.growth
        name = f"Presswork on {where}, {records:,} unchanged, {runs} times"
        yield Row(name, "growth", records, 0, growing(records, runs, on_postgres=on_postgres))
        for kind, what in (("prompts", "look-up of prompts"), ("keys", "look-up of keys"), ("join", "join to content")):
            name = f"{what} on {where}, {sizes.standing:,} contents"
            taker = standing(kind, sizes.standing, on_postgres=on_postgres)
            yield Row(name, "standing", sizes.standing, 0, taker)
    yield from _starting()
    yield Row(f"try --watch of {RECORDS} records, {sizes.saves} saves", "trying", sizes.saves, 0, saving(sizes.saves))


def _starting() -> Iterator[Row]:
    """Yield the rows of single processes, from their start to their end."""
    for code in (PREFECT, BOTH):
        yield Row(code, "starting", 1, 0, importing(code))
    for name, arguments in READING.items():
        yield Row(name, "starting", 1, 0, reading_command(arguments), PREFECT)
    yield Row(KEPT, "starting", 1, 0, running(kept=True), BOTH)
    yield Row(FIRST, "starting", 1, 0, running(kept=False), BOTH)


def _untold(sizes: Sizes) -> Iterator[Row]:
    """Yield the rows at an endpoint that sends no rate headers."""
    plain = f"Presswork, {sizes.random:,} at 50 ms, no headers"
    yield Row(plain, "random", sizes.random, 50, at_random_refusals(sizes.random, 50, faults=False))
    faulty = f"{plain}, 10 % 429, 2 % drops"
    yield Row(faulty, "random", sizes.random, 50, at_random_refusals(sizes.random, 50, faults=True), plain)
    name = f"Presswork, {sizes.hidden:,} at a hidden limit of 600"
    yield Row(name, "hidden", sizes.hidden, 50, at_hidden_limit(sizes.hidden, 600))
    rpms = (1_200, 300, 1_200)
    yield Row(
        "Presswork, a hidden limit of 1,200, 300, 1,200", "changing", 0, 50, at_changing_limit(rpms, sizes.change_s)
    )


def _plain(kind: str, records: int, latency_ms: int) -> Callable[[Stage], Sample]:
    def take(stage: Stage) -> Sample:
        stage.set_sandbox(latency_ms=latency_ms)
        return stage.measure(kind, records, stage.new_sqlite())

    return take


def _sharing(template: str) -> Callable[[Stage], Sample]:
    def take(stage: Stage) -> Sample:
        stage.set_sandbox(latency_ms=WARMING_LATENCY_MS)
        return stage.measure("content", WARMING, stage.new_sqlite(), template)

    return take


def _on_postgres(records: int, latency_ms: int) -> Callable[[Stage], Sample]:
    def take(stage: Stage) -> Sample:
        stage.set_sandbox(latency_ms=latency_ms)
        return stage.measure("content", records, stage.new_postgres())

    return take


def _cached(records: int) -> Callable[[Stage], Sample]:
    def take(stage: Stage) -> Sample:
        ledger = stage.new_sqlite()
        stage.set_sandbox()
        stage.measure("content", records, ledger)
        return stage.measure("content", records, ledger)

    return take


def _limited(records: int, name: str, limit: int, *, burst_s: float) -> Callable[[Stage], Sample]:
    def take(stage: Stage) -> Sample:
        stage.set_sandbox(**{name: limit, "burst_seconds": burst_s})
        sample = stage.measure("content", records, stage.new_sqlite())
        return _judged([sample], stage.sandbox_stats(), name, limit, burst_s)

    return take


def _shared(records: int) -> Callable[[Stage], Sample]:
    def take(stage: Stage) -> Sample:
        # The burst is a minute, as the API's. For few records it is shorter, or the limit would have no effect.
        burst_s = 60.0 if records >= 1_000 else 2.0
        stage.set_sandbox(rpm=1_000, burst_seconds=burst_s)
        clients = [stage.start("content", records, stage.new_sqlite()) for _ in range(2)]
        samples = [stage.finish(client) for client in clients]
        return _judged(samples, stage.sandbox_stats(), "rpm", 1_000, burst_s)

    return take


def _judged(samples: list[Sample], stats: dict[str, Any], name: str, limit: int, burst_s: float) -> Sample:
    """Add up clients, and compute the used share of the limit: accepted / (rate x (burst + time))."""
    served = stats["served"]
    used = {
        "rpm": stats["by_status"].get("200", 0),
        "itpm": served["input_tokens"] + served["cache_creation_5m_tokens"],
        "otpm": served["output_tokens"],
    }[name]
    passed = max(sample.last_answered for sample in samples) - min(sample.first_sent for sample in samples)
    return Sample(
        records=sum(sample.records for sample in samples),
        succeeded=sum(sample.succeeded for sample in samples),
        requests=stats["requests"],
        wall_s=max(sample.wall_s for sample in samples),
        client_cpu_s=sum(sample.client_cpu_s for sample in samples),
        server_cpu_s=max(sample.server_cpu_s for sample in samples),
        sandbox_cpu_s=max(sample.sandbox_cpu_s for sample in samples),
        peak_mb=max(sample.peak_mb for sample in samples),
        task_runs=sum(sample.task_runs for sample in samples),
        task_runs_expected=sum(sample.task_runs_expected for sample in samples),
        rate_limited=stats["by_status"].get("429", 0),
        share=used / (limit / 60 * (burst_s + passed)),
    )
