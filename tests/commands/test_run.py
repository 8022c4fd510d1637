"""`presswork run` and `presswork demo` with a Prefect server, and `history` and `show` of their runs.

One run in a new process serves most of these tests, which continue in this process. Tests of streams, signals and exit
statuses start processes of their own.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from db.clock import now
from db.readers.runs import read_run
from presswork.prices import Usage, cost_of
from tests.commands.conftest import FRONT, Desk, begin, call, ended, interrupted, make_desk, presswork, set_all
from tests.conftest import ROOT
from tests.db.rows import run_lines

pytestmark = pytest.mark.prefect

ESCAPE, RIGHT_TO_LEFT = "\x1b[2J", "\u202e"
NOTES = {
    1: "a plain note about a kettle",
    2: f"[red]markup[/red] [bold {ESCAPE} {RIGHT_TO_LEFT}evil \x07",
    3: "{{ 7*7 }} <script>alert(1)</script> \U0001f375 \u05e9\u05dc\u05d5\u05dd",
}
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@dataclass
class Ran:
    """A desk after a first run of its notes, and what that printed."""

    desk: Desk
    ended: subprocess.CompletedProcess[str]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ended.stdout)
        return found


@pytest.fixture(scope="module")
def ran(prefect_server: str, sandbox_url: str, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    desk = make_desk(tmp_path_factory.mktemp("desk"), sandbox_url)
    desk.notes(NOTES)
    ended = presswork(["run", "notes", "--json"], **desk.settings(), PREFECT_API_URL=prefect_server)
    return Ran(desk, ended)


@pytest.fixture
def going_on(ran: Ran, prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Show this process that run, and set what another run needs."""
    set_all(monkeypatch, ran.desk.settings())
    return ran


def keys_of(ran: Ran) -> dict[str, str]:
    """The ids of the run's generations, by record key."""
    with ran.desk.opened() as ledger, ledger.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT record_key, id FROM generations WHERE run_id = ?", (ran.summary["run_id"],)
        ).all()
    return {row[0]: row[1] for row in rows}


def test_run_says_what_it_did_and_nothing_else(ran: Ran) -> None:
    assert ran.ended.returncode == 0, ran.ended.stderr
    assert ran.ended.stderr == ""
    summary = ran.summary
    assert (summary["records"], summary["succeeded"], summary["requests"]) == (3, 3, 3)
    wanted = "run_id status records cached succeeded invalid truncated refused failed skipped requests"
    assert set(f"{wanted} input_tokens output_tokens cost_usd wall_s".split()) <= set(summary)
    assert isinstance(summary["cost_usd"], float)


def test_a_second_run_sends_nothing_and_says_so_to_people(going_on: Ran) -> None:
    sent = going_on.desk.sent()

    ended = call("run", "notes")

    assert ended.exit_code == 0
    assert going_on.desk.sent() == sent
    assert "all from the cache, no requests sent" in ended.stdout
    assert "This ran on the sandbox: its answers are made up, and nothing was billed." in ended.stdout
    assert "saved" in ended.stdout
    assert "presswork history" in ended.stdout
    assert "Prefect" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_history_lists_runs_and_shows_one(going_on: Ran) -> None:
    run_id = going_on.summary["run_id"]

    listed = json.loads(call("history", "--json").stdout)
    one = json.loads(call("history", run_id[-8:], "--json").stdout)
    screen = call("history", run_id)

    assert run_id in [line["id"] for line in listed]
    assert (one["id"], one["succeeded"], one["usage"]["requests"]) == (run_id, 3, 3)
    assert one["usage"]["cost_usd"] == going_on.summary["cost_usd"]
    assert "3 new, 0 cached, 3 total" in screen.stdout
    unknown = call("history", "--flow", "another", "--json")
    assert (unknown.exit_code, json.loads(unknown.stdout)["error"]) == (
        2,
        "There is no flow 'another' in this ledger. Available: notes.",
    )
    assert call("history", "0000000000").exit_code == 2


def test_show_tells_all_of_a_generation(going_on: Ran) -> None:
    identifier = keys_of(going_on)["1"]

    told = json.loads(call("show", identifier[-8:], "--json").stdout)
    screen = call("show", identifier).stdout

    assert told["generation"]["id"] == identifier
    assert told["record"] == {"id": 1, "text": NOTES[1]}
    assert told["request"]["messages"] == [{"role": "user", "content": NOTES[1]}]
    assert told["request"]["system"][0]["text"] == "You write subject lines."
    assert set(told["output"]) == {"subject", "preheader"}
    (attempt,) = told["attempts"]
    assert attempt["kind"] == "call"
    assert attempt["cost_usd"] > 0
    for part in ("Record, as read", "You write subject lines.", NOTES[1], "HTTP 200", "notes.md.j2"):
        assert part in screen


