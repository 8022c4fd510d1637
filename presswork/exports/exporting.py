"""Export all generations that match a filter, to a file or to a stream, with memory that does not grow.

An export to a file resumes by itself where an equal one has stopped: the part file keeps what is complete.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Engine

from db.clock import now
from db.machine import monotonic_s
from db.readers.audit.exports import EXPORT_COLUMNS, ExportChunk, export_chunk, newest_generation
from db.readers.audit.filters import Filter, resolved
from db.session import readable_url
from presswork.errors import StoppedError
from presswork.exports.sinks import SegmentSink, Sink, TextSink
from presswork.exports.text_rows import Encode, csv_header, csv_lines, json_lines
from presswork.exports.unfinished import ExportError, ExportPlan, ExportState, Unfinished

JSONL, CSV, PARQUET = "jsonl", "csv", "parquet"
FORMATS = (JSONL, CSV, PARQUET)
ROWS_A_CHUNK = {JSONL: 2_000, CSV: 2_000, PARQUET: 1_000}
CHARACTERS_A_CHUNK = 8_000_000
"""A chunk has fewer rows where records and answers are longer, so that memory does not grow with them."""
ROWS_AT_FIRST = 100
CHUNKS_A_NOTE = {JSONL: 20, CSV: 20, PARQUET: 4}
"""After this many chunks the export can be resumed: about a second of work, and a segment of Parquet."""
NOTE_EVERY_S = 1.0
"""It can be resumed after this time too, where chunks take longer: rare rows are searched for in a large ledger."""
CHUNKS_A_COLLECTION = 10
Tell = Callable[[int], None]
# No reader takes these for a row.
_ENDED_EARLY = {JSONL: b'{"error":"this export ended early', CSV: b'"error: this export ended early'}
_ENCODE: dict[str, Encode] = {JSONL: json_lines, CSV: csv_lines}


@dataclass(frozen=True)
class ExportOrder:
    """What to export, and how: a filter, a format, for CSV with Excel's mark, and whether to begin again."""

    wanted: Filter
    kind: str
    bom: bool = False
    restart: bool = False


@dataclass(frozen=True)
class Exported:
    """A complete export: how many rows, and all up to which generation. `resumed` counts rows that were there."""

    rows: int
    newest: str
    began_at: datetime
    resumed: int = 0


def export_to_file(ledger: Engine, order: ExportOrder, target: Path, tell: Tell) -> Exported:
    """Write a file that must not exist; `tell` gets the number of rows so far.

    Raises ExportError, FilterError, or StoppedError after Ctrl-C.
    """
    wanted = resolved(ledger, order.wanted)
    files = Unfinished(target)
    sink: Sink = SegmentSink(files) if order.kind == PARQUET else TextSink(files, _ENCODE[order.kind], _header(order))
    with files.claimed():
        plan = _plan(ledger, order, wanted)
        begun = _begun(files, plan, restart=order.restart)
        state = begun or ExportState(plan=plan, newest=newest_generation(ledger), began_at=now())
        with _explained(files), closing(sink), _few_collections():
            files.save(state)
            sink.begin(state.kept)
            for fresh in _fill(ledger, wanted, state, sink, tell):
                files.save(state := fresh)
            sink.finish()
            files.finish()
    return Exported(state.rows, state.newest, state.began_at, begun.rows if begun else 0)


def _plan(ledger: Engine, order: ExportOrder, wanted: Filter) -> ExportPlan:
    filters = {name: str(value) for name, value in asdict(wanted).items() if value is not None}
    columns = tuple(EXPORT_COLUMNS)
    return ExportPlan(ledger=readable_url(ledger.url), kind=order.kind, bom=order.bom, columns=columns, filters=filters)


