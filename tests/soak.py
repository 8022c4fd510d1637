"""Run the long tests in parts, one after another: `make soak`, or `make soak PART=nights` for one.

A part that fails does not stop the next ones. A table of all parts and their times is printed last.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PARTS = {
    "nights": ("nights",),
    "kills": ("engine/test_night.py",),
    "engine": ("engine",),
    "services": ("operate",),
    "shards": ("flows",),
    "others": ("",),
}
"""The parts, each with its folders and files in tests/. A file in several parts is in the one that names it closest."""
OPTIONS = {"nights": ("-n", "auto")}
"""Simulated nights wait for nothing, so each core takes some. All other parts have one thing to test at a time."""
TEST_TIMEOUT_S = 1200
INTERRUPTED = 130
_MARK = re.compile(r"\bmark\.soak\b")


@dataclass(frozen=True, slots=True)
class PartResult:
    """How a part ended."""

    name: str
    files: int
    status: int
    took_s: float

    def line(self) -> str:
        """One line of the table."""
        outcome = "passed" if self.status == 0 else f"FAILED ({self.status})"
        return f"{self.name:<10}{self.files:>6}  {outcome:<12}{_minutes(self.took_s):>14}"


def files_of_parts() -> dict[str, list[str]]:
    """Find the test files with long tests, by part and by their paths in tests/."""
    found: dict[str, list[str]] = {name: [] for name in PARTS}
    for path in sorted(TESTS.rglob("test_*.py")):
        if _MARK.search(path.read_text(encoding="utf-8")):
            file = path.relative_to(TESTS)
            found[_part_of(file)].append(str(file))
    return found


def _part_of(file: Path) -> str:
    _depth, name = max(
        (len(Path(place).parts), name)
        for name, places in PARTS.items()
        for place in places
        if file.is_relative_to(place)
    )
    return name


def run_parts(names: Sequence[str], run: Callable[[str, Sequence[str]], int]) -> list[PartResult]:
    """Run parts one after another, up to one that is INTERRUPTED; `run` returns a part's exit status."""
    results = []
    files = files_of_parts()
    for name in names:
        if not files[name]:
            continue
        began = time.monotonic()
        status = run(name, files[name])
        results.append(PartResult(name, len(files[name]), status, time.monotonic() - began))
        if status == INTERRUPTED:
            break
    return results


def _run_part(name: str, files: Sequence[str]) -> int:
    """Run a part with pytest, and let it clean up if Ctrl-C interrupts it."""
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: interrupts.append(number))
    print(f"\n===== {name}: {', '.join(files)}", flush=True)
    command = [sys.executable, "-m", "pytest", "-m", "soak", f"--timeout={TEST_TIMEOUT_S}", *OPTIONS.get(name, ())]
    try:
        status = subprocess.run([*command, *(str(TESTS / file) for file in files)], check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    return INTERRUPTED if interrupts else status


def _minutes(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


def main(arguments: Sequence[str] | None = None, run: Callable[[str, Sequence[str]], int] = _run_part) -> int:
    """Run the named parts, or all. Return 0 if all passed, 2 for an unknown name, 130 after Ctrl-C, else 1."""
    names = list(sys.argv[1:] if arguments is None else arguments) or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        print(f"No part is called {unknown[0]!r}. Available: {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    results = run_parts(names, run)
    statuses = [result.status for result in results if result.status]
    worst = INTERRUPTED if INTERRUPTED in statuses else int(bool(statuses))
    whole = PartResult("whole", sum(it.files for it in results), worst, sum(it.took_s for it in results))
    print(f"\n{'part':<10}{'files':>6}  {'outcome':<12}{'time':>14}")
    for result in [*results, whole]:
        print(result.line())
    return worst


if __name__ == "__main__":
    sys.exit(main())
