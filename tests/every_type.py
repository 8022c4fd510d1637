"""Types that the four databases have, each with a way to write a random value of it in SQL."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Draw = Callable[[random.Random], str]


@dataclass(frozen=True)
class Kind:
    """A column's type, in `sql`; `draw` makes a literal, and `number` reads one whose digits must all come back."""

    sql: str
    draw: Draw
    number: type[Decimal | float] | None = None

    @property
    def is_json(self) -> bool:
        """Whether the literals are JSON."""
        return self.draw is json_literal


def text_of(rng: random.Random) -> str:
    pieces = ["tea", "", " ", "é", "☕", "日本", "{{ 7*7 }}", "it's", "5e-05", "NULL", "|", "line\nbreak", '"', "0"]
    return "".join(rng.choice(pieces) for _ in range(rng.randint(0, 4)))


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def whole(bits: int, *, signed: bool = True) -> Draw:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return lambda rng: str(rng.choice([low, high, 0, rng.randint(low, high), rng.randint(0, 100)]))


def decimal(digits: int, places: int) -> Draw:
    def draw(rng: random.Random) -> str:
        number = Decimal(rng.choice([0, 5, rng.randint(0, 10 ** rng.randint(1, digits)) - 1]))
        return f"{rng.choice(['', '-'])}{abs(number).scaleb(-places):f}"

    return draw


def double(rng: random.Random) -> str:
    return repr(rng.choice([0.00005, 1e22, 12345678901234560.0, 0.1, rng.random() * 10 ** rng.randint(-20, 20)]))


def one_of(*literals: str) -> Draw:
    return lambda rng: rng.choice(literals)


def quoted_one_of(*texts: str) -> Draw:
    return lambda rng: quoted(rng.choice(texts))


def day(*odd: str) -> Draw:
    return lambda rng: quoted(
        rng.choice([f"{rng.randint(1, 9999):04}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}", *odd])
    )


def moment(*odd: str, zone: str = "") -> Draw:
    def draw(rng: random.Random) -> str:
        clock = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"
        fraction = rng.choice(["", ".5", ".123456"])
        return quoted(
            rng.choice([f"{rng.randint(1971, 2037)}-06-{rng.randint(1, 28):02} {clock}{fraction}{zone}", *odd])
        )

    return draw


def json_of(rng: random.Random) -> str:
    return json.dumps(plain(rng, 3))


def plain(rng: random.Random, depth: int) -> Any:
    draws: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.choice([True, False]),
        lambda: rng.randint(-(10**30), 10**30),
        lambda: rng.random() * 10 ** rng.randint(-10, 10),
        lambda: text_of(rng),
    ]
    if depth:
        draws += [
            lambda: [plain(rng, depth - 1) for _ in range(rng.randint(0, 3))],
            lambda: {f"k{number}": plain(rng, depth - 1) for number in range(rng.randint(0, 3))},
        ]
    return rng.choice(draws)()


def text_literal(rng: random.Random) -> str:
    return quoted(text_of(rng))


def json_literal(rng: random.Random) -> str:
    return quoted(json_of(rng))


FAR = ("infinity", "-infinity", "9999-12-31")

