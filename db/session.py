"""Make database engines, and report their errors in one line, without passwords or the values of rows.

Engines are synchronous: the writer and the readers run in threads, and any SQLAlchemy driver can be a source.
ledger/connecting.py opens ledgers; sources/access.py opens sources.
"""

import json
import logging
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
from sqlalchemy import (
    ARRAY,
    URL,
    ColumnElement,
    Connection,
    Engine,
    Executable,
    Row,
    Text,
    any_,
    bindparam,
    create_engine,
    event,
    exc,
    func,
    make_url,
    select,
)

from db.json_values import json_value

BUSY_TIMEOUT_MS = 30_000
CONNECT_TIMEOUT_S = 10  # the drivers' defaults wait for minutes if a host does not answer at all
IDLE_TIMEOUT_S = 60  # half a lease: a writer that is idle this long has stopped
IN_AT_ONCE = 500
# URLs that people paste: other spellings, and the asynchronous drivers of Prefect's own URLs.
_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+asyncpg": "postgresql+psycopg",
    "sqlite+aiosqlite": "sqlite",
}
# Pragmas for SQLite files that are written. FULL: a commit has reached the disk, so that a recorded answer survives a
# power cut.
_WRITING = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")
# SQLite's result codes of temporary errors: busy, locked, out of memory, read-only, interrupted, a disk error, full,
# can't open, the locking protocol, a schema that has just changed.
_SQLITE_TEMPORARY = frozenset({5, 6, 7, 8, 9, 10, 13, 14, 15, 17})
_SQLITE_DAMAGED = frozenset({11, 26})  # a malformed file, and one that is no database
# SQLSTATEs of temporary errors: connections, a login, a missing database (as during a switchover), a rollback to
# repeat, a full disk, an object in use, a shutdown or cancellation, the system, a replica, a closed idle session, a
# pooler's own errors.
_POSTGRES_TEMPORARY = ("08", "28", "3D", "40", "53", "55", "57", "58", "25006", "25P03", "XX000")
# MySQL's errors that quote a value: one out of range, or one that a function, a date or JSON does not accept.
_MYSQL_QUOTING = frozenset({1292, 1366, 1411, 1525, 1690, 3140, 3141, 3146, 3156})
_DUCKDB_QUOTING = frozenset({"ConversionException", "InvalidInputException", "OutOfRangeException"})
# From the first quote to the last: a value may itself contain quotes.
_QUOTED = re.compile(r"""(["'`]).*\1|["'`].*""", re.DOTALL)
# DuckDB names the numbers that are too large.
_CALCULATED = re.compile(r"\((?=[-\d])[^()]*\)")
_ODBC_PASSWORD = re.compile(r"(?i)(?:pwd|password)\s*=\s*([^;]+)")
_ESCAPE = re.compile("%[0-9A-F]{2}")
_UNDECODED = re.compile(r" with text '.*", re.DOTALL)  # sqlite3's, about a text that is not UTF-8
# psycopg logs a warning for each pipeline that a refused row ends. The error itself already says what was refused.
logging.getLogger("psycopg").setLevel(logging.ERROR)
# Error messages go to logs and to Prefect. The parameters of a statement are users' text and belong in neither.
_DISCREET: dict[str, Any] = {"hide_parameters": True}
_JSON: dict[str, Any] = {
    **_DISCREET,
    "json_serializer": lambda value: orjson.dumps(value).decode(),
    # SQLite returns a JSON number as a number, not as text.
    "json_deserializer": lambda value: json_value(value) if isinstance(value, str | bytes) else value,
}


def readable_url(url: URL | str) -> str:
    """Return a URL for messages: passwords are masked, also those in its query."""
    parsed = _parsed(url)
    if parsed is None:
        return "(not a database URL)"
    secrets = {name: "***" for name in parsed.query if _is_secret(name)}
    if "@" in (parsed.host or ""):
        # The password contains a bare @: the text before the last @ may be the password's end.
        parsed = parsed.set(host=str(parsed.host).rpartition("@")[2])
    return parsed.update_query_dict(secrets).render_as_string(hide_password=True)


