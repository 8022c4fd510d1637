"""Parameters are found in a user's SQL, text that only looks like one is not, and values are bound by type."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from db.database_errors import SelectError
from db.sources.access import open_source
from db.sources.clauses import parameters_in, tokens_of
from db.sources.statements import Parameter
from tests.conftest import SOURCES, new_source
from tests.db.conftest import as_it_stands, dialect_of

DRIVERS = ["sqlite", "postgresql+psycopg", "mysql+pymysql", "duckdb", "mssql+pyodbc", "oracle+oracledb"]
DIALECTS = {driver.partition("+")[0]: dialect_of(driver) for driver in DRIVERS}
EVERYWHERE = [
    ("SELECT 1", ()),
    ("SELECT :a, :b, :a", ("a", "b")),
    ("SELECT :date, :select, :order, :limit1, :A_b", ("date", "select", "order", "limit1", "A_b")),
    ("SELECT a FROM t WHERE a=:a AND b<=:b OR c IN (:c,:d) LIMIT :e", ("a", "b", "c", "d", "e")),
    ("SELECT '12:30', 'a:b', ' :no', ':smile:', ':'", ()),
    ("SELECT 'it''s :no' || :yes", ("yes",)),
    ('SELECT \'{"active":true,"n": :no}\' || :yes', ("yes",)),
    ('SELECT "odd:name", "a "":b" FROM t', ()),
    ("SELECT :a::int, x ::int, y :: int, CAST(:b AS date)::text", ("a", "b")),
    ("SELECT 1 -- not :this, it's\n, :that /* nor :these\n it's :ones */", ("that",)),
    ("SELECT a:b, a[1:2], f(x):y, 'a':x, 'a' :x, 12:30", ()),
]
BY_DIALECT: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "postgresql": [
        ("""SELECT a @> '{"active":true}', a @> :j::jsonb, a ? 'b', f(x => :x, y := :y)""", ("j", "x", "y")),
        ("SELECT items[1:2], items[lo:hi], items[1::n], items[:n], (ARRAY[:a, :b])[2 :m]", ("n", "a", "b")),
        ("SELECT E'it\\'s :no', U&'d:b', 'C:\\', :yes", ("yes",)),
        ("SELECT name'x' , $$ :no $$, $tag$ :no $$ it's $tag$, :yes", ("yes",)),
        ("SELECT 1 /* a /* :no */ it's :no */, :yes", ("yes",)),
    ],
    "duckdb": [
        ("SELECT {'a':x, b:y, 'c': :z, d :w}, [1,2][1:n], MAP {'k':v}, total: :yes", ("z", "yes")),
        ("SELECT [x FOR x IN l IF x > :m], list_filter(l, lambda x: x > :n), 1 /* /* :no */ :no */", ("m", "n")),
        ("SELECT $$ it's :no $$, E'\\':no', :yes", ("yes",)),
    ],
    "mysql": [
        (
            "SELECT 'it\\'s :no', \"it\\\"s :no\", `odd :name`, _utf8'a:b', :yes # it's :no\n, @v := :too",
            ("yes", "too"),
        ),
        ("SELECT /*+ h(:no) */ 5--:yes\n, 'a' -- :no", ("yes",)),
    ],
    "sqlite": [("SELECT [odd :name], `a:b`, 'C:\\', :yes /* a /* :no */", ("yes",))],
    "mssql": [("SELECT TOP (:n) [odd :name], [a]]:b], N'a:b', 'C:\\', :yes FROM #t WHERE @v = 1", ("n", "yes"))],
    "oracle": [
        ("SELECT q'[it's :no]', nq'{a:b}', Q'!it's :no!', 'C:\\', :yes FROM v$x WHERE a(+) = :b", ("yes", "b")),
        ("SELECT /*+ h(:no) */ :yes FROM dual", ("yes",)),
    ],
}
READ = [(name, *case) for name in DIALECTS for case in [*EVERYWHERE, *BY_DIALECT[name]]]


@pytest.mark.parametrize(("dialect", "sql", "names"), READ)
def test_parameters_are_found_where_the_database_sees_one(dialect: str, sql: str, names: tuple[str, ...]) -> None:
    given = {name: Parameter("str", None) for name in names}

    assert tuple(dict.fromkeys(found.name for found in parameters_in(sql, tokens_of(sql, dialect)))) == names
    clause = as_it_stands(sql, given, DIALECTS[dialect])
    assert set(clause.compile(dialect=DIALECTS[dialect]).params) == {f"given_{name}" for name in names}


def test_a_name_that_params_would_refuse_is_reported_before_the_database_sees_it() -> None:
    with pytest.raises(SelectError, match="uses :naïve, which `params` does not declare"):
        as_it_stands("SELECT :naïve", {"na": Parameter("int", 1)}, DIALECTS["sqlite"])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "trailing",
    [";", " ; \n", "-- done", ";-- done; really\n", "/* done */;", "\n-- one\n-- two :no\n;\n", ""],
)
def test_what_trails_a_select_is_left_out(dialect: str, trailing: str) -> None:
    assert str(as_it_stands(f"  SELECT ';--' {trailing}", {}, DIALECTS[dialect])) == "SELECT ';--'"


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("postgresql", r"""SELECT 'a:b', ':x:', "c:d", E'\'' || x::int, 'C\:', y[1:2] -- c:d
    FROM t"""),
        ("mysql", "SELECT 'a:b\\':c' # it's :no\n FROM t WHERE a LIKE '%s' AND b % 2 = 1"),
        ("oracle", "/* :first */ SELECT q'[it's :no]' FROM t"),
    ],
)  # fmt: skip
def test_text_goes_to_the_database_as_it_was_written(dialect: str, sql: str) -> None:
    compiled = str(as_it_stands(sql, {}, DIALECTS[dialect]).compile(dialect=DIALECTS[dialect]))

    assert compiled.replace("%%", "%") == sql


def test_a_database_that_is_not_known_is_read_as_most_are() -> None:
    sql = "SELECT 'a:b', :yes::int FROM t -- :no"

    assert [found.name for found in parameters_in(sql, tokens_of(sql, "access"))] == ["yes"]


@pytest.mark.parametrize("sql", ["SELECT 'it''s", 'SELECT "a'])
def test_a_text_that_does_not_end_is_reported(sql: str) -> None:
    with pytest.raises(ValueError, match="a quote or a comment in it is not closed"):
        tokens_of(sql, "postgresql")


# Bound


@pytest.fixture(scope="module", params=SOURCES)
def calls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A source of each kind, with moments as such databases hold them."""
    with new_source(request, tmp_path_factory.mktemp("calls")) as url:
        engine = create_engine(url)
        kinds = {"sqlite": ("TEXT", "TEXT"), "mysql": ("DATETIME(6)", "DATETIME(6)")}
        naive, zoned = kinds.get(engine.dialect.name, ("TIMESTAMP", "TIMESTAMPTZ"))
        zone = "+00" if zoned == "TIMESTAMPTZ" else ""
        texts = ["2026-03-01 11:59:59", "2026-03-01 12:00:00", "2026-03-01 12:00:00.250", "2026-03-01 12:00:00.123456"]
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE calls (id INT, naive {naive}, zoned {zoned}, day DATE)")
            for number, text in enumerate(texts, start=1):
                row = f"{number}, '{text}', '{text}{zone}', '2026-03-0{number}'"
                connection.exec_driver_sql(f"INSERT INTO calls VALUES ({row})")
        engine.dispose()
        source = open_source(url)
        yield source
        source.dispose()


