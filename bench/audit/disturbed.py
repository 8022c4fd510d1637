"""Measure how much four readers slow a run: `python -m bench.audit.disturbed URL [--pairs N] [--records N]`.

A pair is a run alone and the same run while four clients ask for a page each every two seconds, on copies of the same
large ledger. The order within a pair alternates.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2
from sqlalchemy import create_engine, make_url, text

from bench.audit.page_cases import page_cases
from bench.audit.page_times import audit_room
from bench.stage import Stage, open_stage
from db.session import file_of
from db.timed_reads import open_reader

CLIENTS, EVERY_S, LATENCY_MS = 4, 2.0, 350
VIEWS = (
    "overview",
    "overview of a flow",
    "runs",
    "run",
    "generations",
    "generations by step",
    "generations by status",
    "generation",
    "record's life",
    "template",
)


@dataclass
class Readers:
    """Four clients that ask for pages, and the seconds that each answer took."""

    urls: list[str]
    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @contextmanager
    def reading(self, ledger: str) -> Iterator[None]:
        """Let the clients ask for as long as the block lasts."""
        ended = threading.Event()
        with audit_room(ledger) as client:
            threads = [threading.Thread(target=self._ask, args=(client, ended, number)) for number in range(CLIENTS)]
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                ended.set()
                for thread in threads:
                    thread.join()

    def _ask(self, client: httpx2.Client, ended: threading.Event, number: int) -> None:
        draw = random.Random(number)
        ended.wait(number * EVERY_S / CLIENTS)
        while not ended.is_set():
            began, path = time.perf_counter(), draw.choice(self.urls)
            answer = client.get(path)
            took = time.perf_counter() - began
            self.seconds.append(took)
            if answer.status_code != 200:
                self.failed.append(f"{answer.status_code} {path}")
            ended.wait(max(0.0, EVERY_S - took))


def main() -> None:
    """Print each pair, the medians, and the page times while the runs went on."""
    parser = argparse.ArgumentParser(prog="python -m bench.audit.disturbed", description=__doc__.splitlines()[0])
    parser.add_argument("url", help="a large ledger, which is copied for each run")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--records", type=int, default=10_000)
    options = parser.parse_args()
    ledger = open_reader(options.url)
    cases = page_cases(ledger)
    ledger.dispose()
    readers = Readers([url for name in VIEWS for url in cases[name]])
    walls: dict[str, list[float]] = {"alone": [], "read": []}
    with open_stage(100) as stage:
        for number in range(options.pairs):
            for kind in ("alone", "read") if number % 2 == 0 else ("read", "alone"):
                with _copy(options.url, stage) as copied:
                    walls[kind].append(_run(stage, copied, options.records, readers if kind == "read" else None))
                    print(f"pair {number + 1}, {kind}: {walls[kind][-1]:.2f} s", flush=True)
    _print(walls, readers)


def _run(stage: Stage, ledger: str, records: int, readers: Readers | None) -> float:
    stage.set_sandbox(latency_ms=LATENCY_MS)
    if readers is None:
        return stage.measure("content", records, ledger).wall_s
    with readers.reading(ledger):
        return stage.measure("content", records, ledger).wall_s


@contextmanager
def _copy(url: str, stage: Stage) -> Iterator[str]:
    """Yield a copy of a ledger, so that every run finds the same one."""
    source = file_of(make_url(url))
    if source is not None:
        target = stage.folder / "copied.sqlite"
        shutil.copyfile(source, target)
        try:
            yield f"sqlite:///{target}"
        finally:
            for each in stage.folder.glob("copied.sqlite*"):
                each.unlink()
        return
    parsed = make_url(url)
    server = create_engine(parsed.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE copied TEMPLATE {parsed.database}"))
        try:
            yield parsed.set(database="copied").render_as_string(hide_password=False)
        finally:
            connection.execute(text("DROP DATABASE copied WITH (FORCE)"))
    server.dispose()


def _print(walls: dict[str, list[float]], readers: Readers) -> None:
    alone, read = (sorted(walls[kind]) for kind in ("alone", "read"))
    times = sorted(readers.seconds)
    print(
        json.dumps(
            {
                "alone_s": [round(each, 2) for each in alone],
                "read_s": [round(each, 2) for each in read],
                "slower_percent": round((statistics.median(read) / statistics.median(alone) - 1) * 100, 2),
                "spread_alone_percent": round((alone[-1] / alone[0] - 1) * 100, 2),
                "pages": len(times),
                "page_median_ms": round(statistics.median(times) * 1000),
                "page_p95_ms": round(times[int(len(times) * 0.95)] * 1000),
                "page_slowest_ms": round(times[-1] * 1000),
                "failed": readers.failed,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