@pytest.mark.parametrize("beginning", [True, False])
def test_an_id_may_be_cut_but_not_guessed(going_on: Ran, beginning: bool) -> None:
    identifier = keys_of(going_on)["1"]

    assert call("show", identifier[:-1] if beginning else identifier[-6:]).exit_code == 0
    assert "at least 6 characters" in call("show", identifier[:3]).stderr


def test_what_a_record_holds_is_shown_and_never_obeyed(going_on: Ran) -> None:
    identifiers = keys_of(going_on)

    marked = call("show", identifiers["2"]).stdout
    braces = call("show", identifiers["3"]).stdout

    assert "[red]markup[/red] [bold" in marked
    assert "␛[2J" in marked
    assert "␇" in marked
    assert "⟨U+202E⟩" in marked
    assert ESCAPE not in marked
    assert RIGHT_TO_LEFT not in marked
    assert NOTES[3] in braces


def test_a_run_that_stops_after_it_opened_tells_its_id(going_on: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    # A named endpoint is not asked for its identity before the run; the first request finds the sandbox.
    set_all(monkeypatch, {"PRESSWORK_ENDPOINT": "gateway", "ANTHROPIC_API_KEY": "some-key"})

    ended = call("run", "notes", "--refresh", "--json")

    told = json.loads(ended.stdout)
    assert ended.exit_code == 2
    assert told["kind"] == "wrong_endpoint"
    assert told["run_id"]
    assert "but the sandbox answered" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_records_are_no_error(going_on: Ran) -> None:
    going_on.desk.template(
        "none", front="---\nselect: SELECT id, text FROM notes WHERE 1 = 0\nkey: id\noutput: SubjectLine\n---\n"
    )

    ended = call("run", "none")

    assert ended.exit_code == 0
    assert "0 records" in ended.stdout


def test_records_without_content_are_named_and_the_status_says_so(going_on: Ran) -> None:
    going_on.desk.switch(refused=1)
    try:
        ended = call("run", "notes", "--refresh")
    finally:
        going_on.desk.switch(refused=0)

    assert ended.exit_code == 1
    assert "3 generations without content" in ended.stdout
    assert "The model refused to answer" in ended.stdout
    assert "presswork show ID" in ended.stdout
    assert "refused" in ended.stdout


def test_resume_goes_on_from_a_run_with_what_it_was_started_with(going_on: Ran) -> None:
    first = going_on.summary["run_id"]
    summary = json.loads(call("run", "--resume", first[-12:], "--json").stdout)
    assert (summary["cached"], summary["requests"]) == (len(NOTES), 0)
    with going_on.desk.opened() as ledger:
        row = read_run(ledger, summary["run_id"])
    assert row is not None
    assert (row["resumes_run_id"], row["flow"]) == (first, "notes")


def test_resume_of_a_refresh_asks_for_the_rest_and_for_nothing_twice(going_on: Ran) -> None:
    part = json.loads(call("run", "notes", "--refresh", "--limit", "1", "--max-cost", "2", "--json").stdout)
    assert (part["succeeded"], part["cached"]) == (1, 0)
    rest = json.loads(call("run", "--resume", part["run_id"], "--limit", "3", "--json").stdout)
    assert (rest["succeeded"], rest["cached"]) == (len(NOTES) - 1, 1)
    with going_on.desk.opened() as ledger:
        row = read_run(ledger, rest["run_id"])
    assert row is not None
    options = row["parameters"]["options"]
    assert (options["refresh"], options["max_cost"], options["limit"]) == (True, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "presswork run NAME"),
        (["--resume", "no-such-run"], "There is no run"),
    ],
    ids=["nothing to run", "unknown run"],
)
def test_a_run_must_be_told_what_to_run(going_on: Ran, arguments: list[str], said: str) -> None:
    ended = call("run", *arguments)
    assert ended.exit_code == 2
    assert said in ended.output


def test_resume_refuses_another_flows_run(going_on: Ran) -> None:
    ended = call("run", "others", "--resume", going_on.summary["run_id"])
    assert ended.exit_code == 2
    assert "belongs to 'notes'" in " ".join(ended.output.split())


