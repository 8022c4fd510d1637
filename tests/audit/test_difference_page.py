"""The page of a difference is true, harmless, and bounded whatever the texts are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from db.clock import new_id
from db.ledger.rows import TemplateRow
from db.ledger.writing import add_templates
from tests.db.rows import DAY, Book, sha

HOSTILE = "\u202egnp\u200b\x1b[2J<script>alert(1)</script><svg onload=alert(1)>javascript:alert(1)"


def two(book: Book, old: Any, new: Any) -> tuple[str, str]:
    return tuple(Book(book.ledger).add("a", output=output, output_hash=sha(repr(output))) for output in (old, new))  # type: ignore[return-value]


def add_version(book: Book, source: str, day: int) -> str:
    row = TemplateRow(
        hash=sha(source), name="notes", sources={"notes.md.j2": source}, first_seen_at=DAY + timedelta(days=day)
    )
    add_templates(book.ledger, [row])
    return sha(source)


def test_words_are_marked_and_said(book: Book, pages: TestClient) -> None:
    old, new = two(book, {"title": "a red wine", "size": 1}, {"title": "a white wine", "size": 1})

    shown = pages.get(f"/difference?a={old}&b={new}")

    assert shown.status_code == 200
    assert '<del><bdi class="unseen">[removed: </bdi>red<bdi class="unseen">]</bdi></del>' in shown.text
    assert '<ins><bdi class="unseen">[added: </bdi>white<bdi class="unseen">]</bdi></ins>' in shown.text
    assert f"/generations/{old}" in shown.text
    assert pages.get(f"/difference.json?a={old}&b={new}").json()["difference"]["unchanged"] == ["size"]


def test_the_one_before_is_taken_where_none_is_given(book: Book, pages: TestClient) -> None:
    old, new = two(book, {"t": "one"}, {"t": "two"})

    assert pages.get(f"/difference.json?b={new}").json()["old"]["id"] == old
    assert "first content of its record" in pages.get(f"/difference?b={old}").text


@pytest.mark.parametrize(
    ("of", "said"), [("record", "They are equal."), ("prompt", "They are equal."), ("answer", "[added: ")]
)
def test_what_is_compared_can_be_chosen(book: Book, pages: TestClient, of: str, said: str) -> None:
    old, new = two(book, {"t": "one"}, {"t": "two"})

    assert said in pages.get(f"/difference?of={of}&a={old}&b={new}").text


def test_side_without_a_value_says_why(book: Book, pages: TestClient) -> None:
    failed: dict[str, Any] = {"status": "failed", "output": None, "output_hash": None}
    old, new = book.add("a", record_hash=None, **failed), book.add("b", record_hash=None)

    assert "(failed) has no answer to compare" in pages.get(f"/difference?a={old}&b={new}").text
    assert "has no record to compare" in pages.get(f"/difference?of=record&a={old}&b={new}").text


def test_versions_of_a_template_are_compared(book: Book, pages: TestClient) -> None:
    old, new = add_version(book, "Write one.", 0), add_version(book, "Write two.", 1)

    for query in (f"a={old}&b={new}", f"a={old[:9]}&b={new[:9]}&name=notes", f"b={new}"):
        shown = pages.get(f"/difference?of=template&{query}").text
        assert ">notes.md.j2</bdi>" in shown
        assert "[removed: </bdi>one<" in shown
    assert "first version of its template" in pages.get(f"/difference?of=template&b={old}").text


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("a=1&b=2", 404, "There is no generation"),
        ("a=1", 422, "Give the newer one, b, too"),
        ("of=colour", 422, "it must be"),
        ("of=template&b=ffff", 422, "There is no template version"),
        ("", 200, "Enter two ids"),
        ("b=%00", 422, "no text of the ledger has"),
        ("b=%F0%9F%92%A9%ED", 404, "There is no generation"),
    ],
)
def test_wrong_side_is_a_page_that_says_so(book: Book, pages: TestClient, query: str, status: int, said: str) -> None:
    book.add("a")
    shown = pages.get(f"/difference?{query}")

    assert (shown.status_code, said in shown.text) == (status, True)
    assert ('<form class="filters"' in shown.text) == (status != 404)


def test_unknown_id_of_full_length_is_not_found(book: Book, pages: TestClient) -> None:
    assert pages.get(f"/difference?a={new_id()}&b={book.add('a')}").status_code == 404


@pytest.mark.parametrize("look", ["", "&look=text", "&look=columns"])
def test_hostile_texts_are_text(book: Book, pages: TestClient, look: str) -> None:
    old, new = two(book, {HOSTILE: "x", "k": HOSTILE}, {HOSTILE: HOSTILE, "k": f"{HOSTILE} {HOSTILE}"})

    shown = pages.get(f"/difference?a={old}&b={new}{look}").text

    assert not set("\u202e\u200b\x1b") & set(shown)
    assert "<script" not in shown
    assert "<svg onload" not in shown
    assert 'href="javascript' not in shown
    assert "⟨U+202E⟩gnp⟨U+200B⟩␛[2J&lt;script&gt;" in shown


def test_direction_of_a_text_is_its_own(book: Book, pages: TestClient) -> None:
    old, new = two(book, {"t": "مرحبا"}, {"t": "سلام"})

    # Words for screen readers would decide it if they were no <bdi>.
    assert 'dir="auto"><del><bdi' in pages.get(f"/difference?a={old}&b={new}&look=text").text


def test_huge_difference_is_cut_and_says_so(book: Book, pages: TestClient) -> None:
    old, new = two(book, {"t": "one " * 300_000}, {"t": "two " * 300_000})

    for look in ("text", "columns"):
        shown = pages.get(f"/difference?a={old}&b={new}&look={look}")
        assert shown.status_code == 200
        assert len(shown.text) < 400_000
        assert "too long for a page" in shown.text


def test_many_changes_are_counted_and_the_first_are_shown(book: Book, pages: TestClient) -> None:
    old, new = two(book, {f"k{n}": n for n in range(500)}, {f"k{n}": n + 1 for n in range(500)})

    shown = pages.get(f"/difference?a={old}&b={new}").text

    assert "Only the first" in shown
    assert shown.count('<section class="change') == 100
    assert len(pages.get(f"/difference.json?a={old}&b={new}").json()["difference"]["changes"]) == 500


def test_far_equal_text_is_folded_and_huge_one_left_out(book: Book, pages: TestClient) -> None:
    near, far = (" ".join(f"equal{number}" for number in range(count)) + " " for count in (300, 9000))
    old, new = two(book, {"t": f"{near}one {far}one"}, {"t": f"{near}two {far}two"})

    shown = pages.get(f"/difference?a={old}&b={new}").text

    assert shown.count('<details class="folded">') == 1
    assert shown.count('<bdi class="folded">') == 1
    assert len(shown) < 30_000
