"""Engines for databases, and what their errors say: in one line, without a password or a row's values.

Engines are synchronous: the writer and the readers run in threads, and any SQLAlchemy driver can be a source. How a
ledger is opened stands in ledger/connecting.py, how a source is in sources/access.py.
"""

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

BUSY_TIMEOUT_MS = 30_000
CONNECT_TIMEOUT_S = 10  # a host that does not answer at all is otherwise waited for by the minute
IDLE_TIMEOUT_S = 60  # half a lease: a writer that says nothing for so long has stopped
IN_AT_ONCE = 500
# What people paste: other spellings, and the asynchronous drivers that Prefect's own URLs name.
_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+asyncpg": "postgresql+psycopg",
    "sqlite+aiosqlite": "sqlite",
}
# Pragmas of SQLite files that are written. FULL: a commit has reached the disk, so that an answer that counts as
# recorded survives a power cut.
_WRITING = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")
# SQLite's result codes that may pass: busy, locked, out of memory, read-only, interrupted, an error of the disk, full,
# can't open, the locking protocol, a schema that has just changed.
_SQLITE_PASSING = frozenset({5, 6, 7, 8, 9, 10, 13, 14, 15, 17})
# SQLSTATEs that may pass: connections, a login, a missing database (as while one is switched), a rollback to repeat,
# full, an object in use, stopped or cancelled, the system, a replica, an idle session cut off, a pooler's own.
_POSTGRES_PASSING = ("08", "28", "3D", "40", "53", "55", "57", "58", "25006", "25P03", "XX000")
# Values that are out of range, or that a function, a date or JSON does not take, in MySQL's words.
_MYSQL_QUOTING = frozenset({1292, 1366, 1411, 1525, 1690, 3140, 3141, 3146, 3156})
_DUCKDB_QUOTING = frozenset({"ConversionException", "InvalidInputException", "OutOfRangeException"})
# From the first quote to the last: a value may hold quotes of its own.
_QUOTED = re.compile(r"""(["'`]).*\1|["'`].*""", re.DOTALL)
# DuckDB names the numbers that are too large.
_CALCULATED = re.compile(r"\((?=[-\d])[^()]*\)")
_ODBC_PASSWORD = re.compile(r"(?i)(?:pwd|password)\s*=\s*([^;]+)")
_ESCAPE = re.compile("%[0-9A-F]{2}")
_UNDECODED = re.compile(r" with text '.*", re.DOTALL)  # of sqlite3, where a text is not UTF-8
# It warns of each pipeline that a refused row ends; what was refused, the error itself says.
logging.getLogger("psycopg").setLevel(logging.ERROR)
# An error's message goes to logs and to Prefect, and what a statement carries is text that belongs in neither.
_DISCREET: dict[str, Any] = {"hide_parameters": True}
_JSON: dict[str, Any] = {
    **_DISCREET,
    "json_serializer": lambda value: orjson.dumps(value).decode(),
    # SQLite hands back a JSON number as a number.
    "json_deserializer": lambda value: orjson.loads(value) if isinstance(value, str | bytes) else value,
}


def readable_url(url: URL | str) -> str:
    """Show a URL with its password masked, those in its query too, for messages."""
    parsed = _parsed(url)
    if parsed is None:
        return "(not a database URL)"
    secrets = {name: "***" for name in parsed.query if _is_secret(name)}
    if "@" in (parsed.host or ""):
        # A password with a bare @ in it: what stands before the last one may be its end.
        parsed = parsed.set(host=str(parsed.host).rpartition("@")[2])
    return parsed.update_query_dict(secrets).render_as_string(hide_password=True)


def reason_of(error: BaseException, url: URL | str) -> str:
    """Say in one line what a database complained of, without the password of its URL and without a row's values."""
    original = getattr(error, "orig", None) or error
    code = code_of(original)
    whole = str(original) if code is None else f"{original.args[1]} (error {code})"
    # PostgreSQL's detail, below its first line, quotes whole rows.
    said = getattr(getattr(original, "diag", None), "message_primary", None) or whole
    if _may_quote_values(error, original):
        said = _CALCULATED.sub("(...)", _QUOTED.sub("'...'", said))
    lines = _UNDECODED.sub("", said).partition("(Background on this error at")[0].strip().splitlines()
    reason = lines[0].rstrip(".") if lines else type(original).__name__
    for secret in _secrets_of(url):
        reason = reason.replace(secret, "***")
    return reason


def code_of(original: BaseException | None) -> int | None:
    """Return the number of an error, where its driver gives one as MySQL's do: before the text."""
    arguments = original.args if original is not None and not isinstance(original, OSError) else ()
    return arguments[0] if len(arguments) == 2 and isinstance(arguments[0], int) else None


def is_unavailable(error: BaseException) -> bool:
    """Whether a database can't be used just now, so that waiting may help: away, starting, locked, full, read-only.

    A statement or a row that the database refuses is refused each time.
    """
    if isinstance(error, exc.TimeoutError) or getattr(error, "connection_invalidated", False):
        return True
    if not isinstance(error, exc.DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return _sqlite_code(error.orig) in _SQLITE_PASSING
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        # The server was not reached.
        return isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError)
    return str(state).startswith(_POSTGRES_PASSING)


def is_locked(error: Exception) -> bool:
    """Whether another connection holds a SQLite file just now."""
    original = getattr(error, "orig", None)
    return isinstance(original, sqlite3.Error) and _sqlite_code(original) in {5, 6}


