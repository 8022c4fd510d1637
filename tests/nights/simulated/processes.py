"""A simulated process: its event loop, the work of its threads, and how it is killed or stopped for a while."""

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from db.machine import use
from tests.nights.simulated.loop import SimulatedLoop
from tests.nights.simulated.machines import Host, SimulatedMachine

if TYPE_CHECKING:
    from tests.nights.simulated.world import World


class KilledError(BaseException):
    """The process that works on this is killed. Nothing in it may catch this, or do anything after it."""


@dataclass(eq=False)
class SimulatedProcess:
    """A process: its loop, and its machine as it sees it.

    `steps` counts the handles that ran; `kill_at` is the step before which it is killed, `freeze_at` maps steps to the
    seconds for which it then stops.
    """

    world: "World"
    name: str
    on: Host
    pid: int
    main: Callable[[], Coroutine[Any, Any, None]]
    alive: bool = True
    killed: bool = False
    steps: int = 0
    kill_at: int | None = None
    freeze_at: dict[int, float] = field(default_factory=dict)
    frozen_until: float = 0.0
    frozen: list[tuple[float, float]] = field(default_factory=list)
    ended_at: float | None = None

    def __post_init__(self) -> None:
        self.machine = SimulatedMachine(self.world, self.on, self.pid)
        # The stubs call abstract what asyncio itself only leaves unimplemented: sockets and subprocesses.
        self.loop = SimulatedLoop(self.machine.monotonic_s, self)  # type: ignore[abstract]
        self._queues: dict[object, deque[Callable[[], None]]] = {}
        self.task: asyncio.Task[None] | None = None
        self.on.processes[self.pid] = self

    def begin(self) -> None:
        """Create the main task."""
        self.task = self.loop.create_task(self.main(), name=self.name)

    def interrupt(self, number: signal.Signals) -> None:
        """Deliver a signal. Without a handler it cancels the main task, as asyncio.run does at Ctrl-C."""
        if self.alive and not self.loop.receive(number) and self.task is not None:
            self.task.cancel()

    def can_step(self) -> bool:
        """Return whether a handle of this process can run now."""
        return self.alive and self.frozen_until <= self.world.now and self.loop.is_ready()

    def forget(self) -> None:
        """Drop everything that this process was doing."""
        self.task = None
        self._queues.clear()
        self.loop.forget()

    def stop_until(self, moment: float) -> None:
        """Step nothing before this moment."""
        if moment > self.frozen_until:
            self.frozen.append((self.world.now, moment))
            self.frozen_until = moment

    # Threads

    def work(self, executor: object, function: Callable[[], Any], done: asyncio.Future[Any]) -> None:
        """Call a function a moment later; the jobs of one executor run in their order, those of the default in any."""

        def run() -> None:
            if not self.alive:
                return
            if self.frozen_until > self.world.now:
                self.world.call_at(self.frozen_until, run)
                return
            queue = self._queues.get(executor)
            if executor is not None and queue:
                queue.popleft()
                if queue:
                    self.world.call_at(self.world.now + self.world.lags(), queue[0])
            self.world.current = self
            use(self.machine)
            try:
                result, error = function(), None
            except KilledError:
                self.world.kill(self, "in a thread")
                return
            except Exception as raised:  # noqa: BLE001 - the future's owner handles it, as with a real thread
                result, error = None, raised
            self.loop.call_soon(self._answer, done, result, error)

        if executor is None:
            self.world.call_at(self.world.now + self.world.lags(), run)
            return
        queue = self._queues.setdefault(executor, deque())
        queue.append(run)
        if len(queue) == 1:
            self.world.call_at(self.world.now + self.world.lags(), run)

    @staticmethod
    def _answer(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)
