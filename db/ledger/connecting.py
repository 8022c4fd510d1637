"""Connect to the ledger, a SQLite file or a PostgreSQL database, and migrate its tables to this code's version.

A new SQLite file gets its tables at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import stamina
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from db.clock import agree
from db.database_errors import (
    LedgerDamagedError,
    LedgerNotMigratedError,
    LedgerTooNewError,
    LedgerUnreachableError,
)
from db.session import (
    begin_write,
    file_of,
    is_damaged,
    is_locked,
    make_engine,
    parse_url,
    readable_url,
    reason_of,
    rows_of,
)
from db.tables.revisions import known_revisions, stored_revision

_REMEDY = "Check PRESSWORK_DATABASE_URL and that the database is running."


def open_ledger(url: str) -> Engine:
    """Open the ledger; a SQLite file that does not exist is created, with the current tables.

    Raises LedgerUnreachableError, LedgerNotMigratedError or LedgerTooNewError.
    """
    engine = connect_ledger(url)
    try:
        with damage_reported(engine.url):
            if engine.dialect.name == "sqlite" and not rows_of(engine, text("SELECT 1 FROM sqlite_master LIMIT 1")):
                upgrade(engine)
            check(engine, url)
            agree(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def connect_ledger(url: str) -> Engine:
    """Connect to the ledger without checking whether its tables are current.

    Raises LedgerUnreachableError or LedgerDamagedError.
    """
    try:
        parsed = parse_url(url)
        refuse_unfit(parsed)
        engine = make_engine(parsed)
        with damage_reported(parsed):
            _reach(engine)
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        raise LedgerUnreachableError(
            f"The ledger {readable_url(url)} can't be reached: {reason_of(error, url)}. {_REMEDY}"
        ) from None
    return engine


@contextmanager
def damage_reported(url: URL | str) -> Iterator[None]:
    """Raise LedgerDamagedError if the block finds that the ledger's file is damaged or no database."""
    try:
        yield
    except SQLAlchemyError as error:
        if not is_damaged(error):
            raise
        raise LedgerDamagedError(
            f"The ledger {readable_url(url)} is damaged: {reason_of(error, url)}. Check that "
            "PRESSWORK_DATABASE_URL names the ledger. If it does, keep a copy of the file, then restore the newest "
            "backup, or save what can be read with `sqlite3 FILE .recover`."
        ) from None


# SQLite refuses at once to open a file that another connection is just closing: the busy timeout does not apply to the
# change to and from the WAL.
@stamina.retry(on=is_locked, attempts=6, wait_initial=0.02, wait_max=0.5)
def _reach(engine: Engine) -> None:
    with engine.connect():
        pass


def refuse_unfit(url: URL) -> None:
    """Raise a ValueError if this can't be a ledger's URL. A file need not exist yet."""
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ValueError("a ledger must be SQLite or PostgreSQL; only sources may be other databases")
    if url.get_backend_name() == "sqlite" and file_of(url) is None:
        raise ValueError("a ledger in memory would be lost, so name a file")
    file = file_of(url)
    if file is not None and Path(file).exists() and not Path(file).is_file():
        raise ValueError("it is a folder, so name a file in it" if Path(file).is_dir() else "it is no ordinary file")


def upgrade(engine: Engine) -> None:
    """Migrate the ledger to the current tables, in one transaction for which other migrating processes wait.

    Raises LedgerTooNewError, LedgerInUseError if a run is active on it, or LedgerUnreachableError if it can't be
    written.
    """
    from db.ledger.migrating import migrate  # noqa: PLC0415 - loads Alembic, which only a migration needs

    found = _known_revision(engine, engine.url)
    try:
        with damage_reported(engine.url), begin_write(engine) as connection:
            migrate(connection, found)
    except SQLAlchemyError as error:
        raise LedgerUnreachableError(
            f"The ledger {readable_url(engine.url)} can't be migrated: {reason_of(error, engine.url)}. "
            "Fix the cause, then run `presswork db upgrade` again."
        ) from None


def check(engine: Engine, url: str | None = None) -> str:
    """Return the ledger's revision if it is current; raise LedgerNotMigratedError or LedgerTooNewError.

    Errors name the ledger by `url`, as the user wrote it. The engine's own URL may have another driver, and options.
    """
    named = url or engine.url
    found, head = _known_revision(engine, named), known_revisions()[-1]
    if found != head:
        state = "has no tables yet" if found is None else f"is at revision {found}, but this code needs {head}"
        raise LedgerNotMigratedError(f"The ledger {readable_url(named)} {state}. Run `presswork db upgrade`.")
    return found or ""


def _known_revision(engine: Engine, named: URL | str) -> str | None:
    try:
        with damage_reported(named), engine.connect() as connection:
            found = stored_revision(connection)
    except SQLAlchemyError as error:
        raise LedgerUnreachableError(
            f"The ledger {readable_url(named)} can't be read: {reason_of(error, engine.url)}. {_REMEDY}"
        ) from None
    if found is not None and found not in known_revisions():
        raise LedgerTooNewError(
            f"The ledger {readable_url(named)} is at revision {found}, which this code does not know: "
            "a newer Presswork migrated it. Update Presswork, or name another ledger in PRESSWORK_DATABASE_URL."
        )
    return found
