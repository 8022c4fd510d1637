"""The same template over the same rows makes the same prompts from every database, hash for hash, or the page says why.

docs/templates.md#values-of-different-databases says what differs, and how a select is written so that it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import Engine, create_engine

import flows.outputs
from db.sources import select
from db.sources.access import open_source
from db.sources.spool import RunSpools
from db.sources.statements import Query
from db.sources.values import Record
from presswork.prompts.render import make_brief, render_prompt
from presswork.prompts.templates import load_template

TEMPLATE = """---
output: Note
---
{% block user %}
{{ record.id }} {{ record.many }} {{ record.label }} {{ record.price }} {{ record.tiny }} {{ record.large }}
{{ record.exact }} {{ record.ratio }} {{ record.born }} {{ record.seen }} {{ record.missing }} {{ record.raw }}
{{ "sold" if record.sold else "there" }} {{ record.colour }} {{ [record.price, record.tiny] | join(" and ") }}
{% endblock %}
"""
COLUMNS = """id INT, many BIGINT, label VARCHAR(50), price DECIMAL(10,2), tiny DECIMAL(12,8), large DECIMAL(18,0),
    exact VARCHAR(60), ratio DOUBLE PRECISION, born DATE, seen TIMESTAMP{null}, missing VARCHAR(9){null}, raw {bytes},
    sold BOOLEAN, attrs {json}"""
ROWS = """(1, 9007199254740993, 'Tee ☕ 日本', 9.50, 0.00005, 12345678901234560, '12345678901234567890.123', 0.1,
    '2026-03-01', '2026-03-01 12:30:00', NULL, {raw}, TRUE, '{{"colour": "red", "size": 1.50}}'),
    (2, -7, '', 10.00, 0, -5, '0', 1e22, '1999-12-31', '1999-12-31 23:59:59', 'x', {raw}, FALSE,
    '{{"colour": null, "size": 2}}')"""
OWN = {
    "sqlite": {"bytes": "BLOB", "json": "TEXT", "null": "", "raw": "x'00ff'"},
    "postgresql": {"bytes": "BYTEA", "json": "JSONB", "null": "", "raw": "'\\x00ff'"},
    "mysql": {"bytes": "BLOB", "json": "JSON", "null": " NULL", "raw": "x'00ff'"},
    "duckdb": {"bytes": "BLOB", "json": "JSON", "null": "", "raw": "'\\x00\\xFF'::BLOB"},
}
# As the page writes them. SQLite has no moments, only texts; a part of JSON is taken out in each database's words.
SEEN = {"sqlite": "strftime('%Y-%m-%dT%H:%M:%S', seen)"}
COLOUR = {
    "sqlite": "attrs ->> 'colour'",
    "postgresql": "attrs ->> 'colour'",
    "mysql": "JSON_VALUE(attrs, '$.colour')",
    "duckdb": "attrs ->> 'colour'",
}
FIRST = """1 9007199254740993 Tee ☕ 日本 9.5 0.00005 12345678901234560
12345678901234567890.123 0.1 2026-03-01 2026-03-01T12:30:00  AP8=
sold red 9.5 and 0.00005"""
SECOND = """2 -7  10 0 -5
0 10000000000000000000000 1999-12-31 1999-12-31T23:59:59 x AP8=
there  10 and 0"""
HASHES = [
    "84e5d49be44e1653359cbe625a9d15b7a56b0506b16ff7e32a9b77eb55623f4a",
    "d37201bd9c0bc13a0fe35b55019a2de78ee4a01165653e101c293616050555d1",
]


class Note(BaseModel):
    """A note."""

    text: str


@pytest.fixture
def source(source_database_url: str) -> Iterator[Engine]:
    made = create_engine(source_database_url)
    own = OWN[made.dialect.name]
    with made.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE things ({COLUMNS.format(**own)})")
        connection.exec_driver_sql(f"INSERT INTO things VALUES {ROWS.format(**own)}")
    made.dispose()
    engine = open_source(source_database_url)
    yield engine
    engine.dispose()


def read(engine: Engine, sql: str, folder: Path) -> list[Record]:
    spools = RunSpools(folder, "run")
    select.spool(engine, Query("things.md.j2", sql, ("id",), {}), partial(spools.writing, "things"))
    records = [record for page in spools.open("things").pages(100) for record in page]
    spools.close()
    return [record for record in records if isinstance(record, Record)]


def test_same_rows_make_the_same_prompts_from_every_database(
    source: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.outputs, "Note", Note, raising=False)
    name = source.dialect.name
    columns = "id, many, label, price, tiny, large, exact, ratio, born, missing, raw, sold"
    sql = f"SELECT {columns}, {SEEN.get(name, 'seen')} AS seen, {COLOUR[name]} AS colour FROM things ORDER BY id"
    (tmp_path / "things.md.j2").write_text(TEMPLATE, encoding="utf-8")
    brief = make_brief(load_template(tmp_path, "things"), "sandbox", {})

    records = read(source, sql, tmp_path / "spool")

    prompts = [render_prompt(brief, {"record": record.data}) for record in records]
    assert [prompt.messages[-1]["content"] for prompt in prompts] == [
        FIRST,
        SECOND,
    ]
    assert [prompt.hash for prompt in prompts] == HASHES


def test_what_differs_between_databases_is_what_the_page_says(source: Engine, tmp_path: Path) -> None:
    (first, _second) = read(source, "SELECT id, sold, seen, attrs FROM things ORDER BY id", tmp_path / "spool")

    found: dict[str, Any] = dict(first.data)
    sold, attrs = {
        "sqlite": (1, '{"colour": "red", "size": 1.50}'),
        "postgresql": (True, {"colour": "red", "size": 1.5}),
        "mysql": (1, '{"colour": "red", "size": 1.50}'),
        "duckdb": (True, {"colour": "red", "size": 1.5}),
    }[source.dialect.name]
    seen = "2026-03-01 12:30:00" if source.dialect.name == "sqlite" else "2026-03-01T12:30:00"
    assert found == {"id": 1, "sold": sold, "seen": seen, "attrs": attrs}
    assert type(found["sold"]) is type(sold)
