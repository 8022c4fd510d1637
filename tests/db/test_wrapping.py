"""A user's select is wrapped soundly: run on four databases, and compiled for three that are not here."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import sqlglot
from sqlalchemy import (
    ClauseElement,
    Column,
    Date,
    Dialect,
    Engine,
    Executable,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    create_engine,
)
from sqlglot import exp

from db.database_errors import SelectError
from db.sources import statements
from db.sources.access import open_source
from db.sources.statements import Parameter, Query
from tests.conftest import SOURCES, new_source
from tests.db.conftest import as_it_stands, dialect_of

ODD = ["order", "MiXed", "a blank", 'dou"ble', "o'quote", "back`tick", "co:lon :x", "per%cent %s", "[brackets]", "ünï"]
ITEMS = Table(
    "items",
    MetaData(),
    Column("sku", String(20)),
    Column("n", Integer),
    Column("price", Numeric(10, 2)),
    Column("made", Date),
    *(Column(name, String(20), key=f"odd{at}") for at, name in enumerate(ODD)),
)
ROWS = [
    {"sku": sku, "n": n, "price": n / 4, "made": dt.date(2026, 1, n)}
    | {f"odd{at}": f"{at}-{n}" for at in range(len(ODD))}
    for n, sku in enumerate(["a", "B", "b", "ä", "a b", "a-b", "_x"], start=1)
]
Given = Mapping[str, Parameter]
MAX = {"max": Parameter("int", 5), "unused": Parameter("str", None)}


@pytest.fixture(scope="module", params=SOURCES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A source of each kind that the tests of this module share: a source is only read."""
    with new_source(request, tmp_path_factory.mktemp("shop")) as url:
        engine = create_engine(url)
        with engine.begin() as connection:
            ITEMS.create(connection)
            connection.execute(ITEMS.insert(), ROWS)
        engine.dispose()
        source = open_source(url)
        yield source
        source.dispose()


def no_rows(sql: str, parameters: Given, dialect: Dialect) -> Executable:
    return statements.no_rows(Query("items.md.j2", sql, (), parameters), dialect)


def rows_where(sql: str, parameters: Given, dialect: Dialect, key: Sequence[str], values: Sequence[Any]) -> Executable:
    return statements.rows_where(Query("items.md.j2", sql, tuple(key), parameters), dialect, values)


def run(engine: Engine, statement: Executable) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(statement).mappings()]


def numbers(engine: Engine, statement: Executable) -> list[int]:
    return [row["n"] for row in run(engine, statement)]


