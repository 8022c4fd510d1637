"""Simulated machines and what a process sees of them: four clocks, the processes there, and ids without chance."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from db.machine import UNKNOWN, Machine

if TYPE_CHECKING:
    from tests.nights.simulated.processes import SimulatedProcess
    from tests.nights.simulated.world import World

EPOCH = 1_795_651_200.0
"""The wall time at the world's second 0: 2026-11-26 00:00 UTC."""
BOOTED_BEFORE_S = 5_000.0


class KilledError(BaseException):
    """The process that works on this is killed. Nothing in it may catch this, or do anything after it."""


@dataclass
class Host:
    """A machine of the world. `skew_s`: its wall clock minus the true time. `slept_s`: how long it has slept.

    `stamps`: the times that this machine has given to files, in nanoseconds.
    """

    name: str
    skew_s: float = 0.0
    slept_s: float = 0.0
    asleep_until: float = 0.0
    boots: int = 1
    booted_at: float = -BOOTED_BEFORE_S
    processes: "dict[int, SimulatedProcess]" = field(default_factory=dict)
    stamps: set[int] = field(default_factory=set)


class SimulatedMachine(Machine):
    """The machine as one simulated process sees it."""

    def __init__(self, world: "World", on: Host, pid: int) -> None:
        super().__init__()
        self._world = world
        self._on = on
        self._pid = pid
        self._last_id = (0, 0)

    @property
    def host(self) -> str:
        return self._on.name

    @property
    def boot_id(self) -> str:
        return f"{self._on.name}-{self._on.boots}"

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def pid_namespace(self) -> str:
        return self._on.name

    def end_process(self, status: int) -> NoReturn:
        self._world.kill(self._on.processes[self._pid], f"by its own exit with status {status}")
        raise KilledError

    def exists(self, pid: int) -> bool:
        return pid in self._on.processes and self._on.processes[pid].alive

    def started(self, pid: int) -> str:
        return str(pid) if self.exists(pid) else UNKNOWN

    def boot_time_s(self) -> float:
        return self._world.now - self._on.booted_at

    def monotonic_s(self) -> float:
        return self._world.now - self._on.booted_at - self._on.slept_s

    def wall_time_s(self) -> float:
        return EPOCH + self._world.now + self._on.skew_s

    def modified_s(self, path: Path) -> float:
        """Return when this machine first looked at a file after it had changed: the real time of a change is chance."""
        at = path.stat().st_mtime_ns
        if at not in self._on.stamps:
            at = int(self.wall_time_s() * 1e9)
            self._on.stamps.add(at)
            os.utime(path, ns=(at, at))
        return at / 1e9

    def pause(self, seconds: float) -> None:
        self._world.now += seconds

    def uuid7(self) -> int:
        """Return a UUIDv7 whose order within a millisecond is that of the calls, as the library's is."""
        milliseconds = int(self.wall_time_s() * 1000)
        last, count = self._last_id
        milliseconds, count = (last, count + 1) if milliseconds <= last else (milliseconds, 0)
        self._last_id = milliseconds, count
        return milliseconds << 80 | 0x7 << 76 | (count & 0xFFF) << 64 | 0b10 << 62 | self._world.ids.getrandbits(62)
