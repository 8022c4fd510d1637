"""Save batches that could not be committed in a spill file, and import them later, exactly once.

A file belongs to one run, by which a ledger recognizes its own files. It has one batch per line, each with a checksum.
Importing rows that are already in the ledger changes nothing, so an interrupted import can be repeated. Both writing
and importing hold the file's lock, so that no line is deleted unread. Rows that the ledger refuses are kept in a
separate file next to it for a person to read; no code reads that file.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import orjson
from sqlalchemy import Engine, select

from db.columns import Base, Money, UtcDateTime
from db.database_errors import DatabaseError
from db.ledger.refused_rows import RefusedRow
from db.ledger.rows import PARTS, Row, WriteBatch, id_of, values_of
from db.ledger.writing import write
from db.session import is_unavailable, readable_url, reason_of, rows_of
from db.tables import StoredRun

T = TypeVar("T")
FORMAT_VERSION = 1
SPILL_SUFFIX = ".spill"
REFUSED_SUFFIX = ".refused"
# Parsers for column types that JSON stores as text.
_PARSERS: Mapping[type, Callable[[str], Any]] = {UtcDateTime: datetime.fromisoformat, Money: Decimal}


class SpillError(DatabaseError):
    """A spill file can't be imported. The file is kept."""


def keep_batch(folder: Path, run_id: str, batch: WriteBatch) -> Path:
    """Append a batch to its run's spill file, sync it to disk and return the file's path.

    Raises OSError, for example on a full disk; the file then has no part of the batch.
    """
    line = _json({"presswork_spill": FORMAT_VERSION, "run_id": run_id, "batch": _dumped(batch)})
    return _append(folder / f"{run_id}{SPILL_SUFFIX}", hashlib.sha256(line).hexdigest().encode() + b" " + line + b"\n")


def keep_refused(folder: Path, run_id: str, refused: Iterable[RefusedRow]) -> Path:
    """Save the original rows that a ledger refused, one per line; return the file. Raises OSError."""
    lines = [
        _json({"table": found.row.table, "column": found.column, "reason": found.reason, "row": values_of(found.row)})
        for found in refused
    ]
    return _append(refused_file(folder / run_id), b"".join(line + b"\n" for line in lines))


def keep_in_one(folders: Sequence[Path], keep: Callable[[Path, str, T], Path], run_id: str, what: T) -> Path:
    """Keep a batch or refused rows in the first folder that can be written; raises the OSError of the last one."""
    for folder in folders[:-1]:
        # Its disk is full or read-only, and is probably the ledger's; the next folder may be on another disk.
        with suppress(OSError):
            return keep(folder, run_id, what)
    return keep(folders[-1], run_id, what)


def refused_file(path: Path) -> Path:
    """Return the path of the file for the refused rows of a spill file."""
    return path.with_suffix(REFUSED_SUFFIX)


def find_spills(folder: Path) -> list[Path]:
    """List the spill files that have not been imported."""
    return sorted(folder.glob(f"*{SPILL_SUFFIX}")) if folder.is_dir() else []


def belongs_to(engine: Engine, path: Path) -> bool:
    """Whether a spill file's run is in this ledger."""
    run_id = path.name.removesuffix(SPILL_SUFFIX)
    return bool(rows_of(engine, select(StoredRun.id).where(StoredRun.id == run_id)))


def recover(engine: Engine, path: Path, refused: list[RefusedRow] | None = None) -> int:
    """Import a spill file into its ledger, delete it, and return the number of its generations.

    Rows that the ledger refuses are written without the refused values if possible, and added to `refused`. Their
    originals are saved in `refused_file(path)`. Returns 0 if another process has imported the file meanwhile. Raises
    SpillError and keeps the file if it is damaged, belongs to another ledger, or is refused as a whole. The error of an
    unavailable ledger is raised unchanged.
    """
    try:
        with _locked(path, os.O_RDONLY):
            return _recover(engine, path, refused if refused is not None else [])
    except FileNotFoundError:
        return 0