# What the four databases answer alike, each with the numbers of its rows in its own order; a set: it has none.
SELECTS: list[tuple[str, Sequence[int] | set[int]]] = [
    ("SELECT sku, n FROM items", {1, 2, 3, 4, 5, 6, 7}),
    ("SELECT sku, n FROM items;", {1, 2, 3, 4, 5, 6, 7}),
    ("SELECT sku, n FROM items -- all of: them", {1, 2, 3, 4, 5, 6, 7}),
    ("SELECT sku, n FROM items -- one\n/* two */ ; -- three", {1, 2, 3, 4, 5, 6, 7}),
    ("-- first\n/* then :x */ SELECT sku, n FROM items", {1, 2, 3, 4, 5, 6, 7}),
    ("SELECT sku, n FROM items WHERE n <= :max", {1, 2, 3, 4, 5}),
    ("SELECT sku, n FROM items WHERE n <= :max AND :max > 1 AND sku <> ':max'", {1, 2, 3, 4, 5}),
    ("SELECT sku, n FROM items WHERE sku NOT LIKE '%s' AND n % 100 < 50 AND sku <> '%(n)s'", {1, 2, 3, 4, 5, 6, 7}),
    ("SELECT sku, n FROM items ORDER BY n DESC", [7, 6, 5, 4, 3, 2, 1]),
    ("SELECT sku, n FROM items ORDER BY n DESC -- the last first", [7, 6, 5, 4, 3, 2, 1]),
    ("SELECT sku, n FROM items ORDER BY n DESC LIMIT 4", [7, 6, 5, 4]),
    ("SELECT sku, n FROM items ORDER BY n DESC LIMIT 3 OFFSET 2", [5, 4, 3]),
    ("SELECT sku, n FROM items WHERE n <= :max ORDER BY price DESC, sku;", [5, 4, 3, 2, 1]),
    ("WITH chosen AS (SELECT sku, n FROM items) SELECT * FROM chosen ORDER BY n DESC", [7, 6, 5, 4, 3, 2, 1]),
    ("WITH a AS (SELECT * FROM items WHERE n <= :max), b AS (SELECT sku, n FROM a) SELECT * FROM b", {1, 2, 3, 4, 5}),
    (
        "WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < :max) SELECT 's' AS sku, n FROM up",
        {1, 2, 3, 4, 5},
    ),
    ("SELECT sku, n FROM items WHERE n < 3 UNION ALL SELECT sku, n FROM items WHERE n > 5", {1, 2, 6, 7}),
    ("SELECT sku, n FROM items WHERE n < 3 UNION SELECT sku, n FROM items WHERE n > 5 ORDER BY n DESC", [7, 6, 2, 1]),
    ("WITH c AS (SELECT sku, n FROM items) SELECT * FROM c UNION SELECT 'x', 9 ORDER BY n DESC LIMIT 2", [9, 7]),
    ("SELECT sku, ROW_NUMBER() OVER (ORDER BY items.n) AS n FROM items ORDER BY 2", [1, 2, 3, 4, 5, 6, 7]),
    ("SELECT MIN(sku) AS sku, MAX(n) AS n FROM items GROUP BY n ORDER BY MAX(n) DESC", [7, 6, 5, 4, 3, 2, 1]),
    ("SELECT sku, n FROM (SELECT sku, n FROM items ORDER BY n LIMIT 3) AS inner_one", {1, 2, 3}),
    ("SELECT sku, n FROM items WHERE n IN (SELECT n FROM items WHERE n > :max)", {6, 7}),
    ("SELECT s.sku, s.n FROM items s JOIN items t ON s.n = t.n AND t.sku <> 'it''s :no; --'", {1, 2, 3, 4, 5, 6, 7}),
    ("SELECT sku, n FROM items WHERE 1 = 0", []),
]  # fmt: skip
TEXTS = [sql for sql, _ in SELECTS]


@pytest.mark.parametrize(("sql", "expected"), SELECTS, ids=TEXTS)
def test_a_select_yields_the_same_as_it_stands_and_wrapped(
    shop: Engine, sql: str, expected: Sequence[int] | set[int]
) -> None:
    dialect = shop.dialect

    whole = numbers(shop, as_it_stands(sql, MAX, dialect))
    with shop.connect() as connection:
        empty = connection.execute(no_rows(sql, MAX, dialect))
        assert (list(empty.keys()), empty.fetchall()) == (["sku", "n"], [])
    one = [numbers(shop, rows_where(sql, MAX, dialect, ["n"], [n])) for n in range(1, 10)]

    assert (set(whole) if isinstance(expected, set) else whole) == expected
    assert one == [[n] if n in expected else [] for n in range(1, 10)]


def test_columns_may_have_any_name(shop: Engine) -> None:
    sql = "SELECT * FROM items"
    with shop.connect() as connection:
        columns = list(connection.execute(no_rows(sql, {}, shop.dialect)).keys())
    assert columns == [column.name for column in ITEMS.columns]
    for at, name in enumerate(ODD):
        (row,) = run(shop, rows_where(sql, {}, shop.dialect, [name, "n"], [f"{at}-3", 3]))
        assert row[name] == f"{at}-3"


@pytest.mark.parametrize("name", ["param_1", "presswork_key_0", "date", "select", "n", "first", "given_n"])
def test_a_parameter_may_have_any_name(shop: Engine, name: str) -> None:
    sql, given = f"SELECT n FROM items WHERE n > :{name} ORDER BY n DESC", {name: Parameter("int", 4)}

    assert numbers(shop, as_it_stands(sql, given, shop.dialect)) == [7, 6, 5]
    assert numbers(shop, rows_where(sql, given, shop.dialect, ["n"], [6])) == [6]


