"""The ledger's clock, so that the order of rows does not depend on which machine's clock is ahead.

The processes that write rows also make their ids and times. With PostgreSQL they may run on several machines whose
clocks differ, so each process measures its difference from the database's clock. A SQLite ledger is on this machine.
"""

import time
from datetime import UTC, datetime, timedelta

import uuid_utils
from sqlalchemy import Engine, text

from db.identity import boot_time_s

TRIES = 3  # measurements at the start; the quickest one counts
SLACK_MS = 50
"""Ignore smaller differences: they come from the network, and following them would disorder one process's ids."""
SLOWEST_S = 1.0
"""Ignore slower measurements, such as one that waited for a lock: the error is up to half of the time taken."""
_TIMESTAMP_BIT = 80  # a UUIDv7 begins with 48 bits of milliseconds


class Clock:
    """The ledger's time in this process: the machine's own time until `set` is called."""

    def __init__(self) -> None:
        self._ahead_s: float | None = None  # the ledger's seconds since 1970 minus this machine's seconds since boot
        self._shift_ms = 0

    def set(self, ledger_time: datetime, boot_s: float, took_s: float = 0.0) -> None:
        """Adopt the ledger's time, which was read within `took_s` seconds after this machine's `boot_s`.

        Measurements slower than SLOWEST_S are ignored if there is an earlier one.
        """
        if self._ahead_s is None or took_s <= SLOWEST_S:
            self._ahead_s = ledger_time.timestamp() - (boot_s + took_s / 2)

    def reset(self) -> None:
        """Use this machine's own clock again."""
        self._ahead_s, self._shift_ms = None, 0

    def shift_ms(self) -> int:
        """Return the ledger's time minus this machine's, in milliseconds; it changes if either clock is corrected."""
        if self._ahead_s is not None:
            found = round((self._ahead_s + boot_time_s() - time.time()) * 1000)
            if abs(found - self._shift_ms) > SLACK_MS:
                self._shift_ms = found
        return self._shift_ms


CLOCK = Clock()
"""One clock per process, because many modules make ids. With two ledgers, the one measured last sets it."""


def now() -> datetime:
    """Return the current time in UTC, by the ledger's clock."""
    return datetime.now(UTC) + timedelta(milliseconds=CLOCK.shift_ms())


def new_id() -> str:
    """Return a UUIDv7 as text; later ids, by the ledger's clock, sort later."""
    made = uuid_utils.uuid7()
    shift = CLOCK.shift_ms()
    return str(uuid_utils.UUID(int=made.int + (shift << _TIMESTAMP_BIT)) if shift else made)


def agree(engine: Engine) -> None:
    """Measure the difference from the ledger's clock; raises SQLAlchemy's errors unchanged."""
    if engine.dialect.name != "postgresql":
        CLOCK.reset()
        return
    measured = []
    with engine.connect() as connection:
        for _try in range(TRIES):
            sent = boot_time_s()
            moment = connection.scalar(text("SELECT clock_timestamp()"))
            took = boot_time_s() - sent
            measured.append((took, moment, sent + took / 2))
    _took, moment, at = min(measured)
    CLOCK.set(moment, at)
