"""`presswork search` and `presswork audit index`: hits for people and programs, and an index that comes and goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.conftest import Desk, call
from tests.db.rows import Book

HIT = (
    "id created_at flow step endpoint record_key status origin template_hash model run_id trigger error_kind "
    "error_message beginning counts_in_run attempts cost_usd unpriced surroundings found"
)
INDEXED = "ledger runs answers left forgotten bytes"


@pytest.fixture
def stored(desk: Desk) -> Book:
    """A closed run with three answers; the last one is hostile."""
    with desk.opened() as ledger:
        book = Book(ledger)
        book.add("shoe", output={"title": "A red shoe", "text": "for runners"})
        book.add("hat", output={"title": "A red hat"}, status="truncated")
        book.add("\x1b[2Jkey", output={"title": "\x1b]0;owned\x07 red [bold]\u202e<script>alert(1)</script>"})
        book.close()
    return book


def test_search_prints_the_words_in_their_surroundings(stored: Book) -> None:
    found = call("search", "red", '"for runners"')

    assert found.exit_code == 0
    first, second = found.stdout.splitlines()
    assert "product_copy  shoe  succeeded" in first
    assert second == "  A red shoe · for runners"


def test_hostile_answer_is_shown_as_text(stored: Book) -> None:
    found = call("search", "owned").stdout

    assert "\x1b" not in found
    assert "\u202e" not in found
    assert "␛[2Jkey" in found
    assert "␛]0;owned␇ red [bold]⟨U+202E⟩<script>alert(1)</script>" in found


def test_search_for_programs(stored: Book) -> None:
    found = json.loads(call("search", "red", "--limit", "2", "--json").stdout)

    assert list(found) == "hits before searched_back_to is_indexed note".split()
    assert [list(hit) for hit in found["hits"]] == [HIT.split()] * 2
    assert found["hits"][1]["found"] == ["red"]
    following = json.loads(call("search", "red", "--before", found["before"], "--json").stdout)
    assert ([hit["record_key"] for hit in following["hits"]], following["before"]) == (["shoe"], None)


def test_filters_of_other_commands_apply(stored: Book) -> None:
    found = json.loads(call("search", "red", "--status", "truncated", "--run", stored.run_id, "--json").stdout)

    assert [hit["record_key"] for hit in found["hits"]] == ["hat"]


def test_search_without_a_hit(stored: Book) -> None:
    assert call("search", "green").stdout == "No answer has these words.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "'"], "There is no word to search for"),
        (["search", "red", "--before", "x"], "is no end of a page"),
        (["search", "red", "--status", "fine"], "is no status"),
        (["search", "red", "--since", "tomorrowish"], "--since"),
        (["search", "red", "--run", "123456"], "There is no run"),
    ],
)
def test_search_that_can_not_be_right_says_why(stored: Book, arguments: list[str], message: str) -> None:
    found = call(*arguments)

    assert found.exit_code == 2
    assert message in found.stderr
    assert "Traceback" not in found.output


@pytest.mark.parametrize("arguments", [["search", "red"], ["audit", "index"]])
def test_without_a_ledger_there_is_an_error(desk: Desk, arguments: list[str]) -> None:
    found = call(*arguments)

    assert found.exit_code == 2
    assert not desk.ledger.exists()


def test_index_is_made_used_and_removed(stored: Book, desk: Desk) -> None:
    made = json.loads(call("audit", "index", "--json").stdout)
    assert list(made) == INDEXED.split()
    assert (made["runs"], made["answers"], made["left"]) == (1, 3, 0)
    assert json.loads(call("search", "red", "--json").stdout)["is_indexed"]
    assert "All closed runs are indexed." in call("audit", "index").stdout

    assert "is removed" in call("audit", "index", "--remove").stdout
    assert "There is no index" in call("audit", "index", "--remove").stdout
    assert not json.loads(call("search", "red", "--json").stdout)["is_indexed"]
    assert list(desk.folder.glob("*.search.*")) == []


def test_damaged_index_is_said_and_searched_without(stored: Book, desk: Desk) -> None:
    call("audit", "index")
    Path(f"{desk.ledger}.search.sqlite").write_bytes(b"damaged" * 3_000)

    found = call("search", "shoe")
    assert "A red shoe" in found.stdout
    assert "can't be used" in found.stderr
    failed = call("audit", "index")
    assert (failed.exit_code, "Traceback" in failed.output) == (2, False)
    assert "presswork audit index --remove" in failed.stderr
    assert call("audit", "index", "--remove").exit_code == 0
    assert call("audit", "index").exit_code == 0
