"""`presswork rehearse` runs on the user's records, sends nothing, writes no row of theirs and leaves no file."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pytest
from filelock import FileLock

from db.clock import now
from db.ledger.connecting import open_ledger
from db.readers.past_answers import PastAnswers, StepTokens
from presswork.errors import ParameterError
from presswork.prices import Usage, cost_of
from presswork.rehearsal.forecast import forecast
from presswork.rehearsal.isolation import LOCK, NEW_S, PREFIX, remove_leftovers
from presswork.rehearsal.terms import choose_latency, make_terms
from presswork.terminal.flags import RehearseFlags
from tests.commands.conftest import Desk, call, interrupted, make_desk, set_all
from tests.conftest import forget_settings
from tests.prefect_client import prefect_at

SONNET = "claude-sonnet-4-6"
NOTES: dict[Any, str | None] = {number: f"a note about kettle {number}" for number in range(1, 13)}


class Trap(BaseHTTPRequestHandler):
    """An endpoint that nothing may reach."""

    reached: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.reached.append(self.path)
        self.send_response(500)
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def trap() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Trap)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@dataclass
class House:
    """A user's desk, whose ledger has answers of Claude, and a temporary folder to look into."""

    desk: Desk
    environment: dict[str, str]
    temporary: Path

    def left(self) -> list[str]:
        return [path.name for path in self.temporary.iterdir() if "rehearsal" in path.name]

    def content(self) -> str:
        """Return one hash of everything in the ledger."""
        with closing(sqlite3.connect(self.desk.ledger)) as connection:
            return hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()


@pytest.fixture(scope="module")
def built(
    prefect_server: str, one_certificate: str, sandbox_url: str, trap: str, tmp_path_factory: pytest.TempPathFactory
) -> House:
    desk = make_desk(tmp_path_factory.mktemp("house"), sandbox_url)
    desk.notes(NOTES)
    temporary = desk.folder / "tmp"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch, prefect_at(prefect_server, one_certificate):
        forget_settings(patch)
        set_all(patch, desk.settings())
        ran = call("run", "notes")
    assert ran.exit_code == 0, ran.stderr
    with closing(sqlite3.connect(desk.ledger)) as ledger:
        # As if Claude had answered: longer, and slower, than the sandbox does.
        ledger.execute("UPDATE generations SET endpoint = 'anthropic'")
        ledger.execute("UPDATE runs SET endpoint = 'anthropic'")
        ledger.execute("UPDATE attempts SET output_tokens = 100, latency_ms = 250")
        # The records too, for rehearsals that read them from the ledger's database.
        ledger.execute("CREATE TABLE notes (id, text)")
        ledger.executemany("INSERT INTO notes VALUES (?, ?)", list(NOTES.items()))
        ledger.commit()
    environment = {
        **desk.settings(),
        "TMPDIR": str(temporary),
        "ANTHROPIC_BASE_URL": trap,
        "ANTHROPIC_API_KEY": "sk-ant-mine",
        "PRESSWORK_ENDPOINT": "anthropic",
    }
    return House(desk, environment, temporary)


