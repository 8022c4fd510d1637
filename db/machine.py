"""What a process asks its machine: the time, pauses, ids, and which processes there are. Nothing else asks them.

`here()` answers for the process that runs. A simulated process has a machine of its own, whose clocks can be wrong, can
jump and can stop. This module loads quickly, because almost every other module asks for the time.
"""

import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

UNKNOWN = "-"
SLACK_MS = 50
"""Ignore smaller differences: they come from the network, and following them would disorder one process's ids."""
SLOWEST_S = 1.0
"""Ignore slower measurements, such as one that waited for a lock: the error is up to half of the time taken."""
MOST_BEHIND_S = 86_400.0
"""A wall clock that is further behind the newest row has been set right: that row's time was wrong.

Local time taken for UTC is wrong by 14 hours at most, and summer time by one. A larger error has another cause."""
TIMESTAMP_BIT = 80
"""A UUIDv7 begins with 48 bits of milliseconds."""
_PROC = Path("/proc")
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Machine:
    """The machine of this process, as the operating system describes it.

    A subclass may answer instead of it. Its class may also have plain attributes in place of the properties.
    """

    def __init__(self) -> None:
        self.ledger_clock = LedgerClock(self)

    def monotonic_s(self) -> float:
        """Return seconds that only ever rise; they may leave out the time that the machine slept."""
        return time.monotonic()

    def boot_time_s(self) -> float:
        """Return the seconds since this machine started, including the time that it slept."""
        return time.clock_gettime(_BOOT_CLOCK)

    def wall_time_s(self) -> float:
        """Return the seconds since 1970 by the machine's clock, which people can set."""
        return time.time()

    def modified_s(self, path: Path) -> float:
        """Return when a file was last changed, in seconds since 1970 by the machine's clock; raises OSError."""
        return path.stat().st_mtime

    def pause(self, seconds: float) -> None:
        """Block this thread."""
        time.sleep(seconds)

    def uuid7(self) -> int:
        """Return a new UUIDv7 by the machine's clock; later ones of one process are greater."""
        made: int = _uuid7()().int
        return made

    @property
    def host(self) -> str:
        """The machine's name."""
        return socket.gethostname()

    @property
    def boot_id(self) -> str:
        """The id of this boot of the machine; UNKNOWN if the system does not report one."""
        return _read_boot_id()

    @property
    def pid(self) -> int:
        """The number of this process."""
        return os.getpid()

    @property
    def pid_namespace(self) -> str:
        """The namespace in which `pid` counts; UNKNOWN if the system does not report one."""
        try:
            return str((_PROC / "self/ns/pid").readlink()).strip("pid:[]") or UNKNOWN
        except OSError:
            return UNKNOWN

    def end_process(self, status: int) -> NoReturn:
        """End this process at once: nothing in it runs any more, no `finally` block either."""
        os._exit(status)

    def exists(self, pid: int) -> bool | None:
        """Whether a process has this pid now; None if that can't be seen."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            return None
        return True

    def started(self, pid: int) -> str:
        """When a process started: in clock ticks since boot on Linux, else in seconds. UNKNOWN for a zombie or none."""
        import psutil  # noqa: PLC0415 - takes longer to load than all else here, and few commands ask this

        try:
            process = psutil.Process(pid)
            if process.status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}:
                return UNKNOWN
            # create_time() moves when the clock is set. By this value, psutil itself recognizes a process; it has no
            # public name.
            _pid, created = vars(process)["_ident"]
        except (psutil.Error, OSError, RuntimeError):  # macOS reports some refusals as the last two
            return UNKNOWN
        if created is None:
            return UNKNOWN
        return str(round(created * os.sysconf("SC_CLK_TCK"))) if psutil.LINUX else f"{created:.6f}"


class LedgerClock:
    """The ledger's time in this process: the machine's wall clock until `set` or `keep_up_with` is called.

    There is one in each process, because many modules make ids. With two ledgers, the one measured last sets it.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.reset()

    def reset(self) -> None:
        """Use this machine's wall clock again."""
        self._ahead_s: float | None = None  # the ledger's seconds since 1970 minus this machine's seconds since boot
        self._is_own = False  # whether the ledger's clock is this machine's
        self._ignored_s = 0.0
        self._is_told = False
        self._shift_ms = self._id_shift_ms = 0

    def set(self, ledger_time: datetime, boot_s: float, took_s: float = 0.0) -> None:
        """Adopt the time of a shared ledger, which was read within `took_s` seconds after this machine's `boot_s`.

        Measurements slower than SLOWEST_S are ignored if there is an earlier one.
        """
        if self._ahead_s is None or self._is_own or took_s <= SLOWEST_S:
            self._ahead_s, self._is_own = ledger_time.timestamp() - (boot_s + took_s / 2), False

    def keep_up_with(self, newest_s: float) -> bool:
        """Follow the wall clock of this machine's own ledger, but never fall behind its newest row, or run backwards.

        `newest_s` are the row's seconds since 1970. A row that is further ahead than MOST_BEHIND_S is ignored; returns
        True the first time, for the caller to warn of it.
        """
        wall_s, boot_s = self._machine.wall_time_s(), self._machine.boot_time_s()
        ahead_s = self._ahead_s if self._is_own and self._ahead_s is not None else wall_s - boot_s
        is_likely = newest_s - wall_s <= MOST_BEHIND_S
        self._ahead_s, self._is_own = max(ahead_s, newest_s - boot_s) if is_likely else ahead_s, True
        is_news = not is_likely and newest_s > self._ignored_s
        self._ignored_s = newest_s if is_news else self._ignored_s
        return is_news

    def is_news(self, ahead_s: float) -> bool:
        """Whether the ledger's time is for the first time this far ahead of the machine's clock."""
        was_told, self._is_told = self._is_told, self.now_s() - self._machine.wall_time_s() > ahead_s
        return self._is_told and not was_told

    def now(self) -> datetime:
        """Return the ledger's time in UTC."""
        return datetime.fromtimestamp(self.now_s(), UTC)

    def now_s(self) -> float:
        """Return the ledger's seconds since 1970."""
        if self._ahead_s is None:
            return self._machine.wall_time_s()
        if self._is_own:
            return self._own_s(self._ahead_s)
        found = round((self._ahead_s + self._machine.boot_time_s() - self._machine.wall_time_s()) * 1000)
        if abs(found - self._shift_ms) > SLACK_MS:
            self._shift_ms = found
        return self._machine.wall_time_s() + self._shift_ms / 1000

    def _own_s(self, ahead_s: float) -> float:
        # In this order: if this thread is held up between the two, the result is later, as it should be, and the wall
        # clock only seems to be behind.
        wall_s = self._machine.wall_time_s()
        boot_s = self._machine.boot_time_s()
        if not 0 < ahead_s + boot_s - wall_s <= MOST_BEHIND_S:
            self._ahead_s = ahead_s = wall_s - boot_s
        return ahead_s + boot_s

    def new_uuid7(self) -> int:
        """Return a new UUIDv7 by the ledger's time; later ones of one process are greater."""
        # The library that makes ids stops its clock while the wall clock is behind an id that it has made. So the
        # difference is measured from the id, and only a clear one counts: small ones would disorder ids.
        now_ms = int(self.now_s() * 1000)
        made = self._machine.uuid7()
        found = now_ms - (made >> TIMESTAMP_BIT)
        if abs(found - self._id_shift_ms) > SLACK_MS:
            self._id_shift_ms = max(found, 0) if self._is_own else found
        return made + (self._id_shift_ms << TIMESTAMP_BIT)


