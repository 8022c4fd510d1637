"""`presswork run`, and what looks back at it: history and show. One run under Prefect serves most of these tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import pytest

from db.ledger.connecting import open_ledger
from db.readers.run_lines import list_runs
from db.readers.runs import read_run
from tests.commands.conftest import PRESSWORK, Desk, call, make_desk, presswork

pytestmark = pytest.mark.prefect

ESCAPE, RIGHT_TO_LEFT = "\x1b[2J", "\u202e"
NOTES = {
    1: "a plain note about a kettle",
    2: f"[red]markup[/red] [bold {ESCAPE} {RIGHT_TO_LEFT}evil \x07",
    3: "{{ 7*7 }} <script>alert(1)</script> \U0001f375 \u05e9\u05dc\u05d5\u05dd",
}


@dataclass
class Ran:
    """A desk after a first run of its notes, and what that printed."""

    desk: Desk
    environment: dict[str, str]
    ended: subprocess.CompletedProcess[str]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ended.stdout)
        return found


@pytest.fixture(scope="module")
def ran(prefect_server: str, sandbox_url: str, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    desk = make_desk(tmp_path_factory.mktemp("desk"), sandbox_url)
    desk.notes(NOTES)
    environment = {**desk.settings(), "PREFECT_API_URL": prefect_server}
    return Ran(desk, environment, presswork(["run", "notes", "--json"], **environment))


@pytest.fixture
def looking_back(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """What this process sees of that run."""
    for name, value in ran.environment.items():
        monkeypatch.setenv(name, value)
    return ran


def keys_of(ran: Ran) -> dict[str, str]:
    """The ids of the run's generations, by record key."""
    ledger = open_ledger(ran.environment["PRESSWORK_DATABASE_URL"])
    with ledger.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT record_key, id FROM generations WHERE run_id = ?", (ran.summary["run_id"],)
        ).all()
    ledger.dispose()
    return {row[0]: row[1] for row in rows}


def test_run_says_what_it_did_and_nothing_else(ran: Ran) -> None:
    assert ran.ended.returncode == 0, ran.ended.stderr
    assert ran.ended.stderr == ""
    summary = ran.summary
    assert (summary["records"], summary["succeeded"], summary["requests"]) == (3, 3, 3)
    wanted = "run_id status records cached succeeded invalid truncated refused failed skipped requests"
    assert set(f"{wanted} input_tokens output_tokens cost_usd wall_s".split()) <= set(summary)
    assert isinstance(summary["cost_usd"], float)


def test_a_second_run_sends_nothing_and_says_so_to_people(ran: Ran) -> None:
    sent = ran.desk.sent()

    ended = presswork(["run", "notes"], **ran.environment)

    assert ended.returncode == 0
    assert ran.desk.sent() == sent
    assert "all from the cache, no request was sent" in ended.stdout
    assert "This ran on the sandbox: its answers are made up, and nothing was billed." in ended.stdout
    assert "saved" in ended.stdout
    assert "presswork history" in ended.stdout
    assert "Prefect" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_history_lists_runs_and_shows_one(looking_back: Ran) -> None:
    run_id = looking_back.summary["run_id"]

    listed = json.loads(call("history", "--json").stdout)
    one = json.loads(call("history", run_id[-8:], "--json").stdout)
    screen = call("history", run_id)

    assert run_id in [line["id"] for line in listed]
    assert (one["id"], one["succeeded"], one["usage"]["requests"]) == (run_id, 3, 3)
    assert one["usage"]["cost_usd"] == looking_back.summary["cost_usd"]
    assert "3 new, 0 cached, 3 in all" in screen.stdout
    assert call("history", "--flow", "another", "--json").stdout.strip() == "[]"
    assert call("history", "0000000000").exit_code == 2


def test_show_tells_all_of_a_generation(looking_back: Ran) -> None:
    identifier = keys_of(looking_back)["1"]

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
    for part in ("Record, as it was read", "You write subject lines.", NOTES[1], "HTTP 200", "notes.md.j2"):
        assert part in screen


@pytest.mark.parametrize("beginning", [True, False])
def test_an_id_may_be_cut_but_not_guessed(looking_back: Ran, beginning: bool) -> None:
    identifier = keys_of(looking_back)["1"]

    assert call("show", identifier[:-1] if beginning else identifier[-6:]).exit_code == 0
    assert "at least 6 characters" in call("show", identifier[:3]).stderr


def test_what_a_record_holds_is_shown_and_never_obeyed(looking_back: Ran) -> None:
    identifiers = keys_of(looking_back)

    marked = call("show", identifiers["2"]).stdout
    braces = call("show", identifiers["3"]).stdout

    assert "[red]markup[/red] [bold" in marked
    assert "␛[2J" in marked
    assert "␇" in marked
    assert "⟨U+202E⟩" in marked
    assert ESCAPE not in marked
    assert RIGHT_TO_LEFT not in marked
    assert NOTES[3] in braces


