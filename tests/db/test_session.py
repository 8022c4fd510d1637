"""Ledgers are created, migrated, checked and refused; sources are only read; no message shows a password."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Engine, create_engine, event, insert, inspect, select, text
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.columns import Base
from db.database_errors import (
    LedgerDamagedError,
    LedgerNotMigratedError,
    LedgerTooNewError,
    LedgerUnreachableError,
    SourceUnreachableError,
)
from db.ledger.connecting import check, connect_ledger, open_ledger, upgrade
from db.ledger.migrating import alembic_config
from db.ledger.rows import values_of
from db.session import begin_write, is_unavailable, is_unwritable, make_engine, readable_url, reason_of
from db.sources.access import open_source
from db.tables import Attempt, GenerationParent, StoredRun
from db.tables.revisions import known_revisions, stored_revision
from tests.db.rows import HEAD, Book, error_of_sqlite, run_row

TABLES = set(Base.metadata.tables)
VIEWS = {"current_content", "usage_by_day"}


def execute(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


# Making and migrating


def test_new_sqlite_ledger_is_made_on_first_use(sqlite_ledger_url: str) -> None:
    engine = open_ledger(sqlite_ledger_url)

    assert set(inspect(engine).get_table_names()) >= TABLES
    assert set(inspect(engine).get_view_names()) == VIEWS
    engine.dispose()


def test_processes_that_make_one_ledger_at_once_all_get_it(sqlite_ledger_url: str) -> None:
    program = f"from db.ledger.connecting import open_ledger; open_ledger({sqlite_ledger_url!r})"
    started = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) for _ in range(3)]

    assert [(process.communicate(timeout=200)[1], process.returncode) for process in started] == [(b"", 0)] * 3
    open_ledger(sqlite_ledger_url).dispose()


@pytest.mark.postgres
def test_processes_that_migrate_one_ledger_at_once_wait_for_each_other(new_postgres: str) -> None:
    program = (
        "from db.ledger.connecting import connect_ledger; from db.ledger.connecting import upgrade; "
        f"upgrade(connect_ledger({new_postgres!r}))"
    )
    started = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) for _ in range(3)]

    assert [(process.communicate(timeout=200)[1], process.returncode) for process in started] == [(b"", 0)] * 3


def test_database_without_tables_is_made_on_sqlite_alone(empty_database_url: str) -> None:
    engine = connect_ledger(empty_database_url)
    with pytest.raises(LedgerNotMigratedError, match=r"has no tables yet\. Run `presswork db upgrade`"):
        check(engine)
    engine.dispose()
    if engine.dialect.name == "postgresql":
        with pytest.raises(LedgerNotMigratedError):
            open_ledger(empty_database_url)


def test_users_own_database_is_not_mistaken_for_a_new_ledger(empty_database_url: str) -> None:
    execute(empty_database_url, "CREATE TABLE products (id INT)")

    with pytest.raises(LedgerNotMigratedError, match="has no tables yet"):
        open_ledger(empty_database_url)


def test_upgrade_twice_changes_nothing(ledger: Engine) -> None:
    upgrade(ledger)

    assert check(ledger) == HEAD


def test_error_for_an_older_ledger_names_the_command(ledger_url: str) -> None:
    execute(ledger_url, "DELETE FROM alembic_version")

    with pytest.raises(LedgerNotMigratedError, match="presswork db upgrade"):
        open_ledger(ledger_url)


def test_newer_ledger_is_refused_and_not_touched(ledger_url: str) -> None:
    execute(ledger_url, "UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(LedgerTooNewError, match="revision 9999, which this code does not know"):
        open_ledger(ledger_url)
    engine = connect_ledger(ledger_url)
    with pytest.raises(LedgerTooNewError):
        upgrade(engine)
    engine.dispose()


def test_revisions_are_known_as_alembic_knows_them(ledger: Engine) -> None:
    script = ScriptDirectory.from_config(alembic_config())
    with ledger.connect() as connection:
        stored = (stored_revision(connection), MigrationContext.configure(connection).get_current_revision())

    assert list(known_revisions()) == [revision.revision for revision in script.walk_revisions()][::-1]
    assert stored == (HEAD, HEAD)


def test_ledger_goes_down_to_nothing_and_up_again(ledger: Engine) -> None:
    with ledger.begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert set(inspect(ledger).get_table_names()) <= {"alembic_version"}
    assert inspect(ledger).get_view_names() == []

    upgrade(ledger)
    assert check(ledger) == HEAD


def test_migration_that_fails_leaves_nothing_behind(empty_database_url: str) -> None:
    # The last thing that it creates exists already.
    execute(empty_database_url, "CREATE TABLE usage_by_day (id INT)")
    engine = connect_ledger(empty_database_url)

    with pytest.raises(LedgerUnreachableError, match=r"can't be migrated: .*usage_by_day.* already exists"):
        upgrade(engine)
    assert set(inspect(engine).get_table_names()) == {"usage_by_day"}
    engine.dispose()


def test_models_and_migrations_agree(ledger: Engine) -> None:
    with ledger.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})

        assert compare_metadata(context, Base.metadata) == []


# Ledgers that can't be used


def test_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnreachableError, match="unable to open database file"):
        open_ledger(f"sqlite:///{tmp_path / 'nowhere' / 'ledger.sqlite'}")


def test_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("No database.\n" * 100)

    with pytest.raises(LedgerDamagedError, match="file is not a database"):
        open_ledger(f"sqlite:///{file}")
    with pytest.raises(SourceUnreachableError, match="file is not a database"):
        open_source(f"sqlite:///{file}")
    assert file.read_text() == "No database.\n" * 100


def test_read_only_ledger_is_reported(sqlite_ledger_url: str) -> None:
    execute(sqlite_ledger_url, "CREATE TABLE t (id INT)")
    url = sqlite_ledger_url.replace("sqlite:///", "sqlite:///file:") + "?mode=ro&uri=true"

    with pytest.raises(LedgerUnreachableError, match="readonly database"):
        open_ledger(url)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes anywhere")
def test_read_only_folder_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(LedgerUnreachableError, match="unable to open database file"):
        open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite://", "would be lost"),
        ("mysql+pymysql://127.0.0.1/x", "SQLite or PostgreSQL|No module named"),
        ("nonsense", "it is not a database URL"),
        ("", "it is not a database URL"),
        ("postgresql+nope://h/x", r"no SQLAlchemy driver for 'postgresql\+nope'"),
    ],
)
def test_url_that_can_be_no_ledger_is_reported(url: str, reason: str) -> None:
    with pytest.raises(LedgerUnreachableError, match=reason):
        connect_ledger(url)


@pytest.mark.parametrize("open_it", [connect_ledger, open_ledger])
def test_ledger_that_is_no_file_is_reported(open_it: Callable[[str], Engine], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("", "it is a folder"), ("pipe", "it is no ordinary file")):
        with pytest.raises(LedgerUnreachableError, match=rf"{reason}.*Check PRESSWORK_DATABASE_URL"):
            open_it(f"sqlite:///{tmp_path / name}")


@pytest.mark.postgres
def test_urls_of_other_drivers_are_understood(postgres_server: str, sqlite_ledger_url: str) -> None:
    for spelling in ("postgres", "postgresql", "postgresql+asyncpg"):
        connect_ledger(postgres_server.replace("postgresql+psycopg", spelling)).dispose()
    connect_ledger(sqlite_ledger_url.replace("sqlite", "sqlite+aiosqlite", 1)).dispose()


# Passwords

WORD = "p/ss w:rd#1"
QUOTED = quote(WORD, safe="")


@pytest.mark.parametrize("open_it", [connect_ledger, open_ledger, open_source])
@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{QUOTED}@127.0.0.1:1/x",
        f"postgresql://u@127.0.0.1:1/x?password={QUOTED}",
        f"postgresql://u:{QUOTED}@127.0.0.1:1/x?{QUOTED}=1",
        f"postgresql://u:{QUOTED}@127.0.0.1:port/x",
        f"postgresql://u:begin@{QUOTED}@127.0.0.1:1/x",
        f"no such scheme://u:{QUOTED}@127.0.0.1:1/x",
        f"mysql+nope://u:{QUOTED}@127.0.0.1/x",
    ],
)
def test_no_password_gets_into_a_message(open_it: Callable[[str], Engine], url: str) -> None:
    with pytest.raises((LedgerUnreachableError, SourceUnreachableError)) as caught:
        open_it(url)

    error: BaseException | None = caught.value
    while error is not None:
        assert WORD not in str(error)
        assert QUOTED not in str(error)
        error = None if error.__suppress_context__ else error.__context__


@pytest.mark.postgres
def test_password_that_a_server_refuses_stays_out_of_the_message(postgres_server: str) -> None:
    engine = create_engine(postgres_server)
    url = engine.url.set(password=WORD, database="no_such_database").render_as_string(hide_password=False)

    with pytest.raises(LedgerUnreachableError, match=r"postgres:\*\*\*@.*does not exist") as caught:
        connect_ledger(url)
    assert WORD not in str(caught.value)
    assert QUOTED not in str(caught.value)


def test_url_is_shown_with_what_tells_databases_apart() -> None:
    shown = readable_url(f"postgresql://u:{QUOTED}@db.example:5433/shop?sslmode=require&password={QUOTED}")

    assert shown.startswith("postgresql://u:***@db.example:5433/shop?")
    assert "sslmode=require" in shown
    assert QUOTED not in shown


# How databases are opened


def test_sqlite_ledger_is_durable_and_keeps_its_references(sqlite_ledger_url: str) -> None:
    engine = open_ledger(sqlite_ledger_url)
    with engine.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}
    engine.dispose()


def test_reference_to_nothing_is_refused(ledger: Engine) -> None:
    with pytest.raises(IntegrityError), ledger.begin() as connection:
        connection.execute(insert(GenerationParent), [{"generation_id": "none", "parent_id": "none"}])


def test_source_can_only_be_read(empty_database_url: str) -> None:
    execute(empty_database_url, "CREATE TABLE t (id INT)")
    engine = open_source(empty_database_url)

    with pytest.raises(DBAPIError, match=r"read-?only"), engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
    engine.dispose()


def test_source_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    file = tmp_path / "shop.sqlite"

    with pytest.raises(SourceUnreachableError, match=r"no such file.*Check PRESSWORK_SOURCE_SHOP_URL"):
        open_source(f"sqlite:///{file}", "PRESSWORK_SOURCE_SHOP_URL")
    assert not file.exists()


def test_ledger_can_be_read_as_a_source_while_it_is_written(ledger: Engine) -> None:
    source = open_source(ledger.url.render_as_string(hide_password=False))
    with ledger.begin() as writing:
        writing.execute(insert(StoredRun), [values_of(run_row())])
        with source.connect() as reading:
            assert reading.scalar(text("SELECT COUNT(*) FROM runs")) == 0
    with source.connect() as reading:
        assert reading.scalar(text("SELECT COUNT(*) FROM runs")) == 1
    source.dispose()


# Times and money


def test_time_without_a_zone_is_refused(ledger: Engine) -> None:
    naive = datetime.fromisoformat("2026-03-01")

    with pytest.raises(StatementError, match="without a time zone"), ledger.begin() as connection:
        connection.execute(insert(StoredRun), [values_of(run_row(started_at=naive))])


def test_times_come_back_in_utc(book: Book) -> None:
    moment = datetime.fromisoformat("2026-03-01T01:02:03.000004+09:00")
    later = Book(book.ledger, started_at=moment)
    with book.ledger.connect() as connection:
        found = connection.scalar(select(StoredRun.started_at).where(StoredRun.id == later.run_id))

    assert found is not None
    assert found.isoformat() == "2026-02-28T16:02:03.000004+00:00"


@pytest.mark.parametrize("cost", ["0.00000005", "0.0000000001", "12345.6789012345", "0", "0.1"])
def test_money_comes_back_to_ten_decimals(book: Book, cost: str) -> None:
    book.add("a", settled={"cost_usd": Decimal(cost)})
    with book.ledger.connect() as connection:
        found = connection.scalar(select(Attempt.cost_usd))

    assert found == Decimal(cost)
    assert isinstance(found, Decimal)


# Errors of databases


def complaint(ledger: Engine, statement: str) -> DBAPIError:
    with pytest.raises(DBAPIError) as failed, ledger.begin() as connection:
        connection.execute(text(statement))
    return failed.value


@pytest.mark.parametrize("said", ["", "\n", "  \n\n "])
def test_error_without_a_message_is_named_by_its_type(said: str) -> None:
    error = OperationalError("SELECT 1", {}, sqlite3.OperationalError(said))

    assert reason_of(error, "sqlite:///a") == "OperationalError"
    assert reason_of(ValueError(said), "sqlite:///a") == "ValueError"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%40ss+w%c3%b6rd@h/d",
        "postgresql://h/d?sslpassword=p%40ss%2Bw%C3%B6rd",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dp%40ss%2Bw%C3%B6rd%3BUID%3Du",
    ],
)
@pytest.mark.parametrize("spelling", ["p@ss+w\u00f6rd", "p%40ss%2Bw%C3%B6rd", "p%40ss%2bw%c3%b6rd"])
def test_password_in_an_error_is_masked_in_every_spelling(url: str, spelling: str) -> None:
    assert reason_of(ValueError(f"login with {spelling} failed"), url) == "login with *** failed"


def test_error_about_a_value_does_not_quote_it(ledger: Engine) -> None:
    Book(ledger, parameters={"word": "PRIVATE\nwords"})
    cast = "SELECT CAST(CAST(parameters AS TEXT) AS INTEGER) FROM runs"
    statements = [
        "INSERT INTO texts VALUES ('PRIVATE', 'x'), ('PRIVATE', 'x')",
        "INSERT INTO texts VALUES ('PRIVATE', NULL)",
    ]
    # SQLite takes any text for a number.
    for statement in [*statements, *([cast] if ledger.dialect.name == "postgresql" else [])]:
        reason = reason_of(complaint(ledger, statement), ledger.url)
        assert "PRIVATE" not in reason
        assert "words" not in reason
        assert reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            DataError("", {}, ValueError("Incorrect integer value: 'it's PRIVATE' for column 'n' at row 1")),
            "Incorrect integer value: '...' at row 1",
        ),
        (IntegrityError("", {}, ValueError('Duplicate entry "PRIVATE')), "Duplicate entry '...'"),
        (
            OperationalError("", {}, ValueError("Could not decode to UTF-8 column 'name' with text 'PRIVATE'")),
            "Could not decode to UTF-8 column 'name'",
        ),
        (ProgrammingError("", {}, ValueError('column "nmae" does not exist')), 'column "nmae" does not exist'),
    ],
)
def test_error_names_the_column_and_never_the_value(error: DBAPIError, reason: str) -> None:
    assert reason_of(error, "mysql://h/d") == reason


def test_unavailable_ledger_is_distinguished_from_one_that_refuses(ledger: Engine) -> None:
    for statement in ("SELECT * FROM nowhere", "SELEKT", "INSERT INTO texts VALUES ('a', NULL)"):
        assert not is_unavailable(complaint(ledger, statement))
    assert not is_unavailable(ValueError("a value"))
    assert is_unavailable(PoolTimeout())


@pytest.mark.parametrize(
    ("code", "passes"), [(5, True), (6, True), (10 | 1 << 8, True), (13, True), (14, True), (1, False), (11, False)]
)
def test_sqlite_code_shows_whether_waiting_helps(code: int, passes: bool) -> None:
    assert is_unavailable(OperationalError("", {}, error_of_sqlite(code))) is passes


@pytest.mark.parametrize(
    ("state", "passes"),
    [
        (None, True),
        ("08006", True),
        ("57P01", True),
        ("57P03", True),
        ("53300", True),
        ("53100", True),
        ("40P01", True),
        ("25006", True),
        ("42P01", False),
        ("42501", False),
        ("22003", False),
        ("23503", False),
        ("54000", False),
    ],
)
def test_postgres_state_shows_whether_waiting_helps(state: str | None, passes: bool) -> None:
    original = psycopg.OperationalError("it fails")
    original.sqlstate = state

    assert is_unavailable(OperationalError("", {}, original)) is passes


def test_locked_ledger_may_be_waited_for(sqlite_ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.session.BUSY_TIMEOUT_MS", 10)
    engine = open_ledger(sqlite_ledger_url)
    other = open_ledger(sqlite_ledger_url)
    with begin_write(engine), pytest.raises(OperationalError) as locked, begin_write(other):
        pass
    assert is_unavailable(locked.value)
    assert not is_unwritable(locked.value)
    engine.dispose()
    other.dispose()


def test_ledger_that_another_is_just_closing_is_opened_a_moment_later(
    sqlite_ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [error_of_sqlite(5), error_of_sqlite(5)]

    def refuse(*_connection: object) -> None:
        if refusals:
            raise refusals.pop()

    def make_refusing(url: URL) -> Engine:
        engine = make_engine(url)
        event.listen(engine, "connect", refuse)
        return engine

    monkeypatch.setattr("db.ledger.connecting.make_engine", make_refusing)
    connect_ledger(sqlite_ledger_url).dispose()
    assert refusals == []