def reason_of(error: BaseException, url: URL | str) -> str:
    """Return a database's error in one line, without the URL's password and without the values of rows."""
    original = getattr(error, "orig", None) or error
    code = code_of(original)
    whole = str(original) if code is None else f"{original.args[1]} (error {code})"
    # PostgreSQL's detail, below the first line, quotes whole rows.
    message = getattr(getattr(original, "diag", None), "message_primary", None) or whole
    if _may_quote_values(error, original):
        message = _CALCULATED.sub("(...)", _QUOTED.sub("'...'", message))
    lines = _UNDECODED.sub("", message).partition("(Background on this error at")[0].strip().splitlines()
    reason = lines[0].rstrip(".") if lines else type(original).__name__
    for secret in _secrets_of(url):
        reason = reason.replace(secret, "***")
    return reason


def code_of(original: BaseException | None) -> int | None:
    """Return an error's number if its driver puts one before the text, as MySQL's drivers do."""
    arguments = original.args if original is not None and not isinstance(original, OSError) else ()
    return arguments[0] if len(arguments) == 2 and isinstance(arguments[0], int) else None


def is_unavailable(error: BaseException) -> bool:
    """Whether a database can't be used now, so that waiting may help: unreachable, starting, locked, full, read-only.

    False if the database refuses a statement or a row: it would refuse it each time.
    """
    if isinstance(error, exc.TimeoutError) or getattr(error, "connection_invalidated", False):
        return True
    if not isinstance(error, exc.DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return _sqlite_code(error.orig) in _SQLITE_TEMPORARY
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        # The server was not reached.
        return isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError)
    return str(state).startswith(_POSTGRES_TEMPORARY)


def is_locked(error: Exception) -> bool:
    """Whether another connection has locked a SQLite file."""
    original = getattr(error, "orig", None)
    return isinstance(original, sqlite3.Error) and _sqlite_code(original) in {5, 6}


def is_damaged(error: BaseException) -> bool:
    """Whether a SQLite file is damaged, or is no database at all."""
    original = getattr(error, "orig", None) or error
    if not isinstance(original, sqlite3.Error):
        return False
    # The ledger's texts are UTF-8, or something else wrote to the file.
    return _sqlite_code(original) in _SQLITE_DAMAGED or str(original).startswith("Could not decode to UTF-8")


def is_unwritable(error: BaseException) -> bool:
    """Whether an unavailable database is read-only or its disk is full, which a person must change."""
    original = getattr(error, "orig", None)
    if isinstance(original, sqlite3.Error):
        return _sqlite_code(original) in {8, 13}
    return str(getattr(original, "sqlstate", None)) in {"25006", "53100"}


def _sqlite_code(error: sqlite3.Error) -> int:
    # The low byte is the primary code. The driver's own errors, such as for a closed connection, have none.
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _may_quote_values(error: BaseException, original: BaseException) -> bool:
    # MySQL and DuckDB also quote values in errors that are not DataErrors.
    if code_of(original) in _MYSQL_QUOTING or type(original).__name__ in _DUCKDB_QUOTING:
        return True
    state = str(getattr(original, "sqlstate", None) or "")
    if state and code_of(original) is None:
        # 22: errors of values. P0: errors raised by a user's trigger. All others quote only names and the statement.
        return state.startswith(("22", "P0"))
    return isinstance(error, exc.DataError | exc.IntegrityError)


def begin_write(engine: Engine) -> AbstractContextManager[Connection]:
    """Begin a transaction that will write; SQLite takes its lock at once instead of failing later."""
    return engine.execution_options(presswork_write=True).begin()


def parse_url(url: str) -> URL:
    """Parse a URL and set the driver that is used here; raises a ValueError whose message does not show the URL."""
    parsed = _parsed(url)
    if parsed is None:
        raise ValueError("it is not a database URL")
    if "@" in (parsed.host or ""):
        raise ValueError("write an @ in a password as %40")
    parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
    try:
        parsed.get_dialect()
    except exc.NoSuchModuleError:
        raise ValueError(
            f"there is no SQLAlchemy driver for {parsed.drivername!r}; docs/templates.md says how to install one"
        ) from None
    return parsed


