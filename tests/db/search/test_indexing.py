"""The index is made, continued, kept up and removed; nothing else of the ledger notices."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from db.database_errors import LedgerError
from db.ledger.connecting import open_ledger, upgrade
from db.search import answer_texts, indexing
from db.search.answer_index import AnswerIndex, IndexUnusableError
from db.search.index_places import opened_index, remove_index, side_file, size_of_index
from db.search.indexing import index_all, index_closed
from db.search.tokens import parse_query
from db.upkeep import compacting, pruning
from tests.db.rows import Book
from tests.db.search.searching import closed_book, found_keys

QUERY = parse_query("red")
KILLED = """
import os, sys
from db.ledger.connecting import open_ledger
from db.search import answer_texts
from db.search.indexing import index_all
answer_texts.ANSWERS_AT_ONCE = 3
index_all(open_ledger(sys.argv[1]), lambda runs, of, answers: os._exit(9) if answers >= 9 else None)
"""


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_texts, "ANSWERS_AT_ONCE", 3)


def two_runs(ledger: Engine) -> set[str]:
    ids = [closed_book(ledger, {f"k{number}": f"red {number}" for number in range(7)}) for _run in range(2)]
    return {generation_id for each in ids for generation_id in each.values()}


def indexed_ids(ledger: Engine) -> list[str]:
    with opened_index(ledger) as index:
        return [] if index is None else index.newest(QUERY, None, None, 1_000)


def test_index_is_off_until_it_is_asked_for(ledger: Engine) -> None:
    two_runs(ledger)

    assert index_closed(ledger, 10) is None
    assert (indexed_ids(ledger), size_of_index(ledger), remove_index(ledger)) == ([], 0, False)


def test_closed_runs_are_indexed_once_and_open_ones_are_not(ledger: Engine, small_parts: None) -> None:
    ids = two_runs(ledger)
    book = Book(ledger)
    book.add("open", output={"text": "red"})

    first, second = index_all(ledger), index_all(ledger)
    assert (first.runs, first.answers, first.left) == (2, 14, 0)
    assert (second.runs, second.answers, second.left) == (0, 0, 0)
    assert indexed_ids(ledger) == sorted(ids, reverse=True)
    assert size_of_index(ledger) > 0


def test_run_that_closes_indexes_itself_and_those_that_were_missed(ledger: Engine) -> None:
    index_all(ledger)
    ids = two_runs(ledger)

    none, all_of_them = index_closed(ledger, -1), index_closed(ledger, 10)
    assert none is not None
    assert all_of_them is not None
    assert (none.runs, none.left) == (0, 2)
    assert (all_of_them.runs, all_of_them.left) == (2, 0)
    assert indexed_ids(ledger) == sorted(ids, reverse=True)


def test_run_that_closes_does_not_merge_a_month(ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    index_all(ledger)
    ids = two_runs(ledger)
    merged: list[int] = []
    monkeypatch.setattr(indexing, "PARTS_UNMERGED", 1)
    monkeypatch.setattr(AnswerIndex, "finish", lambda _index, months: merged.extend(months))

    assert index_closed(ledger, 10) is not None
    assert (merged, indexed_ids(ledger)) == ([], sorted(ids, reverse=True))
    two_runs(ledger)
    index_all(ledger)
    assert len(merged) == 1


def test_interrupted_index_continues(ledger: Engine, small_parts: None) -> None:
    ids = two_runs(ledger)

    def stop(_runs: int, _of: int, answers: int) -> None:
        if answers >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_all(ledger, stop)
    assert len(indexed_ids(ledger)) >= 9
    assert len(found_keys(ledger, "red")) == 14
    assert index_all(ledger).left == 0
    assert indexed_ids(ledger) == sorted(ids, reverse=True)


def test_killed_index_continues(ledger: Engine) -> None:
    ids = two_runs(ledger)
    url = ledger.url.render_as_string(hide_password=False)
    killed = subprocess.run([sys.executable, "-c", KILLED, url], cwd=Path(__file__).parents[3], check=False)

    assert killed.returncode == 9
    assert len(found_keys(ledger, "red")) == 14
    assert index_all(ledger).left == 0
    assert indexed_ids(ledger) == sorted(ids, reverse=True)


def test_two_processes_at_once_index_each_answer_once(ledger: Engine, small_parts: None) -> None:
    ids = two_runs(ledger)
    url = ledger.url.render_as_string(hide_password=False)

    def index() -> None:
        own = open_ledger(url)
        index_all(own)
        own.dispose()

    with ThreadPoolExecutor() as pool:
        for each in [pool.submit(index) for _process in range(3)]:
            each.result()
    assert indexed_ids(ledger) == sorted(ids, reverse=True)
    assert index_all(ledger).left == 0


def test_removed_index_leaves_no_word_behind(ledger: Engine) -> None:
    closed_book(ledger, {"k": "a remarkable sentence"})
    index_all(ledger)
    assert b"remarkable" in all_bytes(ledger)

    assert remove_index(ledger)
    assert b"remarkable" not in all_bytes(ledger)
    assert not remove_index(ledger)
    assert found_keys(ledger, "remarkable") == ["k"]


def all_bytes(ledger: Engine) -> bytes:
    """Return all that the index's files or tables have."""
    file = side_file(ledger)
    if file is not None:
        return b"".join(each.read_bytes() for each in file.parent.glob(f"{file.name}*"))
    with ledger.connect() as connection:
        names = connection.scalars(text("SELECT tablename FROM pg_tables WHERE tablename LIKE 'search%'")).all()
        rows = [row for name in names for row in connection.execute(text(f"SELECT t::text FROM {name} t"))]
    return repr(rows).encode()


