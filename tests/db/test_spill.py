"""Spill files are imported later, exactly once; a file that can't be imported is named and kept."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import OperationalError

from db.clock import new_id, now
from db.columns import Base
from db.ledger import claims, spill
from db.ledger.connecting import open_ledger
from db.ledger.lifecycle import close_run
from db.ledger.refused_rows import RefusedRow
from db.ledger.rows import ParentRow, TextRow, WriteBatch
from db.ledger.writing import write
from tests.db.rows import Book, error_of_sqlite, settled_row, sha


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spill"


@pytest.fixture
def other_ledger(tmp_path: Path) -> Iterator[Engine]:
    engine = open_ledger(f"sqlite:///{tmp_path / 'other.sqlite'}")
    yield engine
    engine.dispose()


def contents(ledger: Engine) -> dict[str, list[Mapping[str, Any]]]:
    """All rows of all tables, sorted."""
    with ledger.connect() as connection:
        return {
            name: sorted((dict(row) for row in connection.execute(select(table)).mappings()), key=str)
            for name, table in Base.metadata.tables.items()
        }


def answered(book: Book, *keys: str) -> WriteBatch:
    """A batch with requests and answers for these keys, and values of all types."""
    batch = WriteBatch()
    batch.texts[sha("system")] = TextRow(sha("system"), "Write \u2028 \x85 plainly.\nOn two lines.")
    for key in keys:
        generation_id = new_id()
        changes = {"max_tokens": 512, "messages": [{"role": "user", "content": key}]}
        attempt_id = book.attempt(batch, key, generation_id, request_changes=changes)
        batch.settled.append(
            settled_row(
                attempt_id,
                cost_usd=Decimal("0.0123456789"),
                validation_errors=[{"where": "title", "what": "too long"}],
                output_text="\u00e9\U0001f375\u2029",
            )
        )
        book.generation(batch, key, id=generation_id, record=f'{{"name":"{key}"}}')
        batch.released.append((book.lease.id, sha(key)))
    batch.parents += [ParentRow(row.id, batch.generations[0].id) for row in batch.generations[1:]]
    return batch


def spilled(book: Book, folder: Path, *batches: WriteBatch) -> Path:
    *_others, path = [spill.keep_batch(folder, book.run_id, batch) for batch in batches]
    return path


def test_imported_rows_equal_the_rows_of_a_direct_write(book: Book, folder: Path) -> None:
    before = contents(book.ledger)
    batch = answered(book, "a", "b")
    path = spilled(book, folder, batch)
    claims.take(book.ledger, book.lease.id, [sha("a"), sha("c")])
    assert spill.recover(book.ledger, path) == 2
    found = contents(book.ledger)
    assert [row["prompt_hash"] for row in found["claims"]] == [sha("c")]
    claims.take(book.ledger, book.lease.id, [sha("c")])
    assert len(found["attempts"]) == len(found["generations"]) == 2
    assert len(before["generations"]) == 0
    # Write the batch directly as well: no value differs and no row is added.
    write(book.ledger, batch)
    assert contents(book.ledger) == found
    assert not path.exists()
    (attempt,) = [row for row in found["attempts"] if row["prompt_hash"] == sha("a")]
    assert attempt["cost_usd"] == Decimal("0.0123456789")
    assert attempt["request_changes"]["max_tokens"] == 512


def test_file_that_is_imported_twice_changes_nothing(book: Book, folder: Path) -> None:
    path = spilled(book, folder, answered(book, "a"), answered(book, "b", "c"))
    copy = path.read_bytes()
    assert spill.recover(book.ledger, path) == 3
    once = contents(book.ledger)
    path.write_bytes(copy)
    spill.recover(book.ledger, path)
    assert contents(book.ledger) == once
    assert spill.find_spills(folder) == []


def test_two_that_recover_at_once_import_once(book: Book, folder: Path) -> None:
    for _time in range(2):
        keys = [new_id() for _number in range(4)]
        path = spilled(book, folder, *(answered(book, key) for key in keys))
        with ThreadPoolExecutor(3) as threads:
            counts = list(threads.map(lambda _number, path=path: spill.recover(book.ledger, path), range(3)))
        assert max(counts) == 4
        found = contents(book.ledger)
        assert sum(row["record_key"] in keys for row in found["generations"]) == 4
    assert len(contents(book.ledger)["attempts"]) == 8


def test_answer_that_is_added_while_another_recovers_is_not_lost(book: Book, folder: Path) -> None:
    keys = [new_id() for _number in range(15)]

    def recover_on_and_on() -> None:
        while not done:
            for path in spill.find_spills(folder):
                spill.recover(book.ledger, path)

    done: list[bool] = []
    with ThreadPoolExecutor(1) as thread:
        recovering = thread.submit(recover_on_and_on)
        try:
            for key in keys:
                spill.keep_batch(folder, book.run_id, answered(book, key))
        finally:
            done.append(True)
        recovering.result()
    for path in spill.find_spills(folder):
        spill.recover(book.ledger, path)
    assert {row["record_key"] for row in contents(book.ledger)["generations"]} == set(keys)


def test_attempt_that_others_settled_meanwhile_gets_the_end_from_the_file(book: Book, folder: Path) -> None:
    batch = answered(book, "a")
    write(book.ledger, WriteBatch(prompts=batch.prompts, opened=batch.opened))
    path = spilled(book, folder, batch)
    close_run(book.ledger, book.lease, "failed", now())
    spill.recover(book.ledger, path)
    (attempt,) = contents(book.ledger)["attempts"]
    assert (attempt["error_type"], attempt["stop_reason"]) == (None, "end_turn")


def test_file_of_another_ledger_is_refused_by_name_and_kept(book: Book, folder: Path, other_ledger: Engine) -> None:
    path = spilled(book, folder, answered(book, "a"))
    assert spill.belongs_to(book.ledger, path)
    assert not spill.belongs_to(other_ledger, path)
    with pytest.raises(spill.SpillError, match="another ledger") as refused:
        spill.recover(other_ledger, path)
    assert str(path) in str(refused.value)
    assert "PRESSWORK_DATABASE_URL" in str(refused.value)
    assert path.exists()
    assert contents(other_ledger)["generations"] == []
    assert spill.recover(book.ledger, path) == 1


@pytest.mark.parametrize("damage", ["a byte", "a line in the middle", "not ours", "no line", "another run's"])
def test_damaged_file_is_refused_by_name_and_kept(book: Book, folder: Path, damage: str) -> None:
    path = spilled(book, folder, answered(book, "a"), answered(book, "b"), answered(book, "c"))
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(
        {
            "a byte": whole.replace(b"About b", b"about b", 1),
            "a line in the middle": lines[0] + lines[1][:200] + b"\n" + lines[2],
            "not ours": b"Dear diary\n",
            "another run's": spilled(Book(book.ledger), folder, answered(book, "a")).read_bytes(),
            "no line": lines[0][:-1],
        }[damage]
    )
    kept = path.read_bytes()
    with pytest.raises(spill.SpillError) as refused:
        spill.recover(book.ledger, path)
    assert str(path) in str(refused.value)
    assert "kept" in str(refused.value)
    assert path.read_bytes() == kept
    # All or nothing: importing half a file would hide that the other half is missing.
    assert contents(book.ledger)["generations"] == []


@pytest.mark.parametrize("left", [1, 30, 70, 500, -1], ids=str)
def test_last_line_that_a_crash_cut_off_does_not_hold_up_the_whole_ones(book: Book, folder: Path, left: int) -> None:
    path = spilled(book, folder, answered(book, "a"), answered(book, "b"))
    whole = path.read_bytes()
    spilled(book, folder, answered(book, "c"))
    path.write_bytes(whole + path.read_bytes()[len(whole) :][:left])
    # No caller counts "c" as saved, because keep_batch had not returned.
    assert spill.recover(book.ledger, path) == 2
    assert {row["record_key"] for row in contents(book.ledger)["generations"]} == {"a", "b"}
    assert spill.find_spills(folder) == []


@pytest.mark.parametrize("whole", [0, 1])
def test_batch_after_a_line_that_a_crash_cut_off_is_imported(book: Book, folder: Path, whole: int) -> None:
    path = spilled(book, folder, answered(book, "a"))
    line = path.read_bytes()
    path.write_bytes(line * whole + line[: len(line) // 2])
    spilled(book, folder, answered(book, "b"))
    assert spill.recover(book.ledger, path) == whole + 1
    assert "b" in {row["record_key"] for row in contents(book.ledger)["generations"]}


def test_disk_that_fills_up_leaves_no_half_line(book: Book, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = spilled(book, folder, answered(book, "a"))
    whole = path.read_bytes()

    def fill_up(_number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("db.ledger.spill.os.fsync", fill_up)
        with pytest.raises(OSError, match="No space left"):
            spilled(book, folder, answered(book, "b"))
        assert path.read_bytes() == whole
    spilled(book, folder, answered(book, "c"))
    assert spill.recover(book.ledger, path) == 2


ODD: dict[str, Any] = {
    "output_text": "a\ud800b",
    "model": "m\x00",
    "input_tokens": 2**70,
    "validation_errors": [{"\ud800": 2**70}],
}


def test_values_that_orjson_rejects_are_saved_too(book: Book, folder: Path) -> None:
    batch = answered(book, "a", "b")
    batch.settled[0] = replace(batch.settled[0], **ODD)
    path = spilled(book, folder, batch)
    (found,) = spill._read(path)

    assert {name: getattr(found.settled[0], name) for name in ODD} == ODD
    assert found.generations == batch.generations


def test_row_that_the_ledger_refuses_blocks_no_other_and_is_saved_separately(book: Book, folder: Path) -> None:
    batch = answered(book, *"abcdefgh")
    batch.generations[3] = replace(batch.generations[3], status=cast("Any", None))
    batch.settled[5] = replace(batch.settled[5], **ODD)
    path = spilled(book, folder, batch, answered(book, "last"))
    refused: list[RefusedRow] = []

    assert spill.recover(book.ledger, path, refused) == 9
    assert spill.find_spills(folder) == []
    assert {found.id for found in refused} == {batch.generations[3].id, batch.settled[5].attempt_id}
    found = contents(book.ledger)
    assert [row["record_key"] for row in found["generations"] if row["status"] == "failed"] == ["d"]
    assert sum(row["status"] == "succeeded" for row in found["generations"]) == 8
    assert all(row["cost_usd"] == Decimal("0.0123456789") for row in found["attempts"])
    kept = [json.loads(line) for line in spill.refused_file(path).read_text().splitlines()]
    assert {line["table"] for line in kept} == {"generations", "attempts"}
    assert "a\ud800b" in [line["row"].get("output_text") for line in kept]
    assert spill.refused_file(path).stat().st_mode & 0o777 == 0o600


def test_ledger_that_refuses_every_row_keeps_the_file(book: Book, folder: Path) -> None:
    path = spilled(book, folder, answered(book, "a"))
    with book.ledger.begin() as connection:
        connection.execute(text("ALTER TABLE attempts RENAME TO hidden"))
    with pytest.raises(spill.SpillError, match=r"can't be imported: .*attempts") as refused:
        spill.recover(book.ledger, path)
    assert str(path) in str(refused.value)
    assert path.exists()
    with book.ledger.begin() as connection:
        connection.execute(text("ALTER TABLE hidden RENAME TO attempts"))
    assert spill.recover(book.ledger, path) == 1


def test_file_of_an_earlier_version_is_imported(book: Book, folder: Path) -> None:
    """A line from before attempts had a likely cost, a place and a speed."""
    batch = answered(book, "a")
    later = {"likely_cost_usd", "inference_geo", "speed"}
    rows = spill._dumped(batch)
    rows["settled"] = [{name: value for name, value in row.items() if name not in later} for row in rows["settled"]]
    body = {"presswork_spill": 1, "run_id": book.run_id, "batch": rows}
    line = orjson.dumps(body, default=str)
    folder.mkdir()
    path = folder / f"{book.run_id}.spill"
    path.write_bytes(hashlib.sha256(line).hexdigest().encode() + b" " + line + b"\n")

    assert spill.recover(book.ledger, path) == 1
    (attempt,) = contents(book.ledger)["attempts"]
    assert (attempt["stop_reason"], attempt["speed"]) == ("end_turn", None)


def test_file_of_a_later_version_is_kept_and_reported(book: Book, folder: Path) -> None:
    rows = spill._dumped(answered(book, "a"))
    rows["settled"] = [row | {"carbon_grams": 3} for row in rows["settled"]]
    line = orjson.dumps({"presswork_spill": 1, "run_id": book.run_id, "batch": rows}, default=str)
    folder.mkdir()
    path = folder / f"{book.run_id}.spill"
    path.write_bytes(hashlib.sha256(line).hexdigest().encode() + b" " + line + b"\n")

    with pytest.raises(spill.SpillError, match=r"'carbon_grams'.*newer Presswork"):
        spill.recover(book.ledger, path)
    assert path.exists()


def test_ledger_that_becomes_unavailable_meanwhile_does_not_count_as_refusing(
    book: Book, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spilled(book, folder, answered(book, "a"))

    def away(*_arguments: object, **_options: object) -> None:
        raise OperationalError("COMMIT", {}, error_of_sqlite(5))

    with monkeypatch.context() as patch:
        patch.setattr("db.ledger.spill.write", away)
        with pytest.raises(OperationalError):
            spill.recover(book.ledger, path)
    assert spill.recover(book.ledger, path) == 1


def test_only_the_owner_can_read_spill_files(book: Book, folder: Path) -> None:
    path = spilled(book, folder, answered(book, "a"))
    assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)


def test_missing_folder_has_no_spill_files(tmp_path: Path) -> None:
    assert spill.find_spills(tmp_path / "nowhere") == []