def make_engine(url: URL, *, read_only: bool = False, connect_args: Mapping[str, Any] | None = None) -> Engine:
    """Make an engine whose errors show no values; ImportError if its driver is not installed.

    `read_only` applies to SQLite and PostgreSQL, `connect_args` to other databases.
    """
    match url.get_backend_name():
        case "sqlite":
            engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}, **_JSON)
            event.listen(engine, "connect", _prepare_sqlite_reader if read_only else _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        case "postgresql":
            # Sources may use any encoding. psycopg does not know all of them, and returns bytes for the others.
            given = {"connect_timeout": CONNECT_TIMEOUT_S} | ({"client_encoding": "utf8"} if read_only else {})
            given = {name: value for name, value in given.items() if name not in url.query}
            options = {"postgresql_readonly": True} if read_only else {}
            engine = create_engine(url, pool_pre_ping=True, connect_args=given, execution_options=options, **_JSON)
            event.listen(engine, "begin", _begin_postgres)
        case _:
            engine = create_engine(url, pool_pre_ping=True, connect_args=dict(connect_args or {}), **_DISCREET)
    return engine


def rows_of(engine: Engine, statement: Executable, values: Mapping[str, Any] | None = None) -> list[Row[Any]]:
    """Return all rows that a statement selects for the values of its parameters, read in their own transaction."""
    with engine.connect() as connection:
        return list(connection.execute(statement, values).all())


def in_parts(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split ids for statements with IN (...), so that each part is below all databases' limits."""
    for start in range(0, len(items), IN_AT_ONCE):
        yield items[start : start + IN_AT_ONCE]


def among(column: Any, values: Sequence[str], dialect: str) -> ColumnElement[bool]:
    """Select rows by any number of texts, bound as one value: IN (...) would be compiled again for each length."""
    if dialect == "postgresql":
        matching: ColumnElement[bool] = column == any_(bindparam(None, list(values), type_=ARRAY(Text())))
        return matching
    # orjson refuses the half characters of a damaged file.
    listed = func.json_each(json.dumps(list(values))).table_valued("value")
    found: ColumnElement[bool] = column.in_(select(listed.c.value))
    return found


def file_of(url: URL) -> str | None:
    """Return the path of a SQLite file; None for other databases and for one in memory."""
    if url.get_backend_name() != "sqlite" or url.database in {None, "", ":memory:"}:
        return None
    # It may be a file: URI, which SQLAlchemy passes on if the query has uri=true.
    return str(url.database).removeprefix("file:")


def _parsed(url: URL | str) -> URL | None:
    with suppress(exc.ArgumentError, ValueError):
        return make_url(url)
    return None


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in ("pass", "pwd", "secret", "token", "odbc_connect"))


def _secrets_of(url: URL | str) -> list[str]:
    parsed = _parsed(url)
    if parsed is None:
        return []
    query = {name: value if isinstance(value, str) else " ".join(value) for name, value in parsed.query.items()}
    values = [parsed.password, *(value for name, value in query.items() if _is_secret(name))]
    # An ODBC connection string contains the password among other options.
    values += [found for value in values if value for found in _ODBC_PASSWORD.findall(value)]
    # A secret of three letters would mask ordinary words of messages, and drivers do not show passwords on purpose.
    plain = [str(value) for value in values if value and len(value) > 3]
    return sorted({spelling for value in plain for spelling in _spellings(value)}, key=len, reverse=True)


def _spellings(secret: str) -> set[str]:
    encoded = {quote(secret, safe=""), quote_plus(secret), quote(secret)}
    # Some programs write the same escapes in lower case: %c3 for %C3.
    return {secret, *encoded, *(_ESCAPE.sub(lambda escape: escape[0].lower(), text) for text in encoded)}


def _prepare_sqlite(connection: sqlite3.Connection, _entry: object, pragmas: Sequence[str] = _WRITING) -> None:
    # We send BEGIN ourselves: the driver would begin too late to protect a read before a write.
    connection.isolation_level = None
    with closing(connection.cursor()) as cursor:
        for pragma in (f"busy_timeout = {BUSY_TIMEOUT_MS}", *pragmas):
            cursor.execute(f"PRAGMA {pragma}")


def _prepare_sqlite_reader(connection: sqlite3.Connection, entry: object) -> None:
    _prepare_sqlite(connection, entry, ("query_only = ON",))
    # A text that is not UTF-8 must not fail other records. Its unreadable bytes are marked, see values.py.
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")


def _begin_sqlite(connection: Any) -> None:
    # Writers take the lock when they begin (begin_write): a transaction that has read can't wait for it and would fail.
    immediate = connection.get_execution_options().get("presswork_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _begin_postgres(connection: Any) -> None:
    # A writer whose process sleeps or loses its connection must not keep others waiting for its locks.
    if connection.get_execution_options().get("presswork_write", False):
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_TIMEOUT_S}s'")
