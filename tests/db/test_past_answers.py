"""The measures of past answers for forecasts, and the failures of requests."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, event

from db.clock import now
from db.columns import Base
from db.ledger.rows import WriteBatch
from db.ledger.writing import write
from db.readers.failures import NAMED_KEYS, Loss, Trouble, losses, troubles
from db.readers.past_answers import (
    NEWEST_RUNS,
    ModelAnswers,
    StepTokens,
    answers_by_model,
    mean_tokens,
    read_past,
    spent_by_step,
)
from tests.db.rows import Book, settled_row

SONNET, STEP = "claude-sonnet-4-6", "product_copy"
TABLES = tuple(Base.metadata.tables)


def past_of(ledger: Engine, **own: str) -> tuple[float, list[int]] | None:
    wanted = {"flow": "product_copy", "step": STEP, "model": SONNET} | own
    past = read_past(ledger, **wanted, endpoint=None, except_endpoint="sandbox")
    return None if past is None else (past.mean_output_tokens, sorted(past.latencies_ms))


def test_past_is_that_of_real_answers_of_the_same_step_and_model(ledger: Engine) -> None:
    real = Book(ledger, endpoint="anthropic")
    real.add("a", settled={"output_tokens": 100, "latency_ms": 2000})
    real.add("b", settled={"output_tokens": 200, "latency_ms": 4000})
    real.add("c", step="other_step", settled={"output_tokens": 900, "latency_ms": 9000})
    real.add("d", settled={"http_status": 529, "output_tokens": None, "latency_ms": 5})
    Book(ledger, endpoint="sandbox").add("a", settled={"output_tokens": 7, "latency_ms": 7})

    assert past_of(ledger) == (150.0, [2000, 4000])
    assert past_of(ledger, model="claude-haiku-4-5") is None
    assert past_of(ledger, flow="another") is None


def test_past_of_a_named_endpoint_is_its_own(ledger: Engine) -> None:
    for endpoint, tokens in (("anthropic", 100), ("gateway", 300)):
        Book(ledger, endpoint=endpoint).add("a", settled={"output_tokens": tokens, "latency_ms": 1})

    past = read_past(ledger, "product_copy", STEP, SONNET, endpoint="gateway", except_endpoint="sandbox")

    assert past is not None
    assert (past.mean_output_tokens, past.answers) == (300.0, 1)


MEAN = ("product_copy", STEP, "sandbox", SONNET)


def test_mean_tokens_are_those_of_the_steps_answers(book: Book) -> None:
    assert mean_tokens(book.ledger, *MEAN) is None
    book.add("a", settled={"input_tokens": 100, "cache_read_tokens": 50, "output_tokens": 10})
    book.add("b", settled={"input_tokens": 200, "cache_creation_5m_tokens": 50, "output_tokens": 30})
    book.add("c", settled=dict.fromkeys(("input_tokens", "output_tokens")) | {"error_type": "timeout"})

    assert mean_tokens(book.ledger, *MEAN) == (200.0, 20.0)


@pytest.mark.parametrize("other", [{"flow": "other"}, {"endpoint": "anthropic"}])
def test_mean_tokens_are_of_one_flow_and_endpoint(book: Book, other: dict[str, str]) -> None:
    book.add("a", settled={"input_tokens": 100, "output_tokens": 10})
    Book(book.ledger, **other).add("b", settled={"input_tokens": 9000, "output_tokens": 9000})

    assert mean_tokens(book.ledger, *MEAN) == (100.0, 10.0)


def test_mean_tokens_are_of_one_step_and_model(book: Book) -> None:
    book.add("a", settled={"input_tokens": 100, "output_tokens": 10})
    book.add("b", step="other", settled={"output_tokens": 9000})

    assert mean_tokens(book.ledger, *MEAN) == (100.0, 10.0)
    assert mean_tokens(book.ledger, "product_copy", STEP, "sandbox", "claude-haiku-4-5") is None


def test_runs_of_other_flows_and_those_without_requests_hide_no_answer(book: Book) -> None:
    source = book.add("a", settled={"input_tokens": 100, "output_tokens": 10})
    for _run in range(NEWEST_RUNS):
        Book(book.ledger, flow="other").add("b")
        Book(book.ledger).reuse("a", source)

    assert mean_tokens(book.ledger, *MEAN) == (100.0, 10.0)


def test_runs_that_were_refused_or_did_another_step_hide_no_answer(book: Book) -> None:
    book.add("a", settled={"input_tokens": 100, "output_tokens": 10})
    refused = {**dict.fromkeys(("input_tokens", "output_tokens")), "http_status": 401, "error_type": "auth"}
    for day in range(NEWEST_RUNS):
        later = now() + timedelta(days=day + 1)
        Book(book.ledger, started_at=later).add("a", settled=refused)
        Book(book.ledger, started_at=later).add("a", step="other", settled={"output_tokens": 9000})

    assert mean_tokens(book.ledger, *MEAN) == (100.0, 10.0)
    assert past_of(book.ledger) is None  # the sandbox's answers are invented


def test_answers_of_a_later_step_push_out_none_of_an_earlier_one(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.readers.past_answers.NEWEST_ATTEMPTS", 2)
    book.add("a", settled={"input_tokens": 100, "output_tokens": 10})
    for key in "bcd":
        book.add(key, step="other", settled={"output_tokens": 9000})

    assert mean_tokens(book.ledger, *MEAN) == (100.0, 10.0)


def test_newest_answers_count(book: Book) -> None:
    book.add("a", settled={"output_tokens": 9000})
    for day in range(NEWEST_RUNS):
        later = Book(book.ledger, started_at=now() + timedelta(days=day + 1))
        later.add("a", settled={"input_tokens": 100, "output_tokens": 10})

    assert mean_tokens(book.ledger, *MEAN) == (100.0, 10.0)


def test_newest_answers_are_found_by_an_index(book: Book) -> None:
    statements: list[tuple[str, Any]] = []

    @event.listens_for(book.ledger, "before_cursor_execute")
    def hear(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        statements.append((statement, parameters))

    book.add("a")
    statements.clear()
    mean_tokens(book.ledger, *MEAN)
    asked = [(statement, given) for statement, given in statements if statement.startswith("SELECT")]
    if book.ledger.dialect.name == "sqlite":
        with book.ledger.connect() as connection:
            for statement, given in asked:
                plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)]
                assert not any(step.startswith(f"SCAN {table}") for step in plan for table in TABLES), plan
    assert len(asked) == 2


def test_what_answers_used_is_added_up_by_step(book: Book) -> None:
    book.add("a", settled={"input_tokens": 10, "cache_creation_5m_tokens": 1000, "output_tokens": 50})
    book.add("b", settled={"input_tokens": 20, "cache_read_tokens": 1000, "output_tokens": 70})
    book.add("c", step="second", settled={"input_tokens": 5, "output_tokens": 6})
    book.add("d", status="failed", settled={"error_type": "connection", "input_tokens": None, "output_tokens": None})

    assert spent_by_step(book.ledger, book.run_id) == [
        StepTokens(STEP, SONNET, 2, 30, 1000, 0, 1000, 120),
        StepTokens("second", SONNET, 1, 5, 0, 0, 0, 6),
    ]


def test_answers_of_a_step_are_added_up_by_the_model_that_gave_them(book: Book) -> None:
    book.add("a", settled={"input_tokens": 10, "cache_creation_5m_tokens": 1000, "output_tokens": 50})
    book.add("b", settled={"input_tokens": 20, "cache_read_tokens": 1000, "output_tokens": 70})
    book.add("c", settled={"model": "gpt-9", "input_tokens": 5, "output_tokens": 6, "cost_usd": None})
    book.add("d", status="failed", settled={"error_type": "connection", "output_tokens": None, "cost_usd": None})
    book.add("e", step="second")
    # The mean of a sum without the second one's cost would be too low.
    book.add("f", settled={"model": "gateway/claude", "input_tokens": 5, "output_tokens": 6})
    book.add("g", settled={"model": "gateway/claude", "input_tokens": 5, "output_tokens": 6, "cost_usd": None})

    assert answers_by_model(book.ledger, book.run_id, STEP) == [
        ModelAnswers(SONNET, 2, 30, 1000, 0, 1000, 120, Decimal("0.02")),
        ModelAnswers("gateway/claude", 2, 10, 0, 0, 0, 12, None),
        ModelAnswers("gpt-9", 1, 5, 0, 0, 0, 6, None),
    ]


def test_troubles_are_counted_by_kind_also_those_that_were_overcome(book: Book) -> None:
    book.add("fine")
    book.add("cut", settled={"stop_reason": "max_tokens"})
    book.add("odd", settled={"validation_errors": [{"where": "title", "what": "too long"}]})
    for key in ("x", "y"):
        book.add(key, settled={"error_type": "overloaded_error", "stop_reason": None})
    book.add("stopped", settled={"error_type": "not_sent", "stop_reason": None})

    assert troubles(book.ledger, book.run_id) == [
        Trouble("overloaded_error", 2),
        Trouble("invalid", 1),
        Trouble("max_tokens", 1),
    ]


def test_losses_read_no_more_keys_than_they_name(book: Book) -> None:
    batch = WriteBatch()
    for number in range(100):
        book.generation(batch, f"{number:03}", status="refused", error_kind="refusal", error_message="No.")
    write(book.ledger, batch)
    read = 0

    @event.listens_for(book.ledger, "after_cursor_execute")
    def count(_connection: Any, cursor: Any, *_rest: Any) -> None:
        nonlocal read
        read += max(cursor.rowcount, 0)

    (found,) = losses(book.ledger, book.run_id)

    assert (found.count, found.record_keys) == (100, ("000", "001", "002", "003", "004"))
    # And the run's own row. SQLite reports no count.
    assert read in {0, NAMED_KEYS + 1}


def test_equal_losses_are_grouped_with_their_first_keys(book: Book) -> None:
    batch = WriteBatch()
    for number in range(7):
        lost = book.generation(batch, f"r{number}", status="refused", error_kind="refusal", error_message="No.")
        book.attempt(batch, f"r{number}", lost)
    book.generation(batch, "bad", status="failed", error_kind="render", error_message="line 3", prompt_hash=None)
    batch.settled += [settled_row(row.id) for row in batch.opened]
    write(book.ledger, batch)
    book.add("fine")

    assert losses(book.ledger, book.run_id) == [
        Loss(STEP, "refused", "refusal", "No.", 7, ("r0", "r1", "r2", "r3", "r4")),
        Loss(STEP, "failed", "render", "line 3", 1, ("bad",)),
    ]
