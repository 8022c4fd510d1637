"""How databases are opened: the ledger (made, checked, migrated) and the sources (read-only).

Engines are synchronous: the writer and the readers run in threads, and any SQLAlchemy driver can be a source.
"""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import orjson
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from db.errors import (
    LedgerNotMigratedError,
    LedgerTooNewError,
    LedgerUnreachableError,
    SourceUnreachableError,
)

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 30_000
_JSON: dict[str, Any] = {
    "json_serializer": lambda value: orjson.dumps(value).decode(),
    "json_deserializer": orjson.loads,
}


def readable_url(url: URL | str) -> str:
    """Show a URL with its password masked, for messages."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "(not a database URL)"


def open_ledger(url: str) -> Engine:
    """Open the ledger; a SQLite file that does not exist is made, with today's tables.

    Raises LedgerUnreachableError, LedgerNotMigratedError or LedgerTooNewError.
    """
    engine = connect_ledger(url)
    try:
        if _is_new_sqlite(engine):
            upgrade(engine)
        check(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def connect_ledger(url: str) -> Engine:
    """Connect to the ledger without asking whether its tables are current."""
    try:
        engine = _create_engine(url)
        with engine.connect():
            pass
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        raise LedgerUnreachableError(
            f"The ledger {readable_url(url)} can't be reached: {_reason(error)}. "
            "Check PRESSWORK_DATABASE_URL and that the database is up."
        ) from None
    return engine


def open_source(url: str, variable: str = "PRESSWORK_SOURCE_URL") -> Engine:
    """Open a source for reading only; a SQLite file that is missing is an error, not a new empty database.

    `variable` is where the URL came from, for the message. Raises SourceUnreachableError.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
            if not Path(str(parsed.database)).is_file():
                raise FileNotFoundError("there is no such file")
        engine = _create_engine(url, read_only=True)
        with engine.connect():
            pass
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        raise SourceUnreachableError(
            f"The source {readable_url(url)} can't be reached: {_reason(error)}. "
            f"Check {variable} and that the database is up."
        ) from None
    return engine


def upgrade(engine: Engine) -> None:
    """Migrate the ledger to today's tables; a newer ledger raises LedgerTooNewError, one without rights LedgerError."""
    _known_revision(engine)
    try:
        with engine.begin() as connection:
            config = _alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except SQLAlchemyError as error:
        raise LedgerUnreachableError(
            f"The ledger {readable_url(engine.url)} can't be migrated: {_reason(error)}."
        ) from None


def check(engine: Engine) -> str:
    """Return the ledger's revision if it is today's; raise LedgerNotMigratedError or LedgerTooNewError."""
    found = _known_revision(engine)
    head = ScriptDirectory.from_config(_alembic_config()).get_current_head()
    if found != head:
        state = "has no tables yet" if found is None else f"is at revision {found}, this code needs {head}"
        raise LedgerNotMigratedError(f"The ledger {readable_url(engine.url)} {state}: run `presswork db upgrade`.")
    return found or ""


def begin_write(engine: Engine) -> AbstractContextManager[Connection]:
    """Begin a transaction that will write; SQLite takes its lock at once instead of failing half-way."""
    return engine.execution_options(presswork_write=True).begin()


def _known_revision(engine: Engine) -> str | None:
    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        raise LedgerUnreachableError(
            f"The ledger {readable_url(engine.url)} can't be read: {_reason(error)}."
        ) from None
    if found is not None:
        try:
            ScriptDirectory.from_config(_alembic_config()).get_revision(found)
        except CommandError:
            raise LedgerTooNewError(
                f"The ledger {readable_url(engine.url)} is at revision {found}, which this code does not know: "
                "it was migrated by a newer Presswork. Update the code, or name another ledger."
            ) from None
    return found


def _is_new_sqlite(engine: Engine) -> bool:
    if engine.dialect.name != "sqlite":
        return False
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == 0


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _create_engine(url: str, *, read_only: bool = False) -> Engine:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("it is not a database URL") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    try:
        if parsed.get_backend_name() == "sqlite":
            engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}, **_JSON)
            event.listen(engine, "connect", _prepare_sqlite_reader if read_only else _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        options = {"postgresql_readonly": True} if read_only and parsed.get_backend_name() == "postgresql" else {}
        return create_engine(parsed, pool_pre_ping=True, execution_options=options, **_JSON)
    except NoSuchModuleError:
        raise ValueError(f"there is no SQLAlchemy driver for {parsed.drivername!r}") from None


def _prepare_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # The driver's own transaction handling begins too late to protect a read before a write: BEGIN is ours.
    connection.isolation_level = None
    with closing(connection.cursor()) as cursor:
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        # FULL: a commit has reached the disk, so that an answer that counts as recorded survives a power cut.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")


def _prepare_sqlite_reader(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    with closing(connection.cursor()) as cursor:
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA query_only = ON")


def _begin_sqlite(connection: Any) -> None:
    # Writers say so when they begin (begin_write): an upgrade from reader to writer can't wait and would fail.
    immediate = connection.get_execution_options().get("presswork_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _reason(error: Exception) -> str:
    original = getattr(error, "orig", None) or error
    text = str(original).strip().splitlines()
    return text[0].rstrip(".") if text else type(original).__name__
