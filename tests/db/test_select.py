"""Records come out of SQLite and PostgreSQL alike: the same keys, order, hashes and errors."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from db.database_errors import KeyValueError, SelectError
from db.sources import select
from db.sources.access import open_source
from db.sources.select import read_record
from db.sources.spool import RunSpools
from db.sources.statements import Parameter, Query
from db.sources.values import Record
from tests.conftest import drop_postgres_database, new_postgres_database

Shop = Callable[..., Engine]
ITEMS = (
    'CREATE TABLE items (sku VARCHAR(20), n INT, price NUMERIC(10,2), "order" INT, "MiXed" TEXT, made DATE)',
    """INSERT INTO items VALUES ('a', 1, 10.00, 11, 'A1', '2026-01-01'), ('B', 2, 9.50, 12, 'A2', '2026-01-02'),
    ('b', 3, 0.1, 13, 'A3', '2026-01-03'), ('ä', 4, 1.25, 14, 'A4', '2026-01-04'),
    ('a b', 5, 3, 15, 'A5', '2026-01-05'), ('a-b', 6, 4, 16, 'A6', '2026-01-06'),
    ('_x', 7, 5, 17, 'A7', '2026-01-07')""",
)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A source that the tests of this module share: a source is only read."""
    server = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    url = new_postgres_database(server) if server else f"sqlite:///{tmp_path_factory.mktemp('shop') / 'shop.sqlite'}"
    fill(url, *ITEMS)
    engine = open_source(url)
    yield engine
    engine.dispose()
    if server:
        drop_postgres_database(server, url)


def fill(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


@contextmanager
def new_sqlite(folder: Path, *statements: str) -> Iterator[Engine]:
    url = f"sqlite:///{folder / 'own.sqlite'}"
    fill(url, *statements)
    engine = open_source(url)
    yield engine
    engine.dispose()


def query(sql: str, *key: str, limit: int | None = None, **params: tuple[str, Any]) -> Query:
    typed = {name: Parameter(kind, value) for name, (kind, value) in params.items()}
    return Query("items.md.j2", sql, key or ("sku",), typed, limit)


def read(engine: Engine, asked: Query, *, page_size: int = 2) -> list[Record]:
    """Spool a select, and return the spool's content."""
    with tempfile.TemporaryDirectory() as folder:
        spools = RunSpools(Path(folder), "run")
        select.spool(engine, asked, lambda: spools.writing("items"))
        pages = list(spools.open("items").pages(page_size))
        spools.close()
    assert all(0 < len(page) <= page_size for page in pages)
    records = [record for page in pages for record in page]
    assert all(isinstance(record, Record) for record in records)
    return [record for record in records if isinstance(record, Record)]


def count_records(engine: Engine, asked: Query) -> int:
    return len(read(engine, asked))


# Keys and pages


@pytest.mark.parametrize("key", ["sku", "n", "price", "order", "MiXed", "made"])
@pytest.mark.parametrize("page_size", [1, 2, 7, 100])
def test_every_record_is_read_once_whatever_the_key(shop: Engine, key: str, page_size: int) -> None:
    asked = query("SELECT * FROM items", key)

    records = read(shop, asked, page_size=page_size)

    assert sorted(record.data["n"] for record in records) == [1, 2, 3, 4, 5, 6, 7]
    assert count_records(shop, asked) == 7


def test_pages_by_text_hold_under_every_collation(source: Shop) -> None:
    words = [
        "a",
        "A",
        "ä",
        "Z",
        "z",
        "a b",
        "ab",
        "a-b",
        "-a",
        "_",
        "10",
        "9",
        "é",
        "e\u0301",
        "ss",
        "ß",
        "日",
        "\u0627",
    ]
    listed = ", ".join(f"('{word}')" for word in words)
    engine = source("CREATE TABLE words (word TEXT)", f"INSERT INTO words VALUES {listed}")
    collations = ["BINARY", "RTRIM"]
    if engine.dialect.name == "postgresql":
        # Those of the machine: a server in a container may know few, and the wheel's is built without ICU.
        with engine.connect() as connection:
            usable = "SELECT DISTINCT collname FROM pg_collation WHERE collencoding IN (-1, 6) AND collprovider <> 'i'"
            collations = list(connection.scalars(text(usable)))
        assert "C" in collations
    for collation in collations:
        asked = query(f'SELECT word COLLATE "{collation}" AS word FROM words', "word")
        assert sorted(record.key for record in read(engine, asked, page_size=3)) == sorted(words), collation
        assert count_records(engine, asked) == len(words)


def test_keys_that_differ_by_case_alone_are_two_whatever_the_column_says(tmp_path: Path) -> None:
    with new_sqlite(tmp_path, "CREATE TABLE t (k TEXT COLLATE NOCASE)", "INSERT INTO t VALUES ('a'), ('A')") as engine:
        assert count_records(engine, query("SELECT k FROM t", "k")) == 2


def test_keys_that_are_one_text_are_one_whatever_their_types(tmp_path: Path) -> None:
    with (
        new_sqlite(tmp_path, "CREATE TABLE t (k)", "INSERT INTO t VALUES (7), ('7'), (8)") as engine,
        pytest.raises(KeyValueError, match=r"the key 'k' is not unique: 1 record repeats one, such as 7\."),
    ):
        count_records(engine, query("SELECT k FROM t", "k"))


def test_uuid_keys(source: Shop) -> None:
    ids = [f"00000000-0000-4000-8000-{n:012d}" for n in range(5)]
    listed = ", ".join(f"('{each}')" for each in ids)
    engine = source("CREATE TABLE things (id UUID)", f"INSERT INTO things VALUES {listed}")

    assert [record.key for record in read(engine, query("SELECT id FROM things", "id"))] == ids


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (2, 2), (3, 3), (7, 7), (50, 7)])
def test_limit_is_met_exactly(shop: Engine, limit: int, expected: int) -> None:
    assert len(read(shop, query("SELECT * FROM items", limit=limit))) == expected


