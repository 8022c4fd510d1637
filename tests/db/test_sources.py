"""Sources of all kinds are only read, report a lost connection, and never show the values of rows."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from db.database_errors import SourceUnreachableError
from db.session import reason_of
from db.sources.access import Interrupter, is_lost, open_source


@pytest.fixture
def source(source_database_url: str) -> Iterator[Engine]:
    """A source of each kind with one table."""
    engine = create_engine(source_database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE people (id INT, name VARCHAR(40))"))
        connection.execute(text("INSERT INTO people VALUES (1, 'Ada Secret'), (2, 'it''s \"Bob\" Secret')"))
    engine.dispose()
    opened = open_source(source_database_url)
    yield opened
    opened.dispose()


def failure(engine: Engine, statement: str) -> SQLAlchemyError:
    with engine.connect() as connection, pytest.raises(SQLAlchemyError) as raised:
        connection.execute(text(statement)).fetchall()
    return raised.value


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO people VALUES (3, 'x')", "DELETE FROM people", "DROP TABLE people", "CREATE TABLE t (a INT)"],
)
def test_a_source_refuses_to_write(source: Engine, statement: str) -> None:
    error = failure(source, statement)

    assert not is_lost(source, error)
    with source.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM people")).scalar() == 2


QUOTING = {
    "postgresql": ["SELECT CAST(name AS INT) FROM people", "SELECT CAST(name AS DATE) FROM people"],
    "mysql": ["SELECT 9223372036854775807 + CHAR_LENGTH(name) FROM people", "SELECT 9223372036854775807 + 12345678901"],
    "duckdb": [
        "SELECT CAST(name AS INT) FROM people",
        "SELECT CAST(name AS DATE) FROM people",
        "SELECT strptime(name, '%Y') FROM people",
        "SELECT json(name) FROM people",
        "SELECT CAST(id AS INT) * CAST(2147483647 AS INT) FROM people",
    ],
}


def test_driver_error_quotes_no_value(source: Engine) -> None:
    for statement in QUOTING.get(source.dialect.name, []):
        reason = reason_of(failure(source, statement), source.url)
        assert not [word for word in ("Secret", "Ada", "Bob", "2147483647", "12345678901") if word in reason], reason


def test_driver_error_names_what_is_wrong(source: Engine) -> None:
    reason = reason_of(failure(source, "SELECT nonsense FROM people"), source.url)

    assert "nonsense" in reason
    assert "(1054, " not in reason


@pytest.mark.mariadb
def test_a_connection_of_mariadb_that_is_cut_is_lost(mariadb_server: str) -> None:
    engine, other = open_source(mariadb_server), create_engine(mariadb_server)
    with engine.connect() as connection:
        number = connection.execute(text("SELECT CONNECTION_ID()")).scalar()
        with other.connect() as killer:
            killer.execute(text(f"KILL CONNECTION {number}"))
        with pytest.raises(DBAPIError) as raised:
            connection.execute(text("SELECT 1"))

    assert is_lost(engine, raised.value)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    engine.dispose()
    other.dispose()


@pytest.mark.mariadb
def test_callers_error_from_mariadb_is_not_a_lost_connection_and_a_missing_server_is(mariadb_server: str) -> None:
    refused = create_engine(make_url(mariadb_server).set(username="nobody", password="hunter22"))
    absent = create_engine("mysql+pymysql://127.0.0.1:1/x")
    for engine, lost in ((refused, False), (absent, True)):
        with pytest.raises(DBAPIError) as raised:
            engine.connect()
        assert is_lost(engine, raised.value) is lost
        assert "hunter22" not in reason_of(raised.value, engine.url)


@pytest.mark.mariadb
def test_mariadb_waits_for_a_reader_that_is_busy(mariadb_server: str) -> None:
    engine = open_source(mariadb_server)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT @@net_write_timeout")).scalar() == 600
    engine.dispose()


ENDLESS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n",
    "postgresql": "SELECT COUNT(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b",
    "mysql": "SELECT COUNT(*) FROM seq_1_to_1000000 a, seq_1_to_1000000 b WHERE (a.seq + b.seq) MOD 7 = 3",
    "duckdb": "SELECT COUNT(*) FROM range(1000000000) a, range(1000000) b WHERE (a.range + b.range) % 7 = 3",
}


def test_a_statement_that_another_thread_runs_is_interrupted(source: Engine) -> None:
    interrupter, begun = Interrupter(source), threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        with source.connect() as connection:
            begun.set()
            try:
                connection.exec_driver_sql(ENDLESS[source.dialect.name]).fetchall()
            except SQLAlchemyError as error:
                raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert begun.wait(60)
    for _ in range(600):
        thread.join(0.1)
        if not thread.is_alive():
            break
        assert thread.ident is not None
        interrupter.interrupt(thread.ident)
    assert not thread.is_alive()
    assert raised
    assert not is_lost(source, raised[0])


def test_a_duckdb_file_that_another_process_writes_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "busy.duckdb"
    holding = (
        f"import duckdb; c = duckdb.connect({str(file)!r}); c.execute('CREATE TABLE t (a INT)'); print('open'); input()"
    )
    with subprocess.Popen([sys.executable, "-uc", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(
            SourceUnreachableError, match=rf"another process \(PID {holder.pid}\) has it open for writing"
        ):
            open_source(f"duckdb:///{file}")
        holder.communicate(b"\n")
    open_source(f"duckdb:///{file}").dispose()


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, kind: str) -> None:
    with pytest.raises(SourceUnreachableError, match="can't be reached"):
        open_source(f"{kind}:///{tmp_path / 'none'}")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "url", ["mysql://h/d", "mssql+pyodbc://h/d", "oracle+oracledb://h/d", "snowflake://u:hunter22@h/d"]
)
def test_a_driver_that_is_not_installed_is_reported_with_the_page_to_read(url: str) -> None:
    with pytest.raises(SourceUnreachableError, match=r"docs/templates\.md says how to install one") as raised:
        open_source(url)
    assert "hunter22" not in str(raised.value)