@pytest.fixture
def house(built: House, prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> House:
    """The house, with this process in it."""
    set_all(monkeypatch, built.environment)
    # It is not read from the environment a second time.
    monkeypatch.setattr(tempfile, "tempdir", str(built.temporary))
    return built


@pytest.fixture(autouse=True)
def nothing_of_theirs_is_touched(request: pytest.FixtureRequest) -> Iterator[None]:
    """After any rehearsal: no request elsewhere, no new row in the user's database, no file left."""
    if "house" not in request.fixturenames:
        yield
        return
    house: House = request.getfixturevalue("house")
    before, sent = house.content(), house.desk.sent()
    yield
    assert house.content() == before
    assert house.desk.sent() == sent
    assert Trap.reached == []
    assert [name for name in house.left() if name.startswith(PREFIX)] == []


@pytest.mark.prefect
def test_rehearsal_estimates_from_the_history_and_touches_nothing(house: House) -> None:
    ended = call("rehearse", "notes", "--json", "--overloaded", "10", "--rpm-limit", "600", "--seed", "3")

    assert ended.exit_code == 0, ended.stderr
    assert ended.stderr == ""
    told = json.loads(ended.stdout)
    # The ledger has all of them already; a rehearsal still runs all records.
    assert (told["records"], told["cached"], told["succeeded"]) == (12, 0, 12)
    assert told["terms"]["latency_ms"] == 250
    assert (told["terms"]["latency_from"], told["terms"]["latency_answers"]) == ("history", 12)
    assert told["terms"]["limits"] == {"rpm": 600, "itpm": None, "otpm": None}
    assert told["terms"]["faults"] == {"overloaded": 0.1}
    expected = told["forecast"]
    assert expected["lengths_from"] == "history"
    assert expected["output_tokens"] == 12 * 100
    assert expected["wall_s"] == told["wall_s"] > 0.25
    assert expected["requests"] == 12 + sum(trouble["requests"] for trouble in told["troubles"])
    assert 0 < expected["cost_usd"] < expected["cost_usd_at_most"]
    assert {trouble["kind"] for trouble in told["troubles"]} == {"overloaded_error"}
    assert told["losses"] == []
    assert told["kept"] is None


@pytest.mark.prefect
def test_rehearsal_says_what_it_knows_and_what_broke(
    house: House, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The records are in the ledger's database, which has no answers of this endpoint.
    set_all(monkeypatch, {"PRESSWORK_SOURCE_URL": "", "PRESSWORK_ENDPOINT": "gateway"})

    ended = call("rehearse", "notes", "--refused", "100", "--latency-ms", "20", "--limit", "7", "--keep")

    assert ended.exit_code == 1, ended.stderr
    assert "Rehearsal of notes: the sandbox answers, and the ledger is temporary." in ended.stderr
    assert "read-only" in ended.stderr
    for part in (
        "notes rehearsed: 7 records in",
        "the sandbox's guess",
        "if each answer fills its max_tokens",
        "What failed",
    ):
        assert part in ended.stdout
    assert "7 refusal" in ended.stdout
    assert "such as" in ended.stdout
    assert "presswork show" not in ended.stdout
    kept = ended.stdout.rpartition("was kept: ")[2].strip()
    assert kept.startswith("sqlite:///")
    ledger = open_ledger(kept)
    with ledger.connect() as connection:
        ((flow_run, status),) = connection.exec_driver_sql("SELECT prefect_flow_run_id, status FROM runs").all()
    ledger.dispose()
    assert status == "completed"
    assert httpx2.get(f"{prefect_api}/flow_runs/{flow_run}").json()["name"] == "rehearsal of notes"


@pytest.mark.prefect
def test_cost_cap_is_kept_in_a_rehearsal_too(house: House) -> None:
    ended = call("rehearse", "notes", "--max-cost", "0.0001", "--latency-ms", "0")

    assert ended.exit_code == 3, ended.stderr
    assert "stopped by its cost cap" in ended.stdout


@pytest.mark.prefect
def test_rehearsal_that_is_stopped_leaves_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing waits for the requests in flight, whose answers take a minute.
    monkeypatch.setenv("PRESSWORK_STOP_WAIT_S", "0")

    with interrupted(lambda: house.left() and _in_flight(house.temporary), signal.SIGTERM):
        ended = call("rehearse", "notes", "--latency-ms", "60000")

    assert ended.exit_code == 130, ended.stderr
    assert "The rehearsal was stopped. Nothing was billed." in ended.stderr
    assert "Traceback" not in ended.stderr


def _in_flight(temporary: Path) -> bool:
    for file in temporary.glob(f"{PREFIX}*/ledger.sqlite"):
        with closing(sqlite3.connect(file)) as ledger:
            try:
                return bool(ledger.execute("SELECT count(*) FROM attempts").fetchone()[0])
            except sqlite3.OperationalError:
                return False
    return False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["note"], "Did you mean 'notes'?"),
        (["notes", "--overloaded", "120"], "--overloaded 120: it must be from 0 to 100"),
        (["notes", "--refused", "70", "--invalid", "70"], "must add up to 1 or less"),
        (["notes", "--switch", "nonsense=1"], "no such switch"),
        (["notes", "--latency-ms", "-1"], "latency_ms"),
        (["notes", "--rpm-limit", "0"], "rpm"),
        (["notes", "--limit", "0"], "--limit 0"),
        (["notes", "--set", "category=tea"], "has no parameter 'category'"),
    ],
)
def test_wrong_call_is_told(desk: Desk, arguments: Sequence[str], said: str) -> None:
    desk.notes(NOTES)

    ended = call("rehearse", *arguments)

    assert ended.exit_code == 2
    assert said in " ".join(ended.stderr.split())