def test_recover_says_when_nothing_waits_and_refuses_a_damaged_file_by_name(going_on: Ran) -> None:
    assert "There are no spill files to import" in call("db", "recover").output
    spill = going_on.desk.folder / "spill" / "some-run.spill"
    spill.parent.mkdir(exist_ok=True)
    spill.write_text("0000 not what was written\n", encoding="utf-8")
    ended = call("db", "recover")
    assert ended.exit_code == 2
    assert "some-run.spill" in "".join(ended.output.split())
    assert "damaged" in ended.output
    assert spill.exists()
    spill.unlink()


# What only the records tell


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ("SELECT 7 AS id, text FROM notes", "the key 'id' is not unique"),
        ("SELECT nullif(id, 2) AS id, text FROM notes", "1 of 3 records has no 'id'"),
    ],
    ids=["doubled", "nulls"],
)
def test_keys_that_only_the_records_tell_are_told_before_anything_is_sent(
    desk: Desk, prefect_api: str, select: str, message: str
) -> None:
    desk.notes(NOTES)
    desk.template(front=FRONT.replace("SELECT id, text FROM notes", select))

    result = call("run", "notes")

    assert result.exit_code == 2, result.stdout
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert desk.sent() == 0
    assert not list((desk.folder / "spools").iterdir())


# Signals


def test_ctrl_c_ends_a_run_in_order(ran: Ran, prefect_server: str) -> None:
    sent = ran.desk.sent()
    ran.desk.switch(latency_ms=6000)
    try:
        command = begin(
            *("run", "notes", "--refresh", "--concurrency", "1"), **ran.desk.settings(), PREFECT_API_URL=prefect_server
        )
        wait_until(lambda: ran.desk.sent() > sent, command)
        command.send_signal(signal.SIGINT)
        status, said = ended(command)
    finally:
        ran.desk.switch(latency_ms=0)

    assert status == 130, said
    assert "Stopping: waiting for the requests in flight" in said
    assert "To resume, run it again." in said
    assert "Traceback" not in said
    with ran.desk.opened() as ledger:
        (newest,) = run_lines(ledger, limit=1)
    assert newest.status == "cancelled"
    assert newest.succeeded == 1


def test_sigterm_ends_a_run_whose_select_takes_for_ever(desk: Desk, prefect_server: str) -> None:
    desk.notes({1: "one"})
    # The check before the run executes nothing.
    desk.template(front=FRONT.replace("id, text FROM", f"id, text, ({ENDLESS}) AS slow FROM"))

    command = begin("run", "notes", PREFECT_API_URL=prefect_server)
    wait_until(lambda: has_begun(desk), command)
    time.sleep(1)
    command.send_signal(signal.SIGTERM)
    status, said = ended(command)

    assert (status, "(SIGTERM)" in said) == (130, True), said
    assert desk.sent() == 0


