"""Open a source for reading only, detect when it is lost, and interrupt its statements.

A source is any database with a SQLAlchemy driver. When a run stops, its long select must end too, although another
thread runs it. SQLite and DuckDB have `interrupt` for that, PostgreSQL and Oracle `cancel`; a MySQL statement is killed
over another connection. With any other driver the statement continues until it ends by itself.
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
"""The time limit for PostgreSQL and MySQL, which end a statement over another connection."""
_MYSQL = frozenset({"mysql", "mariadb"})
_MYSQL_DRIVERS = frozenset({"pymysql", "mysqldb"})  # other drivers have another name for the timeout
# Too many connections, server stops, network errors, connection killed, no answer, server gone, lost, idle.
_MYSQL_LOST = frozenset({1040, 1053, 1152, 1158, 1159, 1160, 1161, 1927, 2002, 2003, 2006, 2013, 2055, 3169, 4031})
_LOCKED = re.compile(r"Could not set lock on file .*?(?P<process> \(PID \d+\))", re.DOTALL)


def open_source(url: str, variable: str = "PRESSWORK_SOURCE_URL") -> Engine:
    """Open a source for reading only. A missing SQLite file is an error, not a new empty database.

    `variable` is the setting that holds the URL, for the message. Raises SourceUnreachableError.
    """
    if "://" not in url:
        raise SourceUnreachableError(
            f"{variable} is not a database URL. Set it like sqlite:////path/to/file.sqlite or postgresql://user@host/shop."
        )
    try:
        parsed = parse_url(url)
        engine = make_engine(parsed, read_only=True, connect_args=_reading_options(parsed))
        if is_missing_file(url):
            raise FileNotFoundError("there is no such file")
        prepare_source(engine)
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                # SQLite opens any file; only a read shows that it is not a database.
                connection.exec_driver_sql("SELECT COUNT(*) FROM sqlite_master")
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        raise SourceUnreachableError(
            f"The source {readable_url(url)} can't be reached: {_explained(reason_of(error, url))}. "
            f"Check {variable} and that the database is up."
        ) from None
    return engine


def is_missing_file(url: str) -> bool:
    """Whether a database is a SQLite file that does not exist."""
    try:
        file = file_of(make_url(url))
    except ArgumentError:
        return False
    return file is not None and not Path(file).exists()


def is_lost(engine: Engine, error: BaseException) -> bool:
    """Whether a source is unavailable, so that waiting may help. Otherwise the select itself is wrong."""
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
            # No SQLSTATE: not reached. 08: connection errors. 57P0x: stopping or starting. 53300: too many connections.
            state = getattr(error.orig, "sqlstate", None)
            return state is None or state.startswith(("08", "57P0")) or state == "53300"
        case "mysql" | "mariadb":
            return code_of(error.orig) in _MYSQL_LOST
        case _:
            return error.statement is None  # the connection could not be opened


def _reading_options(url: URL) -> dict[str, Any]:
    """Return the driver's options to open a source for reading only, and to time out if the host does not answer."""
    backend = url.get_backend_name()
    if backend == "duckdb" and url.database not in {None, "", ":memory:"} and not str(url.database).startswith("md:"):
        return {"read_only": True}
    if backend in _MYSQL and url.get_driver_name() in _MYSQL_DRIVERS and "connect_timeout" not in url.query:
        return {"connect_timeout": CONNECT_TIMEOUT_S}
    return {}


def _explained(reason: str) -> str:
    """Add a remedy to a driver's reason that has none: DuckDB's lock, or a driver that is not installed."""
    locked = _LOCKED.search(reason)
    if locked is not None:
        return (
            f"another process{locked['process']} has it open for writing, and DuckDB allows one writer or several "
            "readers. Close it there, or read a copy of the file"
        )
    if reason.startswith("No module named "):
        return f"its driver is not installed ({reason}); docs/templates.md says how to install one"
    return reason


class Interrupter:
    """Tracks which thread uses which connection of an engine, and interrupts its statement."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._in_use: dict[int, Any] = {}
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine, "checkin", self._checked_in)
        event.listen(engine, "invalidate", lambda connection, entry, _error: self._checked_in(connection, entry))

    def interrupt(self, thread: int) -> None:
        """End the current statement of a thread, given by its ident. Without a statement, do nothing."""
        # The lock keeps the connection from being given to another thread meanwhile. If the driver raises an error, the
        # statement ends by itself.
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
        # Not from the pool, where it might wait for the very connection that it should interrupt.
        other = self._engine.dialect.connect(*arguments, **{**options, "connect_timeout": CANCEL_WITHIN_S})
        with closing(other), closing(other.cursor()) as cursor:
            cursor.execute(f"KILL QUERY {thread}")

    def _checked_out(self, connection: Any, _entry: Any, _proxy: Any) -> None:
        with self._lock:
            self._in_use[threading.get_ident()] = connection

    def _checked_in(self, connection: Any, _entry: Any) -> None:
        with self._lock:
            # Found by the connection, because the garbage collector may return it from any thread.
            for thread in [thread for thread, used in self._in_use.items() if used is connection]:
                del self._in_use[thread]
