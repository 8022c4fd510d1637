"""Views and readers show the same for a ledger of an earlier release after it has migrated."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, Engine

from db.ledger.connecting import connect_ledger, upgrade
from db.ledger.migrating import alembic_config
from db.readers.chains import Spent, resumed_by, spent_by_chain
from db.readers.failures import losses, without_content
from db.readers.figures import StepCount, cost_reused, count_generations, find_run, usage
from db.readers.lives import read_life
from db.readers.look_up import look_up
from db.readers.old_shards import shards_of
from db.readers.stored_generations import read_generations
from db.readers.what_stands import read_standing
from db.session import begin_write
from tests.db.earlier.ledgers import views_of
from tests.db.rows import run_lines, sha
from tests.db.test_migrations import MOMENT, add

FLOW_RUN = "00000000-0000-7000-8000-000000000001"


class OldLedger:
    """Writes the rows of revision 0002, as its release did: one for each record in each run."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows = 0
        add(connection, "templates", hash=sha("t"), name="note", sources="{}", first_seen_at=MOMENT)
        for record in "rs":
            add(connection, "records", hash=sha(record), body=f'{{"r":"{record}"}}')

    def run(self, name: str, hour: int, **own: Any) -> None:
        started = MOMENT + timedelta(hours=hour)
        row = {
            "flow": "note",
            "trigger": "command",
            "parameters": "{}",
            "code_version": "0",
            "endpoint": "anthropic",
            "mode": "live",
            "started_at": started,
            "ended_at": started + timedelta(minutes=30),
            "status": "completed",
            "process": "host/1/1",
            "alive_until": started,
            "epoch": 1,
        }
        add(self._connection, "runs", id=name, **(row | own))

    def write(self, run: str, key: str, status: str = "succeeded", *, source: str | None = None, **own: Any) -> str:
        """Add a generation and, if it was requested, its one attempt; return its id."""
        self._rows += 1
        generation_id = f"generation {self._rows:02}"
        at = MOMENT + timedelta(minutes=self._rows)
        cost = own.pop("cost", None)
        if not source and status in {"succeeded", "failed", "refused"} and own.get("error_kind") != "render":
            self._ask(run, key, generation_id, cost)
        content = status == "succeeded"
        row = {
            "flow": "note",
            "step": "note",
            "endpoint": "anthropic",
            "record_key": key,
            "record_hash": sha("r"),
            "template_hash": sha("t"),
            "prompt_hash": sha(key),
            "status": status,
            "origin": "cache" if source else "live",
            "source_generation_id": source,
            "output": f'{{"line":"{generation_id}"}}' if content and not source else None,
            "output_hash": sha(key) if content else None,
            "created_at": at,
        }
        add(self._connection, "generations", id=generation_id, run_id=run, **(row | own))
        return generation_id

    def _ask(self, run: str, key: str, generation_id: str, cost: float | None) -> None:
        known = self._connection.exec_driver_sql("SELECT hash FROM prompts").scalars().all()
        if sha(key) not in known:
            add(self._connection, "prompts", hash=sha(key), model="m", variant=0, request="{}", created_at=MOMENT)
        used = {"input_tokens": 60, "output_tokens": 100, "cost_usd": cost, "model": "m"}
        lost = {"error_type": "timeout", "likely_cost_usd": 0.005}
        add(
            self._connection,
            "attempts",
            id=f"attempt {self._rows:02}",
            run_id=run,
            prompt_hash=sha(key),
            generation_id=generation_id,
            ordinal=1,
            kind="call",
            started_at=MOMENT,
            ended_at=MOMENT,
            **(used if cost else lost),
        )


def fill(connection: Connection) -> None:
    """Runs with unchanged, repeatedly failed and skipped records, a run with a shard, and a run that resumed it."""
    ledger = OldLedger(connection)
    render = {"error_kind": "render", "error_message": "line 3"}
    ledger.run("run 1", 1)
    a = ledger.write("run 1", "a", cost=0.1)
    ledger.write("run 1", "b", "refused", cost=0.01, error_kind="refusal", error_message="No.")
    ledger.write("run 1", "c", "failed", error_kind="timeout", error_message="No answer.")
    ledger.write("run 1", "d", "skipped", error_kind="cost_cap", error_message="$1 were spent.")
    ledger.run("run 2", 2)
    ledger.write("run 2", "a", source=a)
    ledger.write("run 2", "b", "skipped", error_kind="given_up", error_message="It went badly.")
    ledger.write("run 2", "c", "failed", error_kind="timeout", error_message="No answer.")
    ledger.run("run 3", 3, prefect_flow_run_id=FLOW_RUN)
    ledger.run("run 3 shard", 3, parent_run_id="run 3", trigger="shard")
    e = ledger.write("run 3 shard", "e", cost=0.02)
    refused = ledger.write("run 3 shard", "f", "refused", cost=0.03, error_kind="refusal", error_message="No.")
    ledger.write("run 3", "e", source=e)
    ledger.write("run 3", "e again", source=e)
    ledger.write("run 3", "f", "refused", source=refused, error_kind="refusal", error_message="No.")
    ledger.write("run 3", "a", source=a)
    ledger.run("run 4", 4, resumes_run_id="run 3")
    ledger.write("run 4", "a", cost=0.2, record_hash=sha("s"))
    ledger.write("run 4", "e", "failed", **render)
    ledger.run("run 5", 5, flow="other", ended_at=None, status="running")


