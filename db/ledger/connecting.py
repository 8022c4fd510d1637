"""Connect to the ledger, a SQLite file or a PostgreSQL database; a new file gets its tables at once."""

from __future__ import annotations

from sqlalchemy import URL, Engine
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import LedgerUnreachableError
from db.ledger.clock import agree
from db.ledger.migrating import check, upgrade
from db.session import file_of, make_engine, parse_url, readable_url, reason_of


def open_ledger(url: str) -> Engine:
    """Open the ledger; a SQLite file that does not exist is made, with today's tables.

    Raises LedgerUnreachableError, LedgerNotMigratedError or LedgerTooNewError.
    """
    engine = connect_ledger(url)
    try:
        if _is_new_sqlite(engine):
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
        with engine.connect():
            pass
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        raise LedgerUnreachableError(
            f"The ledger {readable_url(url)} can't be reached: {reason_of(error, url)}. "
            "Check PRESSWORK_DATABASE_URL and that the database is up."
        ) from None
    return engine


def _is_new_sqlite(engine: Engine) -> bool:
    if engine.dialect.name != "sqlite":
        return False
    with engine.connect() as connection:
        return bool(connection.exec_driver_sql("SELECT COUNT(*) = 0 FROM sqlite_master").scalar_one())


def _refuse_unfit(url: URL) -> None:
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ValueError("a ledger is SQLite or PostgreSQL (a source can be any)")
    if url.get_backend_name() == "sqlite" and file_of(url) is None:
        raise ValueError("a ledger in memory would be lost: name a file")