def ids(engine: Engine, condition: str, kind: str, value: Any) -> list[int]:
    sql = f"SELECT id FROM calls WHERE {condition} ORDER BY id"
    with engine.connect() as connection:
        return list(connection.scalars(as_it_stands(sql, {"given": Parameter(kind, value)}, engine.dialect)))


BOUND = [
    ("str", "CASE id WHEN 2 THEN '%s:x' ELSE '' END = :given", "%s:x", [2]),
    ("str", "'it''s :given' <> :given AND id = 1", "it's :given %s", [1]),
    ("int", "id = :given", 3, [3]),
    ("int", "id < :given", 2**40, [1, 2, 3, 4]),
    ("float", "id * 0.25 = :given", 0.75, [3]),
    ("float", "id > :given", 2.5, [3, 4]),
    ("bool", "(id = 1) = :given", True, [1]),
    ("bool", "(id = 1) = :given", False, [2, 3, 4]),
    ("date", "day = :given", date(2026, 3, 2), [2]),
    ("datetime", "naive = :given", datetime.fromisoformat("2026-03-01T12:00"), [2]),
]


@pytest.mark.parametrize(("kind", "condition", "value", "expected"), BOUND)
def test_a_parameter_is_bound_with_its_type(
    calls: Engine, kind: str, condition: str, value: Any, expected: list[int]
) -> None:
    assert ids(calls, condition, kind, value) == expected
    assert ids(calls, condition, kind, None) == []
    assert ids(calls, f"(:given IS NULL OR {condition})", kind, None) == [1, 2, 3, 4]
    assert ids(calls, f"(:given IS NULL OR {condition})", kind, value) == expected


