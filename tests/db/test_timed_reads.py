"""All statements of a reading have one time limit together."""

from __future__ import annotations

import pytest
from sqlalchemy import BindParameter, Engine, Text, bindparam, column, select, table, text

from db.database_errors import TooSlowError
from db.timed_reads import open_reader, reading

NAMES: BindParameter[str] = bindparam("names", expanding=True)


def test_statements_of_one_transaction_share_the_time_limit(new_postgres: str) -> None:
    reader = open_reader(new_postgres)
    try:
        with pytest.raises(TooSlowError, match="was stopped"):
            sleep_twice(reader)
    finally:
        reader.dispose()


def sleep_twice(reader: Engine) -> None:
    with reading(0.6), reader.connect() as connection:
        for _statement in range(2):
            connection.execute(text("SELECT pg_sleep(0.4)"))


def test_statement_after_a_reading_has_no_limit(new_postgres: str) -> None:
    reader = open_reader(new_postgres)
    try:
        reader.connect().close()  # a first connection takes longer
        with reading(1), reader.connect() as connection:
            connection.execute(text("SELECT 1"))
        with reader.connect() as connection:
            connection.execute(text("SELECT pg_sleep(1.5)"))
    finally:
        reader.dispose()


def test_streamed_rows_are_read_within_the_limit(new_postgres: str) -> None:
    reader = open_reader(new_postgres)
    try:
        with reading(60), reader.connect().execution_options(yield_per=10) as connection:
            rows = connection.execute(text("SELECT generate_series(1, 25)"))
            assert [row[0] for row in rows] == list(range(1, 26))
    finally:
        reader.dispose()


def test_statement_that_is_made_once_is_shown_with_the_values_of_this_read(sqlite_ledger_url: str) -> None:
    statement = select(column("name", Text)).select_from(table("sqlite_master")).where(column("name", Text).in_(NAMES))
    statement = statement.where(column("type", Text) == bindparam("kind"))
    reader = open_reader(sqlite_ledger_url)
    try:
        with reading() as found, reader.connect() as connection:
            for names in (["runs", "it's"], ["attempts"]):
                connection.execute(statement, {"names": names, "kind": "table"})
    finally:
        reader.dispose()
    written = [" ".join(each.split()) for each in found.statements()]
    shown = "SELECT name FROM sqlite_master WHERE name IN ({}) AND type = 'table'"
    assert written == [shown.format("'runs', 'it''s'"), shown.format("'attempts'")]
