"""Disks of a night that are full or read-only: those of spill files, and those of the records that a run keeps.

The product's modules get a stand-in for `os` and `sqlite3`, in which only what writes to such files can fail.
"""

import errno
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from db.ledger import spill
from db.sources import spool
from tests.nights.simulated.connections import error_of
from tests.nights.simulated.database import Outage
from tests.nights.simulated.machines import KilledError
from tests.nights.simulated.world import World

_FAILING: Mapping[str, frozenset[str]] = {
    "spill": frozenset({"spill_full", "spill_unwritable", "disks_full"}),
    "temporary": frozenset({"disks_full"}),
    "state": frozenset({"spool_full", "disks_full"}),
}
"""By the folder of a workplace: the troubles in which nothing can be written there."""
DISK_TROUBLES = frozenset().union(*_FAILING.values())


class Disks:
    """The disks of a workplace.

    - `cut`: by process, the write to a spill file in which it is killed.
    - `cut_files`: the spill files in whose write a process was killed.
    - `unkept`: by the id of a request, when no disk took its answer.
    """

    def __init__(self, folder: Path) -> None:
        self.cut: dict[str, int] = {}
        self.cut_files: set[Path] = set()
        self.unkept: dict[str, float] = {}
        self._folder = folder
        self._world: World | None = None
        self._outages: Sequence[Outage] = ()
        self._writes: dict[str, int] = {}

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let the product's spill files and spools be on these disks."""
        patch.setattr(spill, "os", _Os(self))
        patch.setattr(spool, "sqlite3", _Sqlite(self))

    def begin(self, world: World, outages: Sequence[Outage]) -> None:
        """Start a night."""
        self._world, self._outages = world, [each for each in outages if each.trouble in DISK_TROUBLES]
        self.cut, self.cut_files, self.unkept, self._writes = {}, set(), {}, {}

    def end_troubles(self) -> None:
        """Let everything be written from now on."""
        self._outages = ()
        self.cut.clear()

    def trouble(self, path: Path) -> Outage | None:
        """Return why nothing can be written to a path now."""
        world = self._world
        if not self._outages or world is None or world.current is None or not path.is_relative_to(self._folder):
            return None
        kinds = _FAILING.get(path.relative_to(self._folder).parts[0], frozenset())
        on = world.current.on.name
        return next(
            (
                each
                for each in self._outages
                if each.trouble in kinds and each.begins <= world.now < each.ends and each.host in {None, on}
            ),
            None,
        )

    def is_cut(self, path: Path) -> bool:
        """Count a write, if it is to a spill file; returns whether its process is killed in it."""
        world = self._world
        if world is None or world.current is None or path.suffix != spill.SPILL_SUFFIX:
            return False
        name = world.current.name
        self._writes[name] = self._writes.get(name, 0) + 1
        if self.cut.get(name) != self._writes[name]:
            return False
        self.cut_files.add(path)
        return True

    def no_space(self, path: Path, data: bytes) -> None:
        """Note which answers no disk takes: those in a batch for which the last folder has no space either."""
        self.told("the disk of its spill file is full")
        if path.suffix == spill.SPILL_SUFFIX and path.is_relative_to(self._folder / "temporary"):
            assert self._world is not None
            settled = json.loads(data.partition(b" ")[2])["batch"]["settled"]
            self.unkept |= {row["request_id"]: self._world.now for row in settled if row["request_id"]}

    def told(self, line: str) -> None:
        """Add a line to the night's story."""
        if self._world is not None and self._world.current is not None:
            self._world.tell(f"{self._world.current.name}: {line}")


class _Os:
    """The module os, whose files can't be written while their disk is in trouble."""

    def __init__(self, disks: Disks) -> None:
        self._disks = disks
        self._paths: dict[int, Path] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str | Path, flags: int, mode: int = 0o777) -> int:
        trouble = self._disks.trouble(Path(path)) if flags & (os.O_WRONLY | os.O_RDWR) else None
        if trouble is not None and trouble.trouble == "spill_unwritable":
            self._disks.told("the disk of its spill file is read-only")
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        file = os.open(path, flags, mode)
        self._paths[file] = Path(path)
        return file

    def write(self, file: int, data: memoryview) -> int:
        path = self._paths[file]
        if self._disks.trouble(path) is not None:
            # Some blocks may be free.
            os.write(file, data[:100])
            self._disks.no_space(path, bytes(data))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._disks.is_cut(path):
            os.write(file, data[: len(data) // 2])
            raise KilledError
        return os.write(file, data)


class _Sqlite:
    """The module sqlite3, whose files can't be written while their disk is in trouble."""

    def __init__(self, disks: Disks) -> None:
        self._disks = disks

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)

    def connect(self, database: str | Path, **options: Any) -> sqlite3.Connection:
        if isinstance(database, str):  # to read
            found: sqlite3.Connection = sqlite3.connect(database, **options)
            return found
        connection: _SpoolConnection = sqlite3.connect(database, factory=_SpoolConnection, **options)
        connection.disks, connection.file = self._disks, database
        return connection


class _SpoolConnection(sqlite3.Connection):
    """Writes a spool, if its disk has space."""

    disks: Disks
    file: Path

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        if self.disks.trouble(self.file) is not None:
            self.disks.told("the disk of its selected records is full")
            raise error_of("full")
        return super().executemany(sql, parameters)
