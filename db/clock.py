"""Tell the ledger's time: what is newer must not depend on whose clock is ahead.

Ids and times of rows are made in the processes that write them. On PostgreSQL these run on several machines, whose
clocks differ, so each measures how far its own is from the database's. A SQLite ledger is on the machine itself.
"""

import time
from datetime import UTC, datetime, timedelta

import uuid_utils
from sqlalchemy import Engine, text

from db.identity import boot_time_s

TRIES = 3  # measurements at the beginning, of which the quickest counts
SLACK_MS = 50
"""Differences below this are the network's; following each would put ids of one process out of order."""
SLOWEST_S = 1.0
"""A measurement may be wrong by half of the seconds that it took, as one did that waited for a lock."""
_TIMESTAMP_BIT = 80  # a UUIDv7 begins with 48 bits of milliseconds


class Clock:
    """The ledger's time in this process: its own until `set` has told another."""

    def __init__(self) -> None:
        self._ahead_s: float | None = None  # of the ledger's seconds since 1970, against this machine's since its boot
        self._shift_ms = 0

    def set(self, ledger_time: datetime, boot_s: float, took_s: float = 0.0) -> None:
        """Take over what the ledger's clock said at `boot_s` by this machine's, or at some time in `took_s` from then.

        What took longer than SLOWEST_S is passed over where there is a better measurement.
        """
        if self._ahead_s is None or took_s <= SLOWEST_S:
            self._ahead_s = ledger_time.timestamp() - (boot_s + took_s / 2)

    def reset(self) -> None:
        """Go by this machine's own clock again."""
        self._ahead_s, self._shift_ms = None, 0

    def shift_ms(self) -> int:
        """Milliseconds from this machine's time of day to the ledger's; it follows when either clock is put right."""
        if self._ahead_s is not None:
            found = round((self._ahead_s + boot_time_s() - time.time()) * 1000)
            if abs(found - self._shift_ms) > SLACK_MS:
                self._shift_ms = found
        return self._shift_ms


CLOCK = Clock()
"""One a process, as ids are made in many places: whoever writes to two ledgers of different clocks goes by the last."""


def now() -> datetime:
    """Return the present moment in UTC, by the ledger's clock."""
    return datetime.now(UTC) + timedelta(milliseconds=CLOCK.shift_ms())


def new_id() -> str:
    """Return a UUIDv7 as text: ids made later, by the ledger's clock, sort later."""
    made = uuid_utils.uuid7()
    shift = CLOCK.shift_ms()
    return str(uuid_utils.UUID(int=made.int + (shift << _TIMESTAMP_BIT)) if shift else made)


def agree(engine: Engine) -> None:
    """Measure the difference to the ledger's clock; SQLAlchemy's errors go up unchanged."""
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
