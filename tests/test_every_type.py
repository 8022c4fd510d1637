"""Random tables of every type that the four databases have: no crash, no lost digit, no `None`, the same hash twice."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine

from db.sources import select
from db.sources.access import open_source
from db.sources.spool import RunSpools
from db.sources.statements import Query
from db.sources.values import Record
from presswork.prompts.render import Brief, Prompt, make_brief, render_prompt
from presswork.prompts.templates import load_template
from tests.every_type import KINDS, MADE_FIRST, Kind

ROWS = 4
TEMPLATE = """---
output: SubjectLine
---
{{% block user %}}{}{{% endblock %}}
"""
# Each column in four ways, between marks that no value has.
WAYS = """<c{0}>{{{{ record.c{0} }}}}</c{0}>
{{{{ record.c{0} ~ '' }}}} {{{{ [record.c{0}, ''] | join }}}} {{{{ '%s' | format(record.c{0}) }}}}
"""


@pytest.fixture
def database(source_database_url: str) -> Iterator[Engine]:
    engine = create_engine(source_database_url)
    with engine.begin() as connection:
        for statement in MADE_FIRST.get(engine.dialect.name, []):
            run(connection, statement)
    yield engine
    engine.dispose()


def run(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(
        statement.replace("%", "%%") if connection.dialect.paramstyle == "pyformat" else statement
    )


def fill(connection: Connection, rng: random.Random, table: str, kinds: Sequence[Kind]) -> list[list[str | None]]:
    """Make a table of these columns, and return the literals of its rows; None stands for NULL."""
    if connection.dialect.name == "mysql":
        run(connection, MADE_FIRST["mysql"][0])
    columns = ", ".join(f"c{number} {kind.sql}" for number, kind in enumerate(kinds))
    run(connection, f"CREATE TABLE {table} (id INT, {columns})")
    rows = [[kind.draw(rng) if rng.random() < 0.8 else None for kind in kinds] for _row in range(ROWS)]
    for number, row in enumerate(rows):
        values = ", ".join("NULL" if literal is None else literal for literal in row)
        run(connection, f"INSERT INTO {table} VALUES ({number}, {values})")
    return rows


def read(url: str, table: str, folder: Path) -> list[Record]:
    engine = open_source(url)
    spools = RunSpools(folder, "run")
    select.spool(engine, Query("all.md.j2", f"SELECT * FROM {table}", ("id",), {}), partial(spools.writing, table))
    records = [record for page in spools.open(table).pages(100) for record in page]
    spools.close()
    engine.dispose()
    assert all(isinstance(record, Record) for record in records)
    return sorted((record for record in records if isinstance(record, Record)), key=lambda record: record.key)


def brief_of(columns: int, folder: Path) -> Brief:
    folder.mkdir(exist_ok=True)
    text = "".join(WAYS.format(number) for number in range(columns))
    (folder / "all.md.j2").write_text(TEMPLATE.format(text), encoding="utf-8")
    return make_brief(load_template(folder, "all"), "sandbox", {})


def check_tables(database: Engine, tmp_path: Path, rng: random.Random, tables: int) -> None:
    kinds = KINDS[database.dialect.name]
    url = database.url.render_as_string(hide_password=False)
    for number in range(tables):
        # Each type is in one of the tables at least.
        chosen = [*kinds[number::tables], *rng.choices(kinds, k=3)]
        with database.begin() as connection:
            rows = fill(connection, rng, f"t{number}", chosen)
        # DuckDB's file has one who writes or many who read.
        database.dispose()
        first, second = (read(url, f"t{number}", tmp_path / f"spool-{again}-{number}") for again in (1, 2))
        assert [record.hash for record in first] == [record.hash for record in second]
        brief = brief_of(len(chosen), tmp_path / "templates")
        for row, record, again in zip(rows, first, second, strict=True):
            prompt = render_prompt(brief, {"record": record.data})
            assert prompt.hash == render_prompt(brief, {"record": again.data}).hash
            check_row(row, chosen, record, prompt)


def check_row(row: list[str | None], kinds: list[Kind], record: Record, prompt: Prompt) -> None:
    content = prompt.messages[-1]["content"]
    assert "None" not in content
    for number, (literal, kind) in enumerate(zip(row, kinds, strict=True)):
        written = re.findall(f"<c{number}>(.*)</c{number}>", content, re.DOTALL)[0]
        if literal is None:
            assert written == ""
        elif kind.number is not None:
            assert kind.number(written) == kind.number(literal), (kind, literal, written)
            assert "e" not in written.lower()
        elif kind.is_json:
            value = record.data[f"c{number}"]
            assert numbers_in(json.loads(literal[1:-1].replace("''", "'"), parse_float=Decimal)) <= numbers_in(value)


def numbers_in(value: Any) -> set[Decimal]:
    """The numbers of a JSON value, or of a text that is one; a text that is a number counts as one too."""
    if isinstance(value, dict):
        return {number for item in value.values() for number in numbers_in(item)}
    if isinstance(value, list):
        return {number for item in value for number in numbers_in(item)}
    if value is None or isinstance(value, bool):
        return set()
    if isinstance(value, str) and value.startswith(("[", "{", '"')):
        with suppress(ValueError):
            return numbers_in(json.loads(value, parse_float=Decimal))
    try:
        return {Decimal(str(value))}
    except ArithmeticError:
        return set()


def test_random_tables_of_every_type_are_read_and_rendered_alike(database: Engine, tmp_path: Path) -> None:
    check_tables(database, tmp_path, random.Random(8), tables=6)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_many_random_tables_of_every_type_are_read_and_rendered_alike(
    database: Engine, tmp_path: Path, seed: int
) -> None:
    check_tables(database, tmp_path, random.Random(seed), tables=40)
