"""Batches are written completely, once, and by several writers at the same time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any, cast

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, StatementError

from db.clock import new_id, now
from db.columns import Base
from db.ledger.connecting import open_ledger
from db.ledger.lifecycle import begin_or_resume, close_run
from db.ledger.refused_rows import RefusedRow, in_words
from db.ledger.rows import OpenedRow, ParentRow, SettledRow, TextRow, WriteBatch, names_of
from db.ledger.writing import write
from db.readers.stored_generations import read_generation
from db.session import is_unavailable
from db.tables import Attempt, Generation, StoredRun, insert_missing
from db.tables.prepared import prepared
from tests.db.rows import Book, run_row, settled_row, sha

NO_ROLLUPS = dict.fromkeys(("rolled_up", "usage_rollup", "outcome_rollup", "prompt_cache_rollup"), 0)


def counts(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {
            name: connection.scalar(select(func.count()).select_from(table)) or 0
            for name, table in Base.metadata.tables.items()
        }


def counts_of(engine: Engine, table: str) -> int:
    ((count,),) = rows(engine, f"SELECT count(*) FROM {table}")
    return int(count)


def rows(engine: Engine, statement: str) -> list[Sequence[Any]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def whole_batch(book: Book, keys: Sequence[str]) -> WriteBatch:
    batch = WriteBatch()
    batch.texts[sha("system")] = TextRow(sha("system"), "system")
    for key in keys:
        generation_id = book.generation(batch, key, record=key, id=new_id())
        batch.settled.append(settled_row(book.attempt(batch, key, generation_id)))
    first = batch.generations[0].id
    batch.parents += [ParentRow(row.id, first) for row in batch.generations[1:]]
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
        "leases": 1,
        "run_steps": 0,
        "working_rows": 0,
        "content": 3,
        **NO_ROLLUPS,
    }


def test_batch_written_twice_is_there_once(book: Book) -> None:
    # A commit whose reply was lost is repeated.
    batch = whole_batch(book, ["a", "b"])
    write(book.ledger, batch)
    before = counts(book.ledger)
    write(book.ledger, batch)

    assert counts(book.ledger) == before


def test_batch_that_fails_leaves_nothing(book: Book) -> None:
    before = counts(book.ledger)
    batch = whole_batch(book, ["a"])
    batch.parents.append(ParentRow(batch.generations[0].id, "nobody"))

    with pytest.raises(IntegrityError):
        write(book.ledger, batch)
    assert counts(book.ledger) == before


def test_empty_batch_writes_nothing(book: Book) -> None:
    write(book.ledger, WriteBatch())

    assert counts(book.ledger)["generations"] == 0


@pytest.mark.parametrize(
    ("column", "value"),
    [("status", "perfect"), ("origin", "dream"), ("run_id", "nobody"), ("record_hash", "nothing")],
)
def test_row_with_an_unknown_word_or_reference_is_refused(book: Book, column: str, value: str) -> None:
    batch = WriteBatch()
    book.generation(batch, "a", **{column: value})

    with pytest.raises(IntegrityError):
        write(book.ledger, batch)


def test_attempt_is_there_before_its_answer(book: Book) -> None:
    batch = WriteBatch()
    attempt_id = book.attempt(batch, "a", new_id())
    write(book.ledger, batch)
    assert rows(book.ledger, "SELECT id, ended_at, cost_usd FROM attempts") == [(attempt_id, None, None)]

    write(book.ledger, WriteBatch(settled=[settled_row(attempt_id)]))
    ((_, ended_at, cost),) = rows(book.ledger, "SELECT id, ended_at, cost_usd FROM attempts")
    assert ended_at is not None
    assert Decimal(str(cost)) == Decimal("0.01")


def test_attempt_is_settled_once(book: Book) -> None:
    book.add("a", settled={"cost_usd": Decimal("0.01")})
    with book.ledger.connect() as connection:
        attempt_id = connection.scalar(select(Attempt.id))
    assert attempt_id is not None

    write(book.ledger, WriteBatch(settled=[settled_row(attempt_id, cost_usd=Decimal(9), error_type="timeout")]))
    with book.ledger.connect() as connection:
        assert connection.execute(select(Attempt.cost_usd, Attempt.error_type)).one() == (Decimal("0.01"), None)


def test_settling_sets_all_that_was_not_known_before() -> None:
    columns = set(Base.metadata.tables["attempts"].columns.keys())

    assert columns - set(names_of(SettledRow)) == {
        *"id run_id prompt_hash generation_id ordinal kind request_changes started_at likely_cost_usd lease_id".split(),
    }


def test_row_without_one_of_its_values_is_refused_and_not_written_as_null(ledger: Engine) -> None:
    insert = prepared(insert_missing("attempts", ledger.dialect.name), ledger.dialect.name, names_of(OpenedRow))
    with ledger.begin() as connection, pytest.raises(StatementError, match="A value is required for bind parameter"):
        connection.execute(insert, {"id": new_id()})


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


def test_missing_output_is_null_in_queries(book: Book) -> None:
    book.add("a", status="invalid", output=None, output_hash=None)

    assert rows(book.ledger, "SELECT record_key FROM generations WHERE output IS NULL") == [("a",)]


def test_over_long_texts_of_an_endpoint_block_no_answer(book: Book) -> None:
    long = "x" * 5000
    said = dict.fromkeys(("request_id", "message_id", "model", "stop_reason", "service_tier", "error_type"), long)

    book.add("a", settled=said, error_kind=long, error_message=long)

    assert rows(book.ledger, "SELECT request_id FROM attempts") == [(long,)]


def test_run_that_closes_settles_what_it_never_sent(book: Book) -> None:
    batch = WriteBatch()
    book.attempt(batch, "a", new_id())
    write(book.ledger, batch)
    book.add("b")

    close_run(book.ledger, book.lease, "completed", now())

    assert rows(book.ledger, "SELECT error_type FROM attempts ORDER BY id") == [("not_sent",), (None,)]
    with book.ledger.connect() as connection:
        status, ended_at = connection.execute(select(StoredRun.status, StoredRun.ended_at)).one()
    assert status == "completed"
    assert ended_at is not None


def test_run_of_an_unknown_status_is_refused(book: Book) -> None:
    with pytest.raises(IntegrityError):
        Book(book.ledger, status="splendid")


def test_writers_at_the_same_time_lose_nothing(ledger: Engine) -> None:
    url = ledger.url.render_as_string(hide_password=False)

    def work(writer: int) -> None:
        engine = open_ledger(url)
        book = Book(engine)
        for part in range(5):
            # All write the same records, each in a different order: they must not deadlock.
            batch = WriteBatch()
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
        "leases": 4,
        "run_steps": 0,
        "working_rows": 0,
        # Four runs of one flow write the same hundred records.
        "content": 100,
        **NO_ROLLUPS,
    }


# Rows that the ledger refuses

BAD_TEXT, BAD_NUMBER = "half a pair: \ud800", 2**70


def of_table(ledger: Engine, table: str) -> dict[str, dict[str, Any]]:
    with ledger.connect() as connection:
        found = connection.execute(select(Base.metadata.tables[table])).mappings()
        return {str(row["id"]): dict(row) for row in found}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"output_text": BAD_TEXT}, {"output_text": "half a pair: \ufffd"}),
        ({"message_id": BAD_TEXT}, {"message_id": "half a pair: \ufffd"}),
        ({"input_tokens": BAD_NUMBER}, {"input_tokens": None, "output_tokens": 100}),
        ({"validation_errors": [{BAD_TEXT: BAD_NUMBER}]}, {"validation_errors": [{"half a pair: \ufffd": str(2**70)}]}),
    ],
)
def test_refused_value_is_left_out_and_what_it_cost_stays(
    book: Book, value: dict[str, Any], kept: dict[str, Any]
) -> None:
    batch = whole_batch(book, [str(number) for number in range(40)])
    batch.settled[17] = replace(batch.settled[17], **value)
    spoiled = batch.settled[17].attempt_id
    refused: list[RefusedRow] = []
    write(book.ledger, batch, refused=refused)

    (found,) = refused
    (column,) = value
    assert (type(found.row), found.id, found.column) == (SettledRow, spoiled, column)
    attempts = of_table(book.ledger, "attempts")
    assert attempts[spoiled]["cost_usd"] == Decimal("0.01")
    assert attempts[spoiled]["stop_reason"] == "end_turn"
    assert {name: attempts[spoiled][name] for name in kept} == kept
    assert sum(row["output_tokens"] == 100 for row in attempts.values()) == 40
    assert len(of_table(book.ledger, "generations")) == 40


@pytest.mark.parametrize("output", [{"t": BAD_TEXT}, {BAD_TEXT: 1}, [BAD_NUMBER]])
def test_generation_that_the_ledger_refuses_is_failed_and_the_others_are_written(book: Book, output: Any) -> None:
    batch = whole_batch(book, [str(number) for number in range(1000)])
    for spoiled in (3, 500, 999):
        batch.generations[spoiled] = replace(batch.generations[spoiled], output=output)
    refused: list[RefusedRow] = []
    write(book.ledger, batch, refused=refused)

    assert [found.id for found in refused] == [batch.generations[number].id for number in (3, 500, 999)]
    assert all(found.failure for found in refused)
    generations = of_table(book.ledger, "generations")
    assert Counter(row["status"] for row in generations.values()) == {"succeeded": 997, "failed": 3}
    failed = generations[refused[0].id]
    assert (failed["error_kind"], failed["output"], failed["output_hash"]) == ("refused_by_ledger", None, None)
    assert "the column 'output'" in failed["error_message"]
    assert failed["record_hash"] == batch.generations[3].record_hash
    assert counts(book.ledger)["attempts"] == 1000


def test_generation_that_repeats_a_refused_one_has_no_content_either(book: Book) -> None:
    batch = WriteBatch()
    leader = book.generation(batch, "a", output={"t": BAD_TEXT})
    book.generation(batch, "b", output=None, origin="cache", source_generation_id=leader)
    book.generation(batch, "c")
    write(book.ledger, batch, refused=[])

    assert rows(book.ledger, "SELECT record_key, status FROM generations ORDER BY 1") == [
        ("a", "failed"),
        ("b", "failed"),
        ("c", "succeeded"),
    ]


def test_record_that_is_missing_costs_no_content(book: Book) -> None:
    batch = WriteBatch()
    book.generation(batch, "a", record_hash="of nothing")
    book.generation(batch, "b")
    write(book.ledger, batch, refused=[])

    assert rows(book.ledger, "SELECT record_key, status, record_hash IS NULL FROM generations ORDER BY 1") == [
        ("a", "succeeded", 1),
        ("b", "succeeded", 0),
    ]


def test_rows_that_refer_to_a_missing_row_are_left_out_too(book: Book) -> None:
    batch = whole_batch(book, ["a", "b"])
    batch.opened[0] = replace(batch.opened[0], kind=cast("Any", "guess"))
    batch.parents.append(ParentRow(batch.generations[0].id, "nobody"))
    refused: list[RefusedRow] = []
    write(book.ledger, batch, refused=refused)

    assert [(type(found.row), found.written) for found in refused] == [(OpenedRow, None), (ParentRow, None)]
    assert counts(book.ledger)["attempts"] == 1
    assert counts(book.ledger)["generation_parents"] == 1


@pytest.mark.parametrize("keys", [["a"], ["a", "b", "c"]])
def test_ledger_that_accepts_no_row_at_all_is_an_error_and_not_bad_rows(book: Book, keys: list[str]) -> None:
    batch = whole_batch(book, keys)
    batch.opened = [replace(row, run_id="a run of another ledger") for row in batch.opened]
    batch.generations = [replace(row, run_id="a run of another ledger") for row in batch.generations]
    batch.settled.clear()
    refused: list[RefusedRow] = []
    with pytest.raises(IntegrityError):
        write(book.ledger, batch, refused=refused)

    assert refused == []
    assert counts(book.ledger)["generations"] == 0


def test_statement_that_fails_is_an_error_and_not_a_bad_row(book: Book) -> None:
    batch = whole_batch(book, ["a"])
    with book.ledger.begin() as connection:
        connection.execute(text("ALTER TABLE generation_parents RENAME TO elsewhere"))
    batch.parents.append(ParentRow(batch.generations[0].id, batch.generations[0].id))
    with pytest.raises(DBAPIError, match="generation_parents"):
        write(book.ledger, batch, refused=[])
    assert counts_of(book.ledger, "generations") == 0


def test_disk_that_is_full_while_refused_rows_are_found_is_named(book: Book) -> None:
    if book.ledger.dialect.name != "sqlite":
        pytest.skip("SQLite ends the whole transaction if its disk is full")
    batch = whole_batch(book, ["a", "b", "c", "d"])
    large = [replace(row, output={"t": "x" * 200_000}) for row in batch.generations[1:]]
    batch.generations = [replace(batch.generations[0], output={"t": BAD_TEXT}), *large]
    with book.ledger.begin() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count = {pages + 30}"))
    with pytest.raises(OperationalError, match="database or disk is full") as raised:
        write(book.ledger, batch, refused=[])

    assert is_unavailable(raised.value)
    assert counts(book.ledger)["generations"] == 0


def test_message_of_a_refused_row_quotes_no_value(book: Book) -> None:
    batch = whole_batch(book, ["a", "b"])
    private: Any = "PRIVATE words of a customer"
    batch.settled[0] = replace(batch.settled[0], input_tokens=private)
    batch.generations[0] = replace(batch.generations[0], record_hash=private, status=private)
    refused: list[RefusedRow] = []
    write(book.ledger, batch, refused=refused)

    assert refused
    assert "PRIVATE" not in in_words(refused)


def test_parameters_that_json_can_not_hold_are_cleaned(ledger: Engine) -> None:
    odd = {"name": "a\x00b\ud800", "count": 2**70}
    Book(ledger, parameters=odd, code_version="v" * 300, deployment="d" * 300)

    with ledger.connect() as connection:
        assert connection.scalar(select(StoredRun.parameters)) == {"name": "a\x00b\ufffd", "count": str(2**70)}


def test_run_whose_commit_got_its_reply_too_late_is_there_once(ledger: Engine) -> None:
    row = run_row()
    begin_or_resume(ledger, row, "lease")
    begin_or_resume(ledger, row, "lease")

    assert counts(ledger)["runs"] == 1
