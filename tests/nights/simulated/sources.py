"""The user's database in a night: it can't be reached, is lost while a select is read, fails, and has odd rows."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Engine, ExceptionContext, event, text

from db.sources import access, select
from db.sources.drivers import prepare_source
from tests.nights.simulated.database import Outage
from tests.nights.simulated.world import World

SOURCE_TROUBLES = frozenset({"source_unavailable", "source_lost", "source_fails"})
ODD_VALUES = (None, 7, 2.5, float("inf"), b"\xff\x00", "", " wide ", "nul\x00", "x" * 3000, 2**63 - 1, "{{ 1 / 0 }}")
"""What a column may hold where a text is expected; the template fails for those without `strip`."""
ROWS_AT_ONCE = 4
"""Rows that the product fetches at a time in a night: sources have few records there."""


class SourceLostError(sqlite3.OperationalError):
    """The connection to the source is lost, as a server's is; SQLite itself has no such error."""


class Source:
    """The source of a workplace: a real SQLite file, whose connections fail as the night's plan says."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.texts: dict[str, str] = {}
        self._world: World | None = None
        self._outages: Sequence[Outage] = ()
        with engine.begin() as connection:
            # Neither is checked: a key that is null or not unique is the user's mistake.
            connection.execute(text("CREATE TABLE items (id TEXT, name)"))

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let the product read this source through connections that can fail."""

        def prepared(engine: Engine) -> None:
            prepare_source(engine)
            event.listen(engine, "do_connect", self._connect)
            event.listen(engine, "handle_error", _tell_loss)

        patch.setattr(access, "prepare_source", prepared)
        patch.setattr(select, "AT_ONCE", ROWS_AT_ONCE)

    def begin(self, world: World | None, outages: Sequence[Outage], records: int) -> None:
        """Start a night: fill the source with records."""
        self._world, self._outages = world, [each for each in outages if each.trouble in SOURCE_TROUBLES]
        self.texts = {f"k{number}": f"thing {number}" for number in range(records)}
        rows = [{"id": key, "name": name} for key, name in self.texts.items()]
        with self.engine.begin() as connection:
            connection.execute(text("DELETE FROM items"))
            connection.execute(text("INSERT INTO items VALUES (:id, :name)"), rows)

    def end_troubles(self) -> None:
        """Let everything succeed from now on, and drop the rows without a usable key."""
        self._outages = ()
        self.drop_bad_keys()

    def edit(self, number: int, version: int) -> str:
        """Change a record; returns its key."""
        key = self._key(number)
        self.texts[key] = f"thing {number} of version {version}"
        self._set(key, self.texts[key])
        return key

    def make_odd(self, number: int) -> str:
        """Give a record an odd value; returns its key."""
        key = self._key(number)
        self._set(key, ODD_VALUES[number * 7 % len(ODD_VALUES)])
        return key

    def add_bad_key(self, kind: str) -> None:
        """Add a row whose key is null, that of another row, or no text that can be stored."""
        key = {"null_key": None, "repeated_key": self._key(0), "unstorable_key": "k\x00"}[kind]
        with self.engine.begin() as connection:
            connection.execute(text("INSERT INTO items VALUES (:id, 'bad key')"), {"id": key})

    def drop_bad_keys(self) -> None:
        """Drop these rows."""
        with self.engine.begin() as connection:
            connection.execute(text("DELETE FROM items WHERE name = 'bad key'"))

    def _key(self, number: int) -> str:
        return f"k{number % max(len(self.texts), 1)}"

    def _set(self, key: str, value: object) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                text("UPDATE items SET name = :name WHERE id = :id AND name IS NOT 'bad key'"),
                {"id": key, "name": value},
            )

    def _connect(self, _dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> Any:
        if self.trouble() == "source_unavailable":
            self.told("can't be reached")
            raise SourceLostError("could not connect to the source")
        connection = sqlite3.connect(*arguments, **options, factory=_SourceConnection)
        connection.source, connection.cursors = self, []
        return connection

    def trouble(self) -> str | None:
        """Return what is wrong with the source now."""
        world = self._world
        if world is None or world.current is None:
            return None
        return next((each.trouble for each in self._outages if each.begins <= world.now < each.ends), None)

    def told(self, line: str) -> None:
        """Add a line to the night's story."""
        if self._world is not None and self._world.current is not None:
            self._world.tell(f"{self._world.current.name}: the source {line}")


class _SourceCursor(sqlite3.Cursor):
    """A cursor that fails after its first rows."""

    _fetched = 0
    _is_closed = False

    def close(self) -> None:
        # SQLAlchemy closes the cursor of a lost connection after the connection.
        if not self._is_closed:
            super().close()
        self._is_closed = True

    def fetchmany(self, *size: Any) -> list[Any]:
        found = super().fetchmany(*size)
        self._fetched += 1
        source: Source = self.connection.source  # type: ignore[attr-defined]  # it is of the class below
        trouble = source.trouble() if self._fetched > 1 or not found else None
        if trouble == "source_lost":
            source.told("is lost in the middle of a select")
            raise SourceLostError("the connection was lost")
        if trouble == "source_fails":
            source.told("fails in the middle of a select")
            raise sqlite3.OperationalError("disk I/O error")
        return found


class _SourceConnection(sqlite3.Connection):
    """A connection whose selects can fail."""

    source: Source
    cursors: list[_SourceCursor]

    # The stubs have an overload for each factory; SQLAlchemy names none.
    def cursor(self, *_factory: Any) -> _SourceCursor:  # type: ignore[override]
        self.cursors.append(super().cursor(_SourceCursor))
        return self.cursors[-1]

    def close(self) -> None:
        # SQLite keeps the file locked until the statements have ended, and a lost one is not closed before.
        for each in self.cursors:
            each.close()
        super().close()


def _tell_loss(context: ExceptionContext) -> None:
    """Say that a connection is lost, as the dialect of a server would."""
    if isinstance(context.original_exception, SourceLostError):
        context.is_disconnect = True
