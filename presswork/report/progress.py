"""Keep live counts of a run, for anyone who watches in this process.

They are shown while a run is active; when it has ended, the summary is added up from the ledger.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from db.machine import monotonic_s
from db.words import CACHED, COMPLETED, COUNTED, SUCCEEDED
from presswork.report.amounts import dollars
from presswork.report.summary import PaceSummary

Log = logging.Logger | logging.LoggerAdapter[Any]
"""Where the lines of a run's log go."""
WORDS = {CACHED: "from the cache", SUCCEEDED: "new"}
"""The words that people read instead of a status."""


@dataclass
class Progress:
    """Counts of one run so far; `total` is None while it is not known.

    - `notes`: remarks for the summary, by kind.
    - `ask_pace`: call it only on the engine's thread, which stores the result as `pace` for the watchers' threads.
    - `selecting`: the template's file and the records read so far of each running select, by the name of its spool,
      because two selects of one template may run at the same time.
    - `worker`: the name of the helper, if this process is one.
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
    started: float = field(default_factory=monotonic_s)
    status: str = ""
    step_counts: Counter[str] = field(default_factory=Counter)
    pace: PaceSummary = field(default_factory=PaceSummary)
    ask_pace: Callable[[], PaceSummary] = field(default=PaceSummary)
    is_stopping: Callable[[], bool] = field(default=lambda: False)
    in_flight: Callable[[], int] = field(default=lambda: 0)
    notes: dict[str, str] = field(default_factory=dict)
    selecting: dict[str, tuple[str, int]] = field(default_factory=dict)
    worker: str = ""

    def begin_step(self, step: str, total: int | None) -> None:
        """Begin another step."""
        self.step, self.total, self.done_in_step = step, total, 0
        self.step_counts.clear()

    def add(self, status: str, count: int = 1) -> None:
        """Count generations that are done; status is one of the ledger's, or `cached`."""
        self.counts[status] += count
        self.step_counts[status] += count
        self.done_in_step += count

    def correct(self, counted: str, status: str) -> None:
        """Move a generation from one status to another."""
        for counts in (self.counts, self.step_counts):
            counts[counted] -= 1
            counts[status] += 1

    @property
    def percent(self) -> float:
        """How far this step is, from 0 to 100; 100 when the run has completed, 0 while the total is unknown."""
        if self.status == COMPLETED:
            return 100.0
        return round(min(100.0 * self.done_in_step / self.total, 100.0), 1) if self.total else 0.0

    def words(self) -> str:
        """Describe in one line how far the run is, with names and counts."""
        how_far = f"{self.done_in_step:,} of {'an unknown number' if self.total is None else f'{self.total:,}'}"
        parts = [self.worker] if self.worker else []
        parts.append(self.status or (f"{self.step}: {how_far}" if self.step else "selecting"))
        parts += self.selected()
        parts += [*counts_in_words(self.counts).values(), *self.pace.parts()]
        return "; ".join([*parts, dollars(self.cost_usd)])

    def selected(self) -> list[str]:
        """Describe how many records each running select has read."""
        return [f"{count:,} records read by {name}" for name, count in tuple(self.selecting.values())]

    @property
    def wall_s(self) -> float:
        """Seconds since the run opened."""
        return monotonic_s() - self.started


def counts_in_words(counts: Mapping[str, int]) -> dict[str, str]:
    """Describe how many generations ended with each status; a status without any is left out."""
    return {status: f"{counts[status]:,} {WORDS.get(status, status)}" for status in COUNTED if counts.get(status)}


_watchers: list[Callable[[Progress], None]] = []


def watch(callback: Callable[[Progress], None]) -> Callable[[], None]:
    """Call `callback` for each run that opens in this process; the returned function ends that."""
    _watchers.append(callback)
    return lambda: _watchers.remove(callback)


def announce(progress: Progress) -> None:
    """Call the watchers for a run that opens."""
    for callback in tuple(_watchers):
        callback(progress)
