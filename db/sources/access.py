"""Open a source, any database that SQLAlchemy has a driver for, for reading only, and tell when it is lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from db.database_errors import SourceUnreachableError
from db.session import CONNECT_TIMEOUT_S, code_of, file_of, make_engine, parse_url, readable_url, reason_of
from db.sources.drivers import prepare_source

_MYSQL = frozenset({"mysql", "mariadb"})
_MYSQL_DRIVERS = frozenset({"pymysql", "mysqldb"})  # what the others call a time-out differs
# Too many connections, the server stops, the net, a connection that was killed, nobody answers, gone, lost, idle.
_MYSQL_LOST = frozenset({1040, 1053, 1152, 1158, 1159, 1160, 1161, 1927, 2002, 2003, 2006, 2013, 2055, 3169, 4031})
_LOCKED = re.compile(r"Could not set lock on file .*?(?P<process> \(PID \d+\))", re.DOTALL)


def open_source(url: str, variable: str = "PRESSWORK_SOURCE_URL") -> Engine:
    """Open a source for reading only; a SQLite file that is missing is an error, not a new empty database.

    `variable` is where the URL came from, for the message. Raises SourceUnreachableError.
    """
    try:
        parsed = parse_url(url)
        engine = make_engine(parsed, read_only=True, connect_args=_reading_options(parsed))
        file = file_of(parsed)
        if file is not None and not Path(file).is_file():
            raise FileNotFoundError("there is no such file")
        prepare_source(engine)
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                # It opens any file, and notices only when it reads that it is no database.
                connection.exec_driver_sql("SELECT COUNT(*) FROM sqlite_master")
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        raise SourceUnreachableError(
            f"The source {readable_url(url)} can't be reached: {_explained(reason_of(error, url))}. "
            f"Check {variable} and that the database is up."
        ) from None
    return engine


def is_lost(engine: Engine, error: BaseException) -> bool:
    """Whether a source went away or was not reached, so that waiting may help; else the select itself is at fault."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    match engine.dialect.name:
        case "sqlite":
            return False
        case "postgresql":
            # No SQLSTATE: it was not reached. 08: connections. 57P0x: it stops, or is starting. 53300: it is full.
            state = getattr(error.orig, "sqlstate", None)
            return state is None or state.startswith(("08", "57P0")) or state == "53300"
        case "mysql" | "mariadb":
            return code_of(error.orig) in _MYSQL_LOST
        case _:
            return error.statement is None  # it was opening a connection


def _reading_options(url: URL) -> dict[str, Any]:
    """Return what a driver is told so that it opens a source for reading only, and waits for no host that is silent."""
    backend = url.get_backend_name()
    if backend == "duckdb" and url.database not in {None, "", ":memory:"} and not str(url.database).startswith("md:"):
        return {"read_only": True}
    if backend in _MYSQL and url.get_driver_name() in _MYSQL_DRIVERS and "connect_timeout" not in url.query:
        return {"connect_timeout": CONNECT_TIMEOUT_S}
    return {}


def _explained(reason: str) -> str:
    """Say what to do about a reason that its driver leaves without: DuckDB's lock, a driver that is not installed."""
    locked = _LOCKED.search(reason)
    if locked is not None:
        return (
            f"another process{locked['process']} has it open for writing, and a DuckDB file has one writer or readers. "
            "Close it there, or read a copy of the file"
        )
    if reason.startswith("No module named "):
        return f"its driver is not installed ({reason}); docs/templates.md says how to install one"
    return reason
