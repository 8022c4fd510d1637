"""Keep the records of a select in a temporary SQLite file, so that the select runs once and its source is released.

A cursor that stays open for hours would delay a database's clean-up, time out, or lock the database. The files of a run
are in a folder named by its id, with the identity of the process that writes them. They contain customers' data, so
only this user can read them. They are removed when the run completes, otherwise after KEPT_S.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from db.database_errors import SpoolError
from db.identity import fate_of, this_process
from db.machine import here, wall_time_s
from db.session import in_parts
from db.sources.values import Record

SPOOL_SUFFIX, UNFINISHED = ".spool", ".part"
KEPT_S = 7 * 24 * 3600.0
"""How long the records of an incomplete run are kept for a run that resumes it: over a weekend and a holiday."""
_OWNER = "presswork-process"
_TABLES = (
    "CREATE TABLE records (position INTEGER PRIMARY KEY, key TEXT, hash TEXT, data BLOB, fault TEXT)",
    "CREATE TABLE keys (trimmed INTEGER)",
)
# Made after all records are written: updating the index for each record would be slower.
_BY_KEY = "CREATE INDEX by_key ON records (key)"
_REPEATED = """SELECT SUM(n - 1) OVER (), key FROM (SELECT key, COUNT(*) AS n FROM records GROUP BY key HAVING n > 1)
    ORDER BY key LIMIT ?"""
_RECORDS = "SELECT position, key, hash, data, fault FROM records"
# One process writes the file, and if it crashes, the file is discarded. So SQLite need not protect it.
_WRITING = tuple(
    f"PRAGMA {setting}"
    for setting in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "page_size = 8192")
)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that can't be rendered. It fails alone, by its key; `fault` is the reason."""

    key: str
    fault: str


class SpoolFile:
    """A spool that is being written. If that fails, the file is removed.

    `trimmed` means that a key column is CHAR(n), whose trailing blanks are not part of the key.
    """

    def __init__(self, path: Path) -> None:
        self.count = 0
        self.trimmed = False
        self._path = path
        with _spool_errors(path.parent.parent):
            if not path.parent.is_dir():
                path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.parent.mkdir(mode=0o700, exist_ok=True)
            # A process that resumes the run writes into the same folder, and becomes its owner.
            (path.parent / _OWNER).write_text(this_process(), encoding="utf-8")
            # Created with its mode: another user could open the file before a later change.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                for statement in (*_WRITING, "BEGIN", *_TABLES):
                    self._database.execute(statement)
            except sqlite3.Error:
                self._database.close()
                raise

    def add(self, records: Sequence[Record | Unreadable]) -> None:
        """Add records in the given order."""
        rows = [_row(position, record) for position, record in enumerate(records, start=self.count + 1)]
        with _spool_errors(self._path.parent.parent):
            self._database.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
        self.count += len(rows)

    def repeated(self, most: int) -> tuple[int, list[str]]:
        """Return how many records have the key of an earlier one, and the first `most` such keys.

        Call it once, after all records are added.
        """
        with _spool_errors(self._path.parent.parent):
            self._database.execute(_BY_KEY)
            found = self._database.execute(_REPEATED, (most,)).fetchall()
        return (found[0][0], [key for _surplus, key in found]) if found else (0, [])

    def finish(self, path: Path) -> None:
        """Write everything to the disk, and give the file its final name."""
        with _spool_errors(self._path.parent.parent):
            self._database.execute("INSERT INTO keys VALUES (?)", (self.trimmed,))
            self._database.execute("COMMIT")
            self._database.close()
            with self._path.open("rb") as file:
                os.fsync(file.fileno())
            self._path.rename(path)

    def close(self) -> None:
        """Close the file without finishing it."""
        self._database.close()


class Spool:
    """The records of a select, as they were read. `count` is their number; `trimmed` as in SpoolFile."""

    def __init__(self, path: Path) -> None:
        self.read_at = here().modified_s(path)
        self._database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        try:
            self.count: int = self._database.execute("SELECT COALESCE(MAX(position), 0) FROM records").fetchone()[0]
            self.trimmed = self._database.execute("SELECT trimmed FROM keys").fetchone() == (1,)
        except sqlite3.Error:
            self._database.close()
            raise

    def pages(self, size: int, first: int | None = None) -> Iterator[list[Record | Unreadable]]:
        """Yield the records in the select's order, `size` at a time, at first `first` of them. Raises SpoolError."""
        after, limit = 0, first or size
        while rows := self._read(f"{_RECORDS} WHERE position > ? ORDER BY position LIMIT ?", after, limit):
            after, limit = rows[-1][0], size
            yield [_record(*row) for row in rows]

    def keys(self, size: int) -> Iterator[list[str]]:
        """Yield the records' keys in sorted order, `size` at a time. Raises SpoolError."""
        after = ""
        rows = self._read("SELECT key FROM records ORDER BY key LIMIT ?", size)
        while rows:
            after = rows[-1][0]
            yield [key for (key,) in rows]
            rows = self._read("SELECT key FROM records WHERE key > ? ORDER BY key LIMIT ?", after, size)

    def records_of(self, keys: Sequence[str]) -> list[Record | Unreadable]:
        """Return the records that have one of these keys, in the select's order. Raises SpoolError."""
        found = []
        for part in in_parts(keys):
            found += self._read(f"{_RECORDS} WHERE key IN ({', '.join('?' * len(part))})", *part)
        return [_record(*row) for row in sorted(found)]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _read(self, statement: str, *values: object) -> list[Any]:
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise SpoolError(
                f"The stored records can't be read: {error}. Run again without --resume to read the source again."
            ) from None