def test_a_run_that_stops_after_it_opened_tells_its_id(ran: Ran) -> None:
    # An endpoint with a name is not asked before the run what it is: its first request finds the sandbox.
    ended = presswork(
        ["run", "notes", "--refresh", "--json"],
        **{**ran.environment, "PRESSWORK_ENDPOINT": "gateway", "ANTHROPIC_API_KEY": "some-key"},
    )

    told = json.loads(ended.stdout)
    assert ended.returncode == 2
    assert told["kind"] == "wrong_endpoint"
    assert told["run_id"]
    assert "the sandbox answers there" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_records_are_no_error(ran: Ran) -> None:
    ran.desk.template(
        "none", front="---\nselect: SELECT id, text FROM notes WHERE 1 = 0\nkey: id\noutput: SubjectLine\n---\n"
    )

    ended = presswork(["run", "none"], **ran.environment)

    assert ended.returncode == 0
    assert "0 records" in ended.stdout


def test_records_without_content_are_named_and_the_status_says_so(ran: Ran) -> None:
    ran.desk.switch(refused=1)
    try:
        ended = presswork(["run", "notes", "--refresh"], **ran.environment)
    finally:
        ran.desk.switch(refused=0)

    assert ended.returncode == 1
    assert "3 generations without content" in ended.stdout
    assert "The model refused to answer" in ended.stdout
    assert "presswork show ID" in ended.stdout
    assert "refused" in ended.stdout


def test_ctrl_c_ends_a_run_in_order(ran: Ran) -> None:
    sent = ran.desk.sent()
    ran.desk.switch(latency_ms=1500)
    command = [str(PRESSWORK), "run", "notes", "--refresh", "--concurrency", "1"]
    running = subprocess.Popen(
        command, env={**os.environ, **ran.environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while ran.desk.sent() == sent and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _stdout, stderr = running.communicate(timeout=30)
    finally:
        running.kill()
        ran.desk.switch(latency_ms=0)

    assert running.returncode == 130, stderr
    assert "Stopping: waiting for the requests in flight" in stderr
    assert "Run it again to go on" in stderr
    assert "Traceback" not in stderr
    ledger = open_ledger(ran.environment["PRESSWORK_DATABASE_URL"])
    (newest,) = list_runs(ledger, limit=1)
    ledger.dispose()
    assert newest.status == "cancelled"
    assert newest.succeeded == 1


def test_resume_goes_on_from_a_run_with_what_it_was_started_with(ran: Ran) -> None:
    first = ran.summary["run_id"]
    ended = presswork(["run", "--resume", first[-12:], "--json"], **ran.environment)
    summary = json.loads(ended.stdout)
    assert (summary["cached"], summary["requests"]) == (len(NOTES), 0)
    ledger = open_ledger(ran.environment["PRESSWORK_DATABASE_URL"])
    row = read_run(ledger, summary["run_id"])
    ledger.dispose()
    assert row is not None
    assert (row["resumes_run_id"], row["flow"]) == (first, "notes")


def test_resume_of_a_refresh_asks_for_the_rest_and_for_nothing_twice(ran: Ran) -> None:
    first = presswork(["run", "notes", "--refresh", "--limit", "1", "--max-cost", "2", "--json"], **ran.environment)
    part = json.loads(first.stdout)
    assert (part["succeeded"], part["cached"]) == (1, 0)
    resumed = presswork(["run", "--resume", part["run_id"], "--limit", "3", "--json"], **ran.environment)
    rest = json.loads(resumed.stdout)
    assert (rest["succeeded"], rest["cached"]) == (len(NOTES) - 1, 1)
    ledger = open_ledger(ran.environment["PRESSWORK_DATABASE_URL"])
    row = read_run(ledger, rest["run_id"])
    ledger.dispose()
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
def test_a_run_must_be_told_what_to_run(looking_back: Ran, arguments: list[str], said: str) -> None:
    ended = call("run", *arguments)
    assert ended.exit_code == 2
    assert said in ended.output


def test_resume_refuses_another_flows_run(looking_back: Ran) -> None:
    ended = call("run", "others", "--resume", looking_back.summary["run_id"])
    assert ended.exit_code == 2
    assert "was one of 'notes'" in " ".join(ended.output.split())


def test_recover_says_when_nothing_waits_and_refuses_a_damaged_file_by_name(looking_back: Ran) -> None:
    assert "No spill file waits" in call("db", "recover").output
    spill = looking_back.desk.folder / "spill" / "some-run.spill"
    spill.parent.mkdir(exist_ok=True)
    spill.write_text("0000 not what was written\n", encoding="utf-8")
    ended = call("db", "recover")
    assert ended.exit_code == 2
    assert "some-run.spill" in "".join(ended.output.split())
    assert "damaged" in ended.output
    assert spill.exists()
    spill.unlink()
