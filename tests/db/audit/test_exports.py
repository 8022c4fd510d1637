"""An export's chunks hold every generation that matches, once, with what it stands on and what it cost."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from db.ledger.rows import WriteBatch
from db.ledger.writing import write
from db.readers.audit.exports import EXPORT_COLUMNS, export_chunk, newest_generation
from db.readers.audit.filters import Filter, resolved
from tests.db.rows import Book, settled_row, sha


def rows_of_export(ledger: Engine, size: int = 3, **wanted: Any) -> list[dict[str, Any]]:
    """Export in small chunks."""
    chosen, newest, after = resolved(ledger, Filter(**wanted)), newest_generation(ledger), ""
    found: list[dict[str, Any]] = []
    while (chunk := export_chunk(ledger, chosen, after, newest, size)).last is not None:
        found += [dict(zip(EXPORT_COLUMNS, row, strict=True)) for row in chunk.rows]
        after = chunk.last
    return found


def test_empty_ledger_has_no_rows(ledger: Engine) -> None:
    assert newest_generation(ledger) == ""
    assert rows_of_export(ledger) == []


def test_row_has_record_answer_usage_and_cost(ledger: Engine) -> None:
    book, batch = Book(ledger), WriteBatch()
    generation = book.generation(batch, "TEA-1", record='{"a":1}', output={"title": "Sencha"})
    first = book.attempt(batch, "TEA-1", generation)
    again = book.attempt(batch, "TEA-1", generation, ordinal=2, likely_cost_usd=Decimal("0.02"))
    batch.settled += [
        settled_row(first, cost_usd=Decimal("0.0000000001"), latency_ms=5, cache_read_tokens=7),
        settled_row(
            again, error_type="timeout", **dict.fromkeys(("input_tokens", "output_tokens", "cost_usd", "model"))
        ),
    ]
    write(ledger, batch)

    (row,) = rows_of_export(ledger)

    assert (
        row
        | {
            "created_at": "2026-03-01T12:00:00.000000Z",
            "record": '{"a":1}',
            "output": '{"title":"Sencha"}',
            "record_hash": sha('{"a":1}'),
            "prompt_hash": sha("TEA-1"),
            "replaced_by": None,
            "model": "claude-sonnet-4-6",
            "attempts": 2,
            "requests": 2,
            "input_tokens": 60,
            "cache_read_tokens": 7,
            "output_tokens": 100,
            "cost_usd": 1,
            "unpriced": 0,
            "perhaps_billed": 1,
            "likely_usd": 200_000_000,
            "latency_ms": 5,
        }
        == row
    )


def test_unknown_price_is_never_zero(ledger: Engine) -> None:
    book = Book(ledger)
    book.add("unpriced", settled={"cost_usd": None})
    book.add(
        "lost", status="failed", output=None, settled={"error_type": "timeout", "input_tokens": None, "cost_usd": None}
    )

    unpriced, lost = rows_of_export(ledger)

    assert (unpriced["cost_usd"], unpriced["unpriced"]) == (None, 1)
    assert (lost["cost_usd"], lost["perhaps_billed"], lost["likely_usd"]) == (0, 1, None)


def test_cached_row_has_the_answer_but_not_its_cost(ledger: Engine) -> None:
    first = Book(ledger).add("TEA-1")
    Book(ledger).reuse("TEA-1", first)

    written, reused = rows_of_export(ledger)

    assert reused["output"] == written["output"] is not None
    assert (reused["source_generation_id"], reused["attempts"], reused["cost_usd"]) == (first, 0, 0)


def test_every_generation_comes_once_in_the_order_of_ids(ledger: Engine) -> None:
    draw = random.Random(12)
    book = Book(ledger)
    made = [
        book.add(f"K-{number}", status=draw.choice(["succeeded", "failed"]), step=draw.choice(["one", "two"]))
        for number in range(23)
    ]
    for size in (1, 2, 5, 23, 24, 100):
        assert [row["generation_id"] for row in rows_of_export(ledger, size)] == made
    for wanted in (
        {"step": "one"},
        {"step": "two", "status": "failed"},
        {"key": "K-1*"},
        {"model": "claude-sonnet-4-6"},
    ):
        by_size = {tuple(row["generation_id"] for row in rows_of_export(ledger, size, **wanted)) for size in (1, 4, 50)}
        assert len(by_size) == 1
        assert by_size.pop()


def test_generations_that_come_later_are_left_to_the_next_export(ledger: Engine) -> None:
    book = Book(ledger)
    first = book.add("TEA-1")
    newest = newest_generation(ledger)
    book.add("TEA-2")

    assert [row[0] for row in export_chunk(ledger, Filter(), "", newest, 10).rows] == [first]
    assert export_chunk(ledger, Filter(), first, newest, 10).last is None


def test_export_has_generations_that_another_one_replaced(ledger: Engine) -> None:
    book = Book(ledger)
    first = book.add("TEA-1", status="failed", error_kind="render", output=None, output_hash=None)
    second = book.add("TEA-1", prompt="again", prompt_hash=sha("again"))

    assert [row["generation_id"] for row in rows_of_export(ledger)] == [first, second]
    assert [row["generation_id"] for row in rows_of_export(ledger, cause="render")] == [first]


@pytest.mark.parametrize(
    "text", ["tab\tline\nend", 'quote" back\\slash', "\u202eevil \u0000".replace("\x00", ""), "😀"]
)
def test_texts_come_as_they_are(ledger: Engine, text: str) -> None:
    Book(ledger).add(text, output={"title": text}, error_message=text)

    (row,) = rows_of_export(ledger)

    assert (row["record_key"], row["error_message"]) == (text, text)
