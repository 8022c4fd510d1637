"""Live counts of a run, for whoever watches in this process.

What is shown while a run goes on; when it has ended, the summary is added up from the ledger.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from db.words import CACHED, COMPLETED, COUNTED, SUCCEEDED
from presswork.report.amounts import dollars
from presswork.report.summary import PaceSummary

Log = logging.Logger | logging.LoggerAdapter[Any]
"""Where the lines of a run's log go."""
WORDS = {CACHED: "from the cache", SUCCEEDED: "new"}
"""What people read in place of a status."""


@dataclass
class Progress:
    """Counts of one run so far; `total` is None where it is not known beforehand.

    `notes` has, by kind, what whoever reads the summary should know. `ask_pace` is for the engine's own thread, which
    notes the answer as `pace` for the threads of watchers.

    `selecting` has, for each select that runs just now, its template's file and how many records have come, by the
    name of its spool: two selects of one template may run at the same time. `worker` says which helper of the run this
    is, if it is one.
    """

    run_id: str
    flow: str
    endpoint: str
    step: str = ""
    total: int | None = None
    done_in_step: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    cost_usd: Decimal = Decimal(0)
    started: float = field(default_factory=time.monotonic)
    status: str = ""
    step_counts: Counter[str] = field(default_factory=Counter)
    pace: PaceSummary = field(default_factory=PaceSummary)
    ask_pace: Callable[[], PaceSummary] = field(default=PaceSummary)
    is_stopping: Callable[[], bool] = field(default=lambda: False)
    notes: dict[str, str] = field(default_factory=dict)
    selecting: dict[str, tuple[str, int]] = field(default_factory=dict)
    worker: str = ""

    def begin_step(self, step: str, total: int | None) -> None:
        """Turn to another step."""
        self.step, self.total, self.done_in_step = step, total, 0
        self.step_counts.clear()

    def add(self, status: str, count: int = 1) -> None:
        """Count generations that are done; status is one of the ledger's, or `cached`."""
        self.counts[status] += count
        self.step_counts[status] += count
        self.done_in_step += count

    def correct(self, counted: str, status: str) -> None:
        """Count a generation under another status than it was."""
        for counts in (self.counts, self.step_counts):
            counts[counted] -= 1
            counts[status] += 1

    @property
    def percent(self) -> float:
        """How far this step is, of 100; 100 when the run has ended well, 0 where the total is not known."""
        if self.status == COMPLETED:
            return 100.0
        return round(min(100.0 * self.done_in_step / self.total, 100.0), 1) if self.total else 0.0

    def words(self) -> str:
        """Say in one line how far the run is: names and counts."""
        how_far = f"{self.done_in_step:,} of {'a number not known yet' if self.total is None else f'{self.total:,}'}"
        parts = [self.worker] if self.worker else []
        parts.append(self.status or (f"{self.step}: {how_far}" if self.step else "selecting"))
        parts += self.selected()
        parts += [*counts_in_words(self.counts).values(), *self.pace.parts()]
        return "; ".join([*parts, dollars(self.cost_usd)])

    def selected(self) -> list[str]:
        """Say how many records each select that runs just now has given."""
        return [f"{count:,} records read by {name}" for name, count in tuple(self.selecting.values())]

    @property
    def wall_s(self) -> float:
        """Seconds since the run opened."""
        return time.monotonic() - self.started


def counts_in_words(counts: Mapping[str, int]) -> dict[str, str]:
    """Say how many generations ended how, by status; what happened to none is left out."""
    return {status: f"{counts[status]:,} {WORDS.get(status, status)}" for status in COUNTED if counts.get(status)}


_watchers: list[Callable[[Progress], None]] = []


def watch(callback: Callable[[Progress], None]) -> Callable[[], None]:
    """Have `callback` told of each run that opens in this process; call what is returned to end that."""
    _watchers.append(callback)
    return lambda: _watchers.remove(callback)


def announce(progress: Progress) -> None:
    """Tell the watchers of a run that opens."""
    for callback in tuple(_watchers):
        callback(progress)
