"""Put exported rows where they last: a text file that grows, or segments of Parquet."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from db.readers.audit.exports import ExportedRow
from presswork.exports.parquet_rows import ParquetRows
from presswork.exports.text_rows import Encode
from presswork.exports.unfinished import ExportError, Unfinished


class Sink(Protocol):
    """Where rows go. What `keep` has returned survives a crash, and `begin` continues after it."""

    def begin(self, kept: int) -> None:
        """Drop later rows, which may be half there, and be ready for more."""

    def write(self, rows: Sequence[ExportedRow]) -> None:
        """Take rows."""

    def keep(self) -> int:
        """Put all rows so far on disk; return what an export needs to know to resume."""

    def finish(self) -> None:
        """Complete the part file."""

    def close(self) -> None:
        """Let go of the files, also after an error."""


class TextSink:
    """Rows as text; `keep` returns the number of bytes."""

    def __init__(self, files: Unfinished, encode: Encode, header: bytes = b"") -> None:
        self._path, self._encode, self._header = files.part, encode, header
        self._file: IO[bytes] | None = None

    def begin(self, kept: int) -> None:
        """Cut the file off after `kept` bytes. Raises ExportError if it is shorter."""
        if kept and (not self._path.exists() or self._path.stat().st_size < kept):
            raise _lost(self._path)
        # Without a buffer: after an error nothing is left that would be written again when the file is closed.
        self._file = file = self._path.open("r+b" if kept else "wb", buffering=0)
        file.truncate(kept)
        file.seek(kept)
        if not kept:
            self._put(self._header)

    def write(self, rows: Sequence[ExportedRow]) -> None:
        """Append rows."""
        self._put(self._encode(rows))

    def keep(self) -> int:
        """Wait until all rows are on disk."""
        assert self._file is not None
        os.fsync(self._file.fileno())
        return self._file.tell()

    def finish(self) -> None:
        """Nothing is left to be done: the file is complete."""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]


class SegmentSink:
    """Rows as segments of Parquet; `keep` returns their number."""

    def __init__(self, files: Unfinished) -> None:
        self._files, self._parquet = files, ParquetRows()
        self._number = 0
        self._batches: list[Any] = []

    def begin(self, kept: int) -> None:
        """Delete later segments. Raises ExportError if an earlier one is missing."""
        self._number = kept
        for number in range(1, kept + 1):
            if not self._files.segment(number).exists():
                raise _lost(self._files.segment(number))
        for segment in self._files.segments(after=kept):
            segment.unlink()

    def write(self, rows: Sequence[ExportedRow]) -> None:
        """Take rows for the next segment."""
        if rows:
            self._batches.append(self._parquet.batch(rows))

    def keep(self) -> int:
        """Write a segment."""
        if self._batches:
            self._parquet.write(self._batches, self._files.segment(self._number + 1), final=False)
            self._number += 1
            self._batches.clear()
        return self._number

    def finish(self) -> None:
        """Copy all segments into the part file."""
        self._parquet.write(self._parquet.read(self._files.segments()), self._files.part, final=True)

    def close(self) -> None:
        """Forget the rows that were not kept."""
        self._batches.clear()


def _lost(file: Path) -> ExportError:
    return ExportError(f"{file} has lost rows of the export that would be resumed. Use --restart to begin again.")
