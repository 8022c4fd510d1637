"""The SQL of a list, as a page shows it, can be run as it is and finds the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from db.readers.audit.compared_versions import compared_versions
from db.readers.audit.filter_values import values_of_filters
from db.readers.audit.filters import Filter, RunFilter
from db.readers.audit.generation_lists import list_generations
from db.readers.audit.run_lists import list_runs_page
from db.readers.audit.template_versions import list_templates, template_versions
from db.readers.audit.ways import candidates
from db.timed_reads import open_reader, reading
from tests.db.audit.made_rows import BEGIN, Library
from tests.db.rows import sha


@pytest.fixture
def reader(ledger: Engine, ledger_url: str) -> Iterator[Engine]:
    library = Library(ledger, seed=1)
    for number in range(3):
        library.run(BEGIN + timedelta(hours=number), is_open=number == 1)
    engine = open_reader(ledger_url)
    yield engine
    engine.dispose()


PERIOD: dict[str, Any] = {"since": BEGIN, "until": BEGIN + timedelta(days=1)}
QUESTIONS: dict[str, Callable[[Engine], Any]] = {
    "all": lambda engine: list_generations(engine, Filter()),
    "some": lambda engine: list_generations(engine, Filter(status="failed", model="claude-haiku-4-5", **PERIOD)),
    "by key": lambda engine: list_generations(engine, Filter(key="a*", template=sha("copy 1"))),
    "a strange key": lambda engine: list_generations(engine, Filter(key='it\'s 100 % :of \\ "them"')),
    "runs": lambda engine: list_runs_page(engine, RunFilter(status="crashed", **PERIOD), "cost"),
    "long runs": lambda engine: list_runs_page(engine, RunFilter(), "duration", "7:x"),
    "failing runs": lambda engine: list_runs_page(engine, RunFilter(), "failures"),
    "templates": lambda engine: list_templates(engine, **PERIOD),
    "versions": lambda engine: template_versions(engine, "copy"),
    "compared": lambda engine: compared_versions(engine, "copy", sha("copy 0"), sha("copy 1"), '["a", "b", "c"]'),
    "choices": values_of_filters,
}


@pytest.mark.parametrize("by_run", [0, 1e9])
def test_every_statement_runs_as_it_is_shown(reader: Engine, by_run: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_BY_RUN", by_run)
    for question, ask in QUESTIONS.items():
        with reading(60) as read:
            ask(reader)
        statements = read.statements()
        assert statements, question
        for statement in statements:
            with reader.connect() as connection:
                # psycopg takes a lone percent sign for a parameter unless it is doubled; SQL clients don't.
                raw = statement.replace("%", "%%") if connection.dialect.name == "postgresql" else statement
                connection.exec_driver_sql(raw).all()


def test_a_percent_sign_is_shown_once(reader: Engine) -> None:
    with reading(60) as read:
        list_generations(reader, Filter(key="100 %"))
    assert any("'100 %'" in statement for statement in read.statements())
