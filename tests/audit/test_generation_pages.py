"""The pages of generations show all of one, list what a filter asks for, and never let content act."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import html5lib
import orjson
import pytest
from starlette.testclient import TestClient

from db.clock import new_id, now
from db.ledger.rows import ParentRow, TemplateRow, WriteBatch
from db.ledger.writing import add_templates, write
from tests.db.rows import Book, settled_row, sha

HOSTILE = (
    '"><script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)></svg>'
    "<a href='javascript:alert(4)'>x</a><style>*{display:none}</style> javascript:alert(5) "
    "\u202ereversed\u202c \u2066iso\u2069 zero\u200bwidth \ufeff\u2060 \x1b[31mred\x1b]8;;http://evil\x07 "
    "{{ 7*7 }} {% raw %} &lt; =HYPERLINK()"
)
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")


def elements(text: str) -> Iterator[Any]:
    """Parse a page strictly, and yield its elements."""
    document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    yield from document.iter()


def check_harmless(text: str) -> None:
    """Check that nothing of the content became a part of the page."""
    assert not UNSEEN.search(text)
    for element in elements(text):
        assert element.tag not in {"script", "style", "img" if "onerror" in element.attrib else "iframe"}
        for name, value in element.attrib.items():
            assert not name.startswith("on"), (element.tag, name)
            assert name != "style"
            assert not value.strip().lower().startswith("javascript:"), value


def hostile_book(book: Book) -> str:
    """Write a generation in which every text from outside is hostile, with a parent and a child; return its id."""
    name = f"<b>{HOSTILE}"[:180]
    template = TemplateRow(hash=sha("evil"), name=name, sources={f"{name}.md.j2": HOSTILE}, first_seen_at=now())
    add_templates(book.ledger, [template])
    batch = WriteBatch()
    own = {"step": name, "template_hash": sha("evil")}
    parent = book.generation(batch, f"parent {HOSTILE}", **own)
    generation_id = new_id()
    attempt = book.attempt(batch, "evil", generation_id, request_changes={HOSTILE: HOSTILE})
    faults = [{"where": HOSTILE, "what": HOSTILE}]
    failed = {"error_type": HOSTILE, "stop_reason": HOSTILE, "request_id": HOSTILE, "model": HOSTILE}
    batch.settled.append(settled_row(attempt, output_text=HOSTILE, validation_errors=faults, **failed))
    request = {
        "model": HOSTILE,
        "system": [{"type": "text", "text": HOSTILE}],
        "messages": [{"role": HOSTILE, "content": HOSTILE}, {"role": "user", "content": HOSTILE}],
    }
    batch.prompts[sha("evil")] = replace(batch.prompts[sha("evil")], request=orjson.dumps(request).decode())
    record = orjson.dumps({HOSTILE: HOSTILE, "list": [HOSTILE]}).decode()
    own |= {"prompt_hash": sha("evil"), "id": generation_id, "record": record}
    bad = {"status": "invalid", "error_kind": HOSTILE, "error_message": HOSTILE}
    book.generation(batch, HOSTILE, output={HOSTILE: HOSTILE, "deep": [{HOSTILE: 1}]}, **own, **bad)
    child = book.generation(batch, f"child {HOSTILE}", step=name, template_hash=sha("evil"))
    batch.parents += [ParentRow(generation_id, parent), ParentRow(child, generation_id)]
    write(book.ledger, batch)
    return generation_id


@pytest.mark.parametrize("suffix", ["", "?words=alert", "?status=invalid", "?key=%22%3E*"])
def test_list_shows_hostile_content_as_text(book: Book, pages: TestClient, suffix: str) -> None:
    hostile_book(book)

    answer = pages.get(f"/generations{suffix}")

    assert answer.status_code == 200
    assert "alert(1)" in answer.text
    check_harmless(answer.text)


def test_generation_shows_hostile_content_as_text(book: Book, pages: TestClient) -> None:
    generation_id = hostile_book(book)

    answer = pages.get(f"/generations/{generation_id}")

    assert answer.status_code == 200
    assert answer.text.count("&lt;script&gt;alert(1)") > 15
    assert "⟨U+202E⟩" in answer.text
    assert "␛[31m" in answer.text
    check_harmless(answer.text)
    assert pages.get(f"/generations/{generation_id}.json").json()["audit"]["generation"]["record_key"] == HOSTILE


def test_filters_show_a_hostile_value_again_as_text(book: Book, pages: TestClient) -> None:
    book.add("a")
    for name in ("words", "key", "flow", "step", "template", "model", "status", "endpoint", "run", "since", "before"):
        answer = pages.get("/generations", params={name: HOSTILE.replace("\x1b", "").replace("\x07", "")})
        assert answer.status_code in {200, 422}, name
        check_harmless(re.sub(r' value="[^"]*"', "", answer.text))


def test_one_generation_names_all_that_it_depends_on(book: Book, pages: TestClient) -> None:
    source = book.add("a", record='{"id":"a","name":"Cup"}')
    later = Book(book.ledger)
    reused = later.reuse("a", source, record='{"id":"a","name":"Cup"}')

    answer = pages.get(f"/generations/{reused[-12:]}")

    assert answer.status_code == 200
    for link in (f"/generations/{source}", f"/runs/{later.run_id}", "/templates/product_copy", "key=a"):
        assert link in answer.text, link
    assert "About a" in answer.text
    assert "Cup" in answer.text
    assert "Reuses the answer of" in answer.text
    assert '<data value="0.01"' in answer.text
    assert pages.get(f"/generations/{reused}.json").json()["is_current"]


def test_failure_says_why_and_what_each_attempt_answered(book: Book, pages: TestClient) -> None:
    batch, generation_id = WriteBatch(), new_id()
    first = book.attempt(batch, "a", generation_id)
    second = book.attempt(batch, "a", generation_id, ordinal=2, kind="repair", request_changes={"temperature": 0})
    faults = [{"where": "title", "what": "is too long"}]
    batch.settled.append(settled_row(first, output_text='{"title": "long"}', validation_errors=faults))
    lost = {"error_type": "timeout", "cost_usd": None, "input_tokens": None, "output_tokens": None, "http_status": None}
    batch.settled.append(settled_row(second, **lost))
    bad: dict[str, Any] = {"status": "invalid", "output": None, "output_hash": None, "error_kind": "validation"}
    book.generation(batch, "a", id=generation_id, error_message="title: is too long", **bad)
    write(book.ledger, batch)

    text = pages.get(f"/generations/{generation_id}").text

    for said in (
        "validation",
        "title: is too long",
        "why its answer was invalid",
        "temperature",
        "no answer",
        "repair",
    ):
        assert said in text, said
    assert "current content" not in text


def test_unknown_price_is_never_nothing(book: Book, pages: TestClient) -> None:
    generation_id = book.add("a", settled={"cost_usd": None})

    assert "unpriced" in pages.get(f"/generations/{generation_id}").text


@pytest.mark.parametrize(
    "wrong", ["nothing", "a", "%25%25%25%25%25%25%25", "019abcde-0000-7000-8000-000000000000", "x" * 1999]
)
def test_id_that_does_not_exist_is_a_clear_page(book: Book, pages: TestClient, wrong: str) -> None:
    book.add("a")

    answer = pages.get(f"/generations/{wrong}")

    assert answer.status_code == 404
    assert "There is no generation" in answer.text
    assert pages.get(f"/generations/{wrong}.json").status_code == 404


def test_list_is_paged_to_its_end_without_loss(book: Book, pages: TestClient) -> None:
    written = {book.add(f"k{number}") for number in range(101)}

    found: list[str] = []
    path = "/generations.json"
    while True:
        view = pages.get(path).json()
        found += [each["line"]["id"] for each in view["generations"]]
        if view["before"] is None:
            break
        path = f"/generations.json?before={view['before']}"
    assert (len(found), set(found)) == (101, written)
    assert found == sorted(found, reverse=True)
    first = pages.get("/generations").text
    assert "and more follow" in first
    assert 'rel="next"' in first


def test_words_are_shown_in_the_text_around_them(book: Book, pages: TestClient) -> None:
    book.add("a", output={"title": "A kettle of blue enamel"})
    book.add("b", output={"title": "A pan"})

    text = pages.get("/generations?words=enamel").text

    assert "<mark>enamel</mark>" in text
    assert "A pan" not in text


def test_filter_that_is_no_filter_is_said_above_the_form(book: Book, pages: TestClient) -> None:
    book.add("a")
    for query in ("status=weird", "template=zz", "run=zzzzzz", "before=1", "since=2026-04-01&until=2026-03-01", "x=1"):
        answer = pages.get(f"/generations?{query}")
        assert answer.status_code == 422, query
        assert 'role="alert"' in answer.text
        assert "<form class=" in answer.text


def test_marks_only_what_came_from_the_record(book: Book, pages: TestClient) -> None:
    source = "---\noutput: X\n---\n{% block user %}Name: {{ record.name }}!{% endblock %}"
    template = TemplateRow(hash=sha("marked"), name="marked", sources={"marked.md.j2": source}, first_seen_at=now())
    add_templates(book.ledger, [template])
    batch, ids = WriteBatch(), []
    for key, sent in (("fits", "Name: Cup!"), ("differs", "Name: Mug!")):
        book.attempt(batch, key, new_id())
        request = {"model": "m", "messages": [{"role": "user", "content": sent}]}
        batch.prompts[sha(key)] = replace(batch.prompts[sha(key)], request=orjson.dumps(request).decode())
        own = {"step": "marked", "template_hash": sha("marked"), "record": '{"name":"Cup"}'}
        ids.append(book.generation(batch, key, **own))
    write(book.ledger, batch)

    fits, differs = (pages.get(f"/generations/{each}").text for each in ids)

    assert 'Name: <mark class="record" dir="auto" title="from the record">Cup</mark>!' in fits
    assert "gives another text" in differs
    assert "Name: Mug!" in differs
    assert "<mark" not in differs


@pytest.mark.parametrize("size", [300_000, 1_500_000])
def test_long_texts_are_cut_and_the_page_says_so(book: Book, pages: TestClient, size: int) -> None:
    name = "<b>\u202e " * (size // 5)
    source = "---\noutput: X\n---\n{% block user %}Name: {{ record.name }}!{% endblock %}"
    template = TemplateRow(hash=sha("long"), name="long", sources={"long.md.j2": source}, first_seen_at=now())
    add_templates(book.ledger, [template])
    batch, generation_id = WriteBatch(), new_id()
    batch.settled.append(settled_row(book.attempt(batch, "long", generation_id), output_text=name))
    request = {"messages": [{"role": "user", "content": f"Name: {name}!"}]}
    batch.prompts[sha("long")] = replace(batch.prompts[sha("long")], request=orjson.dumps(request).decode())
    own = {"step": "long", "template_hash": sha("long"), "record": orjson.dumps({"name": name}).decode()}
    book.generation(batch, "long", id=generation_id, output={"text": name, "list": [name]}, **own)
    write(book.ledger, batch)

    page = pages.get(f"/generations/{generation_id}")

    assert page.status_code == 200
    assert len(page.text) < 12_000_000
    assert page.text.count("The JSON of this page has all of") == 4
    assert ("too long to be rendered again" in page.text) == (size > 1_000_000)
    assert pages.get(f"/generations/{generation_id}.json").json()["answer"]["value"]["text"] == name
    check_harmless(page.text)


def test_fan_in_is_cut(book: Book, pages: TestClient) -> None:
    batch = WriteBatch()
    parents = [book.generation(batch, f"{number:04}") for number in range(230)]
    child = book.generation(batch, "all", step="digest", record_hash=None)
    batch.parents += [ParentRow(child, parent) for parent in parents]
    write(book.ledger, batch)

    text = pages.get(f"/generations/{child}").text

    assert text.count("/generations/") > 200
    assert "30</data> more" in text
