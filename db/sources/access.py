"""Open a source, any database that SQLAlchemy has a driver for, for reading only; tell when it is lost; interrupt it.

A long select ends with what it was for: drivers know how to end a statement that another thread runs. `interrupt` of
SQLite and DuckDB does, and `cancel` of PostgreSQL and Oracle. MySQL's statements are killed over another connection.
Where a driver has none of these, the statement goes on until it ends by itself.
"""

import re
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from db.database_errors import SourceUnreachableError
from db.session import CONNECT_TIMEOUT_S, code_of, file_of, make_engine, parse_url, readable_url, reason_of
from db.sources.drivers import prepare_source

CANCEL_WITHIN_S = 2
"""PostgreSQL and MySQL are asked to end a statement over another connection, which must not take long either."""
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
        if is_missing_file(url):
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


def is_missing_file(url: str) -> bool:
    """Whether a database is a SQLite file that is not there."""
    try:
        file = file_of(make_url(url))
    except ArgumentError:
        return False
    return file is not None and not Path(file).is_file()


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


class Interrupter:
    """Know which thread uses which connection of an engine, and interrupt what runs on it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._in_use: dict[int, Any] = {}
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine, "checkin", self._checked_in)
        event.listen(engine, "invalidate", lambda connection, entry, _error: self._checked_in(connection, entry))

    def interrupt(self, thread: int) -> None:
        """End the statement that a thread, named by its ident, runs now; without one, do nothing."""
        # With the lock, the connection can't be handed to another thread meanwhile. Whatever a driver raises here, the
        # statement then ends by itself.
        with self._lock, suppress(Exception):
            connection: Any = self._in_use.get(thread)
            if hasattr(connection, "interrupt"):
                connection.interrupt()
            elif hasattr(connection, "cancel_safe"):
                connection.cancel_safe(timeout=CANCEL_WITHIN_S)
            elif hasattr(connection, "cancel"):
                connection.cancel()
            elif self._engine.dialect.name in _MYSQL and hasattr(connection, "thread_id"):
                self._kill(int(connection.thread_id()))

    def _kill(self, thread: int) -> None:
        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        # Not one of the pool's: whoever waits for it would be waited for.
        other = self._engine.dialect.connect(*arguments, **{**options, "connect_timeout": CANCEL_WITHIN_S})
        with closing(other), closing(other.cursor()) as cursor:
            cursor.execute(f"KILL QUERY {thread}")

    def _checked_out(self, connection: Any, _entry: Any, _proxy: Any) -> None:
        with self._lock:
            self._in_use[threading.get_ident()] = connection

    def _checked_in(self, connection: Any, _entry: Any) -> None:
        with self._lock:
            # By what is returned: the garbage collector returns a connection from any thread.
            for thread in [thread for thread, used in self._in_use.items() if used is connection]:
                del self._in_use[thread]
