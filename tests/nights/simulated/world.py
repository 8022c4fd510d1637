"""A world of simulated processes under one clock, in which every choice is drawn from a seed.

The driver steps one handle of one process at a time. Time passes a little with each step, and jumps to the next timer
or event when no process has anything to do. A killed process is never stepped again. A frozen one goes on later.
"""

import asyncio
import gc
import heapq
import random
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from db.machine import use
from tests.nights.simulated.machines import Host
from tests.nights.simulated.processes import SimulatedProcess

STEP_S = 20e-6
"""How long a step takes."""
BURST = 12
"""At most this many steps of one process come before the seed chooses again."""
COLLECT_EVERY = 25
"""A collection of garbage takes as long as a third of a night."""


class EndlessNightError(Exception):
    """The night does not end: processes wait, or work, for longer than anything should take."""


class World:
    """The true time, the seed's draws, the machines and the processes of one night."""

    forgotten = 0

    def __init__(self, seed: int, folder: str = "") -> None:
        self.folder = folder
        self.now = 0.0
        self.rng = random.Random(f"choices {seed}")
        self.ids = random.Random(f"ids {seed}")
        self.holds = random.Random(f"holds {seed}")
        self.fails = random.Random(f"fails {seed}")
        self.hosts: dict[str, Host] = {}
        self.processes: list[SimulatedProcess] = []
        self.current: SimulatedProcess | None = None
        self.story: list[str] = []
        self.on_death: list[Callable[[SimulatedProcess], None]] = []
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = 0
        self._steps = 0

    def tell(self, line: str) -> None:
        """Add a line to the night's story, without the name of the folder, which is another one each time."""
        self.story.append(f"{self.now:12.3f}  {line.replace(self.folder, '') if self.folder else line}")

    def call_at(self, when: float, work: Callable[[], object]) -> None:
        """Do something at a time, outside of all processes."""
        self._numbers += 1
        heapq.heappush(self._events, (max(when, self.now), self._numbers, work))

    def lags(self) -> float:
        """Draw how long a thread takes until it has done its work."""
        return self.rng.random() * 0.002

    def host(self, name: str) -> Host:
        """Return a machine."""
        return self.hosts.setdefault(name, Host(name))

    def start(self, name: str, on: Host, main: Callable[[], Coroutine[Any, Any, None]]) -> SimulatedProcess:
        """Start a process on a machine."""
        process = SimulatedProcess(self, name, on, 1000 + len(self.processes), main)
        self.processes.append(process)
        self.tell(f"{name} starts on {on.name}")
        if on.asleep_until > self.now:
            process.stop_until(on.asleep_until)
        self.enter(process)
        process.begin()
        return process

    def kill(self, process: SimulatedProcess, how: str = "") -> None:
        """Kill a process: it is never stepped again."""
        if process.alive:
            process.alive, process.killed, process.ended_at = False, True, self.now
            self.tell(f"{process.name} is killed at its step {process.steps}{f' {how}' if how else ''}")
            before = self.current
            self.enter(process)
            process.end_jobs()
            if before is not None:
                self.enter(before)
            for told in self.on_death:
                told(process)

    def freeze(self, process: SimulatedProcess, seconds: float) -> None:
        """Stop a process for a while; all clocks go on."""
        process.stop_until(self.now + seconds)
        self.tell(f"{process.name} freezes for {seconds:.1f} s")

    def sleep(self, host: Host, seconds: float) -> None:
        """Let a machine sleep: its processes stop, and its monotonic clock with them."""
        if self.now < host.asleep_until:
            return
        host.asleep_until = self.now + seconds
        self.tell(f"{host.name} sleeps for {seconds:.1f} s")
        for process in host.processes.values():
            if process.alive:
                process.stop_until(host.asleep_until)
        boot = host.boots

        def wake() -> None:
            if host.boots == boot:
                host.slept_s += seconds

        self.call_at(host.asleep_until, wake)

    def reboot(self, host: Host) -> None:
        """Kill all processes of a machine and start it again, with another boot id and a boot clock from zero."""
        for process in list(host.processes.values()):
            self.kill(process, "by a reboot")
        host.processes.clear()
        host.boots, host.booted_at, host.slept_s, host.asleep_until = host.boots + 1, self.now, 0.0, self.now
        self.tell(f"{host.name} reboots")

    def forget(self) -> None:
        """Forget all processes. Python then closes the coroutines of killed ones: their `finally` blocks reach nothing.

        Call it when the night is checked, and before the next one.
        """
        with _nobody_is_told():
            for process in self.processes:
                self.current = process
                use(process.machine)
                process.forget()
            self._events.clear()  # they hold jobs, whose results coroutines wait for
            if World.forgotten % COLLECT_EVERY == 0:
                gc.collect()
            World.forgotten += 1

    @staticmethod
    def collect() -> None:
        """Collect what is left of all nights; call it after the last one."""
        with _nobody_is_told():
            # A coroutine that is closed begins others, in its `finally` blocks.
            while gc.collect():
                pass

    def run(self, until: float, *, most_steps: int = 100_000) -> None:
        """Step until no process is alive and no event is left, or raise EndlessNightError."""
        while self._advance(until):
            if self._steps > most_steps:
                raise EndlessNightError(f"more than {most_steps:,} steps")

    def _advance(self, until: float) -> bool:
        if self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()
            return True
        ready = [each for each in self.processes if each.can_step()]
        if ready:
            self._burst(ready[0] if len(ready) == 1 else self.rng.choice(ready))
            return True
        times = [self._events[0][0]] if self._events else []
        for each in self.processes:
            if not each.alive:
                continue
            due = each.loop.due()
            if each.frozen_until > self.now:
                times.append(each.frozen_until)
            elif due is not None:
                times.append(self.now + max(due - each.machine.monotonic_s(), STEP_S))
        if not times:
            waiting = [each.name for each in self.processes if each.alive]
            if waiting:
                raise EndlessNightError(f"{', '.join(waiting)} waits for nothing that can come")
            return False
        self.now = max(self.now, min(times))
        if self.now > until:
            waiting = [each.name for each in self.processes if each.alive]
            raise EndlessNightError(f"after {until:,.0f} s {', '.join(waiting) or 'no process'} is still at work")
        return True

    def _burst(self, process: SimulatedProcess) -> None:
        self.enter(process)
        loop, left = process.loop, 1 + self.rng.randrange(BURST)
        while left and process.alive:
            left -= 1
            self.now += STEP_S
            self._steps += 1
            process.steps += 1
            if process.steps == process.kill_at:
                self.kill(process)
                return
            if process.steps in process.freeze_at:
                self.freeze(process, process.freeze_at[process.steps])
                return
            loop.step()
            if process.task is not None and process.task.done():
                self._leave(process)
                return
            if (self._events and self._events[0][0] <= self.now) or not loop.is_ready():
                return

    def enter(self, process: SimulatedProcess) -> None:
        """Let a process be the one that runs."""
        # Public functions of asyncio ask for the running loop, and only a running loop may set it.
        asyncio._set_running_loop(process.loop)
        sys.set_asyncgen_hooks(finalizer=process.loop.close_generator)
        use(process.machine)
        self.current = process

    def _leave(self, process: SimulatedProcess) -> None:
        """End a process whose main task is done, as Python does: its other tasks are cancelled, its threads awaited."""
        for task in tuple(process.loop.tasks):
            task.cancel()
        while process.loop.is_ready():
            process.loop.step()
        if process.has_jobs:
            return
        process.alive, process.ended_at = False, self.now
        self.tell(f"{process.name} ends")


@contextmanager
def _nobody_is_told() -> Iterator[None]:
    """Let Python close the coroutines of killed processes without a word."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _raised: None
    asyncio._set_running_loop(None)
    sys.set_asyncgen_hooks(None, None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = hook