def _recover(engine: Engine, path: Path, refused: list[RefusedRow]) -> int:
    batches = _read(path)
    if not belongs_to(engine, path):
        raise SpillError(
            f"The spill file {path} belongs to another ledger: its run is not in {readable_url(engine.url)}. "
            "Set PRESSWORK_DATABASE_URL to its ledger. The file is kept."
        )
    found: list[RefusedRow] = []
    try:
        for batch in batches:
            write(engine, batch, refused=found)
        if found:
            keep_refused(path.parent, path.name.removesuffix(SPILL_SUFFIX), found)
    except Exception as error:
        if is_unavailable(error):
            raise
        raise SpillError(
            f"The spill file {path} can't be imported: {reason_of(error, engine.url)}. The file is kept. Fix the "
            "cause, then run `presswork db recover`."
        ) from None
    refused += found
    path.unlink(missing_ok=True)
    return sum(len(batch.generations) for batch in batches)


def _read(path: Path) -> list[WriteBatch]:
    *lines, rest = path.read_bytes().split(b"\n")
    if rest and not lines:
        raise SpillError(f"The spill file {path} is damaged: it has no complete line. The file is kept.")
    # Text after the last line's end belongs to a batch that a crash cut off, and that no caller counts as saved.
    return [_read_line(path, number, line) for number, line in enumerate(lines, start=1)]


def _read_line(path: Path, number: int, line: bytes) -> WriteBatch:
    digest, _, body = line.partition(b" ")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise SpillError(
            f"The spill file {path} is damaged: line {number} does not match its checksum. The file is kept. "
            "To import the other lines, back the file up, delete this line, then run `presswork db recover`."
        )
    # Not orjson: an endpoint's answer may contain half a surrogate pair, or a number of any length.
    found = json.loads(body)
    if found.get("presswork_spill") != FORMAT_VERSION or f"{found.get('run_id')}{SPILL_SUFFIX}" != path.name:
        raise SpillError(f"The spill file {path} has another format or run than its name says. The file is kept.")
    try:
        return _loaded(found["batch"])
    except TypeError as error:
        raise SpillError(
            f"The spill file {path} can't be imported: {error}. The file is kept. If a newer Presswork wrote it, "
            "import it with that version."
        ) from None


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[int]:
    while True:
        file = os.open(path, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # A process that imported the file has deleted it. Then the file opened here is not the one at the path.
            if _is_at(file, path):
                yield file
                return
        finally:
            os.close(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _append(path: Path, lines: bytes) -> Path:
    # The files contain customers' text, so only this user may read them.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
        size = _cut_off_half_line(file, path)
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            if size == 0:
                path.unlink(missing_ok=True)
            raise
    return path


def _cut_off_half_line(file: int, path: Path) -> int:
    """Cut off what a crash left of a line, and return the file's size: the next line would become part of it."""
    size = os.fstat(file).st_size
    with path.open("rb") as reading:
        reading.seek(max(0, size - 1))
        if reading.read() not in {b"", b"\n"}:
            reading.seek(0)
            size = reading.read().rfind(b"\n") + 1
            os.ftruncate(file, size)
    return size


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=str)
    except TypeError:
        # orjson rejects half a surrogate pair and numbers of more than 64 bits.
        return json.dumps(value, default=str, skipkeys=True).encode()


def _dumped(batch: WriteBatch) -> dict[str, Any]:
    parts = {name: [values_of(row) for row in rows] for name, rows in batch.parts()}
    return parts | {"released": batch.released}


def _loaded(data: Mapping[str, Any]) -> WriteBatch:
    batch = WriteBatch(released=[(owner, claimed) for owner, claimed in data["released"]])
    for name, kind in PARTS.items():
        rows = [_typed(kind, row) for row in data.get(name, ())]
        part = getattr(batch, name)
        if isinstance(part, dict):
            part.update((id_of(row), row) for row in rows)
        else:
            part += rows
    return batch


def _typed(kind: type[Row], row: Mapping[str, Any]) -> Row:
    """Make a typed row from JSON; files of earlier releases lack newer columns."""
    columns = Base.metadata.tables[kind.table].c
    values = dict(row)
    for name, value in row.items():
        parse = _PARSERS.get(type(columns[name].type)) if name in columns else None
        if parse is not None and value is not None:
            values[name] = parse(value)
    return kind(**values)