def test_upkeep_and_upgrade_leave_the_index_as_it_is(ledger: Engine) -> None:
    first = closed_book(ledger, {"k": "red"})
    book = Book(ledger)
    for _time in range(3):
        book.reuse("k", first["k"])
        book.close()
        book = Book(ledger)
    book.close()
    index_all(ledger)

    upgrade(ledger)
    compacting.compact(ledger)
    pruning.prune(ledger)
    compacting.vacuum(ledger)
    assert found_keys(ledger, "red") == ["k"]
    assert index_all(ledger).left == 0
    assert found_keys(ledger, "red") == ["k"]


def test_folder_that_can_not_be_written_is_an_error(sqlite_ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger(sqlite_ledger_url)
    closed_book(ledger, {"k": "red"})

    def refuse(*_args: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("db.search.index_places.os.open", refuse)
        with pytest.raises(IndexUnusableError, match="can't be written: Permission denied"):
            index_all(ledger)
    index_all(ledger)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda _file, **_options: refuse())
        with pytest.raises(LedgerError, match="can't be removed: Permission denied"):
            remove_index(ledger)
    ledger.dispose()


def test_index_has_the_permissions_of_its_ledger(sqlite_ledger_url: str) -> None:
    ledger = open_ledger(sqlite_ledger_url)
    file = side_file(ledger)
    assert file is not None
    path = Path(str(ledger.url.database))
    path.chmod(0o600)
    index_all(ledger)

    assert [each.stat().st_mode & 0o777 for each in (path, file)] == [0o600, 0o600]
    ledger.dispose()


def test_damaged_index_is_an_error_that_says_what_to_do(sqlite_ledger_url: str) -> None:
    ledger = open_ledger(sqlite_ledger_url)
    file = side_file(ledger)
    assert file is not None
    file.write_bytes(os.urandom(20_000))

    for index in (index_all, lambda engine: index_closed(engine, 1)):
        with pytest.raises(IndexUnusableError, match="presswork audit index --remove"):
            index(ledger)
    assert remove_index(ledger)
    assert index_all(ledger).left == 0
    ledger.dispose()
