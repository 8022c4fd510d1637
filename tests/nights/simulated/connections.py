"""Connections to a night's ledger: they ask it before each statement and commit, and it can make that fail."""

import sqlite3
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from tests.nights.simulated.database import Ledger

_ERRORS: dict[str, tuple[str, int]] = {
    "unavailable": ("unable to open database file", sqlite3.SQLITE_CANTOPEN),
    "locked": ("database is locked", sqlite3.SQLITE_BUSY),
    "full": ("database or disk is full", sqlite3.SQLITE_FULL),
    "slow": ("database is locked", sqlite3.SQLITE_BUSY),
    "lost": ("disk I/O error", sqlite3.SQLITE_IOERR),
}


def error_of(trouble: str) -> sqlite3.OperationalError:
    """Make the error that SQLite raises."""
    words, code = _ERRORS[trouble]
    error = sqlite3.OperationalError(words)
    error.sqlite_errorcode = code
    return error


class NightCursor(sqlite3.Cursor):
    """A cursor whose statements can fail."""

    def execute(self, sql: str, parameters: Any = (), /) -> "NightCursor":
        cast("NightConnection", self.connection).before_statement(sql)
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> "NightCursor":
        cast("NightConnection", self.connection).before_statement(sql)
        return super().executemany(sql, parameters)


class NightConnection(sqlite3.Connection):
    """A connection whose statements and commits can fail, or go in while their answer is lost."""

    ledger: "Ledger"
    _changes_before = 0

    # The stubs have an overload for each factory; SQLAlchemy names none.
    def cursor(self, *_factory: Any) -> NightCursor:  # type: ignore[override]
        return super().cursor(NightCursor)

    @property
    def has_changed(self) -> bool:
        """Whether the open transaction has changed a row."""
        return self.total_changes > self._changes_before

    def before_statement(self, sql: str) -> None:
        """Fail a statement as the ledger says."""
        self.ledger.before_statement(self, sql)
        if not self.in_transaction:
            self._changes_before = self.total_changes

    def close(self) -> None:
        self.ledger.forget(self)
        super().close()

    def commit(self) -> None:
        if not self.in_transaction:
            return
        is_lost = self.ledger.committing(self)
        super().commit()
        self.ledger.committed()
        if is_lost:
            raise error_of("lost")
