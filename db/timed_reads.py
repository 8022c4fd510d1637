"""Read a ledger within a time limit, and keep the statements that were run, so that a page can show its SQL.

`open_reader` makes the engine; it can't write. Inside `reading`, every statement on that engine in this thread counts
against one time limit. So all readers keep their plain signatures.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError, DBAPIError
from sqlalchemy.sql import ClauseElement

from db.database_errors import TooSlowError
from db.machine import monotonic_s
from db.session import make_engine, parse_url

LIMIT_S = 2.0
_INSTRUCTIONS = 20_000  # of SQLite between two looks at the clock: about a millisecond
_CANCELLED = {"57014"}  # PostgreSQL's query_canceled
_REMEDY = "Choose a shorter period, a flow or a step. If this machine is busy now, try again in a moment."
_NOT_OURS = ("BEGIN", "SET LOCAL", "PRAGMA")


@dataclass
class TimedReading:
    """The statements of one read, and the moment (monotonic_s) at which it must have ended.

    `values` are those of the next statement's parameters.
    """

    until: float
    values: Mapping[str, Any] = field(default_factory=dict)
    _run: list[Callable[[], str]] = field(default_factory=list)

    @property
    def left_s(self) -> float:
        """The seconds that are left; never below a millisecond."""
        return max(self.until - monotonic_s(), 0.001)

    @property
    def is_over(self) -> bool:
        """Whether the time limit has passed."""
        return monotonic_s() >= self.until

    def statements(self) -> list[str]:
        """Return the statements in order, each once, with their values, ready to be run in any SQL client."""
        return list(dict.fromkeys(write() for write in self._run))

    def keep(self, write: Callable[[], str]) -> None:
        """Keep a statement; `write` returns its text, and is called only if someone asks for it."""
        self._run.append(write)


_current: ContextVar[TimedReading | None] = ContextVar("reading", default=None)


def open_reader(url: str) -> Engine:
    """Connect to a ledger that is only read; it is neither created nor checked, see ledger/connecting.py."""
    engine = make_engine(parse_url(url), read_only=True)
    event.listen(engine, "begin", _watch)
    event.listen(engine, "before_execute", _keep_values)
    event.listen(engine, "before_cursor_execute", _keep)
    return engine


@contextmanager
def reading(within_s: float = LIMIT_S) -> Iterator[TimedReading]:
    """Read within a time limit; TooSlowError if a statement is stopped because it has passed."""
    found = TimedReading(monotonic_s() + within_s)
    token = _current.set(found)
    try:
        yield found
    except DBAPIError as error:
        if was_stopped(error):
            raise TooSlowError(
                f"Reading the ledger took longer than {within_s:g} s and was stopped. {_REMEDY}"
            ) from None
        raise
    finally:
        _current.reset(token)


def _watch(connection: Connection) -> None:
    found = _current.get()
    raw = connection.connection.driver_connection
    if isinstance(raw, sqlite3.Connection):
        raw.set_progress_handler(None if found is None else lambda: found.is_over, _INSTRUCTIONS)


def _keep_values(_connection: object, _source: object, _many: object, values: Mapping[str, Any], _how: object) -> None:
    found = _current.get()
    if found is not None:
        found.values = values


def _keep(
    connection: Connection, _cursor: object, statement: str, _parameters: object, context: Any, _many: object
) -> None:
    found = _current.get()
    if found is None or statement.startswith(_NOT_OURS):
        return
    if found.is_over:
        raise TooSlowError(f"Reading the ledger took too long and was stopped. {_REMEDY}")
    if connection.dialect.name == "postgresql":
        # Before each one: PostgreSQL limits a statement, and several of one transaction would each get the whole time.
        # On its own cursor: the one of a statement whose rows are streamed takes only a select.
        raw: Any = connection.connection.driver_connection
        raw.execute(f"SET LOCAL statement_timeout = {int(found.left_s * 1000) or 1}")
    # Not the compiled one: that may be an equal statement of before, with other values.
    source, values, dialect = getattr(context, "invoked_statement", None), found.values, connection.dialect
    found.keep(lambda: statement if source is None else _written(source, values, dialect))


def _written(statement: ClauseElement, values: Mapping[str, Any], dialect: Dialect) -> str:
    """Write a statement with its values, and those of its parameters, as literals of this dialect."""
    if values:
        statement = statement.params(values)
    if dialect.name == "postgresql":
        # The driver's own parameters make SQLAlchemy double each percent sign, in values too.
        plain: Any = postgresql.dialect
        dialect = plain(paramstyle="named")
    try:
        return str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    except (CompileError, NotImplementedError):
        return str(statement.compile(dialect=dialect))


def was_stopped(error: DBAPIError) -> bool:
    """Whether a statement was stopped by the time limit."""
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return getattr(original, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
    return getattr(original, "sqlstate", None) in _CANCELLED