def test_finding_the_columns_reads_no_row(shop: Engine) -> None:
    # It would fail at the first row.
    failing = {
        "sqlite": "abs(-9223372036854775807 - n / n)",
        "postgresql": "1 / (n - n)",
        "mysql": "9223372036854775807 + n",
        "duckdb": "error(sku)",
    }[shop.dialect.name]
    sql = f"SELECT n, {failing} AS failed FROM items ORDER BY n"
    with shop.connect() as connection:
        assert list(connection.execute(no_rows(sql, {}, shop.dialect)).keys()) == ["n", "failed"]


OWN_WORDS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "postgresql": [
        ("""SELECT n, '{"active":true,"x":":no"}'::jsonb @> '{"active":true}' AS found, :given::text AS given,
            (ARRAY[1,2,3])[2:3] AS part, $$ it's :no $$ AS dollars, E'it\\'s :no' AS escaped FROM items""",
         {"found": True, "given": "x", "part": [2, 3], "dollars": " it's :no ", "escaped": "it's :no"}),
        ("""SELECT n, '{"a":1}'::jsonb ? 'a' AS has /* nested /* :no */ :no */, 5 # 1 AS bits FROM items""",
         {"has": True, "bits": 4}),
    ],
    "duckdb": [
        ("""SELECT n, {'a':n, b:n, 'c': :given}.c AS c, [1,2,3][2:3] AS part, {'a':n}.a = n AS same,
            [x FOR x IN [1, 2] IF x > 1] AS kept, MAP {'k': n}['k'] = n AS mapped FROM items""",
         {"c": "x", "part": [2, 3], "same": True, "kept": [2], "mapped": True}),
        ("FROM items SELECT n, sku: :given", {"sku": "x"}),
    ],
    "mysql": [
        (r"""SELECT n, 'it\'s :no' AS slashed, "a \":no" AS doubled, `co:lon :x` IS NULL AS quoted, :given AS given
             FROM items # it's :no
         """, {"slashed": "it's :no", "doubled": 'a ":no', "quoted": 0, "given": "x"}),
        ("SELECT /*+ hint(:no) */ n, :given AS given, 5 --1 AS six\n FROM items", {"given": "x", "six": 6}),
    ],
    "sqlite": [
        ("""SELECT n, [co:lon :x] IS NULL AS quoted, `per%cent %s` IS NULL AS ticked, 'C:\\' || :given AS given
            FROM items""", {"quoted": 0, "ticked": 0, "given": "C:\\x"}),
    ],
}  # fmt: skip


def test_each_database_is_read_by_its_own_rules(shop: Engine) -> None:
    given = {"given": Parameter("str", "x")}
    for sql, expected in OWN_WORDS[shop.dialect.name]:
        for statement in (
            rows_where(sql, given, shop.dialect, ["n"], [1]),
            as_it_stands(sql, given, shop.dialect),
        ):
            row = run(shop, statement)[0]
            assert {key: row[key] for key in expected} == expected


# Compiled for databases that are not here


def compiled(statement: Executable, dialect: Dialect) -> str:
    assert isinstance(statement, ClauseElement)
    return str(statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True}))


def sql_server() -> Dialect:
    dialect = dialect_of("mssql+pyodbc")
    vars(dialect)["_supports_offset_fetch"] = True  # as after connecting to one of 2012 or later
    return dialect


