"""A record's current outcome, and the outcome that its run already has, decide whether history is written."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine

from db.clock import new_id
from db.ledger.ranges import divide
from db.ledger.rows import ParentRow, WriteBatch
from db.ledger.writing import write
from db.readers.look_up import PromptHistory
from db.readers.what_stands import Failing, OwnOutcome, Standing, read_own_outcomes, read_standing
from tests.db.rows import Book, settled_row, sha
from tests.db.test_run_lines import counted

STEP = "product_copy"
NO_ANSWER = dict.fromkeys(("http_status", "model", "input_tokens", "output_tokens", "cost_usd"))
FAILED: dict[str, Any] = {"status": "failed", "output": None, "output_hash": None, "error_kind": "timeout"}


def standing(ledger: Engine, *keys: str, with_parents: bool = False) -> dict[str, Standing]:
    return read_standing(ledger, STEP, STEP, "sandbox", keys, with_parents=with_parents)


def answer(source_id: str, record_hash: str) -> PromptHistory:
    return PromptHistory(source_id, '{"title":"About a"}', sha("About a"), record_hash)


def own(book: Book, *keys: str) -> dict[str, OwnOutcome]:
    return read_own_outcomes(book.ledger, book.run_id, STEP, keys, with_parents=False)


# The current outcome


def test_newest_content_is_current_and_names_who_wrote_its_text(ledger: Engine) -> None:
    source = Book(ledger).add("a")
    reused = Book(ledger).reuse("a", source, record='{"n":2}', template_hash=sha("newer"))
    for place in ({"flow": "other"}, {"endpoint": "anthropic"}):
        Book(ledger, **place).add("a")
    Book(ledger).add("a", step="other")

    assert standing(ledger, "a", "none") == {
        "a": Standing(
            reused, source, sha('{"n":2}'), sha("newer"), frozenset(), None, sha("a"), answer(source, sha('{"n":2}'))
        )
    }


def test_failure_after_the_content_has_the_hashes_it_was_made_from(ledger: Engine) -> None:
    source = Book(ledger).add("a")
    failed = Book(ledger).add("a", **FAILED, error_message="No answer.", record='{"n":2}')
    never = Book(ledger).add("b", **FAILED, record='{"n":2}')

    found = standing(ledger, "a", "b")

    failure = Failing(failed, "failed", "timeout", "No answer.", sha('{"n":2}'), sha("template"))
    made_from = (sha("{}"), sha("template"), frozenset[str]())
    assert found["a"] == Standing(source, source, *made_from, failure, sha("a"), answer(source, sha("{}")))
    assert found["b"].generation_id is found["b"].written_by is found["b"].record_hash is None
    assert found["b"].answer is None
    assert found["b"].failing == Failing(never, "failed", "timeout", None, sha('{"n":2}'), sha("template"))
    Book(ledger).reuse("a", source)
    assert standing(ledger, "a")["a"].failing is None


def test_parents_are_those_of_the_current_content(book: Book) -> None:
    parents = [book.add(key, step="other") for key in "ab"]
    batch = WriteBatch()
    child = book.generation(batch, "", record_hash=None)
    batch.parents += [ParentRow(child, parent) for parent in parents]
    write(book.ledger, batch)
    alone = book.add("alone")

    found = standing(book.ledger, "", "alone", with_parents=True)

    assert found[""].parents == frozenset(parents)
    assert (found["alone"].generation_id, found["alone"].parents) == (alone, frozenset())
    assert standing(book.ledger, "")[""].parents == frozenset()


def test_page_of_records_takes_few_statements(book: Book) -> None:
    batch = WriteBatch()
    keys = [f"{number:04}" for number in range(1001)]
    for key in keys:
        book.generation(batch, key)
    write(book.ledger, batch)

    with counted(book.ledger) as statements:
        found = standing(book.ledger, *keys[:500], with_parents=True)
        outcomes = own(book, *keys[:500])
    assert (len(found), len(outcomes), len(statements)) == (500, 500, 4)
    assert len(standing(book.ledger, *keys)) == len(own(book, *keys)) == 1001


# The run's own outcomes


def test_outcomes_of_a_run_are_its_generations_and_what_it_confirmed(book: Book) -> None:
    stands, fails = book.add("stands"), book.add("fails", **FAILED)
    later = Book(book.ledger)
    later.confirm("stands", stands)
    later.confirm("fails", fails, status="failed")
    written = later.add("written")
    later.add("elsewhere", step="other")

    assert own(later, "stands", "fails", "written", "elsewhere", "none") == {
        "stands": OwnOutcome(stands, "succeeded", None, sha("{}"), sha("template"), confirmed=True, cached=True),
        "fails": OwnOutcome(fails, "failed", "timeout", sha("{}"), sha("template"), confirmed=True, cached=True),
        "written": OwnOutcome(written, "succeeded", None, sha("{}"), sha("template"), confirmed=False),
    }
    later.close()
    assert set(own(later, "stands", "fails", "written")) == {"written"}


@pytest.mark.parametrize(
    ("settled", "paid"),
    [
        ({}, 1),
        (NO_ANSWER | {"error_type": "timeout"}, 1),
        (NO_ANSWER | {"error_type": "crashed"}, 1),
        (NO_ANSWER | {"error_type": "overloaded_error"}, 0),
        (NO_ANSWER | {"error_type": "not_sent"}, 0),
        # An answer of the wrong endpoint.
        ({"error_type": "wrong_endpoint"}, 1),
    ],
)
@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_record_that_may_be_retried_counts_its_paid_requests(
    book: Book, settled: dict[str, Any], paid: int, status: str
) -> None:
    generation = book.add("a", **FAILED | {"status": status}, settled=NO_ANSWER | {"error_type": "connect"})
    batch = WriteBatch()
    batch.settled.append(settled_row(book.attempt(batch, "a", generation, ordinal=2), **settled))
    write(book.ledger, batch)

    found = own(book, "a")["a"]
    assert (found.generation_id, found.paid) == (generation, paid)
    # Requests of replaced outcomes count too.
    newest = book.add("a", **FAILED | {"status": status}, settled=NO_ANSWER | {"error_type": "timeout"})
    found = own(book, "a")["a"]
    assert (found.generation_id, found.paid) == (newest, paid + 1)


def test_outcome_has_its_parents_if_requested(book: Book) -> None:
    parent = book.add("parent")
    batch = WriteBatch()
    child = book.generation(batch, "child")
    batch.parents.append(ParentRow(child, parent))
    write(book.ledger, batch)
    assert own(book, "child")["child"].parents == frozenset()
    found = read_own_outcomes(book.ledger, book.run_id, STEP, ["child"], with_parents=True)
    assert found["child"].parents == {parent}


def test_key_that_is_only_to_be_done_has_no_outcome(book: Book) -> None:
    divide(book.ledger, book.lease, STEP, [["a"]])
    assert own(book, "a", new_id()) == {}
