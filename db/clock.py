"""The ledger's clock, so that the order of rows does not depend on which machine's clock is ahead.

The processes that write rows also make their ids and times. With PostgreSQL they may run on several machines whose
clocks differ, so each process measures its difference from the database's clock. A SQLite ledger is on this machine.
"""

from datetime import datetime, timedelta

import uuid_utils
from sqlalchemy import Engine, text

from db.machine import boot_time_s, here, utc_now

TRIES = 3  # measurements at the start; the quickest one counts
_TIMESTAMP_BIT = 80  # a UUIDv7 begins with 48 bits of milliseconds


def now() -> datetime:
    """Return the current time in UTC, by the ledger's clock."""
    return utc_now() + timedelta(milliseconds=here().ledger_clock.shift_ms())


def new_id() -> str:
    """Return a UUIDv7 as text; later ids, by the ledger's clock, sort later."""
    machine = here()
    made = machine.uuid7() + (machine.ledger_clock.shift_ms() << _TIMESTAMP_BIT)
    return str(uuid_utils.UUID(int=made))


def agree(engine: Engine) -> None:
    """Measure the difference from the ledger's clock; raises SQLAlchemy's errors unchanged."""
    ledger_clock = here().ledger_clock
    if engine.dialect.name != "postgresql":
        ledger_clock.reset()
        return
    measured = []
    with engine.connect() as connection:
        for _try in range(TRIES):
            sent = boot_time_s()
            moment = connection.scalar(text("SELECT clock_timestamp()"))
            took = boot_time_s() - sent
            measured.append((took, moment, sent + took / 2))
    _took, moment, at = min(measured)
    ledger_clock.set(moment, at)
