"""Connect to the ledger, a SQLite file or a PostgreSQL database, and migrate it to the tables of this code.

A new SQLite file gets its tables at once.
"""

from pathlib import Path

import stamina
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from db.clock import agree
from db.database_errors import LedgerInUseError, LedgerNotMigratedError, LedgerTooNewError, LedgerUnreachableError
from db.session import (
    begin_write,
    file_of,
    is_locked,
    make_engine,
    parse_url,
    readable_url,
    reason_of,
    rows_of,
)

MIGRATIONS = Path(__file__).parent.parent / "migrations"
_LOCK = 0x70726573  # "pres": any number that all who migrate agree on


def open_ledger(url: str) -> Engine:
    """Open the ledger; a SQLite file that does not exist is made, with today's tables.

    Raises LedgerUnreachableError, LedgerNotMigratedError or LedgerTooNewError.
    """
    engine = connect_ledger(url)
    try:
        if engine.dialect.name == "sqlite" and not rows_of(engine, text("SELECT 1 FROM sqlite_master LIMIT 1")):
            upgrade(engine)
        check(engine)
        agree(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def connect_ledger(url: str) -> Engine:
    """Connect to the ledger without asking whether its tables are current."""
    try:
        parsed = parse_url(url)
        _refuse_unfit(parsed)
        engine = make_engine(parsed)
        _reach(engine)
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        raise LedgerUnreachableError(
            f"The ledger {readable_url(url)} can't be reached: {reason_of(error, url)}. "
            "Check PRESSWORK_DATABASE_URL and that the database is running."
        ) from None
    return engine


# Where another connection closes a SQLite file at this moment, opening it is refused at once: the busy timeout does not
# hold for the change to and from the WAL.
@stamina.retry(on=is_locked, attempts=6, wait_initial=0.02, wait_max=0.5)
def _reach(engine: Engine) -> None:
    with engine.connect():
        pass


def _refuse_unfit(url: URL) -> None:
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ValueError("a ledger must be SQLite or PostgreSQL; only sources may be other databases")
    if url.get_backend_name() == "sqlite" and file_of(url) is None:
        raise ValueError("a ledger in memory would be lost, so name a file")


def upgrade(engine: Engine) -> None:
    """Migrate the ledger to today's tables, in one transaction that others who migrate wait for.

    A newer ledger raises LedgerTooNewError, one on which a run is at work LedgerInUseError, one that can't be written
    LedgerUnreachableError.
    """
    found = _known_revision(engine)
    try:
        with begin_write(engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            config = alembic_config()
            config.attributes["connection"] = connection
            if found not in {None, ScriptDirectory.from_config(config).get_current_head()}:
                _refuse_while_in_use(connection)
            command.upgrade(config, "head")
    except SQLAlchemyError as error:
        raise LedgerUnreachableError(
            f"The ledger {readable_url(engine.url)} can't be migrated: {reason_of(error, engine.url)}. "
            "Fix the cause, then run `presswork db upgrade` again."
        ) from None


def _refuse_while_in_use(connection: Connection) -> None:
    # By the one column that every release has: code of before goes on to write as it did, whatever the tables are now.
    has_leases = inspect(connection).has_table("leases")
    leased = "leases l JOIN runs r ON r.id = l.run_id" if has_leases else "runs r"
    moment = "clock_timestamp()" if connection.dialect.name == "postgresql" else "strftime('%Y-%m-%d %H:%M:%f', 'now')"
    alive = f"{'l' if has_leases else 'r'}.alive_until > {moment}"
    active = connection.execute(
        text(f"SELECT r.id, r.flow FROM {leased} WHERE r.status = 'running' AND {alive} ORDER BY r.id")  # noqa: S608 - no value in it
    ).first()
    if active is not None:
        raise LedgerInUseError(
            f"The ledger {readable_url(connection.engine.url)} can't be migrated now: the run {active.id} of "
            f"{active.flow} is active. Stop it or wait until it ends, then run `presswork db upgrade` again. "
            "(A crashed run counts as active for two minutes.)"
        )


def check(engine: Engine) -> str:
    """Return the ledger's revision if it is today's; raise LedgerNotMigratedError or LedgerTooNewError."""
    found = _known_revision(engine)
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if found != head:
        state = "has no tables yet" if found is None else f"is at revision {found}, but this code needs {head}"
        raise LedgerNotMigratedError(f"The ledger {readable_url(engine.url)} {state}. Run `presswork db upgrade`.")
    return found or ""


def _known_revision(engine: Engine) -> str | None:
    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        raise LedgerUnreachableError(
            f"The ledger {readable_url(engine.url)} can't be read: {reason_of(error, engine.url)}."
        ) from None
    if found is not None:
        try:
            ScriptDirectory.from_config(alembic_config()).get_revision(found)
        except CommandError:
            raise LedgerTooNewError(
                f"The ledger {readable_url(engine.url)} is at revision {found}, which this code does not know: "
                "a newer Presswork migrated it. Update Presswork, or set PRESSWORK_DATABASE_URL to another ledger."
            ) from None
    return found


def alembic_config() -> Config:
    """Return what Alembic needs to find the migrations; it reads no file of settings."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