@pytest.fixture
def old(empty_database_url: str) -> Iterator[Engine]:
    """A ledger of revision 0002."""
    engine = connect_ledger(empty_database_url)
    with begin_write(engine) as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        fill(connection)
    yield engine
    engine.dispose()


def test_views_show_the_same(old: Engine) -> None:
    before = views_of(old)
    assert len(before["current_content"]) == 3
    upgrade(old)
    assert views_of(old) == before


def test_view_that_users_built_on_current_content_survives(old: Engine) -> None:
    with old.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW mine AS SELECT record_key, output, age_days FROM current_content")
    upgrade(old)
    with old.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM mine WHERE output IS NOT NULL").scalar() == 3


def test_records_of_a_run_are_counted_as_they_were(old: Engine) -> None:
    upgrade(old)

    def counts(run: str) -> list[tuple[str, str, int]]:
        return [(line.status, line.origin, line.count) for line in count_generations(old, run)]

    assert counts("run 1") == [
        ("succeeded", "live", 1),
        ("refused", "live", 1),
        ("failed", "live", 1),
        ("skipped", "live", 1),
    ]
    assert counts("run 2") == [("succeeded", "cache", 1), ("skipped", "live", 1), ("failed", "live", 1)]
    # Answers that its shard requested count as live: `e` once, its duplicate as cached.
    assert sorted(counts("run 3")) == [("refused", "live", 1), ("succeeded", "cache", 2), ("succeeded", "live", 1)]
    assert count_generations(old, "run 5") == []
    assert all(isinstance(line, StepCount) for line in count_generations(old, "run 4"))


def test_usage_and_savings_are_what_they_were(old: Engine) -> None:
    upgrade(old)
    first, spread = usage(old, "run 1"), usage(old, "run 3")
    assert (first.requests, first.cost_usd, first.perhaps_billed) == (3, Decimal("0.11"), 1)
    assert first.likely_usd == Decimal("0.005")
    assert (spread.requests, spread.cost_usd) == (2, Decimal("0.05"))
    assert [cost_reused(old, f"run {number}") for number in (1, 2, 3)] == [None, Decimal("0.1"), Decimal("0.1")]
    assert shards_of(old, "run 3") == ["run 3 shard"]
    assert (resumed_by(old, "run 4"), spent_by_chain(old, "run 4")) == (["run 3"], Spent(Decimal("0.05")))


def test_runs_are_listed_as_they_were(old: Engine) -> None:
    upgrade(old)
    lines = run_lines(old)
    assert [(line.id, line.status, line.generations, line.succeeded, line.cached) for line in lines] == [
        # The process of this one stopped renewing its lease, which has expired.
        ("run 5", "crashed", 0, 0, 0),
        ("run 4", "completed", 2, 1, 0),
        ("run 3", "completed", 4, 1, 2),
        ("run 2", "completed", 3, 0, 1),
        ("run 1", "completed", 4, 1, 0),
    ]
    assert lines == [find_run(old, line.id) for line in lines]


def test_failures_are_those_of_each_run(old: Engine) -> None:
    upgrade(old)
    assert [row.record_key for row in without_content(old, "run 1")] == ["b", "c", "d"]
    assert [row.record_key for row in without_content(old, "run 2")] == ["b", "c"]
    assert [(loss.status, loss.kind, loss.count, loss.record_keys) for loss in losses(old, "run 3")] == [
        ("refused", "refusal", 1, ("f",))
    ]


def test_records_and_prompts_are_found_as_they_were(old: Engine) -> None:
    upgrade(old)
    (page,) = read_generations(old, "run 3", "note", page_size=10)
    assert [(each.record_key, each.output) for each in page] == [
        ("a", {"line": "generation 01"}),
        ("e", {"line": "generation 08"}),
        ("e again", {"line": "generation 08"}),
    ]
    found = look_up(old, [sha(key) for key in "abf"])
    assert (found[sha("a")].generation_id, found[sha("b")].bad_outcomes) == ("generation 14", 1)
    assert found[sha("f")].bad_outcomes == 1


def test_current_content_and_history_of_old_rows_are_read(old: Engine) -> None:
    upgrade(old)
    standing = read_standing(old, "note", "note", "anthropic", list("abcde"), with_parents=True)
    assert standing["a"].written_by == "generation 14"
    assert standing["e"].written_by == "generation 08"
    failing = {key: each.failing.error_kind for key, each in standing.items() if each.failing}
    assert failing == {"b": "given_up", "c": "timeout", "d": "cost_cap", "e": "render"}

    life = read_life(old, "note", "a")
    assert [(each.generation_id, each.confirmed, each.until is None) for each in life] == [
        ("generation 01", 2, False),
        ("generation 14", 0, True),
    ]
    assert [each.confirmed for each in read_life(old, "note", "c")] == [1]
