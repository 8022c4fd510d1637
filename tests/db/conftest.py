"""Databases to select from, and a ledger to write in: SQLite and PostgreSQL, both real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from sqlalchemy import Dialect, Engine, TextClause, create_engine, make_url, text

from db.sources.access import open_source
from db.sources.statements import Parameter, Query, bound
from tests.conftest import drop_postgres_database, new_postgres_database
from tests.db.rows import Book

Shop = Callable[..., Engine]


@pytest.fixture
def database(empty_database_url: str) -> Iterator[Engine]:
    """A user's empty database, open for writing."""
    engine = create_engine(empty_database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def new_postgres(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    url = new_postgres_database(postgres_server)
    yield url
    drop_postgres_database(postgres_server, url)


@pytest.fixture
def source(database: Engine) -> Iterator[Shop]:
    """Run statements in a new database, and open it as a source."""
    opened: list[Engine] = []

    def make(*statements: str) -> Engine:
        with database.begin() as connection:
            for statement in statements:
                connection.execute(text(statement.replace(":", "\\:")))
        if database.dialect.name == "sqlite":
            # So that the file exists even if no table was created.
            database.connect().close()
        opened.append(open_source(database.url.render_as_string(hide_password=False)))
        return opened[-1]

    yield make
    for engine in opened:
        engine.dispose()


@pytest.fixture
def book(ledger: Engine) -> Book:
    """A ledger with a run in it."""
    return Book(ledger)


def dialect_of(driver: str) -> Dialect:
    """Return SQLAlchemy's dialect for a driver that may be missing; it compiles parameters by name."""
    make: Any = make_url(f"{driver}://").get_dialect()
    dialect: Dialect = make(paramstyle="pyformat" if driver.startswith("mysql") else "named")
    return dialect


def as_it_stands(sql: str, parameters: Mapping[str, Parameter], dialect: Dialect) -> TextClause:
    """Bind a whole select."""
    return bound(Query("made.md.j2", sql, (), parameters), dialect)
