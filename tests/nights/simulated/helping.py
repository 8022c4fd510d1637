"""Helpers in a night: their flow runs as Prefect's server knows them, and the workers that start their processes.

The run and its helpers are the product's own; only what Prefect answers is made up here. A worker takes a scheduled
flow run after a while, and starts its process on a machine that the seed chooses. If the process dies, its flow run
stays Running until the worker notices.
"""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from presswork.engine.orchestration.helper_runs import (
    SUBMITTING,
    HelperState,
    HelperStateType,
    HelpersUnavailableError,
    NoHelpersDeploymentError,
)
from presswork.engine.orchestration.host import SpreadRun
from presswork.engine.orchestration.spread import spread
from presswork.options import RunOptions
from tests.nights.plan import Event, Start
from tests.nights.simulated.host import FlowRun, SimulatedHost
from tests.nights.simulated.processes import SimulatedProcess
from tests.nights.simulated.world import World

POLL_S = 15.0
"""A worker looks for scheduled flow runs, and for those to cancel, this often."""
STARTS_WITHIN_S = 5.0
NOTICES_WITHIN_S = 5.0
"""How long a worker takes to start a process, and to report that one has crashed."""
GRACE_S = 30.0
"""A worker kills a process that has not ended this long after its SIGTERM."""
ANSWERS_WITHIN_S = 0.05
DELETED = "Deleted"
"""Prefect has no such state: a flow run that is deleted is not there."""
_TYPES = {SUBMITTING: HelperStateType.PENDING, "Suspended": HelperStateType.PAUSED}
_FINAL = frozenset({"Completed", "Failed", "Crashed", "Cancelled"})

Launch = Callable[[FlowRun, Start], SimulatedProcess]


