"""A machine whose answers a test sets, and a SQLite ledger that several such machines share.

`tests/conftest.py` has the fixture `machine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeVar

from sqlalchemy import Engine, event

from db.clock import SHARED
from db.machine import Machine, use

T = TypeVar("T", bound=Machine)
_IDS = count(1)  # of all machines, because no two may make the same id


class SetMachine(Machine):
    """This machine, except for what a test sets.

    The clocks and the pause are functions without or with one argument. The others are what the system would report.
    """

    host = boot_id = pid_namespace = ""
    pid = 0

    def __init__(self) -> None:
        super().__init__()
        real = self._real = Machine()
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

    def uuid7(self) -> int:
        if self.wall == self._real.wall_time_s:
            return super().uuid7()
        return int(self.wall() * 1000) << 80 | 0x7 << 76 | 0b10 << 62 | next(_IDS)


@contextmanager
def using(machine: T) -> Iterator[T]:
    """Let a machine answer within the context."""
    before = use(machine)
    try:
        yield machine
    finally:
        use(before)


def shared_by_machines(ledger: Engine, database_s: Callable[[], float]) -> Engine:
    """Make a SQLite ledger one whose database has a clock of its own, in seconds since 1970."""

    def database_time(plus_s: float) -> str:
        return f"{datetime.fromtimestamp(database_s() + plus_s, UTC):%Y-%m-%d %H:%M:%S.%f}"

    def define(connection: Any, _record: object) -> None:
        connection.create_function("database_time", 1, database_time)

    event.listen(ledger, "connect", define)
    ledger.dispose()  # it has connections without the function
    return ledger.execution_options(**{SHARED: True})