class _Here:
    """The machine that answers now."""

    machine = Machine()


def here() -> Machine:
    """Return the machine of the process that runs."""
    return _Here.machine


def use(machine: Machine) -> Machine:
    """Let this machine answer from now on, in all threads, and return the one before; only tests call it."""
    before, _Here.machine = _Here.machine, machine
    return before


def monotonic_s() -> float:
    """Return seconds that only ever rise, for measuring how long something takes."""
    return _Here.machine.monotonic_s()


def boot_time_s() -> float:
    """Return the seconds since this machine started; unlike monotonic_s(), they include the time that it slept."""
    return _Here.machine.boot_time_s()


def wall_time_s() -> float:
    """Return the seconds since 1970 by this machine's clock. Rows of the ledger have db.clock.now() instead."""
    return _Here.machine.wall_time_s()


def utc_now() -> datetime:
    """Return the current time in UTC by this machine's clock. Rows of the ledger have db.clock.now() instead."""
    return datetime.fromtimestamp(_Here.machine.wall_time_s(), UTC)


def pause(seconds: float) -> None:
    """Block this thread; coroutines use asyncio.sleep()."""
    _Here.machine.pause(seconds)


@lru_cache(maxsize=1)
def _read_boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or UNKNOWN
    except (OSError, ValueError):
        return UNKNOWN


@lru_cache(maxsize=1)
def _uuid7() -> Callable[[], Any]:
    import uuid_utils  # noqa: PLC0415 - only what writes to the ledger makes ids

    return uuid_utils.uuid7
