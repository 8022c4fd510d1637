"""An export is complete or it is not there; what was written before it stopped is not written again."""

from __future__ import annotations

import csv
import gc
import io
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlalchemy import Engine

from db.ledger.connecting import open_ledger
from db.readers.audit.exports import EXPORT_COLUMNS
from db.readers.audit.filters import Filter
from presswork.errors import StoppedError
from presswork.exports import exporting, parquet_rows
from presswork.exports.exporting import CSV, FORMATS, JSONL, PARQUET, ExportOrder, export_to_file, export_to_stream
from presswork.exports.unfinished import ExportError
from tests.db.rows import Book

ROWS = 11


@pytest.fixture
def ledger(sqlite_ledger_url: str) -> Iterator[Engine]:
    engine = open_ledger(sqlite_ledger_url)
    yield engine
    engine.dispose()


@pytest.fixture
def filled(ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A ledger with some generations, exported in small parts."""
    book = Book(ledger)
    for number in range(ROWS):
        book.add(f"K-{number}", settled={"cost_usd": Decimal("0.0000000003") * number})
    monkeypatch.setattr(exporting, "ROWS_A_CHUNK", dict.fromkeys(FORMATS, 2))
    monkeypatch.setattr(exporting, "CHUNKS_A_NOTE", dict.fromkeys(FORMATS, 1))
    return ledger


def silent(_rows: int) -> None:
    pass


def stop_at(rows: int) -> Any:
    def tell(told: int) -> None:
        if told >= rows:
            raise KeyboardInterrupt

    return tell


def whole(ledger: Engine, target: Path, kind: str, **order: Any) -> Path:
    export_to_file(ledger, ExportOrder(Filter(), kind, **order), target, silent)
    return target


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "sqlite" not in path.name)


def rows_of(file: Path) -> list[Any]:
    """Read a complete file of any kind, as texts, to compare two."""
    if file.suffix == ".parquet":
        return in_duckdb(f"SELECT * FROM read_parquet('{file}')")
    return file.read_bytes().splitlines()


def in_duckdb(sql: str) -> list[Any]:
    with duckdb.connect() as connection:
        return connection.execute(sql).fetchall()


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_json_lines_hold_stored_json_and_exact_money(filled: Engine, tmp_path: Path) -> None:
    lines = whole(filled, tmp_path / "all.jsonl", JSONL).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line, parse_float=Decimal) for line in lines]

    assert [list(row) for row in rows] == [list(EXPORT_COLUMNS)] * ROWS
    assert [row["record_key"] for row in rows] == [f"K-{number}" for number in range(ROWS)]
    assert rows[1]["cost_usd"] == Decimal("0.0000000003")
    assert (rows[1]["record"], rows[1]["output"]) == ({}, {"title": "About K-1"})
    assert datetime.fromisoformat(rows[1]["created_at"]) == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert names(tmp_path) == ["all.jsonl"]


def test_long_answers_are_exported_fewer_at_a_time(ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book(ledger)
    for number in range(ROWS):
        book.add(f"K-{number}", output={"text": "x" * 1_000 if 2 <= number < 6 else ""})
    monkeypatch.setattr(exporting, "ROWS_AT_FIRST", 2)
    monkeypatch.setattr(exporting, "ROWS_A_CHUNK", dict.fromkeys(FORMATS, 4))
    monkeypatch.setattr(exporting, "CHARACTERS_A_CHUNK", 1_100)
    told: list[int] = []

    done = export_to_stream(ledger, ExportOrder(Filter(), JSONL), io.BytesIO(), told.append)

    assert told == [2, 6, 7, 11]
    assert done.rows == ROWS


def test_cells_of_csv_do_nothing_in_a_spreadsheet_or_terminal(ledger: Engine, tmp_path: Path) -> None:
    hostile = '=HYPERLINK("http://x")\n+1,\x1b[31m\u202e'
    Book(ledger).add(hostile, status="failed", output=None, error_kind="@SUM(1)", error_message="-1\ttab")

    data = whole(ledger, tmp_path / "all.csv", CSV, bom=True).read_bytes()
    (row,) = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))

    assert data.startswith("\ufeffgeneration_id,".encode())
    assert row["record_key"] == "'=HYPERLINK(\"http://x\")\n'+1,␛[31m⟨U+202E⟩"
    assert (row["error_kind"], row["error_message"]) == ("'@SUM(1)", "'-1\ttab")
    assert (row["cost_usd"], row["output"]) == ("0.01", "")


def test_parquet_has_types_and_equals_json_lines(filled: Engine, tmp_path: Path) -> None:
    target = whole(filled, tmp_path / "all.parquet", PARQUET)
    lines = rows_of(whole(filled, tmp_path / "all.jsonl", JSONL))

    described = in_duckdb(f"DESCRIBE SELECT * FROM read_parquet('{target}')")
    types = {name: kind for name, kind, *_rest in described}
    assert list(types) == list(EXPORT_COLUMNS)
    assert (types["created_at"], types["cost_usd"]) == ("TIMESTAMP WITH TIME ZONE", "DECIMAL(20,10)")
    assert (types["attempts"], types["record"]) == ("BIGINT", "VARCHAR")
    for stored, line in zip(rows_of(target), lines, strict=True):
        told, found = json.loads(line, parse_float=Decimal), dict(zip(types, stored, strict=True))
        for name in ("record", "output"):
            assert json.loads(found.pop(name)) == told.pop(name)
        assert found.pop("created_at").astimezone(UTC) == datetime.fromisoformat(told.pop("created_at"))
        assert found == told


@pytest.mark.parametrize("kind", FORMATS)
def test_empty_export_is_a_file_too(ledger: Engine, tmp_path: Path, kind: str) -> None:
    target = whole(ledger, tmp_path / f"all.{kind}", kind)

    assert rows_of(target) == ([",".join(EXPORT_COLUMNS).encode()] if kind == CSV else [])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rows", [1, 5, 8, ROWS])
def test_stopped_export_resumes_to_the_same_file(filled: Engine, tmp_path: Path, kind: str, rows: int) -> None:
    order, target = ExportOrder(Filter(), kind), tmp_path / f"all.{kind}"
    with pytest.raises(StoppedError, match=r"rows are kept in .*\.part; .* written again\. Run the same command"):
        export_to_file(filled, order, target, stop_at(rows))
    assert not target.exists()
    # What a killed process leaves behind what it had noted.
    if kind == PARQUET:
        (tmp_path / "all.parquet.part.00007").write_bytes(b"half a segment")
    else:
        with (tmp_path / f"all.{kind}.part").open("ab") as part:
            part.write(b"half a li")
    Book(filled).add("later")

    done = export_to_file(filled, order, target, silent)

    whole_file = tmp_path / f"fresh.{kind}"
    export_to_file(filled, ExportOrder(Filter(key="K-*"), kind), whole_file, silent)
    assert rows_of(target) == rows_of(whole_file)
    assert (done.rows, done.resumed) == (ROWS, (rows - 1) // 2 * 2)
    assert names(tmp_path) == sorted([target.name, whole_file.name])


def test_slow_export_notes_its_progress_too(filled: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "CHUNKS_A_NOTE", dict.fromkeys(FORMATS, 1_000))
    monkeypatch.setattr(exporting, "NOTE_EVERY_S", 0.0)
    order, target = ExportOrder(Filter(), JSONL), tmp_path / "all.jsonl"

    with pytest.raises(StoppedError, match="The first 4 rows are kept"):
        export_to_file(filled, order, target, stop_at(6))

    assert export_to_file(filled, order, target, silent).resumed == 4


def test_export_of_another_ledger_does_not_resume(
    filled: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    order, target = ExportOrder(Filter(), JSONL), tmp_path / "all.jsonl"
    with pytest.raises(StoppedError):
        export_to_file(filled, order, target, stop_at(4))
    other = open_ledger(f"sqlite:///{tmp_path / 'other.sqlite'}")
    request.addfinalizer(other.dispose)

    with pytest.raises(ExportError, match=r"of another ledger: .*\. This one .*other\.sqlite"):
        export_to_file(other, order, target, silent)


def test_export_with_other_flags_does_not_resume(filled: Engine, tmp_path: Path) -> None:
    target = tmp_path / "all.jsonl"
    with pytest.raises(StoppedError):
        export_to_file(filled, ExportOrder(Filter(key="K-*"), JSONL), target, stop_at(4))

    with pytest.raises(ExportError, match=r"with other flags \(filters: key K-\*\)\. Use the same flags"):
        export_to_file(filled, ExportOrder(Filter(), JSONL), target, silent)
    assert export_to_file(filled, ExportOrder(Filter(), JSONL, restart=True), target, silent).rows == ROWS


@pytest.mark.parametrize("kind", [JSONL, PARQUET])
def test_lost_rows_are_noticed(filled: Engine, tmp_path: Path, kind: str) -> None:
    order, target = ExportOrder(Filter(), kind), tmp_path / f"all.{kind}"
    with pytest.raises(StoppedError):
        export_to_file(filled, order, target, stop_at(6))
    (tmp_path / ("all.jsonl.part" if kind == JSONL else "all.parquet.part.00001")).unlink()

    with pytest.raises(ExportError, match="has lost rows"):
        export_to_file(filled, order, target, silent)


@pytest.mark.parametrize("kind", FORMATS)
def test_full_disk_keeps_what_was_written(filled: Engine, tmp_path: Path, kind: str) -> None:
    order, target = ExportOrder(Filter(), kind), tmp_path / f"all.{kind}"
    whole_file = whole(filled, tmp_path / f"fresh.{kind}", kind)
    size = whole_file.stat().st_size * 2 // 3

    with small_disk(size), pytest.raises(ExportError, match=r"File too large\. .* rows are kept") as raised:
        export_to_file(filled, order, target, silent)
    assert not target.exists()
    assert "Fix the cause, then run the same command again" in str(raised.value)

    export_to_file(filled, order, target, silent)
    assert rows_of(target) == rows_of(whole_file)


def test_nothing_is_overwritten(filled: Engine, tmp_path: Path) -> None:
    target = tmp_path / "all.jsonl"
    target.write_text("mine")
    with pytest.raises(ExportError, match="exists, and nothing is overwritten"):
        whole(filled, target, JSONL)
    (tmp_path / "other.jsonl.part").write_text("mine too")
    with pytest.raises(ExportError, match="is in the way"):
        whole(filled, tmp_path / "other.jsonl", JSONL)
    with pytest.raises(ExportError, match="does not exist"):
        whole(filled, tmp_path / "nowhere" / "all.jsonl", JSONL)

    assert target.read_text() == "mine"
    assert names(tmp_path) == ["all.jsonl", "other.jsonl.part"]


def test_file_that_appears_meanwhile_is_not_overwritten(filled: Engine, tmp_path: Path) -> None:
    target = tmp_path / "all.jsonl"

    def appear(rows: int) -> None:
        if rows == ROWS:
            target.write_text("mine")

    with pytest.raises(ExportError, match="exists, and nothing is overwritten"):
        export_to_file(filled, ExportOrder(Filter(), JSONL), target, appear)
    assert target.read_text() == "mine"


def test_complete_rows_are_kept_whatever_happens_to_the_target(
    filled: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "all.jsonl"

    def refuse(*_paths: Path) -> None:
        # As if a file had been there for a moment.
        raise FileExistsError(17, "File exists")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "hardlink_to", refuse)
        with pytest.raises(ExportError, match=r"all\.jsonl\.part is complete"):
            whole(filled, target, JSONL)
    assert not target.exists()
    assert len(rows_of(tmp_path / "all.jsonl.part")) == ROWS

    assert export_to_file(filled, ExportOrder(Filter(), JSONL), target, silent).resumed == ROWS
    assert len(rows_of(target)) == ROWS


def test_one_target_takes_one_export_at_a_time(filled: Engine, tmp_path: Path) -> None:
    order, target = ExportOrder(Filter(), JSONL), tmp_path / "all.jsonl"
    refused: list[str] = []

    def again(_rows: int) -> None:
        with pytest.raises(ExportError) as raised:
            export_to_file(filled, order, target, silent)
        refused.append(str(raised.value))

    export_to_file(filled, order, target, again)

    assert all("Another export" in each for each in refused)
    assert len(rows_of(target)) == ROWS


@pytest.mark.parametrize("kind", [JSONL, CSV])
def test_stream_that_ends_early_does_not_look_complete(filled: Engine, kind: str) -> None:
    complete, broken = io.BytesIO(), io.BytesIO()
    export_to_stream(filled, ExportOrder(Filter(), kind), complete, silent)
    with pytest.raises(KeyboardInterrupt):
        export_to_stream(filled, ExportOrder(Filter(), kind), broken, stop_at(6))

    assert complete.getvalue().endswith(b"\n")
    assert not broken.getvalue().endswith(b"\n")
    last = broken.getvalue().splitlines()[-1]
    assert b"error" in last
    if kind == JSONL:
        with pytest.raises(json.JSONDecodeError):
            json.loads(last)


def test_parquet_without_its_package_names_the_extra(
    filled: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(parquet_rows, "import_module", missing)

    with pytest.raises(parquet_rows.ParquetMissingError, match=r"presswork\[parquet\]"):
        whole(filled, tmp_path / "all.parquet", PARQUET)
    assert names(tmp_path) == []


def test_collector_works_as_before_after_an_export(filled: Engine, tmp_path: Path) -> None:
    frozen = [object()]
    gc.freeze()
    before = gc.get_threshold()
    with pytest.raises(StoppedError):
        export_to_file(filled, ExportOrder(Filter(), JSONL), tmp_path / "all.jsonl", stop_at(2))
    assert gc.get_threshold() == before
    assert not any(each is frozen for each in gc.get_objects())  # which leaves out what is frozen