ABSENT = {"mysql": dialect_of("mysql+pymysql"), "tsql": sql_server(), "oracle": dialect_of("oracle+oracledb")}
PORTABLE = [sql for sql in TEXTS if "LIMIT" not in sql and "RECURSIVE" not in sql]
COMPILED = [
    *(("mysql", sql) for sql in TEXTS),
    ("mysql", r"SELECT 'it\'s :no', `a:b` AS k FROM `t x` WHERE n < :max # it's"),
    *(("tsql", sql) for sql in PORTABLE),
    ("tsql", "SELECT TOP 5 [a b], n AS k FROM dbo.[t:x] ORDER BY n"),
    ("tsql", "SELECT DISTINCT TOP (:max) n AS k FROM t WITH (NOLOCK) ORDER BY n OPTION (RECOMPILE)"),
    ("tsql", "SELECT n AS k FROM t ORDER BY n OFFSET 5 ROWS FETCH NEXT 3 ROWS ONLY"),
    ("tsql", "WITH a AS (SELECT n FROM t), b(k) AS (SELECT n FROM a WHERE n < :max) SELECT k FROM b ORDER BY k"),
    ("tsql", "WITH a AS (SELECT TOP 3 n FROM t ORDER BY n) (SELECT n AS k FROM a) UNION ALL (SELECT n FROM t)"),
    ("tsql", "SELECT TOP 5 n AS k FROM t UNION SELECT n FROM u ORDER BY k"),
    ("tsql", "SELECT n AS k, STRING_AGG(x, ',') WITHIN GROUP (ORDER BY x) AS x FROM t GROUP BY n ORDER BY MAX(n)"),
    ("tsql", "SELECT t.offset AS k FROM t ORDER BY t.offset"),
    *(("oracle", sql) for sql in PORTABLE),
    ("oracle", "SELECT n AS k FROM t WHERE ROWNUM <= 5 ORDER BY n"),
    ("oracle", "SELECT n AS k FROM t ORDER BY n FETCH FIRST 5 ROWS ONLY"),
    ("oracle", "SELECT /*+ FULL(t) */ n AS k, q'[it's :no]' AS q FROM t WHERE n < :max"),
    ("oracle", "SELECT LEVEL AS k FROM dual CONNECT BY LEVEL <= :max"),
]


@pytest.mark.parametrize(("name", "sql"), COMPILED)
def test_what_is_compiled_for_absent_databases_is_sql_of_theirs(name: str, sql: str) -> None:
    dialect = ABSENT[name]
    for wrapped in (
        no_rows(sql, MAX, dialect),
        rows_where(sql, MAX, dialect, ["k", "Odd :x"], [1, "x"]),
    ):
        text = compiled(wrapped, dialect)
        (tree,) = sqlglot.parse(re.sub(r"%\(\w+\)s", "?", text).replace("%%", "%"), read=name)
        assert isinstance(tree, exp.Query), text
        derived = [found.unnest() for found in tree.find_all(exp.Subquery) if isinstance(found.parent, exp.From)]
        assert derived, text
        if name == "oracle":
            assert "AS selected" not in text
        if name != "mysql":
            assert "LIMIT" not in text
        if name == "tsql":
            assert not [query for query in derived if query.args.get("with_")], text
            bare = [query for query in derived if query.args.get("order") and not is_bounded(query)]
            assert not bare, text


def is_bounded(query: exp.Expr) -> bool:
    return any(query.args.get(part) for part in ("limit", "offset"))


READ_BY_EYE = {
    (
        "tsql",
        "WITH a AS (SELECT n FROM t WHERE n < :max) SELECT n AS k FROM a ORDER BY n OPTION (RECOMPILE)",
    ): """
        WITH a AS (SELECT n FROM t WHERE n < :given_max)
            SELECT * FROM (SELECT n AS k FROM a ) AS selected WHERE 1 = 0 OPTION (RECOMPILE);
        WITH a AS (SELECT n FROM t WHERE n < :given_max)
            SELECT * FROM (SELECT n AS k FROM a ) AS selected WHERE [K k] = :presswork_key_0 OPTION (RECOMPILE)
    """,
    ("tsql", "SELECT TOP 5 n AS k FROM t ORDER BY n"): """
        SELECT * FROM (SELECT TOP 5 n AS k FROM t ORDER BY n) AS selected WHERE 1 = 0;
        SELECT * FROM (SELECT TOP 5 n AS k FROM t ORDER BY n) AS selected WHERE [K k] = :presswork_key_0
    """,
    ("oracle", "WITH a AS (SELECT n FROM t) SELECT n AS k FROM a ORDER BY n"): """
        SELECT * FROM (WITH a AS (SELECT n FROM t) SELECT n AS k FROM a ORDER BY n) selected WHERE 1 = 0;
        SELECT * FROM (WITH a AS (SELECT n FROM t) SELECT n AS k FROM a ORDER BY n) selected
            WHERE "K k" = :presswork_key_0
    """,
    ("mysql", "SELECT `n` AS k FROM t WHERE a LIKE '%x:y' ORDER BY n # done"): """
        SELECT * FROM (SELECT `n` AS k FROM t WHERE a LIKE '%%x:y' ORDER BY n) AS selected WHERE 1 = 0;
        SELECT * FROM (SELECT `n` AS k FROM t WHERE a LIKE '%%x:y' ORDER BY n) AS selected
            WHERE `K k` = %(presswork_key_0)s
    """,
}


