"""All statements of a reading have one time limit together."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from db.database_errors import TooSlowError
from db.timed_reads import open_reader, reading


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
        with reading(0.1), reader.connect() as connection:
            connection.execute(text("SELECT 1"))
        with reader.connect() as connection:
            connection.execute(text("SELECT pg_sleep(0.2)"))
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
