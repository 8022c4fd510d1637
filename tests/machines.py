"""A machine whose answers a test sets; `tests/conftest.py` has the fixture `machine`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from db.machine import Machine, use

T = TypeVar("T", bound=Machine)


class SetMachine(Machine):
    """This machine, except for what a test sets.

    The clocks and the pause are functions without or with one argument. The others are what the system would report.
    """

    host = boot_id = pid_namespace = ""
    pid = 0

    def __init__(self) -> None:
        super().__init__()
        real = Machine()
        self.host, self.boot_id, self.pid_namespace, self.pid = real.host, real.boot_id, real.pid_namespace, real.pid
        self.monotonic: Callable[[], float] = real.monotonic_s
        self.boot: Callable[[], float] = real.boot_time_s
        self.wall: Callable[[], float] = real.wall_time_s
        self.sleep: Callable[[float], None] = real.pause

    def monotonic_s(self) -> float:
        return self.monotonic()

    def boot_time_s(self) -> float:
        return self.boot()

    def wall_time_s(self) -> float:
        return self.wall()

    def pause(self, seconds: float) -> None:
        self.sleep(seconds)


@contextmanager
def using(machine: T) -> Iterator[T]:
    """Let a machine answer within the context."""
    before = use(machine)
    try:
        yield machine
    finally:
        use(before)