class RunSpools:
    """The spools of a run or helper, and of the runs that it resumes (`resumed`), the latest first.

    A run that starts a second time resumes itself. No folder is made before a spool is written.
    """

    def __init__(self, folder: Path, own_id: str, resumed: Sequence[str] = ()) -> None:
        self.resumed = resumed
        self._folder = folder
        self._own = folder / own_id
        self._open: list[Spool] = []

    def find(self, name: str) -> Spool | None:
        """Return the spool of this name that a resumed run finished on this machine, or None."""
        for run_id in self.resumed:
            path = self._folder / run_id / f"{name}{SPOOL_SUFFIX}"
            with suppress(OSError, sqlite3.Error):
                spool = self._opened(path)
                # KEPT_S begins again with each use.
                path.touch()
                return spool
        return None

    @contextmanager
    def writing(self, name: str) -> Iterator[SpoolFile]:
        """Write a spool, which `open` then finds. Raises SpoolError if it can't be written to the folder."""
        path = self._own / f"{name}{SPOOL_SUFFIX}"
        # The process that had the run before may still be writing, perhaps on another machine that shares the folder.
        unfinished = path.with_name(f"{name}-{here().uuid7():032x}{UNFINISHED}")
        try:
            with closing(SpoolFile(unfinished)) as written:
                yield written
                written.finish(path)
        finally:
            with suppress(OSError):
                unfinished.unlink()

    def open(self, name: str) -> Spool:
        """Open a spool that this run has written."""
        return self._opened(self._own / f"{name}{SPOOL_SUFFIX}")

    def close(self) -> None:
        """Close the files, and remove the run's folder if it has no finished spool and no other owner."""
        for spool in self._open:
            spool.close()
        with suppress(OSError):
            is_own = (self._own / _OWNER).read_text(encoding="utf-8") == this_process()
            if is_own and not any(self._own.glob(f"*{SPOOL_SUFFIX}")):
                _remove(self._own)

    def remove(self, *, own_only: bool = False) -> None:
        """Remove the spools of this run and, unless `own_only`, of the runs that it resumed."""
        for run_id in (self._own.name, *(() if own_only else self.resumed)):
            _remove(self._folder / run_id)

    def _opened(self, path: Path) -> Spool:
        self._open.append(Spool(path))
        return self._open[-1]


def spool_name(*parts: object) -> str:
    """Return a spool's name, made from everything that determines its content."""
    return hashlib.sha256(orjson.dumps(parts, default=str)).hexdigest()[:32]


def sweep(folder: Path) -> int:
    """Remove the files of runs that have ended, and return the number of runs. Files that can't be removed stay.

    Files that are incomplete after a crash are removed now, finished ones after KEPT_S.
    """
    swept = 0
    for marker in sorted(folder.glob(f"*/{_OWNER}")):
        # Another run may remove them at the same time.
        with suppress(OSError):
            swept += _swept(marker.parent)
    return swept


def _swept(own: Path) -> bool:
    owner = (own / _OWNER).read_text(encoding="utf-8")
    # Several machines may share a folder, and a restarted host keeps its name.
    fate = fate_of(owner, one_machine=owner.partition("/")[0] == this_process().partition("/")[0])
    if fate == "alive":
        return False
    ours = _ours(own)
    if wall_time_s() - max(map(here().modified_s, (own, *ours))) > KEPT_S:
        _remove(own)
        return True
    unfinished = [path for path in ours if fate == "gone" and path.suffix == UNFINISHED]
    for path in unfinished:
        path.unlink(missing_ok=True)
    if unfinished and not any(path.suffix == SPOOL_SUFFIX for path in ours):
        _remove(own)
    return bool(unfinished)


def _ours(own: Path) -> list[Path]:
    return [path for path in own.iterdir() if path.suffix in {SPOOL_SUFFIX, UNFINISHED} or path.name == _OWNER]


def _remove(own: Path) -> None:
    # Only our own files, because the setting may name any folder.
    with suppress(OSError):
        for path in _ours(own):
            path.unlink(missing_ok=True)
        own.rmdir()


@contextmanager
def _spool_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise SpoolError(
            f"The records can't be stored in {folder}: {getattr(error, 'strerror', None) or error}. A run keeps its "
            "selected records there until it completes. Free space on that disk and in the system's temporary folder, "
            "or set PRESSWORK_SPOOL_DIR to another folder."
        ) from None


def _row(position: int, record: Record | Unreadable) -> tuple[int, str, str | None, bytes | None, str | None]:
    if isinstance(record, Unreadable):
        return position, record.key, None, None, record.fault
    # Columns keep the select's order, because a template may iterate over them.
    return position, record.key, record.hash, orjson.dumps(record.data), None


def _record(_position: int, key: str, hash_: str, data: bytes, fault: str | None) -> Record | Unreadable:
    if fault is not None:
        return Unreadable(key, fault)
    return Record(key, orjson.loads(data), hash_)
