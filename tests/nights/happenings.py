"""Count what really happened in a night: a plan may hold a kill for a process that ended before."""

import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tests.nights.plan import MORNING_S

if TYPE_CHECKING:
    from tests.nights.night import Driver

_STORY = {
    "kill": r"is killed at its step \d+$",
    "kill in a thread": r"is killed at its step \d+ in a thread",
    "kill by reboot": r"is killed .* by a reboot",
    "reboot": r" reboots$",
    "freeze": r" freezes for ",
    "machine sleeps": r" sleeps for ",
    "clock is set": r"its clock is set by",
    "Ctrl-C": r"^Ctrl-C for",
    "SIGTERM": r"^SIGTERM for",
    "cancel": r"^Cancel for",
    "record edited": r" is edited$",
    "compact runs": r"^compact \d+ ends",
    "compact refused": r"^compact refuses",
    "run fails": r"^p\d+ fails:",
    "spill": r"are saved in the spill file",
    "import": r"logs: Imported \d+ generations",
    "ledger unavailable": r"logs: The ledger .* is unavailable",
    "refused rows kept": r"logs: .*original rows",
    "flow retry": r"tries its flow again",
    "request times out": r"a request times out",
    "helper starts": r"^flow run \d+ is helper ",
    "source in trouble": r": the source ",
    "bad key": r"a row with a bad key",
    "odd value": r"gets an odd value",
    "template is broken": r"the template .* is broken",
    "records can't be kept": r"the disk of its selected records",
    "spill file can't be written": r"the disk of its spill file",
    "answers lost: no disk": r"logs: .*Nor can a spill file",
    "ledger fails in a transaction": r"^p\d+: \w+ in a transaction of ",
}
"""What a line of the story says, as patterns; each line is counted."""
_LEDGER = {
    "run {}": "SELECT status, count(*) FROM runs GROUP BY 1",
    "run that resumes another": "SELECT '', count(*) FROM runs WHERE resumes_run_id IS NOT NULL",
    "trial": "SELECT '', count(*) FROM runs WHERE \"trigger\" = 'try'",
    "attempt {}": "SELECT kind, count(*) FROM attempts GROUP BY 1",
    "attempt ends: {}": "SELECT error_type, count(*) FROM attempts WHERE error_type IS NOT NULL GROUP BY 1",
    "generation {}": "SELECT status || ' ' || origin, count(*) FROM generations GROUP BY 1",
    "no content: {}": "SELECT error_kind, count(*) FROM generations WHERE error_kind IS NOT NULL GROUP BY 1",
    "row replaced": "SELECT '', count(*) FROM generations WHERE replaced_by <> ''",
    "record confirmed": "SELECT '', coalesce(sum(unchanged), 0) FROM run_steps",
    "{}": "SELECT kind, count(*) FROM night_times GROUP BY 1",
}
"""What the ledger tells: queries of a name and a count."""


def count_happenings(driver: "Driver") -> Counter[str]:
    """Count what happened in a night that is over, by names for people."""
    counts: Counter[str] = Counter()
    for line in driver.world.story:
        said = line[14:]
        counts.update(name for name, pattern in _PATTERNS.items() if pattern.search(said))
    counts["runs at once"] = _overlaps(driver)
    counts["import by another start"] = _imported_by_others(driver.world.story)
    counts["run superseded"] = sum(_SUPERSEDED in (each.error or "") for each in driver.runs)
    counts["commit answer lost"] = _answers_lost(driver)
    counts["flow run started again"] = sum(_started_again(each.states) for each in driver.flow_runs)
    counts["spill file cut off"] = len(driver.place.disks.cut_files)
    counts["indexed"] = int(driver.plan.indexed)
    for state in {state: None for each in driver.flow_runs for state in each.states}:
        counts[f"flow run {state}"] = sum(each.states.count(state) for each in driver.flow_runs)
    return counts + _in_ledger(driver.place.ledger.file)


def _in_ledger(file: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    with closing(sqlite3.connect(file)) as connection:
        for name, query in _LEDGER.items():
            for which, count in connection.execute(query):
                counts[name.format(which)] += count
    return counts


def _answers_lost(driver: "Driver") -> int:
    """Count the commits whose answer was lost."""
    drawn = {each.process for each in driver.runs if each.began_at < MORNING_S}
    made = {name: count for name, count in driver.place.ledger.commits.items() if name in drawn}
    lost = {(f"p{each.who}", abs(each.nth)) for each in driver.plan.events if each.kind == "lose_commit"}
    return sum(made.get(name, 0) >= number for name, number in lost)


def _started_again(states: Sequence[str]) -> int:
    """Count the starts of a flow run after the first that did not resume it from a suspension."""
    running = [number for number, state in enumerate(states) if state == "Running"]
    return sum(states[number - 1] != "Suspended" for number in running[1:])


def _imported_by_others(story: Sequence[str]) -> int:
    """Count the imports of spill files that another process had written."""
    writers: dict[str, str] = {}
    count = 0
    for line in story:
        who = line[14:].split(" ", 1)[0]
        if found := _SAVED.search(line):
            writers[found[1]] = who
        elif found := _IMPORTED.search(line):
            count += writers.get(found[1], who) != who
    return count


def _overlaps(driver: "Driver") -> int:
    """Count the runs that began while another one was at work."""
    runs = driver.runs
    return sum(
        any(other.ended_at is None or other.ended_at > run.began_at for other in runs[:number])
        for number, run in enumerate(runs)
    )


_SUPERSEDED = "The run was stopped (another process"
"""Ctrl-C and Cancel stop runs too."""
_SAVED = re.compile(r"are saved in the spill file .*?([^/ ]+\.spill)")
_IMPORTED = re.compile(r"logs: Imported \d+ generations from the spill file (\S+\.spill)")
_PATTERNS = {name: re.compile(pattern) for name, pattern in _STORY.items()}
