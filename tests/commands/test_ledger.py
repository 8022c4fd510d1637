"""`presswork db`, and which ledger a command reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DataError

from db.ledger.connecting import connect_ledger, open_ledger
from db.ledger.rows import WriteBatch
from db.ledger.spill import keep_batch
from flows.commands.ledger.ledgers import ledger_urls
from flows.settings import load_settings
from tests.commands.conftest import Desk, call
from tests.db.rows import Book


def test_check_says_that_a_ledger_is_not_there_and_makes_none(desk: Desk) -> None:
    result = call("db", "check")

    assert result.exit_code == 2
    assert "has not been made yet" in result.stderr
    assert not desk.ledger.exists()


def test_upgrade_makes_a_ledger_and_check_finds_it_current(desk: Desk) -> None:
    made = call("db", "upgrade")
    told = json.loads(call("db", "check", "--json").stdout)

    assert made.exit_code == 0
    assert told["current"]
    assert told["ledger"] == f"sqlite:///{desk.ledger}"


def test_check_refuses_a_ledger_of_a_newer_presswork(desk: Desk) -> None:
    call("db", "upgrade")
    engine = connect_ledger(f"sqlite:///{desk.ledger}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()

    result = call("db", "check")

    assert result.exit_code == 2
    assert "newer Presswork" in result.stderr


@pytest.mark.postgres
def test_upgrade_and_check_on_postgres(ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_DATABASE_URL", ledger_url)

    assert call("db", "upgrade").exit_code == 0
    assert "is current" in call("db", "check").stdout


def test_password_of_a_ledger_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_DATABASE_URL", "postgresql://me:hidden@127.0.0.1:9/ledger")

    result = call("db", "check", "--json")

    assert result.exit_code == 2
    assert "hidden" not in result.output
    assert "me:***@127.0.0.1" in result.stderr


def test_history_without_a_ledger_says_so_and_is_no_error(desk: Desk) -> None:
    assert "No runs yet" in call("history").stdout
    assert json.loads(call("history", "--json").stdout) == []
    assert not desk.ledger.exists()


@pytest.mark.parametrize(
    ("there", "sandbox", "read"),
    [
        ([], False, []),
        (["presswork-sandbox.sqlite"], False, ["presswork-sandbox.sqlite"]),
        (["presswork.sqlite"], False, ["presswork.sqlite"]),
        (["presswork.sqlite", "presswork-sandbox.sqlite"], False, ["presswork.sqlite", "presswork-sandbox.sqlite"]),
        (["presswork.sqlite", "presswork-sandbox.sqlite"], True, ["presswork-sandbox.sqlite"]),
        (["presswork.sqlite"], True, []),
    ],
)
def test_where_none_is_named_the_ledger_that_is_there_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str], sandbox: bool, read: list[str]
) -> None:
    monkeypatch.setattr("flows.settings.ROOT", tmp_path)
    for name in there:
        open_ledger(f"sqlite:///{tmp_path / name}").dispose()

    assert ledger_urls(load_settings(), sandbox=sandbox) == [f"sqlite:///{tmp_path / name}" for name in read]


def test_recover_imports_what_it_can_and_names_the_rows_that_the_ledger_refuses(desk: Desk) -> None:
    ledger = open_ledger(f"sqlite:///{desk.ledger}")
    book, batch = Book(ledger), WriteBatch()
    for key in ("a", "b", "c"):
        book.generation(batch, key)
    spoiled = book.generation(batch, "d", output={"t": "PRIVATE \ud800"})
    keep_batch(desk.folder / "spill", book.run_id, batch)
    ended = call("db", "recover")
    said = "".join(ended.output.split())

    assert ended.exit_code == 0
    assert "Imported4generations" in said
    assert f"generations.outputof{spoiled}" in said
    assert f"{book.run_id}.refused" in said
    assert "PRIVATE" not in said
    with ledger.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM current_content")) == 3
    ledger.dispose()
    assert "No spill file waits" in call("db", "recover").output


def test_ledger_that_goes_away_during_a_command_is_told_without_what_its_driver_quotes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = 'invalid input syntax for type integer: "PRIVATE words"'

    def fail(*_arguments: object, **_options: object) -> None:
        raise DataError("SELECT 1", {}, ValueError(said))

    open_ledger(f"sqlite:///{desk.ledger}").dispose()
    monkeypatch.setattr("db.ledger.spill.find_spills", fail)
    ended = call("db", "recover")

    assert ended.exit_code == 1
    assert "invalid input syntax" in ended.output
    assert "PRIVATE" not in ended.output


def test_a_run_is_found_in_whichever_ledger_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.settings.ROOT", tmp_path)
    open_ledger(f"sqlite:///{tmp_path / 'presswork.sqlite'}").dispose()
    sandbox = open_ledger(f"sqlite:///{tmp_path / 'presswork-sandbox.sqlite'}")
    book = Book(sandbox)
    sandbox.dispose()

    found = call("history", book.run_id)
    missing = call("history", "0123456789")

    assert found.exit_code == 0
    assert book.run_id in found.stdout
    assert "presswork-sandbox.sqlite" in found.stderr
    assert missing.exit_code == 2
    assert "presswork.sqlite or " in " ".join(missing.stderr.split())
    assert "presswork-sandbox.sqlite" in "".join(missing.stderr.split())
