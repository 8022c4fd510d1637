"""A run decides by the states of its helpers' flow runs which to start again, and when to do their records itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import AsyncMock

import pytest
from anyio import CancelScope
from prefect.exceptions import Abort

from db.ledger.leases import Lease
from db.ledger.lifecycle import join_run, leave_run
from presswork import Summary
from presswork.engine.orchestration import spread as spreading
from presswork.engine.orchestration.helper_runs import (
    SUBMITTING,
    HelperRuns,
    HelperState,
    HelperStateType,
    HelpersUnavailableError,
    NoHelpersDeploymentError,
)
from presswork.engine.orchestration.host import SpreadRun
from presswork.engine.orchestration.spread import SUBMITTED_WITHIN_S, spread
from presswork.options import RunOptions
from tests.engine.plain_host import HELPING
from tests.engine.workshop import Workshop
from tests.machines import SetMachine

LONG_S = 3600.0


def state(kind: HelperStateType, name: str = "") -> HelperState:
    # Long ago, as if this machine's clock is far ahead of the server's.
    return HelperState(kind, name or kind.capitalize(), since_s=0)


SCHEDULED = state(HelperStateType.SCHEDULED)
SUBMITTED = state(HelperStateType.PENDING, SUBMITTING)
PENDING = state(HelperStateType.PENDING)
RUNNING = state(HelperStateType.RUNNING)
COMPLETED = state(HelperStateType.COMPLETED)
CRASHED = state(HelperStateType.CRASHED)


@dataclass
class ToldRuns:
    """Flow runs of helpers whose states the test tells: `told` has those of a helper's attempts.

    The first state is that at the start, then each look takes the next; the last one stays. A flow run has the id
    `number/attempt`. `unavailable` has the calls that fail, as often as they are in it. To the cancel of a `silent` one
    there is no answer. When the deployment `is_deleted`, those that are scheduled are too, as in Prefect.
    """

    told: Mapping[int, Sequence[Sequence[HelperState]]]
    unavailable: list[str] = field(default_factory=list)
    silent: frozenset[str] = frozenset()
    started: list[tuple[str, RunOptions]] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)
    look: Callable[[], None] = lambda: None
    is_deleted: bool = False
    _left: dict[str, list[HelperState]] = field(default_factory=dict)

    async def start(self, options: RunOptions, attempt: int) -> tuple[str, HelperState]:
        self._fail("start")
        if self.is_deleted:
            raise NoHelpersDeploymentError
        assert options.helper is not None
        number = options.helper.number
        flow_run = f"{number}/{attempt}"
        self.started.append((flow_run, options))
        self._left[flow_run] = list(self.told[number][attempt - 1])
        return flow_run, self._next(flow_run)

    async def states(self, flow_runs: Sequence[str]) -> dict[str, HelperState]:
        self._fail("states")
        self.look()
        found = {flow_run: self._next(flow_run) for flow_run in flow_runs}
        return {flow_run: seen for flow_run, seen in found.items() if not (self.is_deleted and seen == SCHEDULED)}

    async def report_crashed(self, flow_run: str) -> None:
        self._fail("report_crashed")
        self.ended[flow_run] = "crashed"

    async def cancel(self, flow_run: str, why: str) -> None:
        self._fail("cancel")
        await asyncio.sleep(0)
        if flow_run in self.silent:
            await asyncio.Event().wait()
        self.ended[flow_run] = why

    @property
    def flow_runs(self) -> list[str]:
        return [flow_run for flow_run, _options in self.started]

    def _next(self, flow_run: str) -> HelperState:
        left = self._left[flow_run]
        return left.pop(0) if len(left) > 1 else left[0]

    def _fail(self, call: str) -> None:
        if call in self.unavailable:
            self.unavailable.remove(call)
            raise HelpersUnavailableError


@pytest.fixture(autouse=True)
def six_records(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.numbered(6)
    monkeypatch.setattr(spreading, "POLL_S", 0)


async def split(workshop: Workshop, runs: HelperRuns, shards: int = 2, **options: Any) -> Summary:
    """Run a template, split over helpers with these flow runs."""

    async def help_as_told(run: SpreadRun) -> None:
        await spread(run, nullcontext(runs), workshop.hosts[-1].log)

    token = HELPING.set(help_as_told)
    try:
        return await workshop.run(shards=shards, **options)
    finally:
        HELPING.reset(token)


def passing(machine: SetMachine, *seconds: float) -> Callable[[], None]:
    """Let this much time pass before the first look, the second, ..."""
    left = list(seconds)

    def look() -> None:
        if left:
            before, passed = machine.monotonic, left.pop(0)
            machine.monotonic = lambda: before() + passed

    return look


def lines(workshop: Workshop, words: str) -> list[str]:
    """The lines of the first run's log with these words."""
    return [line for line in workshop.hosts[0].logged if words in line]


def require_all_done(workshop: Workshop, summary: Summary) -> None:
    assert (summary.succeeded, summary.requests, workshop.requests) == (6, 6, 6)


