"""A line of a list says what its generation is, begins with its answer, and has the cost of its own requests."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from db.clock import new_id
from db.ledger.rows import WriteBatch
from db.ledger.writing import write
from db.readers.audit.filters import Filter
from db.readers.audit.generation_lists import BEGINNING, beginning_of, lines_of, list_generations
from tests.db.rows import Book, settled_row, sha


def test_a_line_adds_up_its_requests_to_the_last_digit(book: Book) -> None:
    batch, generation_id = WriteBatch(), new_id()
    costs = (Decimal("0.1000000001"), Decimal("0.2000000002"), None)
    for ordinal, cost in enumerate(costs, start=1):
        attempt = book.attempt(batch, "K1", generation_id, ordinal=ordinal)
        batch.settled.append(settled_row(attempt, cost_usd=cost))
    book.generation(batch, "K1", id=generation_id)
    write(book.ledger, batch)
    (line,) = lines_of(book.ledger, [generation_id])
    assert (line.attempts, line.cost_usd, line.unpriced) == (3, Decimal("0.3000000003"), 1)
    assert (line.model, line.status, line.counts_in_run) == ("claude-sonnet-4-6", "succeeded", True)


def test_an_answer_from_the_ledger_costs_nothing_and_has_its_text(book: Book) -> None:
    source = book.add("K1")
    again = Book(book.ledger)
    (line,) = lines_of(book.ledger, [again.reuse("K1", source)])
    assert (line.origin, line.attempts, line.cost_usd, line.beginning) == ("cache", 0, Decimal(0), "About K1")


def test_what_was_never_rendered_has_no_model_and_no_answer(book: Book) -> None:
    skipped: dict[str, Any] = {"status": "skipped", "prompt_hash": None, "output": None, "output_hash": None}
    long = "why " * 1_000
    batch = WriteBatch()
    made = book.generation(batch, "K1", **skipped, error_kind="condition", error_message=long)
    write(book.ledger, batch)
    (line,) = list_generations(book.ledger, Filter(status="skipped")).lines
    assert (line.id, line.model, line.beginning, line.error_kind) == (made, None, "", "condition")
    assert line.error_message == long[:BEGINNING]


def test_a_generation_that_the_run_replaced_does_not_count(book: Book) -> None:
    first = book.add("K1", status="failed", output=None, output_hash=None)
    second = book.add("K1", prompt="again", prompt_hash=sha("again"))
    assert [line.id for line in list_generations(book.ledger, Filter(key="K1")).lines] == [second]
    lines = list_generations(book.ledger, Filter(key="K1", replaced=True)).lines
    assert [(line.id, line.counts_in_run) for line in lines] == [(second, True), (first, False)]


def test_lines_stand_in_the_order_of_their_ids_and_unknown_ones_are_left_out(book: Book) -> None:
    ids = [book.add(f"K{number}") for number in range(3)]
    wanted = [ids[1], "unknown", ids[2], ids[0]]
    assert [line.id for line in lines_of(book.ledger, wanted)] == [ids[1], ids[2], ids[0]]


def test_no_ids_have_no_lines(ledger: Engine) -> None:
    assert lines_of(ledger, []) == []


@pytest.mark.parametrize(
    ("answer", "beginning"),
    [
        (
            {"title": "A lamp", "tags": ["warm", "small"], "price": -1.5e3, "new": True},
            "A lamp · warm · small · -1500.0 · true",
        ),
        ({"a": {"b": 'He said "no": yes'}}, 'He said "no": yes'),
        ({"a": "back\\slash", "b": "line\nbreak", "c": "Größe 🧑‍🚀"}, "back\\slash · line\nbreak · Größe 🧑‍🚀"),
        ({"a": "", "b": None, "c": "x"}, "x"),
        ("only a text", "only a text"),
        ({"a": "<script>alert(1)</script>"}, "<script>alert(1)</script>"),
        ({}, ""),
    ],
)
def test_the_beginning_of_an_answer_is_its_values_without_its_keys(answer: Any, beginning: str) -> None:
    assert beginning_of(json.dumps(answer)) == beginning
    assert beginning_of(json.dumps(answer, ensure_ascii=False, separators=(",", ":"))) == beginning


def test_an_answer_that_is_cut_off_anywhere_still_has_a_beginning() -> None:
    whole = json.dumps({"title": 'Größe "XL" \\ \ud83e\uddd1', "text": "a" * 500, "n": [1, 2.5]})
    for end in range(len(whole)):
        found = beginning_of(whole[:end])
        assert len(found) <= BEGINNING
        assert "title" not in found or end < len('{"title": ')