def _begun(files: Unfinished, plan: ExportPlan, *, restart: bool) -> ExportState | None:
    if restart:
        files.discard()
    state = files.read()
    if state is not None and state.plan.ledger != plan.ledger:
        raise ExportError(
            f"{files.part} is an export that has not ended, of another ledger: {state.plan.ledger}. This one would be "
            f"of {plan.ledger}. Use the same ledger to resume it, or --restart to begin again."
        )
    if state is not None and state.plan != plan:
        filters = ", ".join(f"{name} {value}" for name, value in state.plan.filters.items()) or "none"
        raise ExportError(
            f"{files.part} is an export that has not ended, with other flags (filters: {filters}). "
            "Use the same flags to resume it, or --restart to begin again."
        )
    return state


def _fill(ledger: Engine, wanted: Filter, state: ExportState, sink: Sink, tell: Tell) -> Iterator[ExportState]:
    """Write the rows that are missing; yield how far the export has come whenever that is on disk."""
    every, noted_at = CHUNKS_A_NOTE[state.plan.kind], monotonic_s()
    for number, chunk in enumerate(_chunks(ledger, wanted, state.plan.kind, state.after, state.newest), 1):
        sink.write(chunk.rows)
        state = state.model_copy(update={"after": chunk.last, "rows": state.rows + len(chunk.rows)})
        tell(state.rows)
        if number % every == 0 or monotonic_s() - noted_at >= NOTE_EVERY_S:
            state = state.model_copy(update={"kept": sink.keep()})
            yield state
            noted_at = monotonic_s()
    yield state.model_copy(update={"kept": sink.keep()})


def _chunks(ledger: Engine, wanted: Filter, kind: str, after: str, newest: str) -> Iterator[ExportChunk]:
    most = ROWS_A_CHUNK[kind]
    size = min(ROWS_AT_FIRST, most)
    for number in count(1):
        chunk = export_chunk(ledger, wanted, after, newest, size)
        if chunk.last is None:
            return
        after = chunk.last
        size = _next_size(chunk, size, most)
        yield chunk
        if number % CHUNKS_A_COLLECTION == 0:
            gc.collect()  # statements leave small circles; what was there before the export is not searched


def _next_size(chunk: ExportChunk, size: int, most: int) -> int:
    """Return how many rows to read next, by the length of these."""
    characters = sum(len(text) for *_others, record, output in chunk.rows for text in (record, output) if text)
    return max(min(size * 4, most, size * CHARACTERS_A_CHUNK // max(characters, 1)), 1)


@contextmanager
def _explained(files: Unfinished) -> Iterator[None]:
    """Say what is kept of an export that ends early, and how to resume it."""
    try:
        yield
    except OSError as error:
        raise ExportError(
            f"The export to {files.target} can't be written: {error.strerror or error}. {_kept(files)} Fix the cause, "
            "then run the same command again to resume."
        ) from None
    except KeyboardInterrupt:
        raise StoppedError(f"Stopped by Ctrl-C. {_kept(files)} Run the same command again to resume.") from None


def _kept(files: Unfinished) -> str:
    state = files.read()
    rows = state.rows if state else 0
    return f"The first {rows:,} rows are kept in {files.part}; what follows them there will be written again."


@contextmanager
def _few_collections() -> Iterator[None]:
    # Rows are in no circles, but the search for circles in all of them would take a fifth of the time.
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 1_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def export_to_stream(ledger: Engine, order: ExportOrder, out: BinaryIO, tell: Tell) -> Exported:
    """Write JSON lines or CSV to a stream. If it ends early, its last line says so and is no row."""
    wanted, encode, began = resolved(ledger, order.wanted), _ENCODE[order.kind], now()
    newest, rows = newest_generation(ledger), 0
    try:
        out.write(_header(order))
        with _few_collections():
            for chunk in _chunks(ledger, wanted, order.kind, "", newest):
                out.write(encode(chunk.rows))
                rows += len(chunk.rows)
                tell(rows)
        out.flush()
    except BaseException:
        with suppress(OSError):
            out.write(_ENDED_EARLY[order.kind])
            out.flush()
        raise
    return Exported(rows, newest, began)


def _header(order: ExportOrder) -> bytes:
    return csv_header(bom=order.bom) if order.kind == CSV else b""