def test_without_a_source_and_a_ledger_there_is_nothing_to_rehearse(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_SOURCE_URL", "")

    ended = call("rehearse", "notes")

    assert ended.exit_code == 2
    assert "There is nothing to select from" in ended.stderr
    assert not desk.ledger.exists()


@pytest.mark.prefect
def test_environment_is_as_it_was_after_a_rehearsal_that_could_not_start(desk: Desk, prefect_api: str) -> None:
    desk.notes({1: "a", None: "b"})
    before = dict(os.environ)

    ended = call("rehearse", "notes", "--latency-ms", "1")

    assert "1 of 2 records has no 'id'" in ended.stderr
    # Prefect's own quiet is kept for the process.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "DO_NOT_TRACK"))}
    assert kept == {name: value for name, value in before.items() if name in kept}


def test_folder_of_a_killed_rehearsal_is_removed_by_the_next(tmp_path: Path) -> None:
    for name in ("dead", "alive", "new"):
        (tmp_path / f"{PREFIX}{name}").mkdir()
        (tmp_path / f"{PREFIX}{name}" / "ledger.sqlite").touch()
    long_ago = time.time() - 2 * NEW_S
    with FileLock(tmp_path / f"{PREFIX}alive" / LOCK):
        for name in ("dead", "alive"):
            os.utime(tmp_path / f"{PREFIX}{name}", (long_ago, long_ago))
        remove_leftovers(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{PREFIX}alive", f"{PREFIX}new"]


# What is estimated


def test_latency_is_the_one_named_else_the_historys_else_an_assumed_one() -> None:
    pasts = {"a": PastAnswers(10, (1000, 2000)), "b": PastAnswers(10, (4000,))}

    named = choose_latency(pasts, 500, None)
    known = choose_latency(pasts, None, None)
    assumed = choose_latency({}, None, None)

    assert (named.median_ms, named.known_from) == (500, "named")
    assert (round(known.median_ms), known.known_from, known.answers) == (2000, "history", 3)
    assert 0.4 < known.spread < 0.7
    assert (assumed.median_ms, assumed.known_from) == (3000, "assumed")


def test_drops_are_half_before_and_half_after_the_answer() -> None:
    terms = make_terms({}, RehearseFlags("notes", drops=2.0, truncated=1.0, seed=3))

    assert terms.for_programs()["faults"] == {"dropped_before": 0.01, "dropped_after": 0.01, "truncated": 0.01}
    assert terms.switches.seed == 3
    with pytest.raises(ParameterError, match="--rate-limited 101"):
        make_terms({}, RehearseFlags("notes", rate_limited=101.0))


def test_cost_is_estimated_with_lengths_that_are_known() -> None:
    spent = [StepTokens("known", SONNET, 10, 1000, 0, 0, 0, 77), StepTokens("new", "a-model", 10, 1000, 0, 0, 0, 77)]
    day = now().date()

    known, new = forecast(spent, {"known": PastAnswers(200.0, (1,))}, lambda _step: 1024, day)

    assert (known.output_tokens, known.past_answers) == (2000, 1)
    assert known.cost_usd == cost_of(SONNET, Usage(1000, output_tokens=2000), day) == Decimal("0.033")
    assert known.at_most_usd == cost_of(SONNET, Usage(1000, output_tokens=10240), day)
    assert (new.output_tokens, new.past_answers, new.cost_usd, new.at_most_usd) == (77, 0, None, None)


def test_cost_of_many_short_prompts_is_not_that_of_a_long_one() -> None:
    # Together 5,000,000 tokens, each prompt below the 100,000 from which this model's price is five times as high.
    spent = [StepTokens("note", "claude-haiku-5-5", 100, 5_000_000, 0, 0, 0, 100_000)]

    (found,) = forecast(spent, {}, lambda _step: 2000, now().date())

    assert (found.cost_usd, found.at_most_usd) == (Decimal("0.55"), Decimal("0.6"))
