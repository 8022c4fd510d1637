"""Progress: live counts of a run, for whoever watches in this process.

What is shown while a run goes on; when it has ended, the summary is added up from the ledger.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass
class Progress:
    """Counts of one run so far; `total` is None where it is not known beforehand."""

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
    ended: bool = False
    is_stopping: Callable[[], bool] = field(default=lambda: False)

    def begin_step(self, step: str, total: int | None) -> None:
        """Turn to another step."""
        self.step, self.total, self.done_in_step = step, total, 0

    def add(self, status: str, count: int = 1) -> None:
        """Count generations that are done; status is one of the ledger's, or `cached`."""
        self.counts[status] += count
        self.done_in_step += count

    @property
    def wall_s(self) -> float:
        """Seconds since the run opened."""
        return time.monotonic() - self.started


_watchers: list[Callable[[Progress], None]] = []


def watch(callback: Callable[[Progress], None]) -> Callable[[], None]:
    """Have `callback` told of each run that opens in this process; call what is returned to end that."""
    _watchers.append(callback)
    return lambda: _watchers.remove(callback)


def announce(progress: Progress) -> None:
    """Tell the watchers of a run that opens."""
    for callback in tuple(_watchers):
        callback(progress)