async def test_run_waits_until_each_helper_has_ended(workshop: Workshop) -> None:
    runs = ToldRuns({1: [[SCHEDULED, RUNNING, COMPLETED]], 2: [[SCHEDULED, SCHEDULED, RUNNING, RUNNING, COMPLETED]]})
    require_all_done(workshop, await split(workshop, runs))
    assert (runs.flow_runs, runs.ended) == (["1/1", "2/1"], {})
    assert lines(workshop, "split over") == ["The run is split over 2 helpers, about 3 records each."]


async def test_there_are_no_more_helpers_than_records(workshop: Workshop) -> None:
    runs = ToldRuns({number: [[COMPLETED]] for number in range(1, 7)})
    await split(workshop, runs, 50)
    assert len(runs.started) == 6


async def test_helper_has_the_options_of_its_run_but_for_its_part_of_the_cap(workshop: Workshop) -> None:
    runs = ToldRuns({number: [[COMPLETED]] for number in (1, 2, 3)})
    summary = await split(workshop, runs, 3, max_cost=10, concurrency=7)
    for number, (_flow_run, options) in enumerate(runs.started, start=1):
        assert (options.shards, options.resumes, options.concurrency) == (None, None, 7)
        assert options.max_cost == pytest.approx(3)
        assert options.helper is not None
        assert (options.helper.run, options.helper.number, options.helper.of) == (summary.run_id, number, 3)


