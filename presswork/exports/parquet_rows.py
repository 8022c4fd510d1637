"""Write exported rows as Parquet, in segments: a file of Parquet can't be continued, because its index is at its end.

Each segment is a small file of its own, and is safe when it is closed. At the end all are copied into one file. The
package that writes Parquet is an extra of Presswork, so it is imported on first use.
"""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from db.readers.audit.exports import EXPORT_COLUMNS, ColumnKind, ExportedRow
from presswork.errors import ConfigurationError
from presswork.exports.text_rows import dollars_text

ROWS_A_GROUP = 8_000  # compressed pages of one group are in memory, and a few kilobytes of index for each
ROWS_A_READ = 1_000
_SEGMENT, _FINAL = "lz4_raw", "zstd(1)"
"""How each is compressed: a segment is read once, soon after."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class ParquetMissingError(ConfigurationError):
    """Parquet needs the extra `parquet`. Run `pip install 'presswork[parquet]'`, or export to .jsonl or .csv."""


class ParquetRows:
    """Makes and joins segments. Raises ParquetMissingError if the extra is not installed."""

    def __init__(self) -> None:
        try:
            self._core, self._io = import_module("arro3.core"), import_module("arro3.io")
        except ImportError:
            raise ParquetMissingError from None
        made = self._core.DataType
        # It makes no times and no decimals of Python's values, but casts to them.
        plain = {"integer": made.int64(), "moment": made.int64()}
        final = {"moment": made.timestamp("us", tz="UTC"), "dollars": made.decimal128(20, 10)}
        self._types = [(kind, plain.get(kind, made.string()), final.get(kind)) for kind in EXPORT_COLUMNS.values()]
        self.schema = self.batch([]).schema

    def batch(self, rows: Sequence[ExportedRow]) -> Any:
        """Make a batch of rows."""
        columns = list(zip(*rows, strict=True)) or [()] * len(EXPORT_COLUMNS)
        arrays = [self._array(column, *types) for column, types in zip(columns, self._types, strict=True)]
        return self._core.RecordBatch.from_arrays(arrays, names=list(EXPORT_COLUMNS))

    def write(self, batches: Iterable[Any], file: Path, *, final: bool) -> None:
        """Write batches to a segment or to the final file. Raises OSError if it can't be written."""
        with _written(file) as out:
            reader = self._core.RecordBatchReader.from_batches(self.schema, batches)
            how = _FINAL if final else _SEGMENT
            # A dictionary of each column would need more memory than the rows, and hardly makes the file smaller.
            self._io.write_parquet(
                reader, out, max_row_group_size=ROWS_A_GROUP, compression=how, dictionary_enabled=False
            )

    def read(self, segments: Sequence[Path]) -> Iterator[Any]:
        """Yield the batches of segments, in order."""
        for segment in segments:
            yield from self._io.read_parquet(segment, batch_size=ROWS_A_READ)

    def _array(self, values: Sequence[Any], kind: ColumnKind, plain: Any, final: Any) -> Any:
        if kind == "dollars":
            values = [None if value is None else dollars_text(value) for value in values]
        elif kind == "moment":
            values = [None if value is None else _microseconds(value) for value in values]
        made = self._core.Array(values, type=plain)
        return made if final is None else made.cast(final)


def _microseconds(moment: str) -> int:
    return (datetime.fromisoformat(moment) - _EPOCH) // _MICROSECOND


class _CarefulFile(io.FileIO):
    """A file that keeps its first error: the writer in Rust would print it as a crash of its own."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        if self.failed is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failed = error
        return len(data)


@contextmanager
def _written(path: Path) -> Iterator[_CarefulFile]:
    """Open a file, and raise the error that it met after all."""
    with _CarefulFile(path, "wb") as file:
        yield file
        if file.failed is not None:
            raise file.failed
        os.fsync(file.fileno())