def test_records_and_a_limit_keep_the_order_of_the_select(shop: Engine) -> None:
    sql = "SELECT * FROM items ORDER BY n DESC"

    assert [record.key for record in read(shop, query(sql, "n"))] == ["7", "6", "5", "4", "3", "2", "1"]
    assert [record.key for record in read(shop, query(sql, "n", limit=3))] == ["7", "6", "5"]


def test_no_records_is_no_error(shop: Engine) -> None:
    asked = query("SELECT * FROM items WHERE n > 100")

    assert count_records(shop, asked) == 0
    assert read(shop, asked) == []


# Parameters


PARAMETERS = [
    ("str", "sku", "a", ["a"]),
    ("int", "n", 3, ["b"]),
    ("float", "price", 1.25, ["ä"]),
    ("bool", "(n = 1)", True, ["a"]),
    ("date", "made", date(2026, 1, 2), ["B"]),
    ("int", "n", 2**40, []),
]


@pytest.mark.parametrize(("kind", "column", "value", "expected"), PARAMETERS)
def test_parameter_narrows_the_select_and_null_does_not(
    shop: Engine, kind: str, column: str, value: Any, expected: list[str]
) -> None:
    sql = f"SELECT * FROM items WHERE (:given IS NULL OR {column} = :given)"

    assert [record.key for record in read(shop, query(sql, given=(kind, value)))] == expected
    assert count_records(shop, query(sql, given=(kind, None))) == 7


@pytest.mark.parametrize("name", ["after", "until", "statement", "key"])
def test_parameter_may_have_any_name(shop: Engine, name: str) -> None:
    asked = Query(
        "items.md.j2", f"SELECT * FROM items WHERE n > :{name} ORDER BY n", ("n",), {name: Parameter("int", 4)}
    )

    assert [record.key for record in read(shop, asked)] == ["5", "6", "7"]


def test_moments_compare_with_what_the_database_holds(source: Shop) -> None:
    engine = source(
        "CREATE TABLE calls (id INT, at TIMESTAMP)",
        "INSERT INTO calls VALUES (1, '2026-01-01 12:00:00'), (2, '2026-01-01 12:00:01')",
    )
    sql = "SELECT id FROM calls WHERE (:since IS NULL OR at = :since)"
    moment = datetime.fromisoformat("2026-01-01T12:00")

    assert [record.key for record in read(engine, query(sql, "id", since=("datetime", moment)))] == ["1"]
    assert count_records(engine, query(sql, "id", since=("datetime", None))) == 2


