"""The runs that come next are asked of Prefect within a second; whatever it answers, the overview is shown."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from presswork.audit import next_runs
from presswork.audit.next_runs import NextRuns, PrefectApi

AUTH = "operator:knock-knock"
DEPLOYMENTS = [{"id": "d1", "name": "nightly"}, {"id": "d2", "name": "hourly"}]


def flow_run(name: str, deployment: str | None, at: str | None, state: str = "Scheduled") -> dict[str, Any]:
    return {
        "id": f"id-{name}",
        "name": name,
        "deployment_id": deployment,
        "next_scheduled_start_time": at,
        "expected_start_time": at,
        "state_name": state,
        "parameters": {"other": "fields"},
    }


@dataclass
class Server:
    """A Prefect server, as far as it is asked here."""

    port: int = 0
    answers: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str | None, Any]] = field(default_factory=list)
    slow: threading.Event = field(default_factory=threading.Event)

    @property
    def api(self) -> PrefectApi:
        return PrefectApi(f"http://127.0.0.1:{self.port}/api", AUTH)

    def plan(self, *runs: dict[str, Any]) -> None:
        self.answers["/api/flow_runs/filter"] = json.dumps(runs).encode()
        self.answers["/api/deployments/filter"] = json.dumps(DEPLOYMENTS).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    found.slow.set()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.asked.append((self.path, self.headers["authorization"], json.loads(body)))
            found.slow.wait(30)
            answer = found.answers.get(self.path)
            self.send_response(500 if answer is None else 200)
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as listening:
        found.port = listening.server_port
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield found
        found.slow.set()
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for answers that come: a page waits for a second only."""
    monkeypatch.setattr(next_runs, "WITHIN_S", 60.0)


@contextmanager
def asking(find: Callable[[], PrefectApi | None]) -> Iterator[NextRuns]:
    asker = NextRuns(find)
    yield asker
    asker.close()


def test_next_run_of_each_deployment_is_found(server: Server) -> None:
    server.plan(
        flow_run("brisk-hare", "d2", "2026-11-26T12:00:00Z"),
        flow_run("late-owl", "d2", "2026-11-26T13:00:00Z"),
        flow_run("<b>quiet</b>", "d1", "2026-11-26T22:00:00+00:00", "Late"),
        flow_run("by-hand", None, "2026-11-27T09:00:00Z", "Resuming"),
        flow_run("never", None, None),
    )
    with asking(lambda: server.api) as ask:
        found = ask()

    assert found is not None
    assert [(run.name, run.deployment, run.state) for run in found] == [
        ("brisk-hare", "hourly", "Scheduled"),
        ("<b>quiet</b>", "nightly", "Late"),
        ("by-hand", None, "Resuming"),
    ]
    assert found[0].at.isoformat() == "2026-11-26T12:00:00+00:00"
    assert found[0].url == f"http://127.0.0.1:{server.port}/runs/flow-run/id-brisk-hare"
    (path, credentials, body), (_path, _credentials, of_deployments) = server.asked
    assert path == "/api/flow_runs/filter"
    assert credentials == f"Basic {base64.b64encode(AUTH.encode()).decode()}"
    assert body["flow_runs"] == {"state": {"type": {"any_": ["SCHEDULED"]}}, "tags": {"all_": ["presswork"]}}
    # A server with short pages would refuse a limit.
    assert "limit" not in body
    assert of_deployments == {"deployments": {"id": {"any_": ["d2", "d1"]}}}


@pytest.mark.parametrize(
    "answer", [b"", b"<html>", b"{}", b"[1]", b'[{"id": 1}]', b'[{"id": "1", "name": "n", "expected_start_time": "x"}]']
)
def test_answer_that_is_no_prefect_servers_is_left_out(server: Server, answer: bytes) -> None:
    server.answers["/api/flow_runs/filter"] = answer
    with asking(lambda: server.api) as ask:
        assert ask() is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/api", "", "no url", "ftp://127.0.0.1/api", "http://[/api"])
def test_server_that_can_not_be_asked_is_left_out(url: str) -> None:
    with asking(lambda: PrefectApi(url)) as ask:
        assert ask() is None


def test_without_a_server_nothing_is_asked() -> None:
    with asking(lambda: None) as ask:
        assert ask() is None


def test_server_that_hangs_is_waited_for_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_runs, "WITHIN_S", 0.2)
    server.slow.clear()
    with asking(lambda: server.api) as ask:
        assert [ask(), ask(), ask()] == [None] * 3
        assert len(server.asked) <= 1


def test_answer_is_shown_again_for_a_while_and_then_asked_for_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.plan()
    with asking(lambda: server.api) as ask:
        assert [ask(), ask()] == [[], []]
        assert len(server.asked) == 2
        monkeypatch.setattr(next_runs, "ANSWER_KEPT_S", -1)
        server.plan(flow_run("one", None, "2026-11-26T12:00:00Z"))
        time.sleep(0.01)
        assert [run.name for run in ask() or ()] == ["one"]


@pytest.mark.parametrize(
    ("api", "ui"),
    [
        ("http://127.0.0.1:4200/api", "http://127.0.0.1:4200"),
        ("https://prefect.example/api/", "https://prefect.example"),
        (
            "https://api.prefect.cloud/api/accounts/a/workspaces/w",
            "https://app.prefect.cloud/account/a/workspace/w",
        ),
    ],
)
def test_page_of_a_flow_run_is_in_the_servers_ui(api: str, ui: str) -> None:
    assert PrefectApi(api).ui_url == ui


def test_no_password_is_shown() -> None:
    assert "knock" not in repr(PrefectApi("http://127.0.0.1:4200/api", AUTH, "knock-key"))
