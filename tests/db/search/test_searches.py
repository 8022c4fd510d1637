"""Searches by words: with an index, without it, and with an index that can't be used."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete

from db.clock import now
from db.ledger.connecting import open_ledger
from db.ledger.rows import WriteBatch
from db.ledger.writing import write
from db.readers.audit.filters import Filter, FilterError, id_of
from db.readers.audit.searches import SearchPage, search
from db.readers.audit.ways import word_ways
from db.search import answer_texts, tsvector_months
from db.search.index_places import remove_index, side_file
from db.search.indexing import index_all
from db.search.tokens import parse_query, spaced_words
from db.tables import Generation
from db.timed_reads import open_reader, reading
from tests.db.rows import Book, settled_row
from tests.db.search.searching import closed_book, found_keys, keys_of

TEXTS = {
    "shoe": "A red shoe for runners",
    "hat": "A RED-hot hat, for Größe M",
    "cup": "Cup of tea. The shoe is red",
    "japan": "東京都に住む人へ",
    "thai": "สวัสดีครับ ยินดีต้อนรับ",
    "arabic": "العربية لغة جميلة",
    "hidden": "a re\u200bd co\u00adat \u202ebackwards\u202c",
}


@pytest.fixture(params=[False, True], ids=["unindexed", "indexed"])
def shop(request: pytest.FixtureRequest, ledger: Engine) -> Engine:
    """A ledger with TEXTS in a closed run, with and without an index."""
    closed_book(ledger, TEXTS)
    if request.param:
        index_all(ledger)
    return ledger


FOUND: tuple[tuple[str, set[str]], ...] = (
    ("red", {"shoe", "hat", "cup", "hidden"}),
    ("red shoe", {"shoe", "cup"}),
    ('"red shoe"', {"shoe"}),
    ("red-hot", {"hat"}),
    ("GRÖSSE", {"hat"}),
    ("grosse", set()),
    ("re", set()),
    ("東京", {"japan"}),
    ("京東", set()),
    ("住む", {"japan"}),
    ("ยินดี", {"thai"}),
    ("لغة", {"arabic"}),
    ("coat", {"hidden"}),
    ("shoe OR hat", set()),
    ("text", set()),
    ("shoe'); DROP TABLE generations --", set()),
)


def test_words_find_the_same_with_and_without_an_index(shop: Engine) -> None:
    assert [(words, set(found_keys(shop, words))) for words, _keys in FOUND] == list(FOUND)


def test_query_that_can_not_be_right_is_an_error(ledger: Engine) -> None:
    for words in (None, "", "%", "''", '"'):
        with pytest.raises(FilterError, match="no word"):
            search(ledger, Filter(words=words))
    for before in ("x", "'", "019f7178-22d5-7177-8000-12345678901", "019F7178-22D5-7177-8000-123456789012"):
        with pytest.raises(FilterError, match="no end of a page"):
            search(ledger, Filter(words="red"), before)
    for wanted in (Filter(words="red", run="abcdef123"), Filter(words="red", template="abc")):
        with pytest.raises(FilterError, match="There is no"):
            search(ledger, wanted)


def test_hits_are_the_newest_first_and_pages_lose_and_repeat_none(shop: Engine) -> None:
    closed_book(shop, {f"new {number}": "one more red thing" for number in range(7)})

    assert found_keys(shop, "red") == [f"new {number}" for number in range(6, -1, -1)] + [
        "hidden",
        "cup",
        "hat",
        "shoe",
    ]


def test_hit_shows_its_words_in_their_surroundings(shop: Engine) -> None:
    (hit,) = search(shop, Filter(words='"red shoe"')).hits

    assert [(piece.text, piece.is_found) for piece in hit.surroundings] == [
        ("A ", False),
        ("red shoe", True),
        (" for runners", False),
    ]


def test_answer_without_content_is_found_by_its_raw_text(shop: Engine) -> None:
    book, batch = Book(shop), WriteBatch()
    failed = book.generation(batch, "bad", status="invalid", output=None, output_hash=None)
    for ordinal, text in enumerate(["first garbage", None, "second rubbish"], start=1):
        attempt = book.attempt(batch, "bad", failed, ordinal=ordinal)
        batch.settled.append(settled_row(attempt, output_text=text))
    write(shop, batch)
    book.close()
    index_all(shop)

    assert (found_keys(shop, "rubbish"), found_keys(shop, "garbage")) == (["bad"], [])


def test_reused_answer_is_found_once_where_it_was_paid_for(shop: Engine) -> None:
    book = Book(shop)
    source = book.add("first", output={"text": "a unique sentence"})
    book.reuse("second", source)
    book.close()

    assert found_keys(shop, "unique") == ["first"]
    assert found_keys(shop, "unique", origin="cache") == []


def test_other_filters_combine_with_words(shop: Engine) -> None:
    run = Book(shop, flow="other")
    run.add("shoe", output={"text": "another red shoe"})
    run.add("bad", output={"text": "red"}, status="truncated")

    assert found_keys(shop, "red", flow="other") == ["bad", "shoe"]
    assert found_keys(shop, "red", flow="other", status="truncated") == ["bad"]
    assert found_keys(shop, "red", run=run.run_id) == ["bad", "shoe"]
    assert found_keys(shop, "red", key="shoe") == ["shoe", "shoe"]
    assert found_keys(shop, "red", key="sho*", flow="product_copy") == ["shoe"]
    assert found_keys(shop, "red", origin="batch") == []


def test_open_run_is_found_before_it_is_indexed(ledger: Engine) -> None:
    closed_book(ledger, TEXTS)
    index_all(ledger)
    book = Book(ledger)
    book.add("open", output={"text": "a red door"})

    assert found_keys(ledger, "red")[0] == "open"
    book.close()
    assert found_keys(ledger, "red")[0] == "open"
    index_all(ledger)
    assert found_keys(ledger, "red")[0] == "open"
    assert found_keys(ledger, "red").count("open") == 1


def test_row_that_comes_after_its_run_was_indexed_is_found(ledger: Engine) -> None:
    book = Book(ledger)
    book.add("early", output={"text": "red"})
    book.close()
    index_all(ledger)
    # As an imported spill file writes: without a lease.
    book.add("late", output={"text": "red"})

    assert found_keys(ledger, "red") == ["late", "early"]
    assert index_all(ledger).left == 0
    assert found_keys(ledger, "red") == ["late", "early"]


def test_search_stops_when_its_time_is_over_and_continues_from_there(ledger: Engine) -> None:
    book, batch = Book(ledger), WriteBatch()
    for number in range(1_200):
        text = "needle" if number in {0, 1_199} else "hay"
        book.generation(batch, f"k{number:04}", output={"text": text})
    write(ledger, batch)

    first = search(ledger, Filter(words="needle"), within_s=0)
    assert (keys_of(first), first.is_indexed) == (["k1199"], False)
    assert first.before is not None
    assert first.searched_back_to is not None
    pages = [first]
    before: str | None = first.before
    while before is not None:
        pages.append(search(ledger, Filter(words="needle"), before, within_s=0))
        before = pages[-1].before
    assert [key for page in pages for key in keys_of(page)] == ["k1199", "k0000"]
    assert pages[-1].searched_back_to is None


def test_search_of_many_runs_that_are_not_indexed_stops_between_steps(
    ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_ways, "LISTED_AT_ONCE", 5)
    monkeypatch.setattr(word_ways, "_LOOKED_AT", 4)
    index_all(ledger)
    one, other = Book(ledger), Book(ledger)
    for number in range(9):
        (one, other)[number % 2].add(f"k{number}", output={"text": "needle" if number in {0, 8} else "hay"})

    first = search(ledger, Filter(words="needle"), within_s=0)

    assert keys_of(first) == ["k8"]
    assert first.before is not None
    assert first.searched_back_to is not None
    assert found_keys(ledger, "needle") == ["k8", "k0"]


def test_search_whose_time_is_over_at_once_still_gets_somewhere(shop: Engine) -> None:
    # A filter is followed in several ways, of which the first step alone says nothing yet.
    page = search(shop, Filter(words="red", flow="product_copy"), within_s=0)

    assert keys_of(page) == ["hidden", "cup", "hat", "shoe"]


def test_generation_that_is_no_longer_in_the_ledger_is_no_hit(ledger: Engine) -> None:
    ids = closed_book(ledger, {"kept": "red", "removed": "red"})
    index_all(ledger)
    with ledger.begin() as connection:
        connection.execute(delete(Generation).where(Generation.id == ids["removed"]))

    assert found_keys(ledger, "red") == ["kept"]


def test_statements_of_a_search_show_what_is_matched(shop: Engine) -> None:
    reader = open_reader(shop.url.render_as_string(hide_password=False))
    try:
        with reading() as found:
            assert len(search(reader, Filter(words="shoe")).hits) == 2
        statements = found.statements()
    finally:
        reader.dispose()

    assert any("FROM generations" in each for each in statements)
    assert not any("INSERT" in each for each in statements)


@pytest.mark.parametrize("indexed", [False, True])
def test_text_that_a_vector_can_not_hold_is_found_too(ledger: Engine, *, indexed: bool) -> None:
    many = "again " * 300
    long = " ".join(f"w{number}" for number in range(17_000))
    closed_book(ledger, {"often": f"{many} the end", "long": f"{long} the end", "short": "end the"})
    if indexed:
        index_all(ledger)

    assert found_keys(ledger, '"the end"') == ["long", "often"]
    assert found_keys(ledger, '"w16998 w16999 the end"') == ["long"]
    assert found_keys(ledger, '"w16999 w16998"') == []
    assert found_keys(ledger, '"again the end"') == ["often"]


@pytest.mark.parametrize("indexed", [False, True])
def test_months_and_periods(ledger: Engine, *, indexed: bool) -> None:
    book, batch = Book(ledger, started_at=datetime(2025, 12, 1, tzinfo=UTC)), WriteBatch()
    for month in (12, 1, 2, 3):
        year = 2025 if month == 12 else 2026
        made = datetime(year, month, 15, tzinfo=UTC)
        for number in range(3):
            own = f"{id_of(made)[:-1]}{number}"
            book.generation(batch, f"{month}/{number}", id=own, output={"x": "red"}, created_at=made)
    write(ledger, batch)
    book.close()
    if indexed:
        index_all(ledger)

    every = [f"{month}/{number}" for month in (3, 2, 1, 12) for number in (2, 1, 0)]
    assert found_keys(ledger, "red") == every
    assert found_keys(ledger, "red", since=datetime(2026, 2, 15, tzinfo=UTC)) == every[:6]
    assert found_keys(ledger, "red", until=datetime(2026, 2, 15, tzinfo=UTC)) == every[6:]
    january = {"since": datetime(2026, 1, 1, tzinfo=UTC), "until": datetime(2026, 2, 1, tzinfo=UTC)}
    assert found_keys(ledger, "red", **january) == every[6:9]
    assert found_keys(ledger, "red", since=now() + timedelta(days=1)) == []
    assert found_keys(ledger, "red", until=datetime(9998, 1, 1, tzinfo=UTC)) == every
    assert keys_of(search(ledger, Filter(words="red"), "ffffffff-ffff-7fff-8fff-ffffffffffff")) == every


WORDS = "red green blue shoe hat e-mail Größe 東京 大阪 \u200bhidden ﬁne".split()


@pytest.mark.parametrize(("size", "small"), [(None, None), (2, None), (None, 6)])
def test_index_finds_what_reading_all_answers_finds(
    ledger: Engine, size: int | None, small: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeded: runs that are closed, open, indexed or not; random words, phrases and filters; in one step or in many."""
    if size is not None:
        for name in ("SMALL_RUN", "_FIRST", "_MOST", "_READ_AT_ONCE"):
            monkeypatch.setattr(word_ways, name, size)
        monkeypatch.setattr(tsvector_months, "FEW_HITS", 5)
        monkeypatch.setattr(answer_texts, "ANSWERS_AT_ONCE", 3)
    if small is not None:
        for name in ("LISTED_AT_ONCE", "_LOOKED_AT"):
            monkeypatch.setattr(word_ways, name, small)
    draw = random.Random(12)
    rows: list[tuple[dict[str, str], str]] = []
    runs = []
    for number in range(8):
        book, batch = Book(ledger, flow=draw.choice(["a", "b"])), WriteBatch()
        runs.append(book.run_id)
        for key in range(draw.randrange(1, 15)):
            texts = [" ".join(draw.choices(WORDS, k=4)), " ".join(draw.choices(WORDS, k=2))]
            own = {"status": draw.choice(["succeeded", "succeeded", "truncated"])}
            book.generation(batch, f"k{key}", output={"x": texts[0], "y": [texts[1]]}, **own)
            rows.append((own | {"key": f"k{key}", "flow": book.run.flow, "run": book.run_id}, spaced_words(texts)))
        write(ledger, batch)
        if draw.random() < 0.7:
            book.close()
        if number in {3, 5}:
            index_all(ledger)
    hits = 0
    for _query in range(40):
        words = " ".join(draw.choices(WORDS, k=draw.choice([1, 1, 2, 3])))
        asked = f'"{words}"' if draw.random() < 0.4 else words
        options = {"flow": draw.choice(["a", "b"]), "status": "truncated", "key": "k1", "run": draw.choice(runs)}
        chosen = {name: value for name, value in options.items() if draw.random() < 0.25}
        query = parse_query(asked)
        expected = [
            row["key"] for row, spaced in reversed(rows) if chosen.items() <= row.items() and query.matches(spaced)
        ]
        assert (asked, chosen, found_keys(ledger, asked, **chosen)) == (asked, chosen, expected)
        hits += len(expected)
    assert hits > 100