class HelperServer:
    """Prefect's server and workers, as far as helpers concern them.

    The plan's events of these kinds count: `no_server` (at a time, for a while; also the answer is lost of a call that
    it begins in); `no_deployment` (somebody deletes the helpers' deployment at a time, for good); and by the number of
    a helper's flow run `no_worker` (none takes it), `late_worker` (one takes it so many seconds later), `worker_dies`
    (one takes it and dies) and `unnoticed` (nobody sees that its process has died).
    """

    def __init__(self, world: World, launch: Launch, events: Sequence[Event], machines: int) -> None:
        self.world = world
        self.flow_runs: dict[str, FlowRun] = {}
        self._launch = launch
        self._machines = machines
        self._outages = [(each.at, each.at + each.size) for each in events if each.kind == "no_server"]
        self._troubles = {(each.kind, each.who): each for each in events}
        self._by_key: dict[str, FlowRun] = {}
        self._processes: dict[str, SimulatedProcess] = {}
        self._is_deleted = False
        world.on_death.append(self._died)
        for each in events:
            if each.kind == "no_deployment":
                world.call_at(each.at, self._delete)

    async def help(self, run: SpreadRun, host: SimulatedHost) -> None:
        """Let helpers do a run's first step, as PrefectHost does."""
        await spread(run, self._opened(host.flow_run), host.log)

    @asynccontextmanager
    async def _opened(self, flow_run: FlowRun) -> AsyncIterator["SimulatedHelperRuns"]:
        yield SimulatedHelperRuns(self, flow_run)

    async def answer(self) -> None:
        """Take the time of a call or of its answer; raises HelpersUnavailableError if the server is unavailable."""
        await asyncio.sleep(self.world.rng.random() * ANSWERS_WITHIN_S)
        if any(begins <= self.world.now < ends for begins, ends in self._outages):
            raise HelpersUnavailableError

    def create(self, of: FlowRun, key: str, options: RunOptions) -> FlowRun:
        """Return the flow run of this key; a new one waits for a worker."""
        if self._is_deleted:
            raise NoHelpersDeploymentError
        if key in self._by_key:
            return self._by_key[key]
        start = replace(
            of.start,
            host=self.world.rng.randrange(self._machines),
            again=False,
            resumes=False,
            deployed=True,
            shards=None,
            max_cost=options.max_cost,
        )
        made = FlowRun(str(uuid.UUID(int=self.world.ids.getrandbits(128), version=4)), start, helper=options.helper)
        number = len(self.flow_runs)
        self.flow_runs[made.id] = self._by_key[key] = made
        self.world.tell(f"flow run {number} is {options.helper}: {made.id}")
        if ("no_worker", number) not in self._troubles:
            late = self._troubles.get(("late_worker", number))
            wait_s = self.world.rng.random() * POLL_S if late is None else late.size
            self.world.call_at(self.world.now + wait_s, partial(self._take, made, number))
        return made

    def _delete(self) -> None:
        """Delete the deployment, and with it the flow runs that no worker has taken."""
        self.world.tell("the deployment of the shards is deleted")
        self._is_deleted = True
        for flow_run in self.flow_runs.values():
            if flow_run.state == "Scheduled":
                flow_run.states.append(DELETED)

    def _take(self, flow_run: FlowRun, number: int) -> None:
        """Let a worker take a flow run."""
        if flow_run.state != "Scheduled":
            return
        flow_run.states += ["Pending", SUBMITTING]
        if ("worker_dies", number) in self._troubles:
            self.world.tell(f"the worker of flow run {number} dies")
            return
        wait_s = self.world.rng.random() * STARTS_WITHIN_S
        self.world.call_at(self.world.now + wait_s, partial(self._begin, flow_run))

    def _begin(self, flow_run: FlowRun) -> None:
        if flow_run.state == "Cancelling":
            flow_run.states.append("Cancelled")
        elif flow_run.state != "Cancelled":
            # Also if its run has reported it as crashed: the worker does not ask again.
            self._processes[flow_run.id] = self._launch(flow_run, flow_run.start)

    def _died(self, process: SimulatedProcess) -> None:
        """Let a worker notice that the process of a helper was killed, unless nobody does."""
        for number, flow_run in enumerate(self.flow_runs.values()):
            if self._processes.get(flow_run.id) is process and ("unnoticed", number) not in self._troubles:
                wait_s = self.world.rng.random() * NOTICES_WITHIN_S
                self.world.call_at(self.world.now + wait_s, partial(self._notice, flow_run))

    def _notice(self, flow_run: FlowRun) -> None:
        if flow_run.state not in _FINAL:
            flow_run.states.append("Cancelled" if flow_run.cancelling else "Crashed")

    def cancel(self, flow_run: FlowRun) -> None:
        """Cancel a flow run: at once if no worker has taken it, else its worker ends its process."""
        if flow_run.state in _FINAL:
            return
        if flow_run.state == "Scheduled":
            flow_run.states.append("Cancelled")
            return
        flow_run.states.append("Cancelling")
        flow_run.cancelling = True
        self.world.call_at(self.world.now + self.world.rng.random() * POLL_S, partial(self._end, flow_run))

    def _end(self, flow_run: FlowRun) -> None:
        process = self._processes.get(flow_run.id)
        if process is None:
            return
        if process.alive:
            process.interrupt(signal.SIGTERM)
            self.world.call_at(self.world.now + GRACE_S, partial(self._kill, flow_run, process))
        else:
            self._notice(flow_run)

    def _kill(self, flow_run: FlowRun, process: SimulatedProcess) -> None:
        self.world.kill(process, "by its worker")
        self._notice(flow_run)


@dataclass(frozen=True)
class SimulatedHelperRuns:
    """Implements presswork.engine.orchestration.helper_runs.HelperRuns for one flow run."""

    server: HelperServer
    of: FlowRun

    async def start(self, options: RunOptions, attempt: int) -> tuple[str, HelperState]:
        helper = options.helper
        assert helper is not None
        await self.server.answer()
        key = f"{self.of.id}/{helper.of}/{helper.number}/{attempt}"
        flow_run = self.server.create(self.of, key, options)
        state = _state(flow_run)
        await self.server.answer()
        return flow_run.id, state

    async def states(self, flow_runs: Sequence[str]) -> dict[str, HelperState]:
        await self.server.answer()
        found = {flow_run: self.server.flow_runs[flow_run] for flow_run in flow_runs}
        return {name: _state(flow_run) for name, flow_run in found.items() if flow_run.state != DELETED}

    async def report_crashed(self, flow_run: str) -> None:
        (await self._found(flow_run)).states.append("Crashed")
        await self.server.answer()

    async def cancel(self, flow_run: str, _why: str) -> None:
        self.server.cancel(await self._found(flow_run))
        await self.server.answer()

    async def _found(self, flow_run: str) -> FlowRun:
        await self.server.answer()
        found = self.server.flow_runs[flow_run]
        if found.state == DELETED:
            raise HelpersUnavailableError
        return found


def _state(flow_run: FlowRun) -> HelperState:
    name = flow_run.state
    kind = _TYPES.get(name) or HelperStateType(name.lower())
    return HelperState(kind, name, since_s=float(len(flow_run.states)))
