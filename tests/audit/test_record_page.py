"""The page of a record's life says when each content was current and why it changed."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from db.ledger.rows import TemplateRow
from db.ledger.writing import add_templates
from tests.db.rows import DAY, Book, sha

HOSTILE = "\u202egnp\u200b\x1b[2J<script>alert(1)</script>"


def made(book: Book, day: int, key: str = "a", *, run: dict[str, Any] | None = None, **own: Any) -> str:
    given: dict[str, Any] = {"output": {"t": f"text {day}"}, "output_hash": sha(str(day))}
    return Book(book.ledger, **(run or {})).add(key, **(given | {"created_at": DAY + timedelta(days=day)} | own))


def test_life_says_what_was_current_when_and_why(book: Book, pages: TestClient) -> None:
    first = made(book, 0, record='{"price":1}')
    Book(book.ledger).confirm("a", first, confirmed_at=DAY + timedelta(days=1))
    second = made(book, 2, record='{"price":2}')
    third = made(book, 3, record='{"price":2}', template_hash=sha("b"))
    failed: dict[str, Any] = {"status": "failed", "output": None, "output_hash": None, "error_kind": "render"}
    made(book, 4, record='{"price":2}', template_hash=sha("b"), error_message="line 9", **failed)

    shown = pages.get("/records?key=a").text

    assert [text for text in ("text 0", "text 2", "text 3", "line 9") if text not in shown] == []
    assert "record changed: price" in shown
    assert f"/difference?of=record&amp;a={first}&amp;b={second}" in shown
    assert f"/difference?of=answer&amp;a={second}&amp;b={third}" in shown
    assert "template changed" in shown
    assert "/difference?of=template" not in shown
    assert "confirmed <data" in shown
    assert "Later runs have failed since" in shown
    (life,) = pages.get("/records.json?key=a").json()["lives"]
    assert (life["contents"], life["failures"], life["confirmed"]) == (3, 1, 1)
    assert [each["explained"]["period"]["generation_id"] for each in life["periods"]][1:] == [third, second, first]


def test_versions_of_a_template_link_to_their_difference(book: Book, pages: TestClient) -> None:
    made(book, 0)
    made(book, 1, template_hash=sha("b"))
    template = TemplateRow(hash=sha("b"), name="product_copy", sources={"a.md.j2": "b"}, first_seen_at=DAY)
    add_templates(book.ledger, [template])

    address = f"/difference?of=template&a={sha('template')}&b={sha('b')}&name=product_copy"

    assert html.escape(address) in pages.get("/records?key=a").text
    assert pages.get(address).status_code == 200


def test_each_step_and_endpoint_has_a_life_of_its_own(book: Book, pages: TestClient) -> None:
    for step in ("triage", "reply"):
        made(book, 0, step=step)
        made(book, 0, run={"endpoint": "anthropic"}, step=step)

    assert len(pages.get("/records.json?key=a").json()["lives"]) == 4
    assert len(pages.get("/records.json?key=a&step=reply").json()["lives"]) == 2
    assert len(pages.get("/records.json?key=a&step=reply&endpoint=sandbox").json()["lives"]) == 1


def test_long_life_is_paged_without_loss_or_repetition(book: Book, pages: TestClient) -> None:
    written = [made(book, day, record=f'{{"n":{day}}}') for day in range(75)]
    found: list[str] = []
    before: str | None = ""
    while before is not None:
        query = "key=a&flow=product_copy" + (f"&before={before}" if before else "")
        (life,) = pages.get(f"/records.json?{query}").json()["lives"]
        found += [each["explained"]["period"]["generation_id"] for each in life["periods"]]
        before = life["before"]

    assert found == written[::-1]
    assert 'rel="next"' in pages.get("/records?key=a").text


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("key=nobody", 404, "No record has the key"),
        ("key=a&flow=nothing", 404, "with this flow, step and endpoint"),
        ("flow=product_copy", 422, "Enter the key of a record"),
        ("", 200, "Enter the key of a record"),
        ("key=a&before=nonsense", 200, "text 0"),
        ("key=", 422, "No record has an empty key here"),
        ("key=&flow=product_copy", 422, "No record has an empty key here"),
        ("key=%E2%80%AEb", 404, "No record has the key &#39;⟨U+202E⟩b&#39;"),
        (f"key={'b' * 16_001}", 422, "key: it is too long."),
        ("key=%00", 422, "no text of the ledger has"),
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(
    book: Book, pages: TestClient, query: str, status: int, said: str
) -> None:
    made(book, 0)
    shown = pages.get(f"/records?{query}")

    assert (shown.status_code, said in shown.text) == (status, True)
    assert ('<form class="filters"' in shown.text) == (status != 404)


@pytest.mark.parametrize("key", ["", " ", "\n", "k" * 16_000, "日" * 2_500])
def test_record_whose_key_is_blank_or_long_has_a_page_that_others_link_to(
    book: Book, pages: TestClient, key: str
) -> None:
    if book.ledger.dialect.name == "postgresql" and len(key) > 2_500:
        pytest.skip("its indexes hold no longer key")
    made(book, 0, "other")
    generation = made(book, 0, key)

    shown = pages.get(f"/generations/{generation}").text
    (address,) = re.findall(r'<a href="(/records[^"]*)">Life of this record', shown)
    life = pages.get(html.unescape(address))

    assert life.status_code == 200
    assert generation in life.text
    assert len(re.findall('<li class="period', life.text)) == 1


def test_hostile_key_record_answer_and_error_are_text(book: Book, pages: TestClient) -> None:
    made(book, 0, HOSTILE, record='{"x":1}', output={"t": HOSTILE})
    failed: dict[str, Any] = {"status": "failed", "output": None, "error_message": HOSTILE}
    made(book, 1, HOSTILE, record='{"x":1,"\u202e<script>":2}', **failed)

    page = pages.get("/records?" + urlencode({"key": HOSTILE})).text
    # The form keeps the key as it is, so that it can be sent again.
    shown = re.sub(r'value="[^"]*"', "", page)

    assert not set("\u202e\u200b\x1b") & set(shown)
    assert "<script" not in shown
    assert "record changed: ⟨U+202E⟩&lt;script&gt;" in shown