@pytest.mark.postgres
def test_moment_with_a_zone_is_not_shifted(postgres_server: str) -> None:
    engine = open_source(postgres_server)
    sql = "SELECT 1 AS id WHERE TIMESTAMPTZ '2026-01-01 21:00:00+09' = :at"

    assert count_records(engine, query(sql, "id", at=("datetime", datetime(2026, 1, 1, 12, tzinfo=UTC)))) == 1
    engine.dispose()


def test_parameter_that_is_not_named_is_an_error(shop: Engine) -> None:
    with pytest.raises(SelectError, match="uses :category, which `params` does not declare"):
        count_records(shop, query("SELECT * FROM items WHERE sku = :category"))


# SQL as people write it


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM items;",
        "SELECT * FROM items -- all of them",
        "SELECT * FROM items; -- all: of them\n;",
        "/* first :x */ SELECT * FROM items /* last */",
        "WITH chosen AS (SELECT * FROM items) SELECT * FROM chosen",
        "SELECT * FROM items ORDER BY n DESC",
        "SELECT * FROM items WHERE sku <> '12:30' AND sku <> ' :x' AND sku NOT LIKE '%s' AND n % 100 < 50",
        "SELECT sku, n FROM items UNION ALL SELECT 'other', 8 FROM items WHERE 1 = 0",
    ],
)
def test_select_runs_unchanged(shop: Engine, sql: str) -> None:
    assert len(read(shop, query(sql))) == count_records(shop, query(sql)) == 7


def test_texts_with_colons_and_percent_signs_arrive_unchanged(shop: Engine) -> None:
    sql = """SELECT sku, '12:30' AS at, ' :x :smile: ' AS said, '%s %(x)s 100%' AS sign, '{"a":1}' AS js FROM items"""

    (first, *_) = read(shop, query(sql, limit=1))

    assert [first.data[name] for name in ("at", "said", "sign", "js")] == [
        "12:30",
        " :x :smile: ",
        "%s %(x)s 100%",
        '{"a":1}',
    ]


@pytest.mark.postgres
def test_casts_and_json_operators_of_postgresql(postgres_server: str) -> None:
    engine = open_source(postgres_server)
    sql = """SELECT 1::int AS id, '{"a":1}'::jsonb ? 'a' AS has, '{"a":[1.0,2]}'::jsonb AS js,
    (ARRAY[1,2,3])[1:2] AS ar,
    :n::text AS given, '{1.50,2}'::numeric[] AS prices, 'x'::bytea AS raw, int4range(1, 5) AS span,
    TIMESTAMPTZ '2026-01-01 21:00+09' AS at"""

    (record,) = read(engine, query(sql, "id", n=("str", "5")))

    assert record.data == {
        "id": 1,
        "has": True,
        "js": {"a": [1, 2]},
        "ar": [1, 2],
        "given": "5",
        "prices": [1.5, 2],
        "raw": "eA==",
        "span": "[1, 5)",
        "at": "2026-01-01T12:00:00+00:00",
    }
    engine.dispose()


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM items RETURNING sku",
        "WITH gone AS (DELETE FROM items RETURNING *) SELECT * FROM gone",
        "SELECT 1 AS sku) AS s; DELETE FROM items; --",
        "DROP TABLE items",
        "",
        "SELECT nonsense FROM items",
        "SELECT * FROM nowhere",
        "SELEC * FROM items",
    ],
)
def test_sql_that_writes_or_fails_is_refused_and_changes_nothing(shop: Engine, sql: str) -> None:
    with pytest.raises(SelectError, match=r"items\.md\.j2: the select .+\. [A-Z].+"):
        count_records(shop, query(sql))
    assert count_records(shop, query("SELECT * FROM items")) == 7


@pytest.mark.postgres
def test_function_that_writes_is_refused(new_postgres: str) -> None:
    fill(new_postgres, *ITEMS, "CREATE FUNCTION wipe() RETURNS INT LANGUAGE SQL AS 'DELETE FROM items RETURNING 1'")
    engine = open_source(new_postgres)

    with pytest.raises(SelectError, match="read-only transaction"):
        count_records(engine, query("SELECT wipe() AS sku"))
    engine.dispose()


