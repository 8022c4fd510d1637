"""The ledger's clock, so that the order of rows does not depend on which machine's clock is ahead.

The processes that write rows also make their ids and times. A PostgreSQL ledger is shared: they may run on several
machines whose clocks differ, so each process measures its difference from the database's clock, which also judges
leases. A SQLite ledger is on this machine, whose clock is the ledger's.
"""

from datetime import UTC, datetime
from typing import Any

import uuid_utils
from sqlalchemy import Connection, Engine, Float, literal, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from db.columns import UtcDateTime
from db.machine import boot_time_s, here

TRIES = 3  # measurements at the start; the quickest one counts
SHARED = "presswork_shared"
"""The execution option of an engine whose ledger is shared although it is not on PostgreSQL: simulations set it."""
_TIMESTAMP_BIT = 80  # a UUIDv7 begins with 48 bits of milliseconds


def now() -> datetime:
    """Return the current time in UTC, by the ledger's clock."""
    machine = here()
    return datetime.fromtimestamp(machine.wall_time_s() + machine.ledger_clock.shift_ms() / 1000, UTC)


def new_id() -> str:
    """Return a UUIDv7 as text; later ids, by the ledger's clock, sort later."""
    machine = here()
    made = machine.uuid7() + (machine.ledger_clock.shift_ms() << _TIMESTAMP_BIT)
    return str(uuid_utils.UUID(int=made))


def is_shared(ledger: Engine | Connection) -> bool:
    """Whether several machines may write to this ledger, so that only its database's clock and leases tell the truth.

    If not, all that write to it are processes of this machine, and its clocks are theirs.
    """
    return ledger.dialect.name == "postgresql" or bool(ledger.get_execution_options().get(SHARED))


class database_time(GenericFunction[datetime]):  # noqa: N801 - written in statements as SQL's own functions are
    """The time by the clock of a shared ledger's database, plus some seconds.

    SQLite has no function of this name: the simulation that makes a SQLite ledger a shared one also defines it, for one
    argument, the seconds. It returns a time as UtcDateTime stores it.
    """

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, plus_s: float = 0.0) -> None:
        super().__init__(*([literal(plus_s, Float())] if plus_s else []))


@compiles(database_time, "sqlite")
def _in_simulations(element: database_time, compiler: Any, **options: Any) -> str:
    return f"database_time({compiler.process(element.clauses, **options) or 0.0})"


@compiles(database_time, "postgresql")
def _on_postgres(element: database_time, compiler: Any, **options: Any) -> str:
    plus_s = compiler.process(element.clauses, **options)
    return f"(clock_timestamp() + make_interval(secs => {plus_s}))" if plus_s else "clock_timestamp()"


_ASK = select(database_time())


def agree(ledger: Engine) -> None:
    """Measure the difference from the ledger's clock; raises SQLAlchemy's errors unchanged."""
    ledger_clock = here().ledger_clock
    if not is_shared(ledger):
        ledger_clock.reset()
        return
    measured = []
    with ledger.connect() as connection:
        for _try in range(TRIES):
            sent = boot_time_s()
            moment = connection.execute(_ASK).scalar_one()
            took = boot_time_s() - sent
            measured.append((took, moment, sent + took / 2))
    _took, moment, at = min(measured)
    ledger_clock.set(moment, at)
