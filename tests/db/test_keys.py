"""A key is one text of one or several columns, the same wherever it is made, and it finds its record again."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from datetime import date

import pytest
from sqlalchemy import Engine, create_engine, text

from db.sources.access import open_source
from db.sources.select import read_record
from db.sources.statements import Query
from db.sources.values import joined_key, key_of, split_key

ODD = ["", "a", "|", "\\", "\\|", "|\\", "a|b", "a\\", "\\\\", "☕", "\n"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_joined_key_is_taken_apart_again(count: int) -> None:
    parts = [list(found) for found in itertools.product(ODD, repeat=count)]

    keys = [joined_key(found) for found in parts]

    assert [split_key(key, count) for key in keys] == parts
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("key", ["a", "a|b|c", "a|b\\", "a\\x|b", "a|b\\x"])
def test_text_that_is_no_key_of_two_columns_gives_none(key: str) -> None:
    assert split_key(key, 2) is None


def test_random_text_is_taken_apart_or_is_no_key() -> None:
    rng = random.Random(8)
    for _time in range(5000):
        key = "".join(rng.choice("a|\\") for _ in range(rng.randint(0, 8)))
        parts = split_key(key, 2)
        assert parts is None or joined_key(parts) == key


def test_blanks_of_char_columns_alone_are_trimmed() -> None:
    assert key_of(["a  "], [True]) == "a"
    assert key_of(["a  "], [False]) == "a  "
    assert key_of(["a  ", "b  ", 7], [True, False, False]) == "a|b  |7"
    assert key_of(["\ta\n "], [True]) == "\ta\n"


@pytest.fixture
def lines(source_database_url: str) -> Iterator[Engine]:
    """Order lines on each database; PostgreSQL's depots are CHAR(9)."""
    made = create_engine(source_database_url)
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE order_lines (depot CHAR(9), line INT, shipped DATE, name VARCHAR(9))"))
        for depot, line in [("a|b", 1), ("a|b", 2), ("a", 1), ("back\\", 1)]:
            connection.execute(
                text("INSERT INTO order_lines VALUES (:depot, :line, '2026-03-01', :name)"),
                {"depot": depot, "line": line, "name": f"{depot} {line}"},
            )
    made.dispose()
    engine = open_source(source_database_url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (r"a\|b|2026-03-01|2", "a|b 2"),
        ("a|2026-03-01|1", "a 1"),
        (r"back\\|2026-03-01|1", "back\\ 1"),
        (r"a\|b|2026-03-01|3", None),
        ("a|b|2", None),
        ("a", None),
        ("a|yesterday|1", None),
        ("a|2026-03-01|one", None),
    ],
)
def test_record_is_found_by_a_key_of_several_columns(
    lines: Engine, key: str, name: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    asked = Query("lines.md.j2", "SELECT * FROM order_lines", ("depot", "shipped", "line"), {})

    found = read_record(lines, asked, key)

    assert (found and found.data["name"]) == name
    assert found is None or found.key == key
    # SQLAlchemy's pool logs a cursor that can't be closed, and that would be on the user's screen.
    assert not caplog.records


@pytest.mark.postgres
@pytest.mark.parametrize("first", ["2026-03-01", "infinity"])
def test_key_that_is_the_databases_own_text_is_found(new_postgres: str, first: str) -> None:
    engine = create_engine(new_postgres)
    with engine.begin() as connection:
        connection.execute(text("CREATE TYPE mood AS ENUM ('calm', 'wild')"))
        connection.execute(text("CREATE TABLE t (until DATE, mood mood, span INT4RANGE)"))
        for until in (first, "infinity" if first != "infinity" else "2026-03-01"):
            connection.exec_driver_sql(f"INSERT INTO t VALUES ('{until}', 'wild', '[1,5)')")
    engine.dispose()
    source = open_source(new_postgres)
    asked = Query("t.md.j2", "SELECT * FROM t", ("until", "mood", "span"), {})

    found = [read_record(source, asked, f"{until}|wild|[1, 5)") for until in ("2026-03-01", "infinity")]

    assert [record and record.data["until"] for record in found] == [str(date(2026, 3, 1)), "infinity"]
    source.dispose()