SQLITE = [
    Kind("INTEGER", whole(64), Decimal),
    Kind("NUMERIC", decimal(15, 5), Decimal),
    Kind("REAL", double, float),
    Kind("TEXT", text_literal),
    Kind("CHAR(5)", text_literal),
    Kind("BLOB", one_of("x'00ff'", "x''", "zeroblob(3)")),
    Kind("BOOLEAN", one_of("TRUE", "FALSE")),
    Kind("DATE", day("infinity", "0000-00-00")),
    Kind("TIMESTAMP", moment()),
    # Not declared JSON: SQLite makes a number of a text there, and loses its digits.
    Kind("TEXT", json_literal),
    # A column that says nothing takes anything, and a text may be no Unicode.
    Kind("", one_of("7", "'7'", "7.5", "x'07'", "CAST(x'61ff' AS TEXT)", "'a' || CHAR(0)", "9e999", "-9e999")),
]
POSTGRES = [
    Kind("SMALLINT", whole(16), Decimal),
    Kind("INT", whole(32), Decimal),
    Kind("BIGINT", whole(64), Decimal),
    Kind("NUMERIC", decimal(60, 30), Decimal),
    Kind("NUMERIC(30,10)", decimal(28, 10), Decimal),
    Kind("NUMERIC", quoted_one_of("NaN", "Infinity", "-Infinity")),
    Kind("price", decimal(9, 2), Decimal),
    Kind("DOUBLE PRECISION", double, float),
    Kind("DOUBLE PRECISION", quoted_one_of("NaN", "Infinity", "5e-324", "1e308")),
    Kind("REAL", quoted_one_of("0.1", "1e-30", "16777216")),
    Kind("MONEY", quoted_one_of("12.34", "-0.01")),
    Kind("TEXT", text_literal),
    Kind("VARCHAR(50)", text_literal),
    Kind("CHAR(30)", text_literal),
    Kind('"char"', quoted_one_of("a", "")),
    Kind("BYTEA", quoted_one_of("\\x00ff", "\\x")),
    Kind("BOOLEAN", one_of("TRUE", "FALSE")),
    Kind("DATE", day(*FAR, "0044-03-15 BC", "12026-01-01")),
    Kind("TIMESTAMP", moment(*FAR, "0044-03-15 12:00 BC", "290000-01-01 12:00")),
    Kind("TIMESTAMPTZ", moment(*FAR, "0044-03-15 12:00+00 BC", "290000-01-01 12:00+00", zone="+05:30")),
    Kind("TIME", quoted_one_of("00:00", "24:00", "12:30:00.5")),
    Kind("TIMETZ", quoted_one_of("00:00+05", "24:00-12", "12:30+15:59:59")),
    Kind("INTERVAL", quoted_one_of("1 mon", "-1 year 3 days", "26:00", "2000000000 days", "00:00:00.000001")),
    Kind("UUID", quoted_one_of("A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11")),
    Kind("JSON", json_literal),
    Kind("JSONB", json_literal),
    Kind("JSONPATH", quoted_one_of("$.a")),
    Kind("mood", quoted_one_of("a", "b c", "d,e")),
    Kind("pair", one_of("ROW(1, 'x')", "ROW(NULL, NULL)")),
    Kind("INT[]", quoted_one_of("{}", "{1,NULL}", "{{1,2},{3,4}}", "[2:3]={1,2}")),
    Kind("NUMERIC[]", quoted_one_of("{0.00005,12345678901234560}", "{NaN}")),
    Kind("TEXT[]", quoted_one_of('{a,"b,c",NULL,"NULL"}', "{}")),
    Kind("CHAR(3)[]", quoted_one_of("{a,bc}")),
    Kind("mood[]", quoted_one_of('{a,"b c","d,e",NULL}', "{}")),
    Kind("pair[]", one_of("ARRAY[ROW(1, 'x')::pair]")),
    Kind("price[]", quoted_one_of("{1.50,NULL}")),
    Kind("DATE[]", quoted_one_of("{2026-03-01,infinity}")),
    Kind("JSONB[]", quoted_one_of('{"{\\"a\\": 123456789012345678901234567890}"}')),
    Kind("BYTEA[]", quoted_one_of('{"\\\\x00ff"}')),
    Kind("INT4RANGE", quoted_one_of("[1,5)", "(,5)", "empty")),
    Kind("NUMRANGE", quoted_one_of("[1.5,)")),
    Kind("DATERANGE", quoted_one_of("[2026-03-01,infinity)", "(,)")),
    Kind("TSTZRANGE", quoted_one_of("[2026-03-01 12:00+02,infinity]", "[0044-03-15 BC,)")),
    Kind("INT4MULTIRANGE", quoted_one_of("{[1,3),[5,8)}", "{}")),
    Kind("INET", quoted_one_of("192.168.0.1/24", "::1")),
    Kind("CIDR", quoted_one_of("10.0.0.0/8")),
    Kind("MACADDR", quoted_one_of("08:00:2b:01:02:03")),
    Kind("MACADDR8", quoted_one_of("08:00:2b:01:02:03:04:05")),
    Kind("BIT(4)", one_of("B'0101'")),
    Kind("VARBIT", one_of("B''", "B'1'")),
    Kind("TSVECTOR", quoted_one_of("a fat cat")),
    Kind("TSQUERY", quoted_one_of("a & b")),
    Kind("POINT", quoted_one_of("(1,2)")),
    Kind("BOX", quoted_one_of("(1,2),(3,4)")),
    Kind("BOX[]", quoted_one_of("{(1,2),(3,4)}")),
    Kind("CIRCLE", quoted_one_of("<(1,2),3>")),
    Kind("PG_LSN", quoted_one_of("1/2")),
    Kind("OID", quoted_one_of("4294967295"), None),
    Kind("REGCLASS", quoted_one_of("pg_class")),
]
MARIADB = [
    Kind("TINYINT", whole(8), Decimal),
    Kind("SMALLINT UNSIGNED", whole(16, signed=False), Decimal),
    Kind("MEDIUMINT ZEROFILL", whole(24, signed=False), Decimal),
    Kind("INT", whole(32), Decimal),
    Kind("BIGINT", whole(64), Decimal),
    Kind("BIGINT UNSIGNED", whole(64, signed=False), Decimal),
    Kind("DECIMAL(65,30)", decimal(60, 30), Decimal),
    Kind("DECIMAL(20,10)", decimal(18, 10), Decimal),
    Kind("DOUBLE", double, float),
    Kind("FLOAT", one_of("0.1", "1e-30", "0")),
    Kind("BOOLEAN", one_of("TRUE", "FALSE")),
    Kind("BIT(12)", one_of("b'101'", "b'0'")),
    Kind("CHAR(30)", text_literal),
    Kind("VARCHAR(50)", text_literal),
    Kind("TEXT", text_literal),
    Kind("BINARY(4)", one_of("x'00ff'", "''")),
    Kind("VARBINARY(4)", one_of("x'00ff'", "''")),
    Kind("BLOB", one_of("x'00ff'", "''")),
    Kind("DATE", day("0000-00-00", "2026-00-00")),
    Kind("DATETIME(6)", moment("0000-00-00 00:00:00", "2026-01-00 12:00:00", "9999-12-31 23:59:59")),
    Kind("TIMESTAMP(6) NULL", moment("0000-00-00 00:00:00")),
    Kind("TIME(6)", quoted_one_of("00:00:00", "09:05:00", "838:59:59", "-838:59:59", "-00:00:00.25", "24:00:00")),
    Kind("YEAR", one_of("2026", "0", "1901")),
    Kind("ENUM('a', 'b c')", quoted_one_of("a", "b c")),
    Kind("SET('a', 'b c', 'd')", quoted_one_of("", "a,d", "b c")),
    Kind("JSON", lambda rng: quoted(json_of(rng).replace("\\", "\\\\"))),
    Kind("UUID", quoted_one_of("A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11")),
    Kind("INET6", quoted_one_of("::1")),
    Kind("INET4", quoted_one_of("192.168.0.1")),
    Kind("POINT", one_of("POINT(1, 2)")),
]
DUCKDB = [
    Kind("TINYINT", whole(8), Decimal),
    Kind("SMALLINT", whole(16), Decimal),
    Kind("INTEGER", whole(32), Decimal),
    Kind("BIGINT", whole(64), Decimal),
    Kind("HUGEINT", whole(128), Decimal),
    Kind("UBIGINT", whole(64, signed=False), Decimal),
    Kind("UHUGEINT", whole(128, signed=False), Decimal),
    Kind("DECIMAL(38,10)", decimal(36, 10), Decimal),
    Kind("DECIMAL(10,5)", decimal(9, 5), Decimal),
    Kind("DOUBLE", double, float),
    Kind("DOUBLE", quoted_one_of("nan", "inf", "5e-324")),
    Kind("FLOAT", one_of("0.1", "1e-30")),
    Kind("BOOLEAN", one_of("TRUE", "FALSE")),
    Kind("VARCHAR", text_literal),
    Kind("BLOB", quoted_one_of("\\x00\\xFF", "")),
    Kind("BIT", quoted_one_of("0101", "1")),
    Kind("DATE", day(*FAR, "0044-03-15 (BC)", "290000-01-01")),
    Kind("TIMESTAMP", moment(*FAR, "0044-03-15 (BC) 12:00:00")),
    Kind("TIMESTAMPTZ", moment(*FAR, zone="+05:30")),
    Kind("TIMESTAMP_S", quoted_one_of("2026-03-01 12:30:00", "infinity")),
    Kind("TIMESTAMP_MS", quoted_one_of("2026-03-01 12:30:00.5")),
    Kind("TIMESTAMP_NS", quoted_one_of("2026-03-01 12:30:00.123456789", "2026-03-01 12:30:00")),
    Kind("TIME", quoted_one_of("00:00", "24:00:00", "12:30:00.5")),
    Kind("TIMETZ", quoted_one_of("12:30:00+05", "24:00:00+01")),
    Kind("INTERVAL", quoted_one_of("1 month", "-1 year 3 days", "26 hours", "1 microsecond")),
    Kind("UUID", quoted_one_of("A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11")),
    Kind("JSON", json_literal),
    Kind("ENUM('a', 'INTERVAL')", quoted_one_of("a", "INTERVAL")),
    Kind("INTEGER[]", one_of("[]", "[1, NULL]")),
    Kind("DATE[]", one_of("[DATE '2026-03-01', 'infinity'::DATE, NULL]")),
    Kind("INTERVAL[2]", one_of("[INTERVAL '1 month', NULL]")),
    Kind(
        'STRUCT("a b" TIMESTAMP, c INTERVAL[], d DECIMAL(5,2))',
        one_of("{'a b': 'infinity'::TIMESTAMP, 'c': [INTERVAL '1 month'], 'd': 1.50}"),
    ),
    Kind("MAP(VARCHAR, DATE)", one_of("MAP {'k': 'infinity'::DATE, 'n': NULL}", "MAP {}")),
    Kind("MAP(INTEGER[], INTEGER)", one_of("MAP {[1]: 2}")),
    Kind("UNION(n INTEGER, t VARCHAR)", one_of("union_value(n := 1)", "union_value(t := 'x')")),
]
KINDS = {"sqlite": SQLITE, "postgresql": POSTGRES, "mysql": MARIADB, "duckdb": DUCKDB}
MADE_FIRST = {
    "postgresql": [
        "CREATE TYPE mood AS ENUM ('a', 'b c', 'd,e')",
        "CREATE DOMAIN price AS NUMERIC(10, 2)",
        "CREATE TYPE pair AS (a INT, b TEXT)",
    ],
    # As old tables have it: a date of zeros is taken.
    "mysql": ["SET SESSION sql_mode = ''"],
}
