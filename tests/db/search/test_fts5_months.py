"""Numbers of generations in SQLite's index: the newest first, also within a millisecond."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine

from db.search.fts5_months import add_to_month, create_month, known_in_month, newest_in_month, number_of
from db.search.tokens import parse_query

MONTH = 202611
QUERY = parse_query("red")


def id_of(milliseconds: int, middle: int, end: int) -> str:
    digits = f"{0x019F717822D5 + milliseconds:012x}7{middle:03x}8000{end:012x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@pytest.fixture
def month() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        create_month(connection, MONTH)
        yield connection
    engine.dispose()


def all_pages(connection: Connection, size: int) -> list[str]:
    found: list[str] = []
    while True:
        page = newest_in_month(connection, MONTH, QUERY, found[-1] if found else None, size)
        found += page
        if len(page) < size:
            return found


def test_ids_with_the_same_number_are_all_found() -> None:
    assert number_of(id_of(0, 1, 5)) == number_of(id_of(0, 2, 5)) == number_of(id_of(0, 3, 5 + (1 << 22)))


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_pages_are_newest_first_whatever_the_order_of_indexing(month: Connection, size: int) -> None:
    # Many of one millisecond, some with the same number, one with the last number of its millisecond.
    ids = [id_of(moment, middle, end) for moment in (0, 1, 5) for middle in (1, 2, 3) for end in (0, 9, 0x3FFFFF)]
    for start in (2, 0, 1):
        add_to_month(month, MONTH, dict.fromkeys(ids[start::3], " red "))

    assert all_pages(month, size) == sorted(ids, reverse=True)
    assert known_in_month(month, MONTH, [*ids, id_of(9, 9, 9)]) == set(ids)
