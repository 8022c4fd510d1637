"""`templates lint --online` and `status` report models that retire, and the templates that name them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from presswork.commands.machine import status
from presswork.commands.templates import asking
from presswork.commands.templates.retiring import Retiring, models_to_ask, retiring
from presswork.terminal.endings import CommandContext
from tests.commands.conftest import FRONT, Desk, call, set_all

SOON = datetime.now(UTC) + timedelta(days=30)
RETIRES = {"max_tokens": 128_000, "lifecycle": "deprecated", "retires_at": SOON.isoformat()}


class Models(ThreadingHTTPServer):
    """An endpoint that only answers about models, from `says`; it waits while `hangs` is not set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.says: dict[str, Any] = {}
        self.hangs = threading.Event()
        self.hangs.set()
        self.lists = 200
        self.paths: list[str] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        models = self.server
        assert isinstance(models, Models)
        path = self.path.partition("?")[0]
        models.paths.append(path)
        models.hangs.wait()
        if path == "/v1/models":
            self.answer(models.lists, {"data": [], "has_more": False})
            return
        info = models.says.get(path.rpartition("/")[2])
        self.answer(200 if info is not None else 404, info or {"type": "error", "error": {"type": "not_found_error"}})

    def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def models(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    with Models() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "any")
        monkeypatch.setenv("PRESSWORK_ENDPOINT", "gateway")
        yield server
        server.hangs.set()
        server.shutdown()
        thread.join()


def on(model: str) -> str:
    return FRONT.replace("key: id\n", f"key: id\nmodel: {model}\n")


def findings(*arguments: str) -> dict[tuple[str, str], str]:
    told = json.loads(call("templates", "lint", *arguments, "--json").stdout)
    return {(item["file"], item["code"]): item["message"] for item in told["findings"]}


# The lint


def test_lint_names_a_model_that_retires_where_it_stands(desk: Desk, models: Models) -> None:
    models.says = {"claude-sonnet-4-6": RETIRES}
    desk.template("other")

    result = call("templates", "lint", "--online")

    assert result.exit_code == 0
    wanted = f"claude-sonnet-4-6 is deprecated and retires on {SOON.date()}, in "
    assert [line for line in result.stdout.replace("\n", " ").split("note: ") if wanted in line]
    assert {file for file, code in findings("--online") if code == "lifecycle"} == {"notes.md.j2", "other.md.j2"}
    # One request for a model, however many templates name it.
    assert models.paths[:2] == ["/v1/models", "/v1/models/claude-sonnet-4-6"]
    assert len(models.paths) == 4


def test_lint_asks_no_one_unless_it_is_told_to(desk: Desk, models: Models) -> None:
    assert call("templates", "lint").exit_code == 0
    assert models.paths == []


def test_lint_goes_by_what_the_endpoint_says(desk: Desk, models: Models) -> None:
    models.says = {"claude-sonnet-4-6": {"max_tokens": 100}}

    assert "answers with 100 tokens at most" in findings("--online")["notes.md.j2", "limits"]
    assert call("templates", "lint", "--online").exit_code == 2
    assert ("notes.md.j2", "limits") not in findings()


def test_lint_says_what_an_endpoint_does_not_know_and_what_it_does_not_say(desk: Desk, models: Models) -> None:
    assert findings("--online")["notes.md.j2", "model"] == "The endpoint 'gateway' has no model 'claude-sonnet-4-6'."
    assert call("templates", "lint", "--online").exit_code == 2
    models.lists = 404
    assert "does not describe the model claude-sonnet-4-6: HTTP 404." in findings("--online")["notes.md.j2", "model"]
    assert call("templates", "lint", "--online").exit_code == 0


def test_lint_needs_a_key_and_an_endpoint_to_ask(desk: Desk, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    models.lists = 401
    refused = call("templates", "lint", "--online")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    keyless = call("templates", "lint", "--online")

    assert (refused.exit_code, keyless.exit_code) == (2, 2)
    assert "ANTHROPIC_API_KEY" in keyless.stderr
    assert "rejects the key" in refused.stderr


# The status


def retire_by(desk: Desk, today: date) -> list[Retiring]:
    """Find the models that retire, as `presswork status` does."""
    named = models_to_ask(desk.templates)
    reported = asking.ask_at_once(CommandContext(as_json=True), named) if named else {}
    return retiring(desk.templates, reported, today)


def test_models_that_retire_are_found_with_all_who_name_them(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_BASE_URL")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    desk.template("old", on("claude-sonnet-4-5"))
    # A byte order mark is an editor's habit, and no fault.
    desk.template("older", "\ufeff" + on("claude-sonnet-4-5"))
    desk.template("broken", "---\noutput: [\n---\n")

    (found,) = retire_by(desk, date(2026, 11, 25))

    assert (found.model, found.templates, found.retires_on) == (
        "claude-sonnet-4-5",
        ["old", "older"],
        date(2026, 11, 30),
    )
    assert found.words == "claude-sonnet-4-5 is deprecated and retires on 2026-11-30, in 5 days"


def test_status_goes_by_what_the_endpoint_says(desk: Desk, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.template("old", on("claude-sonnet-4-5"))
    models.says = {"claude-sonnet-4-5": {"lifecycle": "active"}, "claude-sonnet-4-6": RETIRES}
    monkeypatch.setattr(asking, "ENDPOINT_TIMEOUT_S", 60.0)

    (found,) = retire_by(desk, datetime.now(UTC).date())

    assert (found.model, found.lifecycle, found.templates) == ("claude-sonnet-4-6", "deprecated", ["notes"])


@pytest.mark.parametrize("trouble", ["hangs", "refuses", "away"])
def test_status_waits_for_no_endpoint(
    desk: Desk, models: Models, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ENDPOINT_TIMEOUT_S", 0.5)
    desk.template("old", on("claude-sonnet-4-5"))
    if trouble == "hangs":
        models.hangs.clear()
    elif trouble == "refuses":
        models.lists = 401
    else:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")

    (found,) = retire_by(desk, date(2026, 11, 25))

    assert found.model == "claude-sonnet-4-5"


@pytest.mark.parametrize(
    ("day", "told_of_it"),
    [
        (25, "is deprecated and retires on 2026-11-30, in 5 days"),
        (30, "is deprecated and retires on 2026-11-30, today"),
        (31, "should have retired on 2026-11-30 and may stop answering any day"),
    ],
)
def test_status_tells_of_models_where_nothing_runs(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, day: int, told_of_it: str
) -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=day - 1)
    monkeypatch.setattr(status, "utc_now", lambda: now)
    desk.template("old", on("claude-sonnet-4-5"))
    set_all(monkeypatch, {"PRESSWORK_STATE_DIR": str(tmp_path / "state"), "ANTHROPIC_BASE_URL": ""})

    screen = call("status")
    told = json.loads(call("status", "--json").stdout)

    assert "Nothing runs here" in screen.stdout
    said = " ".join(screen.stdout.split())
    assert f"claude-sonnet-4-5 {told_of_it}. Used by old. Move to another model." in said
    assert [(model["model"], model["retires_on"]) for model in told["models"]] == [("claude-sonnet-4-5", "2026-11-30")]
