"""What each kind of source needs: what its driver is told so that it only reads, and how it says that it is lost.

SQLite and PostgreSQL, which a ledger can be too, are opened in session.py. Connections are prepared in drivers/.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import URL, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

_MYSQL = frozenset({"mysql", "mariadb"})
_MYSQL_DRIVERS = frozenset({"pymysql", "mysqldb"})  # what the others call a time-out differs
# Too many connections, the server stops, the net, a connection that was killed, nobody answers, gone, lost, idle.
_MYSQL_LOST = frozenset({1040, 1053, 1152, 1158, 1159, 1160, 1161, 1927, 2002, 2003, 2006, 2013, 2055, 3169, 4031})
# A value that is out of range, or that a function, a date or JSON does not take.
_MYSQL_QUOTING = frozenset({1292, 1366, 1411, 1525, 1690, 3140, 3141, 3146, 3156})
_DUCKDB_QUOTING = frozenset({"ConversionException", "InvalidInputException", "OutOfRangeException"})
_LOCKED = re.compile(r"Could not set lock on file .*?(?P<process> \(PID \d+\))", re.DOTALL)


def reading_options(url: URL, connect_timeout_s: int) -> dict[str, Any]:
    """Return what a driver is told so that it opens a source for reading only, and waits for no host that is silent."""
    backend, driver = url.get_backend_name(), url.get_driver_name()
    if backend == "duckdb" and url.database not in {None, "", ":memory:"} and not str(url.database).startswith("md:"):
        return {"read_only": True}
    if backend in _MYSQL and driver in _MYSQL_DRIVERS and "connect_timeout" not in url.query:
        return {"connect_timeout": connect_timeout_s}
    return {}


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


def code_of(original: BaseException | None) -> int | None:
    """Return the number of an error, where its driver gives one as MySQL's do: before the text."""
    arguments = original.args if original is not None and not isinstance(original, OSError) else ()
    return arguments[0] if len(arguments) == 2 and isinstance(arguments[0], int) else None


def quotes_values(original: BaseException) -> bool:
    """Whether what MySQL or DuckDB says may quote a row's values, though the error is none of data."""
    return code_of(original) in _MYSQL_QUOTING or type(original).__name__ in _DUCKDB_QUOTING


def explained(reason: str) -> str:
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