@pytest.mark.mariadb
def test_ctrl_c_ends_a_statement_of_mariadb_that_has_given_no_row(
    desk: Desk, prefect_api: str, mariadb_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = "SELECT COUNT(*) FROM seq_1_to_1000000 a, seq_1_to_1000000 b WHERE (a.seq + b.seq) MOD 7 = 3"
    # From a table: MariaDB computes a constant row while it plans, before the run.
    select = f"SELECT help_topic_id AS id, ({endless}) AS text FROM help_topic"
    desk.template(front=FRONT.replace("SELECT id, text FROM notes", select))
    monkeypatch.setenv("PRESSWORK_SOURCE_URL", mariadb_server)
    engine = create_engine(mariadb_server)

    def at_work() -> int:
        with engine.connect() as connection:
            found = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT help_topic_id%'"
            return int(connection.scalar(text(found)) or 0)

    for arguments, said in (
        (["run", "notes"], "(SIGINT)"),
        (["templates", "show", "notes", "--key", "1"], "Stopped by Ctrl-C."),
    ):
        with interrupted(at_work):
            result = call(*arguments)
        assert result.exit_code == 130, result.stderr
        assert said in result.stderr
        # The server's thread ends a moment after the client's.
        wait_until(lambda: not at_work())
    engine.dispose()


def wait_until(holds: Callable[[], object], command: subprocess.Popen[str] | None = None) -> None:
    """Wait until a condition holds or the command ends; fail after three minutes."""
    deadline = time.monotonic() + 180
    while not holds() and (command is None or command.poll() is None):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_begun(desk: Desk) -> bool:
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{desk.ledger}?mode=ro", uri=True)) as connection:
        return bool(connection.execute("SELECT count(*) FROM runs").fetchone()[0])
    return False


# The server that stays


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_run_keeps_the_server_that_it_had_to_start_for_the_next_one(desk: Desk, prefect_home: Path) -> None:
    desk.notes({1: "one", 2: "two", 3: "three"})
    own = {
        "PRESSWORK_STATE_DIR": str(prefect_home),
        "PREFECT_API_URL": "",
        "PRESSWORK_KEEP_SERVER": "1",
        "CI": "",
        "INVOCATION_ID": "",
    }
    try:
        # A mistake that is found meanwhile is reported at once, and the server is there for the corrected command.
        wrong = presswork(["run", "notes"], **own, PRESSWORK_SOURCE_URL="sqlite:////nowhere.sqlite")
        first = presswork(["run", "notes"], **own)
        status = json.loads(presswork(["status", "--json"], **own).stdout)
        second = presswork(["run", "notes", "--refresh", "--json"], **own)
    finally:
        down = presswork(["down", "--json"], **own)

    assert (wrong.returncode, first.returncode, second.returncode) == (2, 0, 0), wrong.stderr + first.stderr
    assert [line for line in wrong.stderr.splitlines() if "stays" in line] == [
        "Prefect's server stays for the next command, and ends after 10 minutes without one; `presswork down` stops it."
    ]
    assert wrong.stderr.splitlines()[-1].startswith("Error: ")
    # It was started by the first command, so the others say nothing of it.
    assert "stays" not in first.stderr + second.stderr
    assert "Starting Prefect" not in first.stderr
    assert status["kept"]["until"] > datetime.now(UTC).isoformat()
    assert json.loads(second.stdout)["succeeded"] == 3
    assert "Traceback" not in second.stderr
    assert json.loads(down.stdout) == {"stopped": ["Prefect's server that stayed"]}
    assert "Traceback" not in (prefect_home / "prefect-server.log").read_text()


# The demo


# On a busy machine this takes minutes.
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_demo_runs_with_nothing_configured_and_the_second_costs_nothing(
    tmp_path: Path, prefect_home: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Set to empty, so that a developer's .env does not reach the command.
    nothing = {"ANTHROPIC_API_KEY": "", "ANTHROPIC_BASE_URL": "", "PRESSWORK_SOURCE_URL": ""}
    set_all(monkeypatch, {**nothing, "PRESSWORK_DATABASE_URL": f"sqlite:///{tmp_path / 'demo.sqlite'}"})

    # The first on a Prefect server that it starts itself, the second on one that is there.
    first = presswork(["demo"], PRESSWORK_STATE_DIR=str(prefect_home), PREFECT_API_URL="")
    second = call("demo", "--json")

    assert first.returncode == 0, first.stderr
    told = first.stderr.splitlines()
    assert told[0].startswith("No ANTHROPIC_API_KEY is set, so the sandbox answers")
    assert told[1].endswith("40 products, 30 support tickets, 24 articles.")
    assert told[2].startswith("Starting Prefect's server")
    expected = ("✔ product_copy completed", "✔ support_replies completed", "✔ newsletter completed")
    closing_lines = [line for line in told[3:] if line.startswith("✔")]
    assert [line.startswith(start) for line, start in zip(closing_lines, expected, strict=True)] == [True] * 3
    assert not [
        line for line in told[3:] if not line.startswith(("✔", "product_copy", "support_replies", "newsletter"))
    ]
    for part in ("Product copy", "Reply to ticket", "the chosen subject line", "nothing was billed"):
        assert part in first.stdout
    for command in ("presswork show ", "presswork history", "sqlite3 ", "current_content"):
        assert command in first.stdout

    assert second.exit_code == 0
    assert second.stderr == ""
    runs = json.loads(second.stdout)["runs"]
    assert [run["requests"] for run in runs] == [0, 0, 0]
    assert all(run["cached"] and not run["succeeded"] for run in runs)

    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    with closing(sqlite3.connect(tmp_path / "demo.sqlite")) as ledger:
        used = "a.input_tokens, a.cache_creation_5m_tokens, a.cache_read_tokens, a.output_tokens"
        row = "FROM generations g JOIN attempts a ON a.generation_id = g.id WHERE g.record_key = 'TEA-001'"
        ((output, *tokens),) = ledger.execute(f"SELECT g.output, {used} {row}").fetchall()
    # On a busy machine another product's request may be the first, which writes the prompt cache.
    tokens_in, written, read, tokens_out = tokens
    priced = Usage(tokens_in, cache_creation_5m_tokens=written + read, output_tokens=tokens_out)
    assert f'"title": "{json.loads(output)["title"]}"' in shown
    assert f"input_tokens = {tokens_in}\n" in shown
    assert f"cache_creation_5m_tokens = {written + read}\n" in shown
    assert f"output_tokens = {tokens_out}\n" in shown
    assert f"cost_usd = {cost_of('claude-sonnet-4-6', priced, now().date()):.8f}\n" in shown
