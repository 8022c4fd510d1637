"""Bad input: exit status 2, a message that says what to do, no request, and nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from presswork.operate.command_server.server_context import CommandServer
from tests.commands.conftest import BLOCKS, FRONT, Desk, call, presswork
from tests.prefect_client import prefect_at

Arrange = Callable[[Desk, pytest.MonkeyPatch], None]


def front(**changes: str) -> str:
    lines = {"select": "SELECT id, text FROM notes", "key": "id", "output": "SubjectLine", "max_tokens": "256"}
    return "---\n" + "".join(f"{name}: {value}\n" for name, value in (lines | changes).items()) + "---\n"


def environment(**values: str | None) -> Arrange:
    def arrange(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in values.items():
            monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)

    return arrange


def template(blocks: str = BLOCKS, **changes: str) -> Arrange:
    return lambda desk, monkeypatch: desk.template(front=front(**changes), blocks=blocks)


def nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    pass


RUN = ("run", "notes")
USER = "{{% block user %}}{}{{% endblock %}}\n"
CASES: dict[str, tuple[tuple[str, ...], Arrange, str]] = {
    "no key and no sandbox": (RUN, environment(ANTHROPIC_BASE_URL=None), "Set ANTHROPIC_API_KEY, or start"),
    "a key that is refused": (RUN, environment(ANTHROPIC_API_KEY="sk-invalid-1"), "rejects the key"),
    "an unavailable endpoint": (RUN, environment(ANTHROPIC_BASE_URL="http://127.0.0.1:9"), "can't be reached"),
    "an unknown name": (("run", "note"), nothing, "Did you mean 'notes'?"),
    "a template that is no Jinja": (RUN, template(USER.format("{{ record.text")), "notes.md.j2, line 7"),
    "a template without output": (RUN, template(output=""), "output"),
    "a template that reaches for Python": (RUN, template(USER.format("{{ record.__class__ }}")), "reaches into Python"),
    "a template that reads what is not selected": (
        RUN,
        template(USER.format("{{ record.title }}")),
        "does not provide `record.title`; it yields id, text",
    ),
    "a system block that reads the record": (
        RUN,
        template("{% block system %}{{ record.text }}{% endblock %}" + USER.format("x")),
        "system block is shared",
    ),
    "a missing output class": (RUN, template(output="Nothing"), "There is no output class 'Nothing'"),
    "max_tokens beyond the model's": (RUN, template(max_tokens="200000"), "max_tokens"),
    "a step that is no template": (
        RUN,
        template(USER.format("{{ triage.topic }}")),
        "is not `record`, `params` or a step",
    ),
    "SQL that fails": (RUN, template(select="SELECT id, text FROM nowhere"), "no such table: nowhere"),
    "SQL that writes": (RUN, template(select="DELETE FROM notes"), "may only read"),
    "a select without its key": (RUN, template(key="number"), "does not yield the key 'number'"),
    "a parameter that is not declared": (
        RUN,
        template(select="SELECT id, text FROM notes WHERE id = :which"),
        "uses :which, which `params` does not declare",
    ),
    "a source without a database": (RUN, template(source="shop"), "Set PRESSWORK_SOURCE_SHOP_URL"),
    "an unavailable source": (
        RUN,
        environment(PRESSWORK_SOURCE_URL="postgresql://me:secret@127.0.0.1:9/shop"),
        "Check PRESSWORK_SOURCE_URL",
    ),
    "a source that is no file": (RUN, environment(PRESSWORK_SOURCE_URL="sqlite:////nowhere.sqlite"), "no such file"),
    "no source and no ledger yet": (RUN, environment(PRESSWORK_SOURCE_URL=""), "There is nothing to select from"),
    "an unavailable ledger": (
        RUN,
        environment(PRESSWORK_DATABASE_URL="postgresql://me:secret@127.0.0.1:9/ledger"),
        "Check PRESSWORK_DATABASE_URL",
    ),
    "a ledger that is no URL": (RUN, environment(PRESSWORK_DATABASE_URL="no-url"), "not a database URL"),
    "a setting out of bounds": (RUN, environment(PRESSWORK_CONCURRENCY="0"), "PRESSWORK_CONCURRENCY"),
    "--set without =": ((*RUN, "--set", "category"), nothing, "--set takes name=value"),
    "--set twice": ((*RUN, "--set", "a=1", "--set", "a=2"), nothing, "gives 'a' twice"),
    "--set of what it does not take": ((*RUN, "--set", "a=1"), nothing, "has no parameter 'a'. Available: none"),
    "a limit of nothing": ((*RUN, "--limit", "0"), nothing, "--limit 0"),
    "a cost cap below zero": ((*RUN, "--max-cost", "-1"), nothing, "--max-cost -1"),
    "a concurrency beyond all": ((*RUN, "--concurrency", "9999"), nothing, "--concurrency 9999"),
    "an option that is no number": ((*RUN, "--rpm", "many"), nothing, "--rpm"),
}


MEANWHILE = {
    "max_tokens beyond the model's",
    "a key that is refused",
    "an unavailable endpoint",
    "SQL that fails",
    "an unavailable source",
    "a source that is no file",
    "no source and no ledger yet",
    "an unavailable ledger",
    "a ledger that is no URL",
}
"""What is found while Prefect's server starts, because it takes as long to find out."""


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_reported_before_anything_is_sent(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, case: str, begun: list[bool]
) -> None:
    arguments, arrange, message = CASES[case]
    desk.notes({1: "one", 2: "two", 3: "three"})
    arrange(desk, monkeypatch)

    result = call(*arguments)

    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stderr.replace("no-url", "secret" if "secret@" in result.stderr else "")
    assert desk.sent() == 0
    assert not desk.ledger.exists()
    assert bool(begun) is (case in MEANWHILE)


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note whether bad input starts a Prefect server, without starting one; fail if it waits for it, for seconds."""
    starts: list[bool] = []

    def wait(_server: CommandServer, *_waiting: object) -> None:
        raise AssertionError("the command waited for a Prefect server")

    monkeypatch.setattr(CommandServer, "begin", lambda _server: starts.append(True))
    monkeypatch.setattr(CommandServer, "answering", wait)
    return starts


def test_unavailable_prefect_server_is_reported_before_anything_is_sent(desk: Desk, one_certificate: str) -> None:
    desk.notes({1: "one"})

    with prefect_at("http://127.0.0.1:9/api", one_certificate):
        result = call(*RUN)

    assert result.exit_code == 2, result.stdout
    assert "does not answer" in result.stderr
    assert "PREFECT_API_URL" in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert desk.sent() == 0


@pytest.mark.parametrize("case", ["no key and no sandbox", "an unknown name", "SQL that fails", "--set without ="])
def test_bad_input_is_reported_to_programs_as_json(desk: Desk, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    arguments, arrange, message = CASES[case]
    desk.notes({1: "one"})
    arrange(desk, monkeypatch)

    result = call(*arguments, "--json")

    told: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == 2
    assert message in told["error"]
    assert told["kind"]
    assert told["run_id"] is None


def test_ledger_that_is_not_migrated_is_reported(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.notes({1: "one"})
    monkeypatch.setenv("PRESSWORK_DATABASE_URL", f"sqlite:///{desk.folder / 'source.sqlite'}")

    result = call("run", "notes")

    assert result.exit_code == 2
    assert "Run `presswork db upgrade`" in result.stderr
    assert desk.sent() == 0


def test_unexpected_error_is_one_line_and_says_how_to_see_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("in postgresql://me:secret@host/db")

    monkeypatch.setattr("presswork.commands.run.run_command.find_job", fail)

    result = call("run", "notes")

    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.stderr
    assert "PRESSWORK_DEBUG=1" in result.stderr
    assert "secret" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["run", "notes", "--set", "x"], {}, "--set takes name=value"),
        (["run"], {}, "A name is missing"),
        (["nonsense"], {}, "No such command"),
        (["show", "abcdef"], {"PRESSWORK_DATABASE_URL": "sqlite:////nowhere/ledger.sqlite"}, "There is no ledger yet"),
    ],
)
def test_the_command_itself_ends_with_a_message_and_no_traceback(
    desk: Desk, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    ended = presswork(arguments, **environment)

    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert desk.sent() == 0


def test_front_is_what_the_desk_has() -> None:
    assert front() == FRONT
