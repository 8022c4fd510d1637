"""Play one night from its plan: carry it out, check its promises, and close it."""

import logging
import os
import random
import sqlite3
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from db.machine import monotonic_s, utc_now
from tests.nights.happenings import count_happenings
from tests.nights.leavings import result_of
from tests.nights.night import Driver
from tests.nights.plan import Night
from tests.nights.promised.promises import Violation, find_violations
from tests.nights.simulated.workplace import Workplace
from tests.nights.simulated.world import World

DRIVER = "the night can be played to its end"
SHORT_STORY = 40
"""At most this many lines of a story are in a failure's message."""
_log = logging.getLogger("prefect.presswork")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a night. `error` is the traceback of the driver if it failed; that is a violation too.

    `simulated_s` and `took_s` are the night's own seconds and the real ones. `dump` is the whole ledger as text.
    """

    plan: Night
    violations: tuple[Violation, ...]
    story: tuple[str, ...]
    error: str | None = None
    simulated_s: float = 0.0
    took_s: float = 0.0
    happenings: Counter[str] = field(default_factory=Counter)
    dump: str = ""

    @property
    def broken(self) -> tuple[str, ...]:
        """The promises that were broken, each once."""
        return tuple(dict.fromkeys(each.promise for each in self.violations))

    def report(self, *, lines: int = SHORT_STORY) -> str:
        """Say which promises were broken and what happened, and how to replay it."""
        left_out = max(0, len(self.story) - lines)
        return "\n".join(
            [
                f"Seed {self.plan.seed} breaks {len(self.violations)}:",
                *(f"  {each}" for each in self.violations[:10]),
                "What happened:",
                *self.story[: lines // 2],
                *([f"  ... {left_out} more lines ..."] if left_out else []),
                *self.story[len(self.story) - min(lines - lines // 2, max(0, len(self.story) - lines // 2)) :],
                *([self.error] if self.error else []),
                f"Replay it: .venv/bin/python -m tests.nights {self.plan.seed}",
            ]
        )


def play(plan: Night, place: Workplace, *, with_dump: bool = False) -> Outcome:
    """Carry out a plan, check the promises and close the night; an error of the driver counts as a violation."""
    began = monotonic_s()
    driver = Driver(plan, place)
    violations: list[Violation] = []
    error: str | None = None
    happenings: Counter[str] = Counter()
    dump = ""
    try:
        with _logged(driver.world), _seeded(plan.seed):
            driver.carry_out()
        violations += find_violations(result_of(driver))
        happenings = count_happenings(driver)
        dump = dump_of(place) if with_dump else ""
    except Exception as raised:  # noqa: BLE001 - whatever ends a night before its time is a find
        error = traceback.format_exc()
        violations.append(Violation(DRIVER, f"{type(raised).__name__}: {raised}"))
    finally:
        driver.close()
    return Outcome(
        plan=plan,
        violations=tuple(violations),
        story=tuple(driver.world.story),
        error=error,
        simulated_s=driver.world.now,
        took_s=monotonic_s() - began,
        happenings=happenings,
        dump=dump,
    )


def first_of_the_day() -> int:
    """Return the first seed of today's long tests (UTC), or that of the day that PRESSWORK_NIGHTS_FROM names."""
    return int(os.environ.get("PRESSWORK_NIGHTS_FROM") or utc_now().strftime("%Y%m%d00000"))


def dump_of(place: Workplace) -> str:
    """Return all tables of the night's ledger as text."""
    with closing(sqlite3.connect(place.ledger.file)) as connection:
        return "\n".join(line.replace(str(place.folder), "") for line in connection.iterdump())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the chance that a library of the product asks: the pauses between two tries of a request."""
    before = random.getstate()
    random.seed(f"night {seed}")
    try:
        yield
    finally:
        random.setstate(before)


class _Telling(logging.Handler):
    """Adds what the product logs to a night's story."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        who = self._world.current
        self._world.tell(f"{who.name if who else 'nobody'} logs: {record.getMessage()}")


@contextmanager
def _logged(world: World) -> Iterator[None]:
    handler = _Telling(world)
    level, propagate = _log.level, _log.propagate
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(level)
        _log.propagate = propagate
