"""The ledger of a night: a real SQLite file, whose connections fail as the night's plan says.

The ledger knows which simulated process uses a connection, because only one runs at a time. The file also has triggers
that note when each row became visible, and that refuse the rows of some records.
"""

import re
import shutil
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event, make_url

from db.ledger.connecting import open_ledger
from db.session import make_engine
from tests.nights.simulated.connections import NightConnection, error_of
from tests.nights.simulated.machines import EPOCH, KilledError
from tests.nights.simulated.processes import Job
from tests.nights.simulated.world import World

TROUBLES = frozenset({"unavailable", "locked", "full", "slow"})
"""What an outage can be."""
HELD_UP = 0.25
"""The share of transactions in threads before which the thread is held up, so that others commit in between."""
SHORTEST_S, LONGEST_S = 0.0001, 3.0
MOST_HELD_UP = 8
"""Each has a connection, and a pool has 15."""
_OURS = re.compile(r"presswork\.|db\.(?!session$)")
_WRITES = ("INSERT", "UPDATE", "DELETE")
NOT_BEGUN, FAILS = 0.8, 0.25
"""While the ledger is unavailable or locked: the share of transactions that can't begin, and that of statements of
others that fail. In a full one, all begin and the latter holds for writes. A commit of changes fails in all of them."""
NOTES = """
CREATE TABLE night_times (kind TEXT, id TEXT, at REAL);
CREATE TABLE night_refused (key TEXT);
CREATE TRIGGER night_opened AFTER INSERT ON attempts
  BEGIN INSERT INTO night_times VALUES ('opened', NEW.id, night_now()); END;
CREATE TRIGGER night_settled AFTER UPDATE OF ended_at ON attempts
  BEGIN INSERT INTO night_times VALUES ('settled', NEW.id, night_now()); END;
CREATE TRIGGER night_written AFTER INSERT ON generations
  BEGIN INSERT INTO night_times VALUES ('written', NEW.id, night_now()); END;
CREATE TRIGGER night_crashed AFTER UPDATE OF status ON runs WHEN NEW.status = 'crashed'
  BEGIN INSERT INTO night_times VALUES ('crashed', NEW.id, night_now()); END;
CREATE TRIGGER night_completed AFTER UPDATE OF status ON runs WHEN NEW.status = 'completed'
  BEGIN INSERT INTO night_times VALUES ('completed', NEW.id, night_now()); END;
CREATE TRIGGER night_taken AFTER INSERT ON leases
  BEGIN INSERT INTO night_times VALUES ('taken', NEW.id, night_now()); END;
CREATE TRIGGER night_main AFTER INSERT ON leases WHEN NEW.worker = 'main'
  BEGIN INSERT INTO night_times VALUES ('main taken', NEW.run_id, night_now()); END;
CREATE TRIGGER night_ended AFTER DELETE ON leases
  BEGIN INSERT INTO night_times VALUES ('ended', OLD.id, night_now()); END;
CREATE TRIGGER night_lapsed AFTER UPDATE OF epoch ON leases
  BEGIN INSERT INTO night_times VALUES ('lease lost', NEW.id, night_now()); END;
CREATE TRIGGER night_done AFTER UPDATE OF state ON run_steps WHEN NEW.state = 'done'
  BEGIN INSERT INTO night_times VALUES ('step done', NEW.run_id, night_now()); END;
CREATE TRIGGER night_suspended AFTER UPDATE OF status ON runs WHEN NEW.status = 'suspended'
  BEGIN INSERT INTO night_times VALUES ('suspended', NEW.id, night_now()); END;
CREATE TRIGGER night_refuse BEFORE INSERT ON generations
  WHEN NEW.status = 'succeeded' AND NEW.record_key IN (SELECT key FROM night_refused)
  BEGIN SELECT RAISE(ABORT, 'this row is refused'); END;
"""
"""What a night's ledger has besides the product's tables."""
_KINDS = re.findall(r"INTO night_times VALUES \('([a-z ]+)'", NOTES)


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which the ledger is in trouble, for all machines or for one."""

    trouble: str
    begins: float
    ends: float
    host: str | None = None


class Ledger:
    """The ledger of one night; all of its processes share the engine, whose statements are compiled once."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.engine = make_engine(make_url(f"sqlite:///{file}"))
        self._pristine = file.with_suffix(".pristine")
        self.world: World | None = None
        self.outages: Sequence[Outage] = ()
        self.statements: dict[str, int] = {}
        self.commits: dict[str, int] = {}
        self.kill_at_statement: dict[str, int] = {}
        self.kill_at_commit: dict[str, int] = {}
        self.fail_at_statement: dict[str, int] = {}
        self.fail_at_commit: dict[str, int] = {}
        self.lost_commits: dict[str, set[int]] = {}
        self._held_up = 0
        self._connections: dict[NightConnection, None] = {}
        event.listen(self.engine, "do_connect", self._connect)
        self._make()

    def _make(self) -> None:
        open_ledger(f"sqlite:///{self._pristine}").dispose()
        with sqlite3.connect(self._pristine) as made:
            made.executescript(NOTES)
            made.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        made.close()

    def begin(self, world: World, outages: Sequence[Outage], refused: Sequence[str]) -> None:
        """Start a night with an empty ledger."""
        self.engine.dispose()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.file}{suffix}").unlink(missing_ok=True)
        shutil.copyfile(self._pristine, self.file)
        self.world, self.outages, self._held_up = world, outages, 0
        for each in (self.statements, self.commits, *self._arranged()):
            each.clear()
        with sqlite3.connect(self.file) as connection:
            connection.executemany("INSERT INTO night_refused VALUES (?)", [(key,) for key in refused])
        connection.close()

    def end_troubles(self) -> None:
        """Let everything succeed from now on."""
        self.outages = ()
        for each in self._arranged():
            each.clear()
        with sqlite3.connect(self.file) as connection:
            connection.execute("DELETE FROM night_refused")
        connection.close()

    def _arranged(self) -> tuple[dict[str, Any], ...]:
        """Return what will happen at a statement or commit of a process."""
        kills, fails = (self.kill_at_statement, self.kill_at_commit), (self.fail_at_statement, self.fail_at_commit)
        return *kills, *fails, self.lost_commits

    def times(self) -> dict[str, dict[str, list[float]]]:
        """Return when each kind of thing happened, by the id of its row, in order."""
        found: dict[str, dict[str, list[float]]] = {kind: {} for kind in _KINDS}
        with sqlite3.connect(self.file) as connection:
            for kind, row_id, at in connection.execute("SELECT kind, id, at FROM night_times ORDER BY rowid"):
                found[kind].setdefault(row_id, []).append(at)
        connection.close()
        return found

    def shared(self) -> Engine:
        """Return the engine of a ledger that several machines share, so that its own clock judges leases."""
        return self.engine.execution_options(presswork_shared=True)

    def _connect(self, _dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> Any:
        connection = sqlite3.connect(*arguments, **options, factory=NightConnection)
        connection.ledger = self
        self._connections[connection] = None
        connection.create_function("night_now", 0, self._now)
        connection.create_function("database_time", 1, self._time)
        return connection

    def _now(self) -> float:
        assert self.world is not None
        return self.world.now

    def _time(self, plus_s: float) -> str:
        moment = datetime.fromtimestamp(EPOCH + self._now() + plus_s, UTC)
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f")

    # What connections ask

    def _trouble(self) -> str | None:
        world = self.world
        if world is None or world.current is None:
            return None
        name = world.current.on.name
        return next(
            (
                each.trouble
                for each in self.outages
                if each.begins <= world.now < each.ends and each.host in {None, name}
            ),
            None,
        )

    def before_statement(self, connection: NightConnection, sql: str) -> None:
        """Fail a statement if the ledger is in trouble, or kill the process that executes it.

        A transaction may begin later: its thread is held up. One that is open may go on, or is rolled back.
        """
        process = self._user()
        if process is None:
            return
        if sql.startswith("BEGIN"):
            self._hold_up()
        count = self.statements[process] = self.statements.get(process, 0) + 1
        if self.kill_at_statement.get(process) == count:
            raise KilledError
        if self.fail_at_statement.get(process) == count:
            self._fail(connection, "unavailable", sql)
        is_write = sql.lstrip().upper().startswith(_WRITES)
        trouble = self._trouble()
        if trouble == "slow":
            assert self.world is not None
            self.world.now += 1.0
        elif trouble is not None and (is_write or trouble != "full") and self._draws_failure(connection, sql):
            self._fail(connection, trouble, sql)

    def _draws_failure(self, connection: NightConnection, sql: str) -> bool:
        assert self.world is not None
        share = FAILS if connection.in_transaction else NOT_BEGUN if sql.startswith("BEGIN") else 1.0
        return self.world.fails.random() < share

    def _fail(self, connection: NightConnection, trouble: str, sql: str) -> None:
        """Raise the error of a trouble. An open transaction is rolled back, as SQLite does if its disk is full."""
        assert self.world is not None
        if connection.in_transaction:
            assert self.world.current is not None
            verb = sql.split(maxsplit=1)[0]
            self.world.tell(f"{self.world.current.name}: {trouble} in a transaction of {_asking()} at {verb}")
            connection.rollback()
        raise error_of(trouble)

    def _hold_up(self) -> None:
        """Let others do something before a transaction of a thread begins, if the seed says so.

        Not while a transaction is open: others that write would wait for its end, in real time.
        """
        world, job = self.world, Job.now()
        if world is None or job is None or self._held_up >= MOST_HELD_UP:
            return
        if any(each.in_transaction for each in self._connections) or world.holds.random() >= HELD_UP:
            return
        began, commits = world.now, sum(self.commits.values())
        self._held_up += 1
        try:
            job.hold_up(SHORTEST_S * (LONGEST_S / SHORTEST_S) ** world.holds.random())
        finally:
            self._held_up -= 1
        others = sum(self.commits.values()) - commits
        if others and world.current is not None:
            held_s = world.now - began
            world.tell(
                f"{world.current.name} goes on with {_asking()} {held_s:.3f} s later (commits meanwhile: {others})"
            )

    def forget(self, connection: NightConnection) -> None:
        """Forget a connection that is closed."""
        self._connections.pop(connection, None)

    def committing(self, connection: NightConnection) -> bool:
        """Count a commit; returns whether its answer is lost.

        Raises KilledError if the process dies before it, and the error of a trouble if the transaction has changes.
        """
        process = self._user()
        if process is None:
            return False
        count = self.commits[process] = self.commits.get(process, 0) + 1
        if self.kill_at_commit.get(process) == -count:
            raise KilledError
        if self.fail_at_commit.get(process) == count:
            self._fail(connection, "unavailable", "COMMIT")
        trouble = self._trouble()
        if trouble is not None and trouble != "slow" and connection.has_changed:
            self._fail(connection, trouble, "COMMIT")
        return count in self.lost_commits.get(process, ())

    def committed(self) -> None:
        """Kill the process if it dies after this commit, before it learns that it went in."""
        process = self._user()
        if process is not None and self.kill_at_commit.get(process) == self.commits[process]:
            raise KilledError

    def _user(self) -> str | None:
        world = self.world
        if world is None or world.current is None:
            return None
        if not world.current.alive:
            raise KilledError
        return world.current.name


def _asking() -> str:
    """Return which function of the product begins a transaction."""
    frame = sys._getframe()
    while frame.f_back is not None and not _OURS.match(frame.f_globals["__name__"]):
        frame = frame.f_back
    return f"{frame.f_globals['__name__'].rpartition('.')[2]}.{frame.f_code.co_name}"