async def test_crashed_helper_is_started_again_as_often_as_the_setting_allows(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_SHARD_ATTEMPTS", "2")
    runs = ToldRuns({1: [[SCHEDULED, CRASHED], [RUNNING, CRASHED], [COMPLETED]], 2: [[SCHEDULED, RUNNING, COMPLETED]]})
    require_all_done(workshop, await split(workshop, runs))
    assert runs.flow_runs == ["1/1", "2/1", "1/2"]
    assert lines(workshop, "Helper 1") == [
        "Helper 1 crashed and is started again.",
        "Helper 1 ended as crashed. This run does its other records itself.",
    ]


@pytest.mark.parametrize("name", ["Failed", "TimedOut"])
async def test_failed_helper_is_not_started_again(workshop: Workshop, name: str) -> None:
    runs = ToldRuns({1: [[RUNNING, state(HelperStateType.FAILED, name)]], 2: [[COMPLETED]]})
    require_all_done(workshop, await split(workshop, runs))
    assert runs.flow_runs == ["1/1", "2/1"]
    assert lines(workshop, "Helper 1") == [f"Helper 1 ended as {name.lower()}. This run does its other records itself."]


async def test_process_that_resumes_starts_only_helpers_that_crashed(workshop: Workshop) -> None:
    runs = ToldRuns({1: [[CRASHED], [CRASHED], [RUNNING, COMPLETED]], 2: [[COMPLETED]], 3: [[RUNNING, COMPLETED]]})
    require_all_done(workshop, await split(workshop, runs, 3))
    assert runs.flow_runs == ["1/1", "1/2", "1/3", "2/1", "3/1"]
    assert lines(workshop, "Helper") == []


async def test_helpers_that_no_worker_starts_are_cancelled_and_the_run_does_their_records(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_SHARD_PATIENCE_S", "0.05")
    runs = ToldRuns({1: [[SCHEDULED]], 2: [[SCHEDULED, COMPLETED]], 3: [[SCHEDULED]]})
    require_all_done(workshop, await split(workshop, runs, 3))
    assert set(runs.ended) == {"1/1", "3/1"}
    assert lines(workshop, "No worker runs 2 helpers")


@pytest.mark.parametrize(
    ("stuck", "for_s", "is_lost"),
    [
        (SUBMITTED, SUBMITTED_WITHIN_S + 1, True),
        (SUBMITTED, SUBMITTED_WITHIN_S - 60, False),
        (PENDING, LONG_S, True),
        (PENDING, SUBMITTED_WITHIN_S + 1, False),
        (RUNNING, LONG_S, True),
        (RUNNING, SUBMITTED_WITHIN_S + 1, False),
        (SCHEDULED, SUBMITTED_WITHIN_S + 1, False),
    ],
    ids=["submitting", "just submitting", "pending", "just pending", "running", "just running", "scheduled"],
)
async def test_helper_that_does_not_begin_counts_as_crashed(
    workshop: Workshop, machine: SetMachine, stuck: HelperState, for_s: float, *, is_lost: bool
) -> None:
    runs = ToldRuns({1: [[stuck, stuck, stuck, COMPLETED], [COMPLETED]], 2: [[RUNNING, COMPLETED]]})
    runs.look = passing(machine, 0, for_s)
    require_all_done(workshop, await split(workshop, runs))
    assert runs.ended == ({"1/1": "crashed"} if is_lost else {})
    assert runs.flow_runs == ["1/1", "2/1", *(["1/2"] if is_lost else [])]


async def test_helper_whose_lease_is_missing_counts_as_crashed_although_it_is_shown_as_running(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "GONE_FOR_S", 0)
    runs = ToldRuns({1: [[RUNNING], [COMPLETED]], 2: [[RUNNING, RUNNING, COMPLETED]]})
    leases: list[Lease] = []

    def work() -> None:
        if not leases:
            run_id = workshop.value("SELECT id FROM runs")
            leases.append(join_run(workshop.ledger, run_id, "1/1", "helper 1"))
        else:
            leave_run(workshop.ledger, leases[0])

    runs.look = work
    require_all_done(workshop, await split(workshop, runs))
    assert (runs.flow_runs, runs.ended) == (["1/1", "2/1", "1/2"], {"1/1": "crashed"})


async def test_helper_that_is_deleted_while_it_is_reported_as_crashed_is_gone_and_the_run_does_its_records(
    workshop: Workshop, machine: SetMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = ToldRuns({1: [[SCHEDULED, SUBMITTED]], 2: [[COMPLETED]]})

    async def deleted_meanwhile(_flow_run: str) -> None:
        monkeypatch.setattr(runs, "states", AsyncMock(return_value={}))
        raise HelpersUnavailableError

    monkeypatch.setattr(runs, "report_crashed", deleted_meanwhile)
    runs.look = passing(machine, 0, SUBMITTED_WITHIN_S + 1)
    require_all_done(workshop, await split(workshop, runs))
    assert lines(workshop, "Helper 1") == ["Helper 1 was deleted in Prefect. This run does its other records itself."]


async def test_server_that_is_unavailable_for_a_while_loses_no_helper(workshop: Workshop, machine: SetMachine) -> None:
    calls = ["start", "start", "states", "states", "report_crashed"]
    runs = ToldRuns({1: [[SCHEDULED, SUBMITTED], [RUNNING, COMPLETED]], 2: [[COMPLETED]]}, calls)
    runs.look = passing(machine, 0, SUBMITTED_WITHIN_S + 1)
    require_all_done(workshop, await split(workshop, runs))
    assert (runs.unavailable, runs.flow_runs, runs.ended) == ([], ["1/1", "2/1", "1/2"], {"1/1": "crashed"})


async def test_run_does_what_its_helpers_can_not_when_their_deployment_is_deleted(workshop: Workshop) -> None:
    runs = ToldRuns({1: [[RUNNING, CRASHED]], 2: [[SCHEDULED]], 3: [[RUNNING, RUNNING, COMPLETED]]})
    runs.look = lambda: setattr(runs, "is_deleted", True)
    require_all_done(workshop, await split(workshop, runs, 3))
    assert (runs.flow_runs, runs.ended) == (["1/1", "2/1", "3/1"], {})
    assert lines(workshop, "Helper 2") == ["Helper 2 was deleted in Prefect. This run does its other records itself."]
    crashed, left = lines(workshop, "Helper 1")
    assert crashed == "Helper 1 crashed and is started again."
    assert left.startswith("Helper 1 can't be started: the deployment of the run's shards was deleted in Prefect. ")


def stop_at_the_second_look(workshop: Workshop, runs: ToldRuns) -> None:
    looks = iter(range(9))

    def stop() -> None:
        stopper = workshop.hosts[0].stopper
        assert stopper is not None
        if next(looks) == 1:
            stopper.stop("Cancel in Prefect")

    runs.look = stop


async def test_stopped_run_cancels_each_helper_that_has_not_ended(workshop: Workshop) -> None:
    runs = ToldRuns({1: [[RUNNING]], 2: [[COMPLETED]], 3: [[RUNNING]]}, ["cancel"])
    stop_at_the_second_look(workshop, runs)
    with pytest.raises(Abort):
        await split(workshop, runs, 3)
    assert runs.ended == {"3/1": "The run of this helper was stopped."}
    assert lines(workshop, "Could not cancel") == ["Could not cancel helper 1."]
    assert workshop.requests == 0


async def test_run_that_is_cut_off_cancels_its_helpers(workshop: Workshop) -> None:
    # Prefect cuts a flow off at its `timeout_seconds`: it cancels this and every later await.
    runs = ToldRuns({1: [[RUNNING]], 2: [[RUNNING]]})
    with CancelScope() as scope:
        runs.look = scope.cancel
        await split(workshop, runs)
    assert scope.cancelled_caught
    assert sorted(runs.ended) == ["1/1", "2/1"]
    assert workshop.value("SELECT status FROM runs") == "cancelled"


async def test_stopped_run_closes_although_the_server_of_its_helpers_does_not_answer(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "HELPERS_CANCELLED_WITHIN_S", 0.01)
    runs = ToldRuns({1: [[RUNNING]], 2: [[RUNNING]]}, silent=frozenset({"1/1"}))
    stop_at_the_second_look(workshop, runs)
    with pytest.raises(Abort):
        await split(workshop, runs)
    assert (list(runs.ended), lines(workshop, "Could not cancel")) == (["2/1"], ["Could not cancel helper 1."])
    assert workshop.value("SELECT status FROM runs") == "cancelled"


async def test_no_helper_is_started_when_the_cap_is_spent(workshop: Workshop) -> None:
    first = await workshop.run()
    workshop.items({"x": "one more"})
    runs = ToldRuns({})
    assert first.cost_usd is not None
    summary = await split(workshop, runs, resumes=first.run_id, max_cost=float(first.cost_usd) / 2)
    assert (runs.started, summary.skipped, workshop.requests) == ([], 1, 6)
