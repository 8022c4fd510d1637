"""`presswork db`, and which ledger a command reads."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DataError

from db.identity import this_process
from db.ledger.connecting import connect_ledger, open_ledger
from db.ledger.lifecycle import begin_step, close_run, suspend_run
from db.ledger.rows import StepRow, WriteBatch
from db.ledger.spill import keep_batch
from db.ledger.writing import write
from db.session import begin_write
from presswork.settings import load_settings
from presswork.terminal.ledgers import ledger_urls
from tests.commands.conftest import Desk, call
from tests.db.rows import DAY, Book, sha


def test_check_says_that_a_ledger_is_not_there_and_makes_none(desk: Desk) -> None:
    result = call("db", "check")

    assert result.exit_code == 2
    assert "does not exist yet" in result.stderr
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
    monkeypatch.setattr("presswork.settings.ROOT", tmp_path)
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
    assert "There are no spill files to import" in call("db", "recover").output


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
    monkeypatch.setattr("presswork.settings.ROOT", tmp_path)
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


def old_ledger(desk: Desk, runs: int = 4) -> tuple[str, str]:
    """Write runs of an earlier release that found a record unchanged and failed with another; the last, its row."""
    with desk.opened() as ledger:
        book, batch = Book(ledger), WriteBatch()
        source = book.add("b\u001b[2J", created_at=DAY)
        for number in range(1, runs):
            book, batch = Book(ledger), WriteBatch()
            made = book.generation(batch, "b\u001b[2J", **REUSED, source_generation_id=source, created_at=day(number))
            failure: dict[str, Any] = {"status": "failed", "error_kind": "render", "error_message": "no \u001b[2Jname"}
            book.generation(batch, "bad", **failure, output=None, output_hash=None, created_at=day(number))
            write(ledger, batch)
        with begin_write(ledger) as connection:
            connection.execute(text("DELETE FROM leases"))
            connection.execute(text("UPDATE runs SET status = 'completed'"))
    return book.run_id, made


REUSED: dict[str, Any] = {"origin": "cache", "output": None}


def day(number: int) -> datetime:
    return DAY + timedelta(days=number)


def test_compact_says_first_what_it_would_remove_and_does_it_when_told(desk: Desk) -> None:
    run, _made = old_ledger(desk, 6)
    shown = json.loads(call("history", run, "--json").stdout)
    dry, told = call("db", "compact"), json.loads(call("db", "compact", "--json").stdout)
    done = call("db", "compact", "--yes")
    again = call("db", "compact", "--yes", "--vacuum")

    assert [each.exit_code for each in (dry, done, again)] == [0, 0, 0]
    assert (told["applied"], told["rows"]) == (False, 7)
    assert "Removable: 7 of 11 rows" in dry.stdout
    assert "Nothing was changed" in dry.stdout
    assert "Removed 7 of 11 rows" in done.stdout
    assert "db compact --yes --vacuum" in " ".join(done.stdout.split())
    assert "There is nothing to compact. The file was shrunk." in " ".join(again.stdout.split())
    after = json.loads(call("history", run, "--json").stdout)
    assert {**after, "progress": None} == {**shown, "progress": None}


def test_upkeep_is_refused_while_a_run_is_at_work_and_says_what_to_do(desk: Desk) -> None:
    old_ledger(desk)
    with desk.opened() as ledger:
        book = Book(ledger)

    for command in ("compact", "prune", "rebuild"):
        refused = call("db", command, "--yes")
        assert refused.exit_code == 2
        assert f"the run {book.run_id} of product_copy is active. Stop it" in " ".join(refused.stderr.split())
        assert call("db", command).exit_code == 0


def test_upkeep_makes_no_ledger_and_vacuum_alone_is_a_mistake(desk: Desk) -> None:
    for command in ("size", "compact", "prune", "rebuild"):
        result = call("db", command)
        assert result.exit_code == 2
        assert "The first run creates it" in " ".join(result.stderr.split())
    assert not desk.ledger.exists()
    assert "--vacuum needs --yes" in call("db", "compact", "--vacuum").stderr


def test_size_names_the_largest_table_first_and_the_command_that_frees_room(desk: Desk) -> None:
    old_ledger(desk, 9)
    shown = call("db", "size").stdout

    assert shown.splitlines()[1].startswith("generations ")
    assert "Total: " in shown
    assert "Up to 7 rows of history may be repeats" in shown
    assert "db compact` finds them" in " ".join(shown.split())


def test_prune_and_rebuild_say_first_what_they_would_do(desk: Desk) -> None:
    old_ledger(desk)
    assert "There is nothing to prune" in call("db", "prune").stdout
    assert "for all 2 records" in call("db", "rebuild").stdout
    with desk.opened() as ledger, begin_write(ledger) as connection:
        connection.execute(text("INSERT INTO records VALUES ('unnamed', '{}')"))
        connection.execute(text("DELETE FROM content WHERE record_key = 'bad'"))

    dry, wrong = call("db", "prune"), call("db", "rebuild")
    assert (dry.exit_code, wrong.exit_code) == (0, 1)
    assert "Nothing was changed." in dry.stdout
    assert "Wrong for 1 of 2 records" in wrong.stdout
    assert "missing in content" in wrong.stdout
    assert wrong.stdout.split("record\n")[1].split()[1] == "bad"
    assert "removed" in call("db", "prune", "--yes").stdout
    assert "Corrected for 1 of 2 records" in call("db", "rebuild", "--yes").stdout
    assert (call("db", "rebuild").exit_code, "nothing to prune" in call("db", "prune").stdout) == (0, True)


def test_life_of_a_record_is_shown_without_what_its_data_would_do_to_a_screen(desk: Desk) -> None:
    _run, made = old_ledger(desk)
    shown = call("history", "product_copy", "--key", "b\u001b[2J")
    failed = call("history", "product_copy", "--key", "bad").stdout

    assert shown.exit_code == 0
    assert "\u001b" not in shown.stdout + failed
    assert "b␛[2J: flow product_copy, step product_copy, endpoint sandbox" in shown.stdout
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("2026-")]
    assert line.split()[:6] == ["2026-03-01", "12:00:00", "now", "succeeded", "3", "2026-03-04"]
    assert call("show", line.split()[-1], "--json").exit_code == 0
    assert made[-12:] not in line
    assert "no ␛[2Jname" in failed
    (period,) = json.loads(call("history", "product_copy", "--key", "bad", "--json").stdout)
    assert (period["status"], period["confirmed"], period["until"]) == ("failed", 2, None)


def test_life_of_an_unknown_record_and_a_key_without_a_name_are_mistakes(desk: Desk) -> None:
    assert call("history", "product_copy", "--key", "a").exit_code == 2
    old_ledger(desk)
    unknown, nameless = call("history", "product_copy", "--key", "SECRET"), call("history", "--key", "a")

    assert (unknown.exit_code, nameless.exit_code) == (2, 2)
    assert "No record with this key was found in the flow or step 'product_copy'" in " ".join(unknown.stderr.split())
    assert "SECRET" not in unknown.stderr
    assert "--key needs a flow or a step" in nameless.stderr


def test_generations_are_listed_as_figures_count_them_unless_asked(desk: Desk) -> None:
    with desk.opened() as ledger:
        book = Book(ledger, endpoint="sandbox")
        lost: dict[str, Any] = {"status": "failed", "output": None, "output_hash": None, "error_kind": "render"}
        first, alone = book.add("a", **lost), book.add("b", **lost)
        second = book.add("a", prompt="again", prompt_hash=sha("again"))

    def listed(*flags: str) -> list[str]:
        return [line["id"] for line in json.loads(call("history", "--generations", *flags, "--json").stdout)]

    assert listed() == listed(book.run_id) == [second, alone]
    assert listed("--cause", "render") == [alone]
    assert listed("--replaced") == [second, alone, first]
    assert "sandbox" in call("history").stdout
    assert "--generations" in call("history", "--replaced").output


def test_run_says_who_works_on_it_what_it_waits_for_and_what_was_unchanged(desk: Desk) -> None:
    with desk.opened() as ledger:
        book = Book(ledger, process=this_process())
        begin_step(ledger, book.run_id, StepRow("product_copy", total=12))
        running = call("history", book.run_id).stdout
        listed = call("history").stdout
        suspend_run(ledger, book.lease, "approval by \u001b[2Jeditors", DAY)
        with begin_write(ledger) as connection:
            connection.execute(text("UPDATE run_steps SET unchanged = 7"))
    suspended = call("history", book.run_id)
    told = json.loads(call("history", book.run_id, "--json").stdout)

    assert f"running, by main (process {os.getpid()} on " in running
    assert "running" in listed
    assert "suspended until 2026-03-01 12:00:00 UTC: approval by ␛[2Jeditors" in suspended.stdout
    assert [line.split() for line in suspended.stdout.splitlines() if line.startswith("product_copy")][-1] == [
        *("product_copy", "open", "12", "7")
    ]
    assert (told["status"], told["workers"], told["progress"][0]["unchanged"]) == ("suspended", [], 7)
    assert "suspended" in call("history").stdout


def test_failures_that_later_runs_met_too_are_said_not_to_be_listed(desk: Desk) -> None:
    runs = []
    with desk.opened() as ledger:
        failed = Book(ledger).add("a", status="failed", output=None, error_kind="timeout")
        for _run in range(2):
            book = Book(ledger)
            begin_step(ledger, book.run_id, StepRow("product_copy", total=1))
            book.confirm("a", failed, status="failed")
            close_run(ledger, book.lease, "completed", DAY)
            runs.append(book.run_id)
    earlier, later = (call("history", run).stdout for run in runs)

    assert "1 without content can't be listed: they failed as in an earlier run" in " ".join(earlier.split())
    assert "history product_copy --key KEY` shows the history of one" in " ".join(earlier.split())
    assert "without content (" not in earlier
    assert "cannot be listed" not in later
    assert "1 generation without content (" in later
    told = [json.loads(call("history", run, "--json").stdout) for run in runs]
    assert [(len(each["failures"]), each["failures_unlisted"]) for each in told] == [(0, 1), (1, 0)]


def test_what_the_cache_saved_a_run_stays_as_it_was_when_the_run_closed(desk: Desk) -> None:
    runs = []
    with desk.opened() as ledger:
        made = Book(ledger).add("a", settled={"cost_usd": Decimal("0.25")})
        for _run in range(2):
            book = Book(ledger)
            begin_step(ledger, book.run_id, StepRow("product_copy", total=1))
            book.confirm("a", made)
            runs.append(book.run_id)
            assert "saved" not in call("history", book.run_id).stdout
            book.close()

    for run in runs:
        assert "about $0.2500 by answers from the ledger" in call("history", run).stdout
        (step,) = json.loads(call("history", run, "--json").stdout)["progress"]
        assert step["saved_usd"] == 0.25


def test_run_of_a_generation_is_shown_in_the_state_that_its_leases_tell(desk: Desk) -> None:
    with desk.opened() as ledger:
        book = Book(ledger, process=this_process())
        made = book.add("a")
        working = call("show", made).stdout
        with begin_write(ledger) as connection:
            connection.execute(text("DELETE FROM leases"))
    killed = json.loads(call("show", made, "--json").stdout)["run"]["status"]

    assert f"{book.run_id} (running)" in working
    assert (f"{book.run_id} (crashed)" in call("show", made).stdout, killed) == (True, "crashed")