# Index files that can't be right


@pytest.fixture
def indexed_file(sqlite_ledger_url: str) -> Iterator[tuple[Engine, Path]]:
    """A SQLite ledger with an index, and the index's file."""
    ledger = open_ledger(sqlite_ledger_url)
    closed_book(ledger, TEXTS)
    index_all(ledger)
    file = side_file(ledger)
    assert file is not None
    yield ledger, file
    ledger.dispose()


def note_of(ledger: Engine) -> tuple[list[str], str | None]:
    page: SearchPage = search(ledger, Filter(words="shoe"))
    return keys_of(page), page.note


def test_damaged_index_is_reported_and_the_answers_are_read(indexed_file: tuple[Engine, Path]) -> None:
    ledger, file = indexed_file
    file.write_bytes(b"not a database at all" * 500)

    keys, note = note_of(ledger)
    assert keys == ["cup", "shoe"]
    assert note is not None
    assert "presswork audit index --remove" in note
    assert remove_index(ledger)
    assert note_of(ledger) == (["cup", "shoe"], None)


def test_index_that_is_damaged_inside_is_reported(indexed_file: tuple[Engine, Path]) -> None:
    ledger, file = indexed_file
    whole = bytearray(file.read_bytes())
    whole[8192:] = b"\xff" * (len(whole) - 8192)
    file.write_bytes(whole)

    keys, note = note_of(ledger)
    assert keys == ["cup", "shoe"]
    assert note is not None


def test_empty_file_is_no_index(indexed_file: tuple[Engine, Path]) -> None:
    ledger, file = indexed_file
    file.write_bytes(b"")

    assert note_of(ledger) == (["cup", "shoe"], None)
    assert index_all(ledger).runs == 1


def test_index_of_another_ledger_finds_nothing_wrong_and_nothing_less(
    indexed_file: tuple[Engine, Path], tmp_path: Path
) -> None:
    _ledger, file = indexed_file
    other = open_ledger(f"sqlite:///{tmp_path / 'other.sqlite'}")
    closed_book(other, {"mine": "my own shoe"})
    own = side_file(other)
    assert own is not None
    shutil.copy(file, own)

    assert note_of(other) == (["mine"], None)
    found = index_all(other)
    assert (found.runs, found.forgotten) == (1, 1)
    assert note_of(other) == (["mine"], None)
    other.dispose()


def test_index_of_another_release_is_not_used(indexed_file: tuple[Engine, Path]) -> None:
    ledger, file = indexed_file
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE search_format SET format = 99")
        connection.commit()

    keys, note = note_of(ledger)
    assert keys == ["cup", "shoe"]
    assert "another release" in str(note)
