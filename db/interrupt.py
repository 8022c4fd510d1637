"""Interrupt a statement that another thread runs, so that a long select ends with what it was for.

Drivers know how: `interrupt` of SQLite and DuckDB, `cancel` of PostgreSQL and Oracle. Where a driver has neither, the
statement goes on until it ends by itself.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine, event

CANCEL_WITHIN_S = 2.0
"""PostgreSQL is asked over a connection of its own, which must not take long either."""


class Interrupter:
    """Know which thread uses which connection of an engine, and interrupt what runs on it."""

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._in_use: dict[int, Any] = {}
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine, "checkin", self._checked_in)
        event.listen(engine, "invalidate", self._invalidated)

    def interrupt(self, thread: int) -> None:
        """End the statement that a thread, named by its ident, runs now; without one, do nothing."""
        # With the lock, the connection can't be handed to another thread meanwhile.
        with self._lock:
            connection = self._in_use.get(thread)
            # Whatever a driver raises here, the statement then ends by itself.
            with suppress(Exception):
                _interrupt(connection)

    def _checked_out(self, connection: Any, _entry: Any, _proxy: Any) -> None:
        with self._lock:
            self._in_use[threading.get_ident()] = connection

    def _checked_in(self, connection: Any, _entry: Any) -> None:
        with self._lock:
            # By what is returned: the garbage collector returns a connection from any thread.
            for thread in [thread for thread, used in self._in_use.items() if used is connection]:
                del self._in_use[thread]

    def _invalidated(self, connection: Any, entry: Any, _error: Any) -> None:
        self._checked_in(connection, entry)


def _interrupt(connection: Any) -> None:
    if hasattr(connection, "interrupt"):
        connection.interrupt()
    elif hasattr(connection, "cancel_safe"):
        connection.cancel_safe(timeout=CANCEL_WITHIN_S)
    elif hasattr(connection, "cancel"):
        connection.cancel()
