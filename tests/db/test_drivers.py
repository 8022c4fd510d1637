"""All values of sources can be read: as a plain value if there is one, else as the database's own text."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from db.sources.access import open_source
from db.sources.drivers import padded_columns
from db.sources.drivers.texts import read_date, read_json, read_moment, read_time
from db.sources.values import make_record
from tests.conftest import drop_postgres_database, new_postgres_database

POSTGRES = {
    # What psycopg raises at.
    "'infinity'::date": "infinity",
    "'-infinity'::timestamp": "-infinity",
    "'infinity'::timestamptz": "infinity",
    "'0044-03-15 BC'::date": "0044-03-15 BC",
    "'0044-03-15 12:00 BC'::timestamp": "0044-03-15 12:00:00 BC",
    "'12026-01-01'::date": "12026-01-01",
    "'12026-01-01 12:00'::timestamp": "12026-01-01 12:00:00",
    "'24:00'::time": "24:00:00",
    "'24:00+05'::timetz": "24:00:00+05",
    "'{2020-01-01,infinity}'::date[]": ["2020-01-01", "infinity"],
    "tstzrange('2020-01-01 02:00+02', 'infinity')": "[2020-01-01 00:00:00+00:00, infinity)",
    "'2000000000 days'::interval": "2000000000 days",
    "'{\"a\": 1e400}'::json": {"a": f"1{'0' * 400}"},
    "('\"' || chr(92) || 'ud800\"')::json": "\ufffd",
    "(repeat('[', 3000) || repeat(']', 3000))::json": "[" * 3000 + "]" * 3000,
    # What it changes.
    "'infinity'::interval": "infinity",
    "'1 year 2 mons 3 days'::interval": "1 year 2 mons 3 days",
    "'178000000 years'::interval": "178000000 years",
    "'{\"a\": [123456789012345678901234567890, 0.1234567890123456789, 1.0]}'::jsonb": {
        "a": ["123456789012345678901234567890", "0.1234567890123456789", 1]
    },
    "ARRAY['[18446744073709551616]'::jsonb]": [["18446744073709551616"]],
    "repeat('9', 5000)::json": "9" * 5000,
    "numrange(1.5, NULL)": "[1.5, )",
    # Arrays of types that it does not know.
    '\'{a,"b c","d,e",NULL}\'::mood[]': ["a", "b c", "d,e", None],
    "'{}'::mood[]": [],
    "'{{a},{a}}'::mood[]": [["a"], ["a"]],
    "ARRAY[1.50::price, 2]": [1.5, 2],
    "ARRAY[1.50::cheap]": [1.5],
    "ARRAY[ROW(1, 'x')::pair]": ["(1,x)"],
    "ARRAY['1/2'::pg_lsn]": ["1/2"],
    # What was right, and stays.
    "'{1,NULL}'::int[]": [1, None],
    "int4range(1, 5)": "[1, 5)",
    "'{[1,3),[5,8)}'::int4multirange": "{[1, 3), [5, 8)}",
    "'empty'::int4range": "empty",
    "'-1 day'::interval": str(timedelta(days=-1)),
    "'12:00'::interval": "12:00:00",
    "'12:30+05'::timetz": "12:30:00+05:00",
    "'a'::mood": "a",
    "ROW(1, 'x')::pair": "(1,x)",
    "'12.34'::money": "$12.34",
    "B'0101'": "0101",
    "'192.168.0.1/24'::inet": "192.168.0.1/24",
    "'08:00:2b:01:02:03'::macaddr": "08:00:2b:01:02:03",
    "'a fat cat'::tsvector": "'a' 'cat' 'fat'",
    "point(1, 2)": "(1,2)",
    "'NaN'::numeric": "NaN",
    "'x'::char(3)": "x  ",
    "'null'::jsonb": None,
}
MARIADB = {
    "CAST('09:30:00' AS TIME)": "09:30:00",
    "CAST('12:30:00.25' AS TIME(2))": "12:30:00.250000",
    "CAST('838:59:59' AS TIME)": "838:59:59",
    "CAST('-12:30:00' AS TIME)": "-12:30:00",
    "CAST('24:00:00' AS TIME)": "24:00:00",
    "CAST('0000-00-00' AS DATE)": "0000-00-00",
    "CAST('0000-00-00 00:00:00' AS DATETIME)": "0000-00-00 00:00:00",
    "CAST(18446744073709551615 AS UNSIGNED)": 18446744073709551615,
    "CAST(1234567890123456789012345678901234.5 AS DECIMAL(65,30))": (f"1234567890123456789012345678901234.5{'0' * 29}"),
    """JSON_OBJECT('a', 1.0)""": '{"a": 1.0}',
    "x'00ff'": "AP8=",
    "b'101'": "BQ==",
}
DUCKDB = {
    "'infinity'::DATE": "infinity",
    "'-infinity'::TIMESTAMP": "-infinity",
    "'infinity'::TIMESTAMPTZ": "infinity",
    "'9999-12-31'::DATE": "9999-12-31",
    "'0044-03-15 (BC)'::DATE": "0044-03-15 (BC)",
    "TIMESTAMP '2026-03-01 12:30:00.5'": "2026-03-01T12:30:00.500000",
    "TIMESTAMPTZ '2026-03-01 12:30+02'": "2026-03-01T10:30:00+00:00",
    "TIMESTAMP_NS '2026-03-01 12:30:00.123456789'": "2026-03-01 12:30:00.123456789",
    "TIMESTAMP_NS '2026-03-01 12:30:00.123456'": "2026-03-01T12:30:00.123456",
    "TIME '24:00'": "24:00:00",
    "INTERVAL '1 month'": "1 month",
    "INTERVAL '1 day 3 hours'": str(timedelta(days=1, hours=3)),
    "INTERVAL '-1 day' - INTERVAL '90 seconds'": str(timedelta(days=-1, seconds=-90)),
    "'{\"a\": [123456789012345678901234567890, 0.1234567890123456789, 1.0]}'::JSON": {
        "a": ["123456789012345678901234567890", "0.1234567890123456789", 1]
    },
    "['infinity'::DATE, NULL]": ["infinity", None],
    "{'a b': 'infinity'::TIMESTAMP, 'c': [INTERVAL '1 month'], 'd': 1.50}": {
        "a b": "infinity",
        "c": ["1 month"],
        "d": 1.5,
    },
    "MAP {DATE '2026-03-01': 'infinity'::DATE}": {"2026-03-01": "infinity"},
    "ARRAY_VALUE(DATE '2026-03-01', NULL)": ["2026-03-01", None],
    "170141183460469231731687303715884105727::HUGEINT": "170141183460469231731687303715884105727",
    "'a'::ENUM('a', 'DATE')": "a",
    "union_value(n := 1.50)": 1.5,
    "'0101'::BIT": "0101",
}
SQLITE = {
    "9223372036854775807": 9223372036854775807,
    "9e999": "inf",
    "x'00ff'": "AP8=",
    "CAST(x'61ff' AS TEXT)": "a\ufffd",
    "json('{\"a\":1.0}')": '{"a":1.0}',
}
OWN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "postgresql": (
        POSTGRES,
        [
            "CREATE TYPE mood AS ENUM ('a', 'b c', 'd,e')",
            "CREATE DOMAIN price AS NUMERIC(10, 2)",
            "CREATE DOMAIN cheap AS price",
            "CREATE TYPE pair AS (a INT, b TEXT)",
        ],
    ),
    "mysql": (MARIADB, []),
    "duckdb": (DUCKDB, []),
    "sqlite": (SQLITE, []),
}


@pytest.fixture
def source(source_database_url: str) -> Iterator[Engine]:
    made = create_engine(source_database_url)
    with made.begin() as connection:
        for statement in OWN[made.dialect.name][1]:
            connection.exec_driver_sql(statement)
        if made.dialect.name == "duckdb":
            connection.exec_driver_sql("CREATE TABLE t (k INT)")
    made.dispose()
    engine = open_source(source_database_url)
    yield engine
    engine.dispose()


def read(engine: Engine, sql: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(sql.replace("%", "%%")).mappings().all()
    return [dict(make_record("k", dict(row)).data) for row in rows]


def test_value_is_what_the_database_holds(source: Engine) -> None:
    expected, _types = OWN[source.dialect.name]

    found = {written: read(source, f"SELECT {written} AS v")[0]["v"] for written in expected}

    assert found == expected


def test_odd_value_affects_no_other_row(source: Engine) -> None:
    odd = next(iter(OWN[source.dialect.name][0]))

    rows = read(source, f"SELECT 1 AS k, {odd} AS v UNION ALL SELECT 2, {odd} UNION ALL SELECT 3, NULL ORDER BY k DESC")

    assert [row["k"] for row in rows] == [3, 2, 1]
    assert [row["v"] is None for row in rows] == [True, False, False]


@pytest.mark.postgres
def test_ranges_do_not_depend_on_the_sessions_time_zone(new_postgres: str) -> None:
    engine = create_engine(new_postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {engine.url.database} SET timezone = 'Asia/Tokyo'")
    engine.dispose()
    source = open_source(new_postgres)

    assert read(source, "SELECT tstzrange('2026-03-01 12:00+00', NULL) AS v") == [
        {"v": "[2026-03-01 12:00:00+00:00, )"}
    ]
    source.dispose()


@pytest.mark.postgres
def test_database_in_another_encoding_is_read(postgres_server: str) -> None:
    url = new_postgres_database(postgres_server, "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    source = open_source(url)

    assert read(source, """SELECT 'é' AS a, '{"é": "é"}'::jsonb AS b, ARRAY['é'] AS c""") == [
        {"a": "é", "b": {"é": "é"}, "c": ["é"]}
    ]
    source.dispose()
    drop_postgres_database(postgres_server, url)


@pytest.mark.postgres
def test_nothing_is_prepared_on_the_server(new_postgres: str) -> None:
    source = open_source(new_postgres)
    with source.connect() as connection:
        for _time in range(10):
            connection.exec_driver_sql("SELECT 1")
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM pg_prepared_statements").scalar_one() == 0
    source.dispose()


@pytest.mark.postgres
def test_only_char_columns_are_padded(new_postgres: str) -> None:
    source = open_source(new_postgres)
    with source.connect() as connection:
        result = connection.exec_driver_sql("SELECT 'x'::char(3) AS a, 'x  '::varchar AS b, 'x'::text AS c, 1 AS d")
        assert padded_columns(result) == {"a"}
    source.dispose()


def test_duckdb_select_is_read_unchanged(tmp_path: Path) -> None:
    url = f"duckdb:///{tmp_path / 'own.duckdb'}"
    made = create_engine(url)
    made.connect().close()
    made.dispose()
    source = open_source(url)
    with source.connect() as connection:
        ordered = 'SELECT i AS "I ""x""", DATE \'2026-01-01\' + i::INT AS d FROM range(5000) t(i) ORDER BY i DESC'
        rows = connection.exec_driver_sql(f"{ordered} -- last").mappings()
        assert [row['I "x"'] for row in rows] == list(range(4999, -1, -1))
        # Two names that are one to DuckDB.
        twice = connection.exec_driver_sql("SELECT DATE 'infinity' AS a, 2 AS A")
        assert list(twice.keys()) == ["a", "A"]
        (bound,) = connection.exec_driver_sql("SELECT $1 + 1 AS n, DATE 'infinity' AS d", (1,))
        assert tuple(bound) == (2, "infinity")
    source.dispose()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("[1.0]", [1]),
        ("nothing", "nothing"),
        ('{"a":', '{"a":'),
        ("9" * 4500, "9" * 4500),
        ("[" * 9999, "[" * 9999),
    ],
)
def test_invalid_json_is_read_as_text(text: str, value: Any) -> None:
    assert make_record("k", {"v": read_json(text)}).data["v"] == value


@pytest.mark.parametrize("text", ["infinity", "0044-03-15 BC", "12026-01-01", "0000-00-00", ""])
def test_date_beyond_pythons_range_is_read_as_text(text: str) -> None:
    assert read_date(text) == read_moment(text) == text


@pytest.mark.parametrize("text", ["24:00:00", "838:59:59", "-01:00:00", "12:30:00.123456789"])
def test_time_beyond_pythons_range_is_read_as_text(text: str) -> None:
    assert read_time(text) == text
    assert read_moment(f"2026-03-01 {text}") == f"2026-03-01 {text}"
