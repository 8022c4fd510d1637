"""A simulated process: its event loop, the work of its threads, and how it is killed or stopped for a while.

Each job of a thread has a stack of its own, so it can be held up in the middle while all else goes on.
"""

import asyncio
import fcntl
import signal
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from greenlet import getcurrent, greenlet

from tests.nights.simulated.loop import SimulatedLoop
from tests.nights.simulated.machines import Host, KilledError, SimulatedMachine

if TYPE_CHECKING:
    from tests.nights.simulated.world import World


LOOKS_AGAIN_S = 0.05
"""How long it takes until a job sees that a file is no longer locked."""


class Job(greenlet):
    """What a thread of a process does, until it is done or held up."""

    def __init__(self, process: "SimulatedProcess", do: Callable[[], None], *, has_followers: bool) -> None:
        super().__init__(do)
        self._process = process
        self._has_followers = has_followers  # the next job of its thread begins after it

    @classmethod
    def now(cls) -> Self | None:
        """Return the job that goes on now; None outside of all threads."""
        current = getcurrent()
        return current if isinstance(current, cls) else None

    def hold_up(self, seconds: float) -> None:
        """Let all else go on for this long, and longer if the process is stopped then. Only the job itself calls this.

        Raises KilledError if the process is killed meanwhile.
        """
        now = self._process.world.now
        if self._has_followers:
            self._process.held_up.append((now, now + seconds))
        self._process.go_on_at(now + seconds, self)
        assert self.parent is not None
        self.parent.switch()


class FileLocks:
    """Stands in for the module fcntl: a job that waits for the lock of a file lets all else go on."""

    LOCK_EX = fcntl.LOCK_EX

    @staticmethod
    def flock(file: int, kind: int) -> None:
        """Lock an open file; raises BlockingIOError at once outside of all threads, where nothing can wait."""
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                job = Job.now()
                if job is None:
                    raise
                job.hold_up(LOOKS_AGAIN_S)
            else:
                return


@dataclass(eq=False)
class SimulatedProcess:
    """A process: its loop, and its machine as it sees it.

    `steps` counts the handles that ran; `kill_at` is the step before which it is killed, `freeze_at` maps steps to the
    seconds for which it then stops. `held_up` is when a thread whose jobs run in their order could not go on.
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
    held_up: list[tuple[float, float]] = field(default_factory=list)
    ended_at: float | None = None

    def __post_init__(self) -> None:
        self.machine = SimulatedMachine(self.world, self.on, self.pid)
        # The stubs call abstract what asyncio itself only leaves unimplemented: sockets and subprocesses.
        self.loop = SimulatedLoop(self.machine.monotonic_s, self)  # type: ignore[abstract]
        self._queues: dict[object, deque[Job]] = {}
        self._jobs: dict[Job, None] = {}
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
        self.alive, self.task = False, None
        self.end_jobs()
        self._queues.clear()
        self.loop.forget()

    def end_jobs(self) -> None:
        """End the jobs of a process that is killed. What they still do reaches no ledger, but closes their files."""
        for job in tuple(self._jobs):
            if job and job is not getcurrent():
                job.parent = getcurrent()
                job.throw(KilledError)
        self._jobs.clear()

    def stop_until(self, moment: float) -> None:
        """Step nothing before this moment."""
        if moment > self.frozen_until:
            self.frozen.append((self.world.now, moment))
            self.frozen_until = moment

    # Threads

    @property
    def has_jobs(self) -> bool:
        """Whether its threads have something to do."""
        return bool(self._jobs)

    def work(self, executor: object, function: Callable[[], Any], done: asyncio.Future[Any]) -> None:
        """Call a function a moment later; the jobs of one executor run in their order, those of the default in any."""

        def do() -> None:
            try:
                result, error = function(), None
            except KilledError:
                self.world.kill(self, "in a thread")
                return
            except Exception as raised:  # noqa: BLE001 - the future's owner handles it, as with a real thread
                result, error = None, raised
            del self._jobs[job]
            queue.popleft()
            if queue:
                self.go_on_at(self.world.now + self.world.lags(), queue[0])
            self.loop.call_soon(self._answer, done, result, error)

        job = Job(self, do, has_followers=executor is not None)
        self._jobs[job] = None
        queue = deque[Job]() if executor is None else self._queues.setdefault(executor, deque())
        queue.append(job)
        if len(queue) == 1:
            self.go_on_at(self.world.now + self.world.lags(), job)

    def go_on_at(self, when: float, job: Job) -> None:
        """Let a job begin or go on at a time, and not before the process may."""
        self.world.call_at(when, partial(self._go_on, job))

    def _go_on(self, job: Job) -> None:
        if self.alive and self.frozen_until > self.world.now:
            self.go_on_at(self.frozen_until, job)
        elif self.alive:
            self.world.enter(self)
            job.switch()

    @staticmethod
    def _answer(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)
