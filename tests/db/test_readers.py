"""The readers return what happened: for the look-up, for the next step, for summaries and for people."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, select, text

from db.clock import new_id, now
from db.ledger.lifecycle import begin_step, close_run, end_step
from db.ledger.rows import ParentRow, StepRow, TextRow, WriteBatch
from db.ledger.writing import write
from db.readers.failures import Loss, losses, without_content
from db.readers.figures import (
    PromptCacheUse,
    StepCount,
    cost_reused,
    count_generations,
    find_run,
    prompt_cache_use,
    usage,
)
from db.readers.look_up import PromptHistory, look_up
from db.readers.old_shards import shards_of
from db.readers.stored_generations import read_generation, read_generations, read_parents, read_request
from db.tables import StoredStep
from db.words import PERHAPS_BILLED, UNSENT
from tests.db.rows import DAY, Book, run_lines, settled_row, sha

# Look up


def test_newest_succeeded_answer_is_found(book: Book) -> None:
    book.add("a", output={"n": 1})
    newest = Book(book.ledger).add("a", output={"n": 2}, output_hash=sha("2"))

    assert look_up(book.ledger, [sha("a")]) == {sha("a"): PromptHistory(newest, '{"n":2}', sha("2"), sha("{}"))}


@pytest.mark.parametrize("status", ["invalid", "truncated", "refused"])
def test_bad_outcomes_are_counted(book: Book, status: str) -> None:
    for ledger_book in (book, Book(book.ledger)):
        ledger_book.add("a", status=status, output=None)

    assert look_up(book.ledger, [sha("a")]) == {sha("a"): PromptHistory(bad_outcomes=2, last_bad=status)}


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_outcomes_that_say_nothing_of_the_prompt_are_not_counted(book: Book, status: str) -> None:
    book.add("a", status=status, output=None, settled={"error_type": "overloaded_error"})

    assert look_up(book.ledger, [sha("a")]) == {}


@pytest.mark.parametrize("order", [("succeeded", "refused"), ("refused", "succeeded")])
def test_success_wins_whichever_came_later(book: Book, order: tuple[str, str]) -> None:
    for status in order:
        Book(book.ledger).add("a", status=status, output={"n": 1} if status == "succeeded" else None)

    assert look_up(book.ledger, [sha("a")])[sha("a")].output == '{"n":1}'


def test_cached_rows_are_no_answers(book: Book) -> None:
    source = book.add("a", status="refused", output=None)
    Book(book.ledger).reuse("a", source, status="refused")

    assert look_up(book.ledger, [sha("a")])[sha("a")].bad_outcomes == 1


def test_more_prompts_than_fit_one_statement_are_looked_up(book: Book) -> None:
    batch = WriteBatch()
    for number in range(1201):
        book.generation(batch, str(number))
    write(book.ledger, batch)

    found = look_up(book.ledger, [sha(str(number)) for number in range(-3, 1201)])
    assert len(found) == 1201
    assert look_up(book.ledger, []) == {}


# For the next step


@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
def test_generations_come_in_the_order_of_their_keys_bytes(book: Book, page_size: int) -> None:
    keys = ["b", "a", "B", "ä", "a b", "a-b", "10", "9", "_"]
    for key in keys:
        book.add(key, record=orjson.dumps({"id": key}).decode())
    book.add("failed", status="failed", output=None)

    pages = list(read_generations(book.ledger, book.run_id, "product_copy", page_size=page_size))

    assert [found.record_key for page in pages for found in page] == sorted(keys, key=str.encode)
    assert all(found.record == {"id": found.record_key} for page in pages for found in page)
    assert all(len(page) <= page_size for page in pages)


def test_cached_generation_has_the_text_of_its_source(book: Book) -> None:
    source = book.add("a", output={"n": 1})
    later = Book(book.ledger)
    later.reuse("a", source)

    ((found,),) = read_generations(book.ledger, later.run_id, "product_copy", page_size=10)
    assert found.output == {"n": 1}
    assert found.id != source


def test_parents_are_read_in_the_order_of_their_keys(book: Book) -> None:
    parents = [book.add(key, output={"key": key}) for key in ("b", "a", "B")]
    batch = WriteBatch()
    child = book.generation(batch, "all", step="digest", record_hash=None)
    batch.parents += [ParentRow(child, parent) for parent in parents]
    write(book.ledger, batch)

    found = read_parents(book.ledger, [child, parents[0]])

    assert [parent.output for parent in found.pop(child)] == [{"key": "B"}, {"key": "a"}, {"key": "b"}]
    assert found == {}


# For summaries


def test_usage_is_the_sum_of_the_attempts(book: Book) -> None:
    cached = {"cache_creation_5m_tokens": 5, "cache_creation_1h_tokens": 6, "cache_read_tokens": 7}
    book.add("a", settled=cached | {"cost_usd": Decimal("0.1")})
    book.add("b", settled={"cost_usd": Decimal("0.2")})
    book.add("c", step="other", settled={"cost_usd": Decimal("0.0000000001")})

    found = usage(book.ledger, book.run_id)

    assert (found.requests, found.input_tokens, found.output_tokens) == (3, 3 * 60 + 18, 300)
    assert (found.cache_creation_tokens, found.cache_read_tokens) == (11, 7)
    assert (found.cost_usd, found.unpriced) == (Decimal("0.3000000001"), 0)
    assert usage(book.ledger, book.run_id, step="other").cost_usd == Decimal("0.0000000001")


def test_use_of_the_prompt_cache_is_grouped_by_what_sets_its_price(book: Book) -> None:
    def ask(key: str, **settled: Any) -> None:
        book.add(key, settled={"input_tokens": 20} | settled)

    ask("a", cache_creation_5m_tokens=5000)
    ask("b", cache_read_tokens=5000)
    ask("c", cache_read_tokens=5000)
    ask("none")
    # 100,000 tokens and one more: lists may price them differently.
    ask("d", cache_read_tokens=99_980)
    ask("e", cache_read_tokens=99_981)
    ask("f", cache_read_tokens=5000, inference_geo="us")
    ask("g", cache_creation_1h_tokens=5000, speed="fast")

    found = prompt_cache_use(book.ledger, book.run_id)

    plain = ("claude-sonnet-4-6", None, None, None, DAY.date())
    assert sorted(found, key=str) == sorted(
        [
            PromptCacheUse(*plain, 6000, 5000, 0, 10_000, writes=1, reads=2),
            PromptCacheUse(*plain, 100_000, 0, 0, 99_980, writes=0, reads=1),
            PromptCacheUse(*plain, 101_000, 0, 0, 99_981, writes=0, reads=1),
            PromptCacheUse("claude-sonnet-4-6", None, "us", None, DAY.date(), 6000, 0, 0, 5000, writes=0, reads=1),
            PromptCacheUse("claude-sonnet-4-6", None, None, "fast", DAY.date(), 6000, 0, 5000, 0, writes=1, reads=0),
        ],
        key=str,
    )


def test_money_adds_up_exactly(book: Book) -> None:
    batch = WriteBatch()
    for number in range(1000):
        generation_id = book.generation(batch, str(number))
        attempt_id = book.attempt(batch, "p", generation_id)
        batch.settled.append(settled_row(attempt_id, cost_usd=Decimal("0.0000123457")))
    write(book.ledger, batch)

    assert usage(book.ledger, book.run_id).cost_usd == Decimal("0.0123457000")


@pytest.mark.parametrize(
    ("settled", "requests", "perhaps_billed", "limited"),
    [
        ({"error_type": "not_sent"}, 0, 0, 0),
        ({"error_type": "connect"}, 0, 0, 0),
        ({"error_type": "connection"}, 1, 1, 0),
        ({"error_type": "timeout"}, 1, 1, 0),
        ({"error_type": "abandoned"}, 1, 1, 0),
        ({"error_type": "crashed"}, 1, 1, 0),
        ({"error_type": "rate_limit_error", "http_status": 429}, 1, 0, 1),
        ({"error_type": "overloaded_error", "http_status": 529}, 1, 0, 0),
    ],
)
def test_what_an_error_means_for_the_bill(
    book: Book, settled: dict[str, Any], requests: int, perhaps_billed: int, limited: int
) -> None:
    nothing = dict.fromkeys(("http_status", "model", "input_tokens", "output_tokens", "cost_usd"))
    book.add("a", status="failed", output=None, settled=nothing | settled)

    found = usage(book.ledger, book.run_id)

    assert (found.requests, found.perhaps_billed, found.rate_limited) == (requests, perhaps_billed, limited)
    assert (found.cost_usd, found.unpriced) == (Decimal(0), 0)


def test_cost_without_a_price_is_unknown_and_not_nothing(book: Book) -> None:
    book.add("a", settled={"cost_usd": None})

    assert (usage(book.ledger, book.run_id).cost_usd, usage(book.ledger, book.run_id).unpriced) == (None, 1)
    book.add("b", settled={"cost_usd": Decimal("0.5")})
    assert (usage(book.ledger, book.run_id).cost_usd, usage(book.ledger, book.run_id).unpriced) == (Decimal("0.5"), 1)


def test_run_without_a_request_costs_nothing(book: Book) -> None:
    assert usage(book.ledger, book.run_id).cost_usd == Decimal(0)


def test_generations_are_counted_by_step_status_and_origin(book: Book) -> None:
    source = book.add("a")
    book.add("b")
    book.add("c", status="refused", output=None, error_kind="refusal", error_message="No.")
    book.reuse("d", source)
    book.add("a", step="later", prompt="later")

    assert count_generations(book.ledger, book.run_id) == [
        StepCount("product_copy", "succeeded", "live", 2),
        StepCount("product_copy", "refused", "live", 1),
        StepCount("product_copy", "succeeded", "cache", 1),
        StepCount("later", "succeeded", "live", 1),
    ]
    assert [tuple(row)[2:] for row in without_content(book.ledger, book.run_id)] == [("c", "refused", "refusal", "No.")]


# Unchanged records, for which a run wrote no row


@pytest.fixture
def confirming(book: Book) -> Book:
    """A run that found `a` and `c` unchanged, `bad` to fail again and `dear` to be skipped again, and wrote `b`."""
    source = book.add("a", output={"n": 1}, record='{"id":"a"}', settled={"cost_usd": Decimal("0.1")})
    reused = book.reuse("c", source, record='{"id":"c"}')
    failed = book.add("bad", status="failed", output=None, error_kind="render", error_message="line 3")
    skipped = book.add("dear", status="skipped", output=None, error_kind="cost_cap", error_message="$1")
    book.close()
    run = Book(book.ledger)
    begin_step(book.ledger, run.run_id, StepRow("product_copy", total=5))
    run.confirm("a", source)
    run.confirm("c", reused, lease_id="helper")
    run.confirm("bad", failed, status="failed")
    run.confirm("dear", skipped, status="skipped")
    run.add("b", output={"n": 2}, lease_id="helper")
    return run


def outputs(run: Book, **own: Any) -> dict[str, Any]:
    pages = read_generations(run.ledger, run.run_id, "product_copy", **({"page_size": 2} | own))
    return {found.record_key: found.output for page in pages for found in page}


@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
def test_contents_of_a_run_are_those_that_it_wrote_and_that_it_confirmed(confirming: Book, page_size: int) -> None:
    expected = {"a": {"n": 1}, "b": {"n": 2}, "c": {"n": 1}}
    assert list(outputs(confirming, page_size=page_size).items()) == list(expected.items())
    assert outputs(confirming, lease_id="helper") == {"b": {"n": 2}, "c": {"n": 1}}
    assert outputs(confirming, lease_id="another") == {}

    confirming.close()
    assert outputs(confirming, page_size=page_size) == expected
    # Records that another run has confirmed since then belong to that run.
    Book(confirming.ledger).confirm("a", next(_ids(confirming, "a")))
    assert set(outputs(confirming)) == {"b", "c"}


def _ids(run: Book, key: str) -> Iterator[str]:
    for found in query(run.ledger, f"SELECT id FROM generations WHERE record_key = '{key}' ORDER BY id"):
        yield found["id"]


def test_contents_of_two_runs_at_once_are_all_that_each_confirmed(confirming: Book) -> None:
    other = Book(confirming.ledger)
    other.confirm("a", next(_ids(confirming, "a")))

    assert set(outputs(confirming)) == {"a", "b", "c"}
    assert set(outputs(other)) == {"a"}


def test_unchanged_records_count_as_cached_and_failures_as_before(confirming: Book) -> None:
    expected = [
        StepCount("product_copy", "succeeded", "live", 1),
        StepCount("product_copy", "succeeded", "cache", 2),
        StepCount("product_copy", "failed", "live", 1),
        StepCount("product_copy", "skipped", "live", 1),
    ]
    for _time in ("open", "closed"):
        assert count_generations(confirming.ledger, confirming.run_id) == expected
        line = find_run(confirming.ledger, confirming.run_id)
        assert line is not None
        assert (line.generations, line.succeeded, line.cached, line.without_content) == (5, 1, 2, 2)
        confirming.close()


def test_steps_are_counted_in_the_order_in_which_they_began(book: Book) -> None:
    source = book.add("a")
    run = Book(book.ledger)
    for step in ("product_copy", "later"):
        begin_step(book.ledger, run.run_id, StepRow(step, total=1))
    run.add("a", step="later", prompt="later")
    run.confirm("a", source)

    assert [line.step for line in count_generations(book.ledger, run.run_id)] == ["product_copy", "later"]


def test_what_unchanged_records_had_cost_is_saved(confirming: Book) -> None:
    # `a` and `c` have the same text: both would have been requested.
    assert cost_reused(confirming.ledger, confirming.run_id) == Decimal("0.2")
    confirming.close()
    assert cost_reused(confirming.ledger, confirming.run_id) == Decimal("0.2")


def test_what_a_step_saved_is_the_same_before_and_after_it_is_done(confirming: Book) -> None:
    run = confirming.run_id
    begin_step(confirming.ledger, run, StepRow("product_copy", total=5))
    begin_step(confirming.ledger, run, StepRow("later", total=1))
    confirming.reuse("z", confirming.add("y", step="later", settled={"cost_usd": Decimal("0.05")}), step="later")
    end_step(confirming.ledger, run, StepRow("product_copy", total=5))
    assert saved_by_steps(confirming) == {"product_copy": Decimal("0.2"), "later": None}
    assert cost_reused(confirming.ledger, run) == Decimal("0.25")

    confirming.close()

    assert saved_by_steps(confirming) == {"product_copy": Decimal("0.2"), "later": Decimal("0.05")}
    assert cost_reused(confirming.ledger, run) == Decimal("0.25")


def test_a_step_that_is_done_again_saves_what_it_reused_in_all(confirming: Book) -> None:
    begin_step(confirming.ledger, confirming.run_id, StepRow("product_copy", total=5))
    end_step(confirming.ledger, confirming.run_id, StepRow("product_copy", total=5))
    begin_step(confirming.ledger, confirming.run_id, StepRow("product_copy", total=6))
    confirming.reuse("z", confirming.add("y", settled={"cost_usd": Decimal("0.05")}))
    assert cost_reused(confirming.ledger, confirming.run_id) == Decimal("0.25")
    end_step(confirming.ledger, confirming.run_id, StepRow("product_copy", total=6))
    confirming.close()
    assert saved_by_steps(confirming) == {"product_copy": Decimal("0.25")}


def test_a_step_that_was_begun_again_and_is_done_only_by_the_close_saves_what_it_reused_in_all(
    confirming: Book,
) -> None:
    first = StepRow("product_copy", total=5)
    begin_step(confirming.ledger, confirming.run_id, first)
    end_step(confirming.ledger, confirming.run_id, first)
    begin_step(confirming.ledger, confirming.run_id, StepRow("product_copy", total=6))
    confirming.reuse("z", confirming.add("y", settled={"cost_usd": Decimal("0.05")}))
    close_run(confirming.ledger, confirming.lease, "completed", now(), steps_done=[first])
    assert saved_by_steps(confirming) == {"product_copy": Decimal("0.25")}


def test_a_step_that_was_begun_again_and_then_reused_nothing_saves_nothing(book: Book) -> None:
    source = book.add("a", settled={"cost_usd": Decimal("0.1")})
    run, begun = Book(book.ledger), StepRow("product_copy", total=1)
    begin_step(run.ledger, run.run_id, begun)
    run.reuse("a", source)
    end_step(run.ledger, run.run_id, begun)
    assert saved_by_steps(run) == {"product_copy": Decimal("0.1")}
    begin_step(run.ledger, run.run_id, begun)
    run.add("a", record='{"edited":1}')
    close_run(run.ledger, run.lease, "completed", now(), steps_done=[begun])
    assert saved_by_steps(run) == {"product_copy": None}


def saved_by_steps(book: Book) -> dict[str, Decimal | None]:
    rows = select(StoredStep.step, StoredStep.saved_usd).where(StoredStep.run_id == book.run_id)
    with book.ledger.connect() as connection:
        return dict(connection.execute(rows).tuples().all())


def test_repeated_failures_are_listed(confirming: Book) -> None:
    confirming.add("new", status="failed", output=None, error_kind="render", error_message="line 3")
    for _time in ("open", "closed"):
        told = [tuple(row)[2:] for row in without_content(confirming.ledger, confirming.run_id)]
        again = [("bad", "failed", "render", "line 3"), ("dear", "skipped", "cost_cap", "$1")]
        assert told == [*again, ("new", "failed", "render", "line 3")]
        assert losses(confirming.ledger, confirming.run_id) == [
            Loss("product_copy", "failed", "render", "line 3", 2, ("bad", "new"), repeated=1),
            Loss("product_copy", "skipped", "cost_cap", "$1", 1, ("dear",), repeated=1),
        ]
        confirming.close()


def test_failure_of_an_earlier_run_that_was_not_repeated_is_not_listed(confirming: Book) -> None:
    confirming.close()
    later = Book(confirming.ledger)
    later.confirm("a", next(_ids(confirming, "a")))
    for _time in ("open", "closed"):
        assert without_content(later.ledger, later.run_id) == []
        later.close()


# For people


def test_runs_are_listed_newest_first(book: Book) -> None:
    other = Book(book.ledger, flow="newsletter")
    newest = Book(book.ledger)
    newest.reuse("a", book.add("a"))

    assert [line.id for line in run_lines(book.ledger)] == [newest.run_id, other.run_id, book.run_id]
    assert [line.id for line in run_lines(book.ledger, flow="newsletter")] == [other.run_id]
    first = run_lines(book.ledger, limit=1)[0]
    assert (first.generations, first.succeeded, first.cached) == (1, 0, 1)


def test_run_is_found_by_the_end_of_its_id(book: Book) -> None:
    for found in (find_run(book.ledger, book.run_id), find_run(book.ledger, book.run_id[-8:])):
        assert found is not None
        assert found.id == book.run_id
    assert find_run(book.ledger, "%%%%%%%%") is None
    assert find_run(book.ledger, book.run_id[-3:]) is None


def test_id_that_fits_several_finds_none(book: Book) -> None:
    twins = [f"0199{digit}000-0000-7000-8000-00000000abcd" for digit in "12"]
    for twin in twins:
        Book(book.ledger, id=twin)

    assert find_run(book.ledger, "00000000abcd") is None
    found = find_run(book.ledger, twins[0])
    assert found is not None


def test_generation_is_read_with_all_it_depends_on(book: Book) -> None:
    source = book.add("a", record='{"id":"a"}')
    later = Book(book.ledger)
    reused = later.reuse("a", source, record='{"id":"a"}')
    batch = WriteBatch()
    child = later.generation(batch, "all", step="digest", record_hash=None)
    batch.parents.append(ParentRow(child, reused))
    write(book.ledger, batch)

    found = read_generation(book.ledger, reused[-12:])

    assert found is not None
    assert found.source is not None
    assert found.template is not None
    assert (found.generation["id"], found.source["id"], found.run["id"]) == (reused, source, later.run_id)
    assert (found.record, found.template["name"]) == ('{"id":"a"}', "product_copy")
    assert found.request == {"model": "claude-sonnet-4-6"}
    assert [(attempt["generation_id"], attempt["cost_usd"]) for attempt in found.attempts] == [
        (source, Decimal("0.01"))
    ]
    assert found.children == [(child, "digest", "all", "succeeded")]
    below = read_generation(book.ledger, child)
    assert below is not None
    assert [parent.id for parent in below.parents] == [reused]
    assert below.record is None


def test_missing_generation_is_none(book: Book) -> None:
    assert read_generation(book.ledger, new_id()) is None


def test_generation_is_found_by_a_part_of_its_id_that_only_it_has(book: Book) -> None:
    twins = [f"019abcde-0000-7000-8000-00000000000{last}" for last in "ab"]
    for twin in twins:
        book.add(twin[-1], id=twin)

    def read(part: str) -> str | None:
        found = read_generation(book.ledger, part)
        return None if found is None else str(found.generation["id"])

    assert [read(part) for part in (twins[0], twins[0].upper(), "00000000000b", twins[1][5:])] == [
        twins[0],
        twins[0],
        twins[1],
        twins[1],
    ]
    for neither in (
        "019abcde",
        "0000b",
        "%%%%%%%%",
        "______a",
        twins[0] + "0",
        "",
        "019abcde-0000-7000-8000-%",
    ):
        assert read(neither) is None, neither


def test_neighbours_in_the_life_of_a_record_are_named(book: Book) -> None:
    first = book.add("a")
    book.add("b")
    failed = Book(book.ledger).add("a", status="failed", output=None, output_hash=None)
    again = Book(book.ledger).reuse("a", first)
    last = Book(book.ledger).add("a", prompt="new")

    def near(generation_id: str) -> tuple[str | None, ...]:
        found = read_generation(book.ledger, generation_id)
        assert found is not None
        assert found.content is not None
        assert found.content["generation_id"] == last
        return tuple(None if each is None else each.id for each in (found.before, found.after, found.other_text))

    assert near(first) == (None, failed, None)
    assert near(failed) == (first, again, first)
    assert near(again) == (failed, last, None)
    assert near(last) == (again, None, again)


def test_lineage_of_a_fan_in_is_cut(book: Book) -> None:
    parents = [book.add(f"{number}") for number in range(5)]
    batch = WriteBatch()
    child = book.generation(batch, "all", step="digest", record_hash=None)
    batch.parents += [ParentRow(child, parent) for parent in parents]
    write(book.ledger, batch)

    cut = read_generation(book.ledger, child, most=2)
    whole = read_generation(book.ledger, child, most=5)

    assert cut is not None
    assert whole is not None
    assert ([parent.id for parent in cut.parents], cut.more_parents) == (parents[:2], 3)
    assert ([parent.id for parent in whole.parents], whole.more_parents, whole.more_children) == (parents, 0, 0)
    above = read_generation(book.ledger, parents[0], most=0)
    assert above is not None
    assert (above.children, above.more_children) == ([], 1)


def test_request_is_put_together_as_it_was_sent(book: Book) -> None:
    texts = {"system": '{"type":"object"}', "schema": '{"type":"object","properties":{}}'}
    request = {
        "system": [{"type": "text", "text": {"$text": sha("system")}, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": 'a {"$text": "x"} b'}],
        "output_config": {"format": {"schema": {"$json": sha("schema")}}},
    }
    write(book.ledger, WriteBatch(texts={name: TextRow(sha(name), body) for name, body in texts.items()}))

    found = read_request(book.ledger, orjson.dumps(request).decode())

    # A system text that looks like JSON stays text; the schema is JSON again.
    assert found["system"][0]["text"] == '{"type":"object"}'
    assert found["output_config"]["format"]["schema"] == {"type": "object", "properties": {}}
    assert found["messages"] == request["messages"]


# The views


def query(engine: Engine, statement: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(statement)).mappings()]


def output_of(row: dict[str, Any]) -> Any:
    return orjson.loads(row["output"]) if isinstance(row["output"], str) else row["output"]


def test_current_content_is_the_newest_that_succeeded(book: Book) -> None:
    book.add("a", output={"n": 1})
    newest = Book(book.ledger).add("a", output={"n": 2})
    Book(book.ledger).add("a", status="failed", output=None)

    (found,) = query(book.ledger, "SELECT * FROM current_content")

    assert (found["generation_id"], output_of(found)) == (newest, {"n": 2})
    assert (found["record_hash"], found["template_hash"]) == (sha("{}"), sha("template"))


def test_current_content_is_one_for_each_flow_step_endpoint_and_key(book: Book) -> None:
    others: list[dict[str, Any]] = [{}, {"flow": "other"}, {"endpoint": "anthropic"}, {"step": "other"}]
    for own in others * 2:
        Book(book.ledger).add("a", **own)
    book.add("b")

    assert len(query(book.ledger, "SELECT * FROM current_content")) == 5


def test_current_content_of_a_cached_row_is_its_sources_text_and_age(book: Book) -> None:
    written = datetime(2026, 1, 1, tzinfo=UTC)
    source = book.add("a", output={"n": 1}, created_at=written)
    reused = Book(book.ledger).reuse("a", source, created_at=datetime(2026, 1, 11, tzinfo=UTC))

    (found,) = query(book.ledger, "SELECT * FROM current_content")

    assert (found["generation_id"], found["written_by_generation_id"]) == (reused, source)
    assert output_of(found) == {"n": 1}
    assert str(found["written_at"]).startswith("2026-01-01")
    assert str(found["confirmed_at"]).startswith("2026-01-11")
    assert found["age_days"] == pytest.approx((datetime.now(UTC) - written).total_seconds() / 86400, abs=0.01)


def test_usage_by_day_is_the_sum_of_the_attempts(book: Book) -> None:
    other = Book(book.ledger, flow="other")
    for each, hour in ((book, 23), (book, 23), (other, 12)):
        key = new_id()
        each.add(key, settled={"cost_usd": Decimal("0.1"), "cache_read_tokens": 3})
        when = datetime(2026, 3, 1, hour, 30, tzinfo=UTC)
        with book.ledger.begin() as connection:
            connection.execute(
                text("UPDATE attempts SET started_at = :w WHERE prompt_hash = :p"), {"w": _sql(when), "p": sha(key)}
            )
    book.add("dropped", settled={"error_type": "timeout", "cost_usd": None, "input_tokens": None, "model": None})
    book.add("never sent", settled={"error_type": "connect", "cost_usd": None, "input_tokens": None, "model": None})

    days = query(book.ledger, "SELECT * FROM usage_by_day WHERE model IS NOT NULL ORDER BY flow")

    assert [(str(day["day"]), day["flow"], day["requests"]) for day in days] == [
        ("2026-03-01", "other", 1),
        ("2026-03-01", "product_copy", 2),
    ]
    assert [Decimal(str(day["cost_usd"])) for day in days] == [Decimal("0.1"), Decimal("0.2")]
    everything = query(book.ledger, "SELECT * FROM usage_by_day WHERE flow = 'product_copy'")
    whole = usage(book.ledger, book.run_id)
    assert sum(day["requests"] for day in everything) == whole.requests == 3
    assert sum(day["perhaps_billed"] for day in everything) == whole.perhaps_billed == 1
    assert sum(day["cache_read_tokens"] for day in everything) == whole.cache_read_tokens == 6


def _sql(moment: datetime) -> str:
    return moment.isoformat(" ")


def test_sums_of_money_show_no_dust_of_doubles(book: Book) -> None:
    for number in range(3):
        book.add(str(number), settled={"cost_usd": Decimal("0.1")})

    (day,) = query(book.ledger, "SELECT cost_usd FROM usage_by_day")

    assert Decimal(str(day["cost_usd"])) == Decimal("0.3")


@pytest.mark.parametrize("join", ["JOIN", "LEFT JOIN"])
def test_join_with_a_table_of_ones_own_reads_by_index(book: Book, join: str) -> None:
    batch = WriteBatch()
    for number in range(3000):
        book.generation(batch, f"SKU-{number}")
    write(book.ledger, batch)
    with book.ledger.begin() as connection:
        connection.execute(text("CREATE TABLE products (sku VARCHAR(50) PRIMARY KEY)"))
        connection.execute(text("INSERT INTO products SELECT record_key FROM generations"))
    asked = (
        f"SELECT p.sku, c.output FROM products p {join} current_content c ON c.record_key = p.sku "
        "AND c.flow = 'product_copy' AND c.step = 'product_copy' AND c.endpoint = 'sandbox'"
    )
    # It takes seconds to minutes if SQLite computes the whole view, or if PostgreSQL has no statistics yet.
    began = time.monotonic()
    assert len(query(book.ledger, asked)) == 3000
    assert time.monotonic() - began < 3
    with book.ledger.begin() as connection:
        connection.execute(text("ANALYZE"))
    plan = "EXPLAIN QUERY PLAN" if book.ledger.dialect.name == "sqlite" else "EXPLAIN"
    steps = [str(list(row.values())[-1]) for row in query(book.ledger, f"{plan} {asked} WHERE p.sku = 'SKU-7'")]
    by_key = "SEARCH c USING PRIMARY KEY" if book.ledger.dialect.name == "sqlite" else "pk_content"
    assert any(by_key in step for step in steps)
    assert not any("MATERIALIZE" in step or "Seq Scan on content" in step for step in steps)


# Shards


def test_run_counts_what_its_shards_did_while_it_was_running(book: Book) -> None:
    shard = Book(book.ledger, parent_run_id=book.run_id)
    answered, refused = shard.add("a"), shard.add("b", status="refused", output=None, error_kind="refusal")
    book.reuse("a", answered)
    book.reuse("a again", answered)
    book.reuse("b", refused, status="refused")
    book.add("c")
    assert shards_of(book.ledger, book.run_id) == [shard.run_id]
    counts = {(line.status, line.origin): line.count for line in count_generations(book.ledger, book.run_id)}
    assert counts == {("succeeded", "live"): 2, ("succeeded", "cache"): 1, ("refused", "live"): 1}
    assert usage(book.ledger, book.run_id).requests == 3
    assert usage(book.ledger, shard.run_id).requests == 2
    assert not cost_reused(book.ledger, book.run_id)
    assert [line.id for line in run_lines(book.ledger)] == [book.run_id]


def test_shard_that_a_run_finds_running_is_its_own_and_an_ended_one_is_not(book: Book) -> None:
    flow_run = new_id()
    times = [datetime(2026, 3, 1, hour, tzinfo=UTC) for hour in range(5)]
    crashed = Book(book.ledger, prefect_flow_run_id=flow_run, started_at=times[0], ended_at=times[2])
    early = Book(book.ledger, parent_run_id=crashed.run_id, started_at=times[0], ended_at=times[1])
    living = Book(book.ledger, parent_run_id=crashed.run_id, started_at=times[0], ended_at=times[4])
    again = Book(book.ledger, prefect_flow_run_id=flow_run, started_at=times[3], resumes_run_id=crashed.run_id)
    own = Book(book.ledger, parent_run_id=again.run_id, started_at=times[3])
    assert shards_of(book.ledger, again.run_id) == [living.run_id, own.run_id]
    assert shards_of(book.ledger, crashed.run_id) == [early.run_id, living.run_id]
    assert shards_of(book.ledger, book.run_id) == []


def test_view_counts_unsent_and_perhaps_billed_requests_as_the_readers_do(ledger: Engine) -> None:
    book = Book(ledger)
    for kind in (*UNSENT, *PERHAPS_BILLED, "rate_limit_error"):
        book.add(kind, settled={"error_type": kind, "input_tokens": None, "output_tokens": None, "cost_usd": None})
    with ledger.connect() as connection:
        row = connection.execute(text("SELECT sum(requests) AS n, sum(perhaps_billed) AS p FROM usage_by_day")).one()
    assert (row.n, row.p) == (len(PERHAPS_BILLED) + 1, len(PERHAPS_BILLED))
