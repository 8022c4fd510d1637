"""Interrupt a statement that another thread runs, so that a long select ends with what it was for.

Drivers know how: `interrupt` of SQLite and DuckDB, `cancel` of PostgreSQL and Oracle. MySQL's statements are killed
over another connection. Where a driver has none of these, the statement goes on until it ends by itself.
"""

from __future__ import annotations

import threading
from contextlib import closing, suppress
from typing import Any

from sqlalchemy import Engine, event

CANCEL_WITHIN_S = 2
"""PostgreSQL and MySQL are asked over another connection, which must not take long either."""


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
        # With the lock, the connection can't be handed to another thread meanwhile.
        with self._lock:
            connection = self._in_use.get(thread)
            # Whatever a driver raises here, the statement then ends by itself.
            with suppress(Exception):
                _interrupt(self._engine, connection)

    def _checked_out(self, connection: Any, _entry: Any, _proxy: Any) -> None:
        with self._lock:
            self._in_use[threading.get_ident()] = connection

    def _checked_in(self, connection: Any, _entry: Any) -> None:
        with self._lock:
            # By what is returned: the garbage collector returns a connection from any thread.
            for thread in [thread for thread, used in self._in_use.items() if used is connection]:
                del self._in_use[thread]


def _interrupt(engine: Engine, connection: Any) -> None:
    if hasattr(connection, "interrupt"):
        connection.interrupt()
    elif hasattr(connection, "cancel_safe"):
        connection.cancel_safe(timeout=CANCEL_WITHIN_S)
    elif hasattr(connection, "cancel"):
        connection.cancel()
    elif engine.dialect.name in {"mysql", "mariadb"} and hasattr(connection, "thread_id"):
        _kill(engine, int(connection.thread_id()))


def _kill(engine: Engine, thread: int) -> None:
    arguments, options = engine.dialect.create_connect_args(engine.url)
    # Not one of the pool's: whoever waits for it would be waited for.
    other = engine.dialect.connect(*arguments, **{**options, "connect_timeout": CANCEL_WITHIN_S})
    with closing(other), closing(other.cursor()) as cursor:
        cursor.execute(f"KILL QUERY {thread}")
