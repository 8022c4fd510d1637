"""`presswork db`, and which ledger a command reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from db.session import connect_ledger, open_ledger
from flows.commands.ledgers import ledger_urls
from flows.settings import load_settings
from tests.commands.conftest import Desk, call


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
