"""An event loop that a simulation steps: one handle at a time, with simulated time and simulated threads.

Well-kept virtual clocks for asyncio move timers only. Here work in threads is simulated too, and a loop can stop in
the middle, as a killed process does: none of its `finally` blocks run.
"""

import asyncio
import heapq
import signal
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, Protocol, TypeVar, TypeVarTuple

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Threads(Protocol):
    """Runs the work of a process's threads."""

    def work(self, executor: object, function: Callable[[], Any], done: asyncio.Future[Any]) -> None:
        """Call a function later, and give its result or error to the future."""


class SimulatedLoop(asyncio.AbstractEventLoop):
    """The loop of one simulated process. `clock` is its monotonic time; `errors` are those that nobody handled."""

    def __init__(self, clock: Callable[[], float], threads: Threads) -> None:
        self._clock = clock
        self._threads = threads
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = 0
        self._signals: dict[int, Callable[[], object]] = {}
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.errors: list[str] = []
        self._is_over = False

    # What the driver uses

    def is_ready(self) -> bool:
        """Return whether a handle can run now."""
        self._move_due()
        return bool(self._ready)

    def due(self) -> float | None:
        """Return the time of the next timer; None if there is none."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def step(self) -> None:
        """Run the next handle."""
        handle = self._ready.popleft()
        if not handle.cancelled():
            handle._run()

    def receive(self, number: signal.Signals) -> bool:
        """Deliver a signal; returns False if the process has no handler for it."""
        handler = self._signals.get(number)
        if handler is not None:
            self.call_soon(handler)
        return handler is not None

    def close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Close an asynchronous generator that nobody iterates any more, as asyncio.run does."""
        # When all is forgotten, that would keep it alive.
        if not self._is_over:
            self.call_soon(lambda: self.create_task(generator.aclose()))

    def forget(self) -> None:
        """Drop all tasks, handles and timers."""
        self._is_over = True
        for each in (self._ready, self._timers, self._signals, self.tasks):
            each.clear()

    def _move_due(self) -> None:
        now = self._clock()
        while self._timers and self._timers[0][0] <= now:
            *_when, handle = heapq.heappop(self._timers)
            if not handle.cancelled():
                self._ready.append(handle)

    # What asyncio uses

    def time(self) -> float:
        return self._clock()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._clock() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._numbers += 1
        heapq.heappush(self._timers, (when, self._numbers, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is dropped when it is due."""

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Arguments], T], *args: *Arguments
    ) -> asyncio.Future[T]:
        done = self.create_future()
        self._threads.work(executor, lambda: func(*args), done)
        return done

    def add_signal_handler(self, sig: int, callback: Callable[[*Arguments], object], *args: *Arguments) -> None:
        self._signals[sig] = lambda: callback(*args)

    def remove_signal_handler(self, sig: int) -> bool:
        return self._signals.pop(sig, None) is not None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(f"{context['message']}: {context.get('exception')!r}")


class LoneLoop(SimulatedLoop):
    """The only loop of a test, without threads: time passes only while all tasks wait, from `now` on."""

    def __init__(self, now: float) -> None:
        self.now = now
        super().__init__(lambda: self.now, self)

    def work(self, executor: object, function: Callable[[], Any], done: asyncio.Future[Any]) -> None:
        """Raise NotImplementedError, because what a test steps alone has no threads."""
        raise NotImplementedError

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Step until this work is done, and return its result."""
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(work)
            while not task.done():
                if self.is_ready():
                    self.step()
                else:
                    due = self.due()
                    assert due is not None, "all tasks wait for nothing that can come"
                    self.now = due
        finally:
            asyncio._set_running_loop(None)
        return task.result()
