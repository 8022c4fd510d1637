"""Measure how long commands take to start, against importing what they could not do without.

Each measurement is one process. Bytecode is present: every command runs once before it is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.material import TEMPLATE
from bench.meter import Sample
from bench.stage import ClientError, Stage
from presswork.settings import ROOT

PREFECT, BOTH = "import prefect", "import prefect, anthropic"
RUN = ("run", TEMPLATE, "--limit", "3", "--refresh")
READING: Mapping[str, Sequence[str]] = {
    "history": ("history",),
    "show": ("show", "{generation}"),
    "db check": ("db", "check"),
    "templates list": ("templates", "list"),
    "templates lint, again": ("templates", "lint"),
    "status": ("status",),
}
"""The commands whose CPU is measured, by name."""
MOST: Mapping[str, float] = {
    **dict.fromkeys(("history", "show", "db check"), 0.45),
    "templates list": 0.25,
    "templates lint, again": 0.6,
    "status": 1.1,
}
"""The CPU that each may take, as a share of `import prefect`."""
KEPT, FIRST = "run of 3 records, server kept", "run of 3 records, the first one"
SLOWEST: Mapping[str, float] = {KEPT: 1.35, FIRST: 2.2}
"""The wall time that each may take, as a share of `import prefect, anthropic`."""
_COMMAND = "from presswork.cli import main; main()"


def importing(code: str) -> Callable[[Stage], Sample]:
    """Return a measurement of a process that runs this code only."""

    def take(stage: Stage) -> Sample:
        return _timed([sys.executable, "-c", code], _environment(stage))

    return take


def reading_command(arguments: Sequence[str]) -> Callable[[Stage], Sample]:
    """Return a measurement of a command that reads a ledger with a few runs."""

    def take(stage: Stage) -> Sample:
        environment = _environment(stage)
        generation = _generation(stage, environment)
        if "status" in arguments:
            # It finds no server of `presswork up`, and no endpoint to ask about models.
            environment = {name: value for name, value in environment.items() if not name.startswith("ANTHROPIC_")}
        command = [sys.executable, "-c", _COMMAND, *(each.format(generation=generation) for each in arguments)]
        if "warm" not in stage.made:
            # The lint keeps what it asked the SDK, and the imports leave bytecode.
            for each in READING.values():
                _timed(
                    [sys.executable, "-c", _COMMAND, *(one.format(generation=generation) for one in each)], environment
                )
            stage.made["warm"] = "yes"
        return _timed(command, environment)

    return take


def running(*, kept: bool) -> Callable[[Stage], Sample]:
    """Return a measurement of a run of three records by a Prefect server that was kept, or has to start first."""

    def take(stage: Stage) -> Sample:
        environment = _environment(stage)
        stage.set_sandbox()
        _generation(stage, environment)
        down = [sys.executable, "-c", _COMMAND, "down"]
        run = [sys.executable, "-c", _COMMAND, *RUN]
        if kept:
            _timed(run, environment)
        else:
            _timed(down, environment)
        sample = _timed(run, environment)
        _timed(down, environment)
        return sample

    return take


def _environment(stage: Stage) -> dict[str, str]:
    source = f"sqlite:///{stage.source(100)}"
    ledger = stage.made.setdefault("ledger of starts", stage.new_sqlite())
    found = {**stage.environment(source, ledger), "PRESSWORK_STATE_DIR": str(stage.folder / "state")}
    # The commands find or start a server of their own.
    return {name: value for name, value in found.items() if name != "PREFECT_API_URL"}


def _generation(stage: Stage, environment: Mapping[str, str]) -> str:
    """Return the id of a generation in the ledger, after a first run that made the ledger."""
    if "generation" not in stage.made:
        stage.set_sandbox()
        _timed([sys.executable, "-c", _COMMAND, *RUN], environment)
        listed = subprocess.run(
            [sys.executable, "-c", _COMMAND, "history", "--generations", "--json"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        stage.made["generation"] = listed.partition('"id": "')[2].partition('"')[0]
    return stage.made["generation"]


def _timed(command: Sequence[str], environment: Mapping[str, str]) -> Sample:
    """Run a process to its end, and return its wall time and CPU. Raises ClientError if it fails."""
    log = Path(environment["PRESSWORK_STATE_DIR"]).with_suffix(".log")
    with log.open("w") as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        _pid, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    # `status` ends with 1 if nothing runs.
    if process.returncode and command[-1] != "status":
        raise ClientError(f"{' '.join(command[2:])} ended with status {process.returncode}: {log.read_text()[-500:]}")
    cpu_s = used.ru_utime + used.ru_stime
    return Sample(records=1, succeeded=1, wall_s=wall_s, client_cpu_s=cpu_s)