# Keys that can't be used


def test_missing_key_column_is_named_with_those_that_are_there(shop: Engine) -> None:
    with pytest.raises(SelectError, match=r"does not yield the key column 'MIXED'\..* Available: sku, MiXed\."):
        count_records(shop, query('SELECT sku, "MiXed" FROM items', "MIXED"))


def test_column_that_comes_twice_is_refused(shop: Engine) -> None:
    with pytest.raises(SelectError, match=r"yields the column 'n' more than once"):
        count_records(shop, query("SELECT a.sku, a.n, b.n FROM items a JOIN items b ON a.sku = b.sku"))


def test_null_keys_are_counted(shop: Engine) -> None:
    with pytest.raises(KeyValueError, match=r"3 of 7 records have no 'k' \(it is null\)"):
        count_records(shop, query("SELECT CASE WHEN n > 3 THEN sku END AS k FROM items", "k"))
    with pytest.raises(KeyValueError, match=r"3 of 7 records have no 'k', 'n' \(one of them is null\)"):
        count_records(shop, query("SELECT CASE WHEN n > 3 THEN sku END AS k, n FROM items", "k", "n"))


def test_duplicate_keys_are_counted_and_some_are_named(shop: Engine) -> None:
    with pytest.raises(KeyValueError, match=r"the key 'k' is not unique: 5 records repeat one, such as 0, 1\."):
        count_records(shop, query("SELECT n % 2 AS k FROM items", "k"))


def test_key_that_is_too_long_is_found_before_the_first_page(source: Shop) -> None:
    engine = source("CREATE TABLE t (k TEXT)", f"INSERT INTO t VALUES ('{'a' * 500}'), ('{'x' * 501}')")

    with pytest.raises(KeyValueError, match=r"1 key can't be stored: 'x{40}' \.\.\. \(501 characters\)\."):
        count_records(engine, query("SELECT k FROM t", "k"))
    assert count_records(engine, query("SELECT k FROM t WHERE k < 'b'", "k")) == 1


def test_key_with_a_nul_is_found_before_the_first_page(tmp_path: Path) -> None:
    with (
        new_sqlite(tmp_path, "CREATE TABLE t (k TEXT)", "INSERT INTO t VALUES ('a' || CHAR(0) || 'b')") as engine,
        pytest.raises(KeyValueError, match=r"1 key can't be stored: 'a\\x00b'"),
    ):
        count_records(engine, query("SELECT k FROM t", "k"))


# What records hold


def test_equal_rows_have_equal_hashes_on_both_databases(shop: Engine) -> None:
    records = read(shop, query("SELECT * FROM items", "n"))

    # Pinned: a change would make every record look as if it had changed.
    assert records[0].body == '{"MiXed":"A1","made":"2026-01-01","n":1,"order":11,"price":10,"sku":"a"}'
    assert records[0].hash == "02e130a121d61602ac3bf0aae8b81f3f61b650930ae90607dd129b4fd1edb648"
    assert [record.data["price"] for record in records] == [10, 9.5, 0.1, 1.25, 3, 4, 5]


@pytest.mark.parametrize(
    "body",
    [
        "{{ 7*7 }} <script>alert(1)</script>",
        "☕ émoji 👩‍👩‍👧",
        "مرحبا بالعالم",
        "x" * 200_000,
        "'; DROP TABLE t; --",
        "",
    ],
    ids=["template signs", "emoji", "right to left", "200 KB", "an injection", "nothing"],
)
def test_text_goes_through_unharmed(source: Shop, database: Engine, body: str) -> None:
    engine = source("CREATE TABLE t (id INT, body TEXT)")
    with database.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1, :body)"), {"body": body})

    (record,) = read(engine, query("SELECT * FROM t", "id"))

    assert record.data["body"] == body


