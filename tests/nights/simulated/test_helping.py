"""Split runs in nights by hand: whatever happens to helpers, workers and Prefect's server, nothing is paid twice."""

from __future__ import annotations

import gc
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from tests.nights.leavings import result_of
from tests.nights.night import Driver
from tests.nights.plan import Event, Night, Start
from tests.nights.promised.promises import find_violations
from tests.nights.simulated.workplace import Workplace, open_workplace

RECORDS = 12


@pytest.fixture(scope="module")
def place() -> Iterator[Workplace]:
    with open_workplace() as place:
        yield place
        # Python closes the coroutines of killed processes. Their `finally` blocks reach nothing, but may wait again.
        hook, sys.unraisablehook = sys.unraisablehook, lambda _raised: None
        while gc.collect():
            pass
        sys.unraisablehook = hook


@dataclass(frozen=True)
class HelpedNight:
    """What is left of a night. `states` has all states of each helper's flow run, in the order of their creation."""

    story: list[str]
    states: list[list[str]]
    workers: list[str]
    statuses: list[str]
    requests: int
    first_run_took_s: float


def carry_out(place: Workplace, *events: Event, starts: tuple[Start, ...] = (), **settings: Any) -> HelpedNight:
    """Carry out a night with a split run, which must keep all promises."""
    split = Start(0.0, shards=3, deployed=True, concurrency=1, chunk_size=1)
    switches = (("latency_ms", 4000),)
    plan = Night(
        7, RECORDS, starts=(split, *starts), events=events, switches=switches, settings=tuple(settings.items())
    )
    night = Driver(plan, place)
    try:
        night.carry_out()
        violations = find_violations(result_of(night))
        assert not violations, [*night.world.story, *map(str, violations)]
        return HelpedNight(
            story=night.world.story,
            states=[each.states for each in night.helpers.flow_runs.values()],
            workers=[notes.worker for notes in night.runs],
            statuses=[status for (status,) in rows(place, "SELECT status FROM runs ORDER BY id")],
            requests=len(night.endpoint.exchanges),
            first_run_took_s=night.runs[0].ended_at or night.world.now,
        )
    finally:
        night.close()


def rows(place: Workplace, sql: str) -> list[Any]:
    with closing(sqlite3.connect(place.ledger.file)) as ledger:
        return ledger.execute(sql).fetchall()


def happens(night: HelpedNight, words: str) -> int:
    return sum(words in line for line in night.story)


COMPLETED = ["Scheduled", "Pending", "Submitting", "Running", "Completed"]
CRASHED = [*COMPLETED[:-1], "Crashed"]


def test_helpers_on_workers_share_the_records(place: Workplace) -> None:
    night = carry_out(place)
    assert (night.states, night.requests) == ([COMPLETED] * 3, RECORDS)
    assert Counter(night.workers) == {"main": 2, "helper 1": 1, "helper 2": 1, "helper 3": 1}
    makers = rows(place, "SELECT DISTINCT lease_id FROM generations")
    assert len(makers) > 1


def test_night_with_helpers_is_repeated_to_the_letter(place: Workplace) -> None:
    events = (Event("kill", who=1, nth=60), Event("no_server", at=3, size=20), Event("freeze", who=2, nth=90, size=140))
    assert carry_out(place, *events).story == carry_out(place, *events).story


def test_helper_whose_process_is_killed_is_started_again(place: Workplace) -> None:
    night = carry_out(place, Event("kill", who=1, nth=150))
    assert sorted(night.states) == sorted([CRASHED, *[COMPLETED] * 3])
    assert night.statuses == ["completed"] * 2


def test_helper_whose_death_nobody_notices_is_reported_by_its_run(place: Workplace) -> None:
    unnoticed = [Event("unnoticed", who=number) for number in range(3)]
    night = carry_out(place, Event("kill", who=1, nth=150), *unnoticed)
    assert sorted(night.states) == sorted([CRASHED, *[COMPLETED] * 3])


def test_helper_that_is_frozen_until_its_lease_expires_pays_for_nothing_again(place: Workplace) -> None:
    night = carry_out(place, Event("freeze", who=1, nth=150, size=200))
    assert night.requests <= RECORDS + 1
    assert night.statuses == ["completed"] * 2


def test_without_workers_the_run_does_all_records_after_its_patience(place: Workplace) -> None:
    night = carry_out(place, *[Event("no_worker", who=number) for number in range(3)], shard_patience_s=60)
    assert (night.states, night.requests) == ([["Scheduled", "Cancelled"]] * 3, RECORDS)
    assert night.first_run_took_s > 60


def test_run_waits_for_no_helper_that_is_deleted_with_its_deployment(place: Workplace) -> None:
    idle = [Event("no_worker", who=number) for number in (1, 2)]
    night = carry_out(place, *idle, Event("no_deployment", at=20), shard_patience_s=3000)
    assert sorted(night.states) == sorted([COMPLETED, *[["Scheduled", "Deleted"]] * 2])
    assert (night.statuses, night.requests) == (["completed"] * 2, RECORDS)
    assert night.first_run_took_s < 3000


def test_helper_whose_worker_dies_is_started_by_another(place: Workplace) -> None:
    night = carry_out(place, Event("worker_dies", who=0))
    assert [*COMPLETED[:3], "Crashed"] in night.states
    assert night.requests == RECORDS


def test_helper_that_a_worker_starts_too_late_has_nothing_to_do(place: Workplace) -> None:
    late = [Event("late_worker", who=number, size=2000) for number in range(3)]
    night = carry_out(place, *late, shard_patience_s=20)
    assert (night.states, night.requests) == ([["Scheduled", "Cancelled"]] * 3, RECORDS)


@pytest.mark.parametrize("begins", [0.0, 0.05, 1.0, 25.0])
def test_outage_of_prefects_server_loses_and_doubles_no_helper(place: Workplace, begins: float) -> None:
    night = carry_out(place, Event("no_server", at=begins, size=90))
    assert len(night.states) == 3
    assert (night.statuses, night.requests) == (["completed"] * 2, RECORDS)


def test_process_that_resumes_a_killed_run_finds_its_helpers(place: Workplace) -> None:
    night = carry_out(place, Event("kill", who=0, nth=140), starts=(Start(40.0, again=True),))
    assert happens(night, "p0 is killed") == 1
    assert len(night.states) == 3
    assert night.requests == RECORDS


def test_cancelled_run_cancels_its_helpers(place: Workplace) -> None:
    night = carry_out(place, Event("cancel", at=24.0, who=0))
    assert night.statuses[0] == "cancelled"
    assert all(states[-1] in {"Cancelled", "Completed"} for states in night.states)
    assert night.first_run_took_s < 24 + 10
