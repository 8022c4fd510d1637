"""Read CPU and memory of processes from the operating system."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil


@dataclass
class Sample:
    """One measurement; times are seconds, CPU is user and system together."""

    records: int = 0
    succeeded: int = 0
    requests: int = 0
    wall_s: float = 0.0
    client_cpu_s: float = 0.0
    startup_cpu_s: float = 0.0
    server_cpu_s: float = 0.0
    sandbox_cpu_s: float = 0.0
    peak_mb: float = 0.0
    task_runs: int = 0
    task_runs_expected: int = 0
    not_once: int = 0
    first_sent: float = 0.0
    last_answered: float = 0.0
    rate_limited: int = 0
    share: float = 0.0
    p95_s: float = 0.0
    late_429: float = 0.0
    after_fall: float = 0.0
    after_rise: float = 0.0
    cost_usd: float = 0.0
    cache_writes: int = 0
    billed_usd: float = 0.0
    executions: int = 0
    grown_b: float = 0.0
    times_first: float = 0.0
    to_request_s: float = 0.0
    slowest_s: float = 0.0

    def as_json(self) -> dict[str, float]:
        """Return the fields as plain values."""
        return asdict(self)


class Meter:
    """Reads the CPU time since `start()` of this process and of the `watched` ones (name: pid)."""

    def __init__(self, watched: Mapping[str, int]) -> None:
        self._watched = watched
        self._began = 0.0
        self._before: dict[str, float] = {}
        self._own = 0.0

    def start(self) -> None:
        """Begin to measure; all CPU until now counts as start-up."""
        self._before = {name: cpu_of(pid) for name, pid in self._watched.items()}
        self._own, self._began = own_cpu(), time.perf_counter()

    def read(self, sample: Sample) -> None:
        """Write wall time, CPU and peak memory into a sample."""
        sample.wall_s = time.perf_counter() - self._began
        self.read_own(sample)
        self.read_watched(sample)

    def read_own(self, sample: Sample) -> None:
        """Write this process's CPU and peak memory."""
        sample.client_cpu_s, sample.startup_cpu_s, sample.peak_mb = own_cpu() - self._own, self._own, peak_mb()

    def read_watched(self, sample: Sample) -> None:
        """Write the CPU of the watched processes, as `<name>_cpu_s`."""
        for name, pid in self._watched.items():
            setattr(sample, f"{name}_cpu_s", cpu_of(pid) - self._before[name])


def own_cpu() -> float:
    """Return the CPU seconds of this process with all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process and its children, including ended ones that it waited for."""
    root = psutil.Process(pid)
    return sum(sum(process.cpu_times()[:4]) for process in (root, *root.children(recursive=True)))


def peak_mb() -> float:
    """Return the peak of resident memory of this process, in MB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # On Linux ru_maxrss survives exec, so it would include the process that started this one.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def child_running(module: str) -> int:
    """Return the pid of the child of this process that runs a module."""
    for child in psutil.Process().children():
        if module in child.cmdline():
            return child.pid
    raise LookupError(f"no child runs {module}")