def test_text_that_is_not_utf8_harms_no_other_record(tmp_path: Path) -> None:
    rows = "(1, 'a', CAST(x'61ff62' AS TEXT)), (2, 'b', 'a' || CHAR(0) || 'b'), (3, CAST(x'63ff' AS TEXT), 'fine')"
    with new_sqlite(tmp_path, "CREATE TABLE t (id INT, k TEXT, body TEXT)", f"INSERT INTO t VALUES {rows}") as engine:
        records = read(engine, query("SELECT id, body FROM t", "id"))

        assert [record.data["body"] for record in records] == ["a\ufffdb", "a\x00b", "fine"]
        with pytest.raises(KeyValueError, match=r"1 key can't be stored: 'c\\udcff'"):
            read(engine, query("SELECT k FROM t", "k"))


# One record


@pytest.mark.parametrize(
    ("key", "value"),
    [("sku", "ä"), ("sku", "a b"), ("n", "4"), ("order", "14"), ("MiXed", "A4"), ("made", "2026-01-04")],
)
def test_one_record_is_found_by_its_key_as_text(shop: Engine, key: str, value: str) -> None:
    found = read_record(shop, query("SELECT * FROM items", key), value)

    assert found is not None
    assert found == next(record for record in read(shop, query("SELECT * FROM items", key)) if record.key == value)


@pytest.mark.parametrize("key", ["00ff", "7", "7.5", "seven"])
def test_one_record_is_found_whatever_types_a_column_of_sqlite_holds(tmp_path: Path, key: str) -> None:
    with new_sqlite(tmp_path, "CREATE TABLE t (k)", "INSERT INTO t VALUES ('seven'), (7), (7.5), (x'00ff')") as engine:
        found = read_record(engine, query("SELECT k FROM t", "k"), key)

    assert found is not None
    assert found.key == key


def test_reading_that_ends_early_logs_nothing(shop: Engine, caplog: pytest.LogCaptureFixture) -> None:
    assert read_record(shop, query("SELECT * FROM items", "sku"), "a") is not None
    assert len(read(shop, query("SELECT * FROM items", limit=2))) == 2

    assert caplog.text == ""


@pytest.mark.parametrize(("key", "value"), [("sku", "nope"), ("n", "99"), ("n", "x"), ("n", "04"), ("made", "never")])
def test_key_that_is_not_there_finds_nothing(shop: Engine, key: str, value: str) -> None:
    assert read_record(shop, query("SELECT * FROM items", key), value) is None


def test_one_record_of_a_column_of_many_types_is_the_one_of_the_run(tmp_path: Path) -> None:
    rows = "INSERT INTO t VALUES (1, 'a', 0), ('x', 'b', 1), (2.5, 'c', 2), (x'00ff', 'd', 3)"
    with new_sqlite(tmp_path, "CREATE TABLE t (id, name, number)", rows) as engine:
        # Two columns that differ by case alone.
        asked = query('SELECT id, name, number AS "NAME" FROM t', "id")
        records = read(engine, asked)

        assert [record.key for record in records] == ["1", "x", "2.5", "00ff"]
        assert [read_record(engine, asked, record.key) for record in records] == records


def test_one_record_needs_the_key_column(shop: Engine) -> None:
    with pytest.raises(SelectError, match="does not yield the key column"):
        read_record(shop, query("SELECT n FROM items"), "a")


def test_one_record_of_a_key_that_is_not_unique_is_the_error_of_a_run(tmp_path: Path) -> None:
    rows = "INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3), ('b', 4), ('b', 5)"
    with new_sqlite(tmp_path, "CREATE TABLE t (k, n)", rows) as engine:
        asked = query("SELECT k, n FROM t", "k")

        assert read_record(engine, asked, "c") is not None
        with pytest.raises(KeyValueError, match=r"the key 'k' is not unique: .*, such as 'b'") as alone:
            read_record(engine, asked, "b")
        with pytest.raises(KeyValueError, match="is not unique") as whole:
            read(engine, asked)
    assert str(whole.value).partition(":")[0] == str(alone.value).partition(":")[0]


def test_one_record_is_found_behind_one_whose_key_differs_by_case(tmp_path: Path) -> None:
    table = "CREATE TABLE t (k TEXT COLLATE NOCASE)"
    with new_sqlite(tmp_path, table, "INSERT INTO t VALUES ('B'), ('b')") as engine:
        found = read_record(engine, query("SELECT k FROM t", "k"), "b")

    assert found is not None
    assert found.key == "b"
