"""`presswork templates try` asks about a few records, says what went wrong, and shows at each save what it changed."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from db.clock import now
from db.ledger.rows import TemplateRow
from db.ledger.writing import add_templates
from presswork.commands.trying.try_template import check_template
from presswork.prompts.templates import load_template
from presswork.settings import ROOT
from presswork.terminal.endings import CommandContext
from presswork.terminal.flags import TryFlags
from tests.commands.conftest import FRONT, PRESSWORK, Desk, begin, call, ended
from tests.waiting import until

FIELDS = FRONT.replace("SubjectLine", "{title: {type: str, max_length: 40}, text: {type: str}}")
TRY = ("templates", "try")


@pytest.fixture(autouse=True)
def template(desk: Desk) -> None:
    desk.notes({1: "one", 2: "two", 3: "three", 4: "four"})
    desk.template(front=FIELDS)


@pytest.fixture
def no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_BASE_URL")
    monkeypatch.delenv("ANTHROPIC_API_KEY")


def tried(*arguments: str) -> Any:
    return json.loads(call(*TRY, *arguments, "--json").stdout)


def test_first_records_are_asked_once_and_shown(desk: Desk) -> None:
    screen = call(*TRY, "notes")
    again = tried("notes")

    assert screen.exit_code == 0
    assert screen.stdout.count("✔ ") == 4
    assert "    «one»\n" in screen.stdout
    assert "made up, and nothing was billed" in screen.stdout
    assert [record["key"] for record in again["records"]] == ["1", "2", "3"]
    assert all(record["cached"] and record["answer_usd"] for record in again["records"])
    assert (again["requests"], desk.sent()) == (0, 3)


def test_named_records_are_asked(desk: Desk) -> None:
    found = tried("notes", "--key", "4", "--key", "2", "--key", "4")

    assert [record["key"] for record in found["records"]] == ["4", "2"]
    assert desk.sent() == 2
    assert tried("notes", "--key", "2", "--refresh")["requests"] == 1


def test_answer_that_is_no_content_is_shown_with_its_faults(desk: Desk) -> None:
    desk.switch(invalid=1.0)
    screen = call(*TRY, "notes", "--limit", "1")
    (record,) = tried("notes", "--limit", "1")["records"]
    desk.switch(invalid=0)

    assert screen.exit_code == 1
    assert "✘ 1  invalid" in screen.stdout
    assert (record["status"], record["output"], record["requests"] > 1) == ("invalid", None, True)
    assert record["faults"]
    assert record["raw"]


def test_cap_stops_with_its_own_status(desk: Desk) -> None:
    result = call(*TRY, "notes", "--max-cost", "0.0001")

    assert result.exit_code == 3
    assert "The cost cap of $0.0001 is reached: $0.0000 is spent, and the next request may cost $0.0" in result.stdout
    assert "if its answer has all of max_tokens. Try again with a higher --max-cost." in result.stdout
    assert "show " not in result.stdout  # nothing has an answer
    assert desk.sent() == 0


def test_cap_of_the_installation_holds_for_trials_unless_another_one_is_given(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_MAX_COST", "0.0001")
    assert call(*TRY, "notes").exit_code == 3
    assert desk.sent() == 0
    assert call(*TRY, "notes", "--max-cost", "0.5").exit_code == 0
    # It never allows more than a trial's own cap.
    monkeypatch.setenv("PRESSWORK_MAX_COST", "500")
    assert check_template(CommandContext(as_json=False), TryFlags("notes")).to_try.max_cost == 1


def test_endpoint_that_is_unavailable_is_told_with_its_time_and_a_remedy(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_REQUEST_RETRIES", "1")
    desk.switch(overloaded=1.0)
    result = call(*TRY, "notes", "--limit", "1")
    desk.switch(overloaded=0)

    assert result.exit_code == 1
    assert "HTTP 529 overloaded_error. The endpoint is busy or unavailable. Try again later." in result.stdout
    assert "failed · 0.0 s" not in result.stdout
    assert "an answer whole" not in result.stdout


def test_refreshed_trial_does_not_claim_that_a_run_takes_its_answers(desk: Desk) -> None:
    plain, refreshed = (call(*TRY, "notes", "--key", "1", *flags).stdout for flags in ((), ("--refresh",)))

    assert "all records; it pays nothing for this one" in plain
    assert "pays nothing" not in refreshed
    assert "run notes" in refreshed
    assert "content of the same prompt keeps its answer" in refreshed


@pytest.mark.parametrize("flags", [(), ("--watch", "--json")])
def test_key_that_is_not_unique_is_not_tried(desk: Desk, flags: tuple[str, ...]) -> None:
    desk.template(front=FIELDS.replace("SELECT id,", "SELECT id / 2 AS id,"))
    if flags:
        with watching("--key", "1") as (_running, events):
            said = str(upto(events, "broken"))
    else:
        result = call(*TRY, "notes", "--key", "1")
        assert result.exit_code == 2
        said = result.stderr

    assert "the key 'id' is not unique" in said
    assert desk.sent() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("note",), "Did you mean 'notes'?"),
        (("templates/notes.md.j2",), "Did you mean 'notes'?"),
        (("support_replies",), "is a flow. Try one of its templates: support_triage"),
        (("step",), "it is a step. Take its inputs from a run with --run ID"),
        (("wrong",), "The template has 2 mistakes:\n  wrong.md.j2, line 8: "),
        (("notes", "--key", "9"), "no record whose id is '9'"),
        (("notes", "--key", "1", "--limit", "1"), "Give one of the two."),
        (("notes", "--watch", "--against", "git:HEAD"), "Give --watch or --against."),
        (("notes", "--max-cost", "0"), "--max-cost takes more than 0"),
        (("notes", "--set", "x=1"), "has no parameter 'x'"),
        (("none",), "finds no records"),
        (("notes", "--against", ""), "--against takes the hash of a version"),
        (("notes", "--against", "git:"), "such as git:HEAD"),
        (("notes", "--against", "abc"), "There is no ledger yet"),
    ],
)
def test_mistake_is_said_before_anything_is_sent(desk: Desk, arguments: tuple[str, ...], said: str) -> None:
    desk.template("step", front="---\noutput: SubjectLine\n---\n")
    desk.template("wrong", blocks="{% block user %}\n{{ record.a }}\n{{ record.b }}\n{% endblock %}")
    desk.template("none", front=FIELDS.replace("FROM notes", "FROM notes WHERE id > 9"))

    result = call(*TRY, *arguments)
    told = json.loads(call(*TRY, *arguments, "--json").stdout)

    assert (result.exit_code, desk.sent()) == (2, 0)
    assert said in result.stderr
    assert set(told) == {"error", "kind", "run_id"}


def test_more_records_than_a_person_reads_are_refused(desk: Desk) -> None:
    refused = call(*TRY, "notes", "--limit", "101")

    assert (refused.exit_code, desk.sent()) == (2, 0)
    assert "less than or equal to 100" in refused.stderr
    assert call(*TRY, "notes", "--limit", "100").exit_code == 0


@pytest.mark.usefixtures("no_endpoint")
def test_without_a_key_it_says_that_the_sandbox_is_possible() -> None:
    result = call(*TRY, "notes")

    assert result.exit_code == 2
    assert "templates try notes --sandbox`" in result.stderr


@pytest.mark.usefixtures("no_endpoint")
def test_sandbox_answers_whatever_endpoint_is_configured(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_ENDPOINT", "gateway")
    result = call(*TRY, "notes", "--limit", "1", "--sandbox")

    assert result.exit_code == 0
    assert "The sandbox answers" in result.stderr
    assert "endpoint       sandbox" in result.stdout
    # A run would not find the answers of this sandbox's endpoint at Claude's.
    assert "run notes" not in result.stdout
    assert desk.sent() == 0


def test_versions_are_compared_on_the_same_records(desk: Desk) -> None:
    old = tried("notes")
    desk.template(front=FIELDS, blocks="{% block user %}New: {{ record.text }}{% endblock %}")

    screen = call(*TRY, "notes", "--against", old["template_hash"][:8])
    found = tried("notes", "--against", old["template_hash"][:8])

    assert screen.exit_code == 0
    assert "    {+New: +}one\n" in screen.stdout
    assert "with content           3 of 3" in screen.stdout
    assert found["old"]["template_hash"] == old["template_hash"] != found["new"]["template_hash"]
    assert [change["key"] for change in found["changes"]] == ["1", "2", "3"]
    assert all(change["prompt_changed"] for change in found["changes"])
    assert desk.sent() == 6


@pytest.mark.parametrize(
    ("selected", "said"), [("notes WHERE id > 9", "The select of 'notes' finds no record"), ("lost", "no such table")]
)
def test_other_version_that_can_not_be_asked_hides_no_answers(desk: Desk, selected: str, said: str) -> None:
    desk.template(front=FIELDS.replace("FROM notes", f"FROM {selected}"))
    old = load_template(desk.templates, "notes")
    desk.template(front=FIELDS)
    with desk.opened() as ledger:
        add_templates(
            ledger, [TemplateRow(hash=old.hash, name="notes", sources=dict(old.sources), first_seen_at=now())]
        )

    screen = call(*TRY, "notes", "--against", old.hash)
    found = tried("notes", "--against", old.hash)

    assert (screen.exit_code, desk.sent()) == (2, 3), screen.stderr
    assert screen.stdout.count("  answer\n") == 3
    assert f"Error: The version {old.hash[:12]} can't be asked: " in screen.stderr
    assert said in screen.stderr
    assert (found["old"], found["run_id"], found["changes"]) == (None, found["new"]["run_id"], [])
    assert [record["status"] for record in found["new"]["records"]] == ["succeeded"] * 3
    assert said in found["error"]


@pytest.mark.usefixtures("no_endpoint")
def test_commands_of_the_reference_work(desk: Desk) -> None:
    desk.template("product_notes", front=FIELDS)
    _before, section = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8").split("## Try it\n")
    commands = re.findall(r"^presswork (.+)$", section.partition("\n## ")[0], re.MULTILINE)

    assert len(commands) == 3
    for command in commands:
        assert call(*shlex.split(command)).exit_code == 0, command


def test_trial_that_nobody_reads_to_its_end_is_still_recorded(desk: Desk) -> None:
    command = shlex.join([str(PRESSWORK), *TRY, "notes"])
    subprocess.run(["bash", "-c", f"{command} | head -1"], capture_output=True, check=True)
    (run,) = json.loads(call("history", "--trigger", "try", "--json").stdout)

    assert (run["status"], run["succeeded"], desk.sent()) == ("completed", 3, 3)


@contextmanager
def watching(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Iterator[dict[str, Any]]]]:
    """Watch the template in a process of its own, and yield the process with its events."""
    running = begin(*TRY, "notes", "--watch", "--json", *arguments)
    assert running.stdout is not None
    try:
        yield running, map(json.loads, running.stdout)
    finally:
        running.kill()
        running.communicate()


def upto(events: Iterator[dict[str, Any]], name: str) -> dict[str, Any]:
    """The next event of a name; those before it are skipped."""
    return next(event for event in events if event["event"] == name)


def test_watch_waits_while_a_file_is_broken_and_asks_at_each_save(desk: Desk) -> None:
    file = desk.templates / "notes.md.j2"
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole.replace("{% block user %}", "{% block user %"), encoding="utf-8")
    with watching("--limit", "2") as (running, events):
        broken = upto(events, "broken")
        assert upto(events, "waiting")["files"] == ["notes.md.j2"]
        file.write_text(whole, encoding="utf-8")
        first = upto(events, "version")
        upto(events, "waiting")
        file.write_text(whole.replace("{{ record.text }}", "New: {{ record.text }}"), encoding="utf-8")
        second = upto(events, "version")
        upto(events, "waiting")
        file.write_text(whole, encoding="utf-8")
        last = upto(events, "version")
        upto(events, "waiting")
        running.send_signal(signal.SIGINT)
        ended = upto(events, "ended")
        status = running.wait(timeout=30)

    assert broken["mistakes"][0]["line"] == 8
    assert [record["key"] for record in second["records"]] == ["1", "2"]
    assert (first["changes"], [change["key"] for change in second["changes"]]) == ([], ["1", "2"])
    assert (last["requests"], last["template_hash"]) == (0, first["template_hash"])
    assert (ended["versions"], ended["session_usd"]) == (3, second["session_usd"])
    assert (status, desk.sent()) == (0, 4)


def test_watch_says_which_file_is_gone_and_counts_no_version_for_it(desk: Desk) -> None:
    file = desk.templates / "notes.md.j2"
    whole = file.read_text(encoding="utf-8")
    with watching("--limit", "1") as (running, events):
        upto(events, "waiting")
        file.unlink()
        assert upto(events, "gone") == {"event": "gone", "files": ["notes.md.j2"]}
        file.write_text(whole, encoding="utf-8")
        assert upto(events, "version")["version"] == 2
        upto(events, "waiting")
        running.send_signal(signal.SIGTERM)
        assert upto(events, "ended")["versions"] == 2
        assert running.wait(timeout=30) == 0


@pytest.mark.parametrize("times", [1, 2])
def test_stopped_trial_says_what_it_kept_and_what_it_cost(desk: Desk, times: int) -> None:
    desk.switch(latency_ms=6_000 if times == 1 else 30_000)
    running = begin(*TRY, "notes")
    asyncio.run(until(lambda: desk.sent() == 3, pause_s=0.1))
    for _time in range(times):
        running.send_signal(signal.SIGINT)
        time.sleep(2)
    status, said = ended(running)
    desk.switch(latency_ms=0)

    assert status == 130
    if times == 1:
        assert re.search(r"Stopped\. 3 answers kept: asking again pays nothing for them\. Cost: \$0\.\d{4}\.\n$", said)
        assert tried("notes")["requests"] == 0
    else:
        assert re.search(r"Stopped\. 0 answers kept\. Cost: \$0\.0000, and perhaps \$0\.\d{4} for answers ", said)
    assert "To resume" not in said


def test_watch_ends_at_its_cap(desk: Desk) -> None:
    result = call(*TRY, "notes", "--watch", "--max-cost", "0.0001", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]

    assert (result.exit_code, desk.sent()) == (3, 0)
    assert [event["event"] for event in events] == ["started", "version", "capped", "ended"]
    assert "cost cap" in events[-2]["why"]


def test_watch_that_cuts_off_requests_ends_as_a_stopped_run_does(desk: Desk) -> None:
    desk.switch(latency_ms=6_000)
    with watching() as (running, events):
        upto(events, "started")
        asyncio.run(until(lambda: desk.sent() == 3, pause_s=0.1))
        running.send_signal(signal.SIGINT)
        upto(events, "ended")
        assert running.wait(timeout=30) == 130


def test_watch_that_is_stopped_says_what_it_kept_and_names_the_newest_answer(desk: Desk) -> None:
    file = desk.templates / "notes.md.j2"
    running = begin(*TRY, "notes", "--watch", "--key", "1")
    assert running.stderr is not None
    assert "Waiting for a save" in running.stderr.readline()
    desk.switch(latency_ms=6_000)
    file.write_text(file.read_text(encoding="utf-8").replace("record.text }}", "record.text }}!"), encoding="utf-8")
    asyncio.run(until(lambda: desk.sent() == 2, pause_s=0.1))
    running.send_signal(signal.SIGINT)
    text = running.communicate(timeout=30)[0]

    assert running.returncode == 130
    assert "\nStopped. 1 answer kept: asking again pays nothing for it.\n" in text
    assert "\n2 versions, 2 requests, $0.00" in text
    assert len(set(re.findall(r"show (\w{12})", text.partition("== version 2")[2]))) == 1


def test_watch_shows_a_person_what_changed(desk: Desk, tmp_path: Path) -> None:
    file = desk.templates / "notes.md.j2"
    shown = tmp_path / "shown"
    running = begin(*TRY, "notes", "--watch", "--key", "1")
    assert running.stderr is not None
    assert "Waiting for a save of notes.md.j2." in running.stderr.readline()
    file.write_text(file.read_text(encoding="utf-8").replace("record.text }}", "record.text }}!"), encoding="utf-8")
    assert "Waiting for a save of notes.md.j2." in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    shown.write_text(running.communicate(timeout=30)[0], encoding="utf-8")
    text = shown.read_text(encoding="utf-8")

    assert running.returncode == 0
    assert "== version 2 · " in text
    assert "notes.md.j2 saved\n" in text
    assert "  prompt of 1\n    one{+!+}\n" in text
    assert "\n2 versions, 2 requests, $0.00" in text