@pytest.mark.parametrize("hours", [0, 1, -8, 5.5])
@pytest.mark.parametrize(
    ("second", "micro", "equal", "since"),
    [(0, 0, [2], [2, 3, 4]), (0, 250_000, [3], [3]), (0, 123_456, [4], [3, 4]), (1, 0, [], [])],
)
def test_one_moment_selects_the_same_rows_however_it_is_written(
    calls: Engine, hours: float, second: int, micro: int, equal: list[int], since: list[int]
) -> None:
    moment = datetime(2026, 3, 1, 12, 0, second, micro, tzinfo=UTC).astimezone(timezone(timedelta(hours=hours)))

    assert ids(calls, "zoned = :given", "datetime", moment) == equal
    assert ids(calls, "zoned >= :given", "datetime", moment) == since


# As docs/templates.md says, if the session has its own time zone. DuckDB needs an extension for such a session.
TOKYO = "init_command=SET time_zone %3D '%2B09:00'"
# What a TIMESTAMP column would return.
STAMP = "FROM_UNIXTIME(TIMESTAMPDIFF(SECOND, '1970-01-01', naive))"
DOCUMENTED = {
    "sqlite": [
        ("", "naive >= :given"),
        ("", "julianday(naive) >= julianday(:given)"),
        ("", "julianday(replace(naive, ' ', 'T') || 'Z') >= julianday(:given)"),
        ("", "julianday(datetime(naive, '+9 hours') || '+09:00') >= julianday(:given)"),
        ("", "unixepoch(naive) >= unixepoch(:given)"),
    ],
    "postgresql": [
        ("options=-c timezone%3DAsia/Tokyo", "zoned >= :given"),
        ("options=-c timezone%3DAsia/Tokyo", "naive AT TIME ZONE 'UTC' >= :given"),
    ],
    "mysql": [
        (TOKYO, "naive >= :given"),
        (TOKYO, f"CONVERT_TZ({STAMP}, @@session.time_zone, '+00:00') >= :given"),
    ],
    "duckdb": [("", "zoned >= :given"), ("", "epoch_us(naive) >= epoch_us(:given)")],
}


def test_moments_are_compared_as_documented_whatever_the_sessions_time_zone(calls: Engine) -> None:
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC).astimezone(timezone(timedelta(hours=-5)))
    for option, condition in DOCUMENTED[calls.dialect.name]:
        url = calls.url.update_query_string(option) if option else calls.url
        engine = open_source(url.render_as_string(hide_password=False))
        assert ids(engine, condition, "datetime", moment) == [2, 3, 4], condition
        engine.dispose()


def test_name_of_sql_server_with_a_quote_is_read_where_the_database_is_not_known() -> None:
    # As where a run asks whether a select may be spread over shards.
    assert [token.text for token in tokens_of("SELECT [it's] FROM t")] == ["SELECT", "it's", "FROM", "t"]