@pytest.mark.parametrize(("case", "expected"), READ_BY_EYE.items())
def test_what_is_compiled_for_absent_databases(case: tuple[str, str], expected: str) -> None:
    dialect, sql = ABSENT[case[0]], case[1]

    found = [
        no_rows(sql, MAX, dialect),
        rows_where(sql, MAX, dialect, ["K k"], [1]),
    ]

    assert [compiled(statement, dialect).split() for statement in found] == [
        statement.split() for statement in expected.split(";")
    ]


def test_oracle_folds_names_as_its_driver_returns_them() -> None:
    dialect = ABSENT["oracle"]

    text = compiled(rows_where("SELECT 1 FROM t", {}, dialect, ["sku", "MiXed", "ORDER"], [1, 2, 3]), dialect)

    assert text.endswith('WHERE sku = :presswork_key_0 AND "MiXed" = :presswork_key_1 AND "ORDER" = :presswork_key_2')


@pytest.mark.parametrize("sql", [sql for sql in TEXTS if sql.startswith("WITH") or "ORDER BY" in sql])
def test_what_sql_server_takes_out_of_brackets_reads_the_same_rows(
    shop: Engine, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No SQL Server is here: what is done for one is run on the others.
    usual = numbers(shop, as_it_stands(sql, MAX, shop.dialect))
    monkeypatch.setattr(statements, "_STRICT", frozenset({shop.dialect.name}))

    assert numbers(shop, rows_where(sql, MAX, shop.dialect, ["n"], usual[:1])) == usual[:1]
    assert run(shop, no_rows(sql, MAX, shop.dialect)) == []


# What can't be read


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("", r"is empty\. Write one SELECT\."),
        (" ; -- nothing", r"is empty\."),
        ("SELECT 1 AS n; SELECT 2 AS n", r"has several statements\. Keep only one"),
        ("SELECT 1 AS n; DROP TABLE items", r"has several statements"),
        ("SELECT 1 AS n) AS s; DROP TABLE items; --", r"brackets do not match"),
        ("SELECT (1 AS n", r"brackets do not match"),
        ("SELECT 'it''s", r"a quote or a comment in it is not closed"),
        ("DELETE FROM items", r"begins with DELETE, but it may only read\. Write a SELECT\."),
        ("DROP TABLE items", r"begins with DROP"),
        ("COPY items TO '/tmp/x.csv'", r"begins with COPY"),
        ("PRAGMA table_info(items)", r"begins with PRAGMA"),
        ("WITH a AS (SELECT 1) DELETE FROM items", r"begins with DELETE"),
        ("WITH a AS (SELECT 1) INSERT INTO items SELECT * FROM a", r"begins with INSERT"),
        ("SELECT * INTO other FROM items", r"contains INTO"),
        ("SELECT * FROM items INTO OUTFILE '/tmp/x'", r"contains INTO"),
        ("SELECT * FROM items FOR UPDATE", r"locks rows \(FOR UPDATE\).+ Leave FOR UPDATE out\."),
        ("SELECT * FROM items FOR NO KEY UPDATE", r"locks rows"),
        ("SELECT * FROM items FOR JSON PATH", r"returns all records as one text \(FOR JSON\)"),
        ("SELECT * FROM items WHERE sku = :nope", r"uses :nope, which `params` does not declare\. Add it"),
    ],
)
def test_what_can_not_be_wrapped_is_named_and_reaches_no_database(sql: str, said: str) -> None:
    for dialect in (*(dialect_of(name) for name in ("sqlite", "postgresql+psycopg", "duckdb")), *ABSENT.values()):
        for make in (as_it_stands, no_rows):
            with pytest.raises(SelectError, match=rf"^the select .*{said}"):
                make(sql, MAX, dialect)
