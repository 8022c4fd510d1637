"""What happened goes into the ledger whole, once, and from several writers at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import IntegrityError

from db.history import read_generation
from db.models import Attempt, Base, Generation, Run, new_id, now
from db.record import SETTLED, Batch, close_run, write
from db.session import open_ledger
from tests.db.rows import Book, run_row, settled_row, sha


def counts(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {
            name: connection.scalar(select(func.count()).select_from(table)) or 0
            for name, table in Base.metadata.tables.items()
        }


def rows(engine: Engine, statement: str) -> list[Sequence[Any]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def whole_batch(book: Book, keys: Sequence[str]) -> Batch:
    batch = Batch()
    batch.texts[sha("system")] = {"hash": sha("system"), "body": "system"}
    for key in keys:
        generation_id = book.generation(batch, key, record=key, id=new_id())
        batch.settled.append(settled_row(book.attempt(batch, key, generation_id)))
    first = str(batch.generations[0]["id"])
    batch.parents += [{"generation_id": row["id"], "parent_id": first} for row in batch.generations[1:]]
    return batch


def test_batch_is_written_whole(book: Book) -> None:
    write(book.ledger, whole_batch(book, ["a", "b", "c"]))

    assert counts(book.ledger) == {
        "runs": 1,
        "templates": 1,
        "texts": 1,
        "records": 3,
        "prompts": 3,
        "generations": 3,
        "generation_parents": 2,
        "attempts": 3,
        "claims": 0,
    }


def test_batch_written_twice_is_there_once(book: Book) -> None:
    # A commit whose answer was lost on the way is simply written again.
    batch = whole_batch(book, ["a", "b"])
    write(book.ledger, batch)
    before = counts(book.ledger)
    write(book.ledger, batch)

    assert counts(book.ledger) == before


def test_batch_that_fails_leaves_nothing(book: Book) -> None:
    before = counts(book.ledger)
    batch = whole_batch(book, ["a"])
    batch.parents.append({"generation_id": batch.generations[0]["id"], "parent_id": "nobody"})

    with pytest.raises(IntegrityError):
        write(book.ledger, batch)
    assert counts(book.ledger) == before


def test_empty_batch_writes_nothing(book: Book) -> None:
    write(book.ledger, Batch())

    assert counts(book.ledger)["generations"] == 0


@pytest.mark.parametrize(
    ("column", "value"),
    [("status", "perfect"), ("origin", "dream"), ("run_id", "nobody"), ("record_hash", "nothing")],
)
def test_row_that_means_nothing_is_refused(book: Book, column: str, value: str) -> None:
    batch = Batch()
    book.generation(batch, "a", **{column: value})

    with pytest.raises(IntegrityError):
        write(book.ledger, batch)


def test_attempt_is_there_before_its_answer(book: Book) -> None:
    batch = Batch()
    attempt_id = book.attempt(batch, "a", new_id())
    write(book.ledger, batch)
    assert rows(book.ledger, "SELECT id, ended_at, cost_usd FROM attempts") == [(attempt_id, None, None)]

    write(book.ledger, Batch(settled=[settled_row(attempt_id)]))
    ((_, ended_at, cost),) = rows(book.ledger, "SELECT id, ended_at, cost_usd FROM attempts")
    assert ended_at is not None
    assert Decimal(str(cost)) == Decimal("0.01")


def test_attempt_is_settled_once(book: Book) -> None:
    book.add("a", settled={"cost_usd": Decimal("0.01")})
    with book.ledger.connect() as connection:
        attempt_id = connection.scalar(select(Attempt.id))
    assert attempt_id is not None

    write(book.ledger, Batch(settled=[settled_row(attempt_id, cost_usd=Decimal(9), error_type="timeout")]))
    with book.ledger.connect() as connection:
        assert connection.execute(select(Attempt.cost_usd, Attempt.error_type)).one() == (Decimal("0.01"), None)


def test_settling_sets_all_that_was_not_known_before() -> None:
    columns = set(Base.metadata.tables["attempts"].columns.keys())

    assert columns - set(SETTLED) == {
        *"id run_id prompt_hash generation_id ordinal kind request_changes started_at likely_cost_usd".split(),
    }


def test_one_record_has_one_row_however_often_it_is_read(book: Book) -> None:
    first = book.add("a", record='{"id":1}')
    book.add("b", record='{"id":1}', prompt="other")

    assert counts(book.ledger)["records"] == 1
    found = read_generation(book.ledger, first)
    assert found is not None
    assert found.record == '{"id":1}'


@pytest.mark.parametrize("output", [{"t": "a\x00b ☕ 日本"}, {"n": [1, 2.5, None, True]}, "text", ["a"], 0, False])
def test_output_comes_back_as_it_was(book: Book, output: Any) -> None:
    generation_id = book.add("a", output=output)
    with book.ledger.connect() as connection:
        assert connection.scalar(select(Generation.output).where(Generation.id == generation_id)) == output


def test_output_of_nothing_is_null_to_those_who_query(book: Book) -> None:
    book.add("a", status="invalid", output=None, output_hash=None)

    assert rows(book.ledger, "SELECT record_key FROM generations WHERE output IS NULL") == [("a",)]


def test_over_long_words_of_an_endpoint_keep_no_answer_out(book: Book) -> None:
    long = "x" * 5000
    said = dict.fromkeys(("request_id", "message_id", "model", "stop_reason", "service_tier", "error_type"), long)

    book.add("a", settled=said, error_kind=long, error_message=long)

    assert rows(book.ledger, "SELECT request_id FROM attempts") == [(long,)]


def test_run_that_closes_settles_what_it_never_sent(book: Book) -> None:
    batch = Batch()
    book.attempt(batch, "a", new_id())
    write(book.ledger, batch)
    book.add("b")

    close_run(book.ledger, book.run_id, "completed", now())

    assert rows(book.ledger, "SELECT error_type FROM attempts ORDER BY id") == [("not_sent",), (None,)]
    with book.ledger.connect() as connection:
        status, ended_at = connection.execute(select(Run.status, Run.ended_at)).one()
    assert status == "completed"
    assert ended_at is not None


def test_run_of_an_unknown_status_is_refused(book: Book) -> None:
    with pytest.raises(IntegrityError):
        Book(book.ledger, **run_row(status="splendid"))


def test_writers_at_the_same_time_lose_nothing(ledger: Engine) -> None:
    url = ledger.url.render_as_string(hide_password=False)

    def work(writer: int) -> None:
        engine = open_ledger(url)
        book = Book(engine)
        for part in range(5):
            # The same records from all, in an order of each one's own: they must not wait in a circle.
            batch = Batch()
            for number in range(20):
                key = f"{(number * (writer + 1) * 7) % 20}"
                generation_id = book.generation(batch, f"{part}/{number}", record=key, id=new_id())
                batch.settled.append(settled_row(book.attempt(batch, key, generation_id)))
            write(engine, batch)
        engine.dispose()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))

    assert counts(ledger) | {"claims": 0} == {
        "runs": 4,
        "templates": 1,
        "texts": 0,
        "records": 20,
        "prompts": 20,
        "generations": 400,
        "generation_parents": 0,
        "attempts": 400,
        "claims": 0,
    }