def is_unwritable(error: BaseException) -> bool:
    """Whether an unavailable database can be read, but is read-only or its disk is full: somebody must change that."""
    original = getattr(error, "orig", None)
    if isinstance(original, sqlite3.Error):
        return _sqlite_code(original) in {8, 13}
    return str(getattr(original, "sqlstate", None)) in {"25006", "53100"}


def _sqlite_code(error: sqlite3.Error) -> int:
    # The low byte is the code proper. Without one it is the driver's own word, such as of a connection that closed.
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _may_quote_values(error: BaseException, original: BaseException) -> bool:
    # MySQL and DuckDB quote values in errors that are none of data.
    if code_of(original) in _MYSQL_QUOTING or type(original).__name__ in _DUCKDB_QUOTING:
        return True
    state = str(getattr(original, "sqlstate", None) or "")
    if state and code_of(original) is None:
        # 22: what is wrong with a value. P0: what a trigger of the user's says. Others quote names and the statement.
        return state.startswith(("22", "P0"))
    return isinstance(error, exc.DataError | exc.IntegrityError)


def begin_write(engine: Engine) -> AbstractContextManager[Connection]:
    """Begin a transaction that will write; SQLite takes its lock at once instead of failing half-way."""
    return engine.execution_options(presswork_write=True).begin()


def parse_url(url: str) -> URL:
    """Parse a URL, with the driver that is used here; ValueError says what is wrong, without the URL."""
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
            f"there is no SQLAlchemy driver for {parsed.drivername!r}; docs/templates.md shows how to install one"
        ) from None
    return parsed


def make_engine(url: URL, *, read_only: bool = False, connect_args: Mapping[str, Any] | None = None) -> Engine:
    """Make an engine that shows no value in its errors; ImportError where its driver is not installed.

    `read_only` holds for SQLite and PostgreSQL, `connect_args` for other databases.
    """
    match url.get_backend_name():
        case "sqlite":
            engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}, **_JSON)
            event.listen(engine, "connect", _prepare_sqlite_reader if read_only else _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        case "postgresql":
            # Whatever a source keeps its texts in: psycopg does not know each encoding, and returns bytes of some.
            given = {"connect_timeout": CONNECT_TIMEOUT_S} | ({"client_encoding": "utf8"} if read_only else {})
            given = {name: value for name, value in given.items() if name not in url.query}
            options = {"postgresql_readonly": True} if read_only else {}
            engine = create_engine(url, pool_pre_ping=True, connect_args=given, execution_options=options, **_JSON)
            event.listen(engine, "begin", _begin_postgres)
        case _:
            engine = create_engine(url, pool_pre_ping=True, connect_args=dict(connect_args or {}), **_DISCREET)
    return engine


def rows_of(engine: Engine, statement: Executable) -> list[Row[Any]]:
    """Read all that a statement finds, in a transaction of its own."""
    with engine.connect() as connection:
        return list(connection.execute(statement).all())


def in_parts(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split ids for statements with IN (...), each below every database's limit."""
    for start in range(0, len(items), IN_AT_ONCE):
        yield items[start : start + IN_AT_ONCE]


def among(column: Any, values: Sequence[str], dialect: str) -> ColumnElement[bool]:
    """Select rows by any number of texts, which go as one value: IN (...) would be compiled again for each number."""
    if dialect == "postgresql":
        matching: ColumnElement[bool] = column == any_(bindparam(None, list(values), type_=ARRAY(Text())))
        return matching
    listed = func.json_each(orjson.dumps(list(values)).decode()).table_valued("value")
    found: ColumnElement[bool] = column.in_(select(listed.c.value))
    return found


def file_of(url: URL) -> str | None:
    """Return the path of a SQLite file, None for other databases and those in memory."""
    if url.get_backend_name() != "sqlite" or url.database in {None, "", ":memory:"}:
        return None
    # A file: URI, which SQLAlchemy hands on where the query says uri=true.
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
    # An ODBC string holds its password among other things.
    values += [found for value in values if value for found in _ODBC_PASSWORD.findall(value)]
    # A word of three letters stands in many a message, and in none as a password: drivers repeat none knowingly.
    plain = [str(value) for value in values if value and len(value) > 3]
    return sorted({spelling for value in plain for spelling in _spellings(value)}, key=len, reverse=True)


def _spellings(secret: str) -> set[str]:
    encoded = {quote(secret, safe=""), quote_plus(secret), quote(secret)}
    # The same, as some write it: %c3 for %C3.
    return {secret, *encoded, *(_ESCAPE.sub(lambda escape: escape[0].lower(), text) for text in encoded)}


def _prepare_sqlite(connection: sqlite3.Connection, _entry: object, pragmas: Sequence[str] = _WRITING) -> None:
    # The driver's own transaction handling begins too late to protect a read before a write: BEGIN is ours.
    connection.isolation_level = None
    with closing(connection.cursor()) as cursor:
        for pragma in (f"busy_timeout = {BUSY_TIMEOUT_MS}", *pragmas):
            cursor.execute(f"PRAGMA {pragma}")


def _prepare_sqlite_reader(connection: sqlite3.Connection, entry: object) -> None:
    _prepare_sqlite(connection, entry, ("query_only = ON",))
    # A text that is not UTF-8 fails no other record: what can't be read is marked, see values.py.
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")


def _begin_sqlite(connection: Any) -> None:
    # Writers say so when they begin (begin_write): an upgrade from reader to writer can't wait and would fail.
    immediate = connection.get_execution_options().get("presswork_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _begin_postgres(connection: Any) -> None:
    # One whose process sleeps, or is cut off, in the midst of writing must not keep others waiting for its locks.
    if connection.get_execution_options().get("presswork_write", False):
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_TIMEOUT_S}s'")
