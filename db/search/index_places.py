"""Create, open and remove the index of words: a file next to a SQLite ledger, or tables in a PostgreSQL one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from sqlalchemy import URL, Engine
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import LedgerError
from db.search.answer_index import (
    AnswerIndex,
    IndexUnusableError,
    create_tables,
    drop_tables,
    has_tables,
    size_of_tables,
)
from db.session import begin_write, file_of, make_engine
from db.timed_reads import open_reader

_SUFFIX = ".search.sqlite"
_ENDINGS = ("", "-wal", "-shm", "-journal")
"""Endings of the files that SQLite keeps for a database."""


def side_file(ledger: Engine) -> Path | None:
    """Return the path of a SQLite ledger's index, whether or not it exists; None on PostgreSQL."""
    file = file_of(ledger.url)
    return None if file is None else Path(f"{file}{_SUFFIX}")


@contextmanager
def opened_index(ledger: Engine, *, to_write: bool = False) -> Iterator[AnswerIndex | None]:
    """Open a ledger's index for as long as the block lasts; None if it has none.

    Raises IndexUnusableError if the index is damaged or of another format.
    """
    file = side_file(ledger)
    if file is None:
        yield AnswerIndex(ledger, ledger) if has_tables(ledger) else None
    elif not file.exists():
        yield None
    else:
        url = _url(file)
        engine = make_engine(url) if to_write else _reader(url.render_as_string())
        try:
            yield AnswerIndex(ledger, engine) if has_tables(engine) else None
        finally:
            engine.dispose()


def create_index(ledger: Engine) -> None:
    """Create an empty index, unless there is one. Raises IndexUnusableError."""
    file = side_file(ledger)
    if file is None:
        create_tables(ledger)
        return
    try:
        _create_like(file, Path(str(file_of(ledger.url))))
    except OSError as error:
        raise IndexUnusableError(
            f"The index of words {file} can't be written: {os.strerror(error.errno or 0)}. Make its folder writable."
        ) from None
    engine = make_engine(_url(file))
    try:
        create_tables(engine)
    finally:
        engine.dispose()


def remove_index(ledger: Engine) -> bool:
    """Remove a ledger's index with all words in it, damaged or not; return whether there was one.

    Raises LedgerError if its file can't be removed.
    """
    file = side_file(ledger)
    if file is None:
        found = _has_some(ledger)
        if found:
            drop_tables(ledger)
        return found
    if not file.exists():
        return False
    _wait_for_writers(file)
    try:
        for ending in _ENDINGS:
            Path(f"{file}{ending}").unlink(missing_ok=True)
    except OSError as error:
        raise LedgerError(
            f"The index of words {file} can't be removed: {os.strerror(error.errno or 0)}. Make its folder writable."
        ) from None
    return True


def size_of_index(ledger: Engine) -> int:
    """Return the bytes of a ledger's index; 0 if it has none."""
    file = side_file(ledger)
    if file is None:
        return size_of_tables(ledger)
    sides = (Path(f"{file}{ending}") for ending in _ENDINGS)
    return sum(each.stat().st_size for each in sides if each.exists())


def _has_some(ledger: Engine) -> bool:
    try:
        return has_tables(ledger)
    except IndexUnusableError:
        return True


def _wait_for_writers(file: Path) -> None:
    """Wait until no other process writes to the file; it may be damaged, so errors mean nothing."""
    engine = make_engine(_url(file))
    with suppress(SQLAlchemyError), begin_write(engine):
        pass
    engine.dispose()


def _create_like(file: Path, ledger: Path) -> None:
    """Create an empty file that the same users can read as the ledger: it has the same words."""
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, ledger.stat().st_mode & 0o777))


@lru_cache(maxsize=8)
def _reader(url: str) -> Engine:
    # Kept for its compiled statements, of which each month has its own; without connections it holds no file open.
    return open_reader(url)


def _url(file: Path) -> URL:
    return URL.create("sqlite", database=str(file))
