"""The ledger's clock, so that the order of rows does not depend on which machine's clock is ahead.

The processes that write rows also make their ids and times. A PostgreSQL ledger is shared: they may run on several
machines whose clocks differ, so each process measures its difference from the database's clock, which also judges
leases. A SQLite ledger is on this machine, whose clock is the ledger's. People can set that clock back. So a process
reads the newest row when it opens the ledger and at each heartbeat, and its time continues from there.
"""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import uuid_utils
from sqlalchemy import BindParameter, Connection, Engine, column, func, select, table
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from db.columns import UtcDateTime
from db.machine import TIMESTAMP_BIT, boot_time_s, here, utc_now

TRIES = 3  # measurements at the start; the quickest one counts
SHARED = "presswork_shared"
"""The execution option of an engine whose ledger is shared although it is not on PostgreSQL: simulations set it."""
_log = logging.getLogger("prefect.presswork")


def now() -> datetime:
    """Return the current time in UTC, by the ledger's clock."""
    return here().ledger_clock.now()


def new_id() -> str:
    """Return a UUIDv7 as text; later ids, by the ledger's clock, sort later."""
    return str(uuid_utils.UUID(int=here().ledger_clock.new_uuid7()))


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

    def __init__(self, plus_s: BindParameter[float] | None = None) -> None:
        super().__init__(*([] if plus_s is None else [plus_s]))


@compiles(database_time, "sqlite")
def _in_simulations(element: database_time, compiler: Any, **options: Any) -> str:
    return f"database_time({compiler.process(element.clauses, **options) or 0.0})"


@compiles(database_time, "postgresql")
def _on_postgres(element: database_time, compiler: Any, **options: Any) -> str:
    plus_s = compiler.process(element.clauses, **options)
    return f"(clock_timestamp() + make_interval(secs => {plus_s}))" if plus_s else "clock_timestamp()"


_ASK = select(database_time())
NEWEST_IDS = tuple(
    select(func.max(column("id"))).select_from(table(name)).scalar_subquery()
    for name in ("runs", "attempts", "generations")
)
"""The newest ids of this machine's own ledger, by the tables' primary keys. The other tables' rows are not ordered."""


TOLD_FROM_S = 60.0
"""From this difference on a warning says that rows are dated by the ledger's newest one, not by the clock."""


def agree(ledger: Engine) -> None:
    """Measure the difference from the ledger's clock; raises SQLAlchemy's errors unchanged."""
    if not is_shared(ledger):
        with ledger.connect() as connection:
            keep_up_with(connection.execute(select(*NEWEST_IDS)).one())
        return
    measured = []
    with ledger.connect() as connection:
        for _try in range(TRIES):
            sent = boot_time_s()
            moment = connection.execute(_ASK).scalar_one()
            took = boot_time_s() - sent
            measured.append((took, moment, sent + took / 2))
    _took, moment, at = min(measured)
    here().ledger_clock.set(moment, at)


def keep_up_with(newest_ids: Iterable[str | None]) -> None:
    """Let this process's time be later than the newest rows of this machine's own ledger; ignores other ids."""
    newest_s = max(_seconds_of(each or "") for each in newest_ids)
    if here().ledger_clock.keep_up_with(newest_s):
        _log.warning(
            "The ledger's newest row is of %s, but the machine's clock shows %s. If the clock is wrong, set it. If it "
            "is right, it was wrong when that row was written: content of such rows is replaced by new content only "
            "after that time. To replace it earlier, restore an older backup of the ledger.",
            datetime.fromtimestamp(newest_s, UTC).isoformat(" ", "minutes"),
            utc_now().isoformat(" ", "minutes"),
        )
    elif here().ledger_clock.is_news(TOLD_FROM_S):
        _log.warning(
            "The machine's clock shows %s, but the ledger's newest row is of %s. New rows are dated after that row, so "
            "that they stay in order, until the clock has caught up. If the clock is wrong, set it.",
            utc_now().isoformat(" ", "minutes"),
            datetime.fromtimestamp(newest_s, UTC).isoformat(" ", "minutes"),
        )


def _seconds_of(identifier: str) -> float:
    """Return when an id was made, in seconds since 1970; 0 if it is no UUIDv7."""
    try:
        found = UUID(identifier)
    except ValueError:
        return 0.0
    return (found.int >> TIMESTAMP_BIT) / 1000 if found.version == 7 else 0.0
