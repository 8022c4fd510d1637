"""Stop a run cleanly: by Ctrl-C, by SIGTERM, or by Cancel in the Prefect UI, which the run's host watches.

First no new request is sent, and the run waits for those in flight, up to a setting. Then it cuts them off and marks
them as abandoned. A second Ctrl-C cuts them off at once.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from db.machine import here
from presswork.errors import StoppedError, copy_of


@dataclass
class Pursuit:
    """A task that a stop ends: at once while it only waits, later while it is `busy`.

    A busy one that `ends_by_itself` is never cancelled.
    """

    busy: bool = False
    ends_by_itself: bool = False


class Stopper:
    """Stops the pursuits of a run: first those that wait, then those in flight."""

    def __init__(self, *, wait_s: float, close_gate: Callable[[StoppedError], None]) -> None:
        self._wait_s = wait_s
        self._close_gate = close_gate
        self._pursuits: dict[asyncio.Task[Any], Pursuit] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.reason: StoppedError | None = None

    def stop(self, why: str, wait_s: float | None = None) -> None:
        """Close the gate and end the pursuits that only wait; a second call also cuts off those in flight.

        `wait_s` shortens the wait for requests in flight, if it is less than the setting.
        """
        if self.reason is not None:
            self.abandon()
            return
        self.reason = StoppedError(f"The run was stopped ({why}). To resume, run it again.")
        self._close_gate(self.reason)
        self._end(busy=False)
        self._timer = asyncio.get_running_loop().call_later(min(self._wait_s, wait_s or self._wait_s), self.abandon)

    def abandon(self) -> None:
        """Cut off the requests in flight: their answers may be billed, and are lost."""
        self._end(busy=False)
        self._end(busy=True)

    def in_flight(self) -> int:
        """How many requests a stop waits for; may be read from another thread."""
        return sum(pursuit.busy and not pursuit.ends_by_itself for pursuit in tuple(self._pursuits.values()))

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    @contextlib.contextmanager
    def pursuing(self, pursuit: Pursuit | None = None) -> Iterator[Pursuit]:
        """Let a stop cancel the current task; the cancellation is raised as the run's StoppedError."""
        if self.reason is not None:
            raise copy_of(self.reason)
        task = asyncio.current_task()
        assert task is not None
        pursuit = self._pursuits[task] = pursuit or Pursuit()
        try:
            yield pursuit
        except asyncio.CancelledError:
            if self.reason is None:
                raise
            raise copy_of(self.reason) from None
        finally:
            self._pursuits.pop(task, None)

    def _end(self, *, busy: bool) -> None:
        for task, pursuit in tuple(self._pursuits.items()):
            if pursuit.busy == busy and not (busy and pursuit.ends_by_itself):
                task.cancel()


@contextlib.contextmanager
def stopped_by_signals(stopper: Stopper) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop the run while the context is open; a third signal ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    received_so_far = 0

    def received(number: signal.Signals) -> None:
        nonlocal received_so_far
        received_so_far += 1
        if received_so_far > 2:
            here().end_process(128 + number)
        stopper.stop(number.name)

    for number in before:
        loop.add_signal_handler(number, received, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


@contextlib.asynccontextmanager
async def in_background(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run work in a task of this name while the context is open, then cancel it."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
