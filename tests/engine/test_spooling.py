"""A run keeps its selected records across a crash, a retry and a resume on this machine."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from sqlalchemy import text

from db.sources import values
from db.sources.spool import SPOOL_SUFFIX, UNFINISHED
from presswork import RunOptions, Summary, open_run
from presswork.errors import StoppingCallError
from tests.engine.workshop import Workshop

SAMPLE = "SELECT id, name FROM items ORDER BY random() LIMIT 40"
SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT count(*) FROM n"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id, i AS name FROM n"


def template(workshop: Workshop, select: str) -> None:
    file = workshop.templates / "note.md.j2"
    file.write_text(file.read_text(encoding="utf-8").replace("SELECT id, name FROM items", select), encoding="utf-8")


def files(tmp_path: Path) -> list[Path]:
    found = (tmp_path / "spools").rglob("*") if (tmp_path / "spools").is_dir() else ()
    return sorted(path for path in found if path.suffix in {SPOOL_SUFFIX, UNFINISHED})


def keys(workshop: Workshop, run_id: str) -> set[str]:
    rows = workshop.rows("SELECT record_key FROM generations WHERE run_id = :id", id=run_id)
    return {row["record_key"] for row in rows}


async def killed(workshop: Workshop, tmp_path: Path) -> str:
    """Kill a run halfway through a random sample of 40 of 1,000 records, and return its id."""
    workshop.numbered(1000)
    template(workshop, SAMPLE)
    workshop.sandbox.configure(latency_ms=300)
    run_id = await workshop.killed(partial(workshop.has_answered, 10), concurrency=5)
    assert [path.suffix for path in files(tmp_path)] == [SPOOL_SUFFIX]
    workshop.sandbox.configure(latency_ms=0)
    return run_id


async def test_resumed_run_sees_the_same_sample_and_then_it_is_gone(workshop: Workshop, tmp_path: Path) -> None:
    dead = await killed(workshop, tmp_path)
    begun = keys(workshop, dead)
    with workshop.source.begin() as connection:
        # Changes in the source do not affect this run.
        connection.execute(text("DELETE FROM items"))
    summary = await workshop.run(resumes=dead)
    assert (summary.records, summary.exit_status, summary.notes) == (40, 0, [])
    # Earlier answers are confirmed.
    assert begun.isdisjoint(keys(workshop, summary.run_id))
    assert (summary.cached, summary.cached + summary.succeeded) == (len(begun), 40)
    assert workshop.value("SELECT count(*) FROM current_content") == 40
    assert not list((tmp_path / "spools").iterdir())


async def test_retry_of_a_flow_run_sees_the_same_sample(workshop: Workshop, tmp_path: Path) -> None:
    workshop.numbered(1000)
    template(workshop, SAMPLE)
    samples: list[set[str]] = []

    @flow(retries=1, retry_delay_seconds=0)
    async def stumbling() -> Summary:
        async with open_run(RunOptions()) as run:
            notes = await run.generate("note", run.select("note"))
            samples.append({note.key async for note in notes})
            if len(samples) == 1:
                raise ZeroDivisionError
            return run.summary()

    summary = await workshop.call(stumbling)
    assert samples[0] == samples[1]
    assert (summary.records, summary.succeeded, workshop.requests) == (40, 40, 40)
    assert not files(tmp_path)


async def test_kill_while_the_select_runs_leaves_nothing_to_the_next_run(workshop: Workshop, tmp_path: Path) -> None:
    workshop.numbered(1000)
    template(workshop, ENDLESS)
    dead = await workshop.killed(lambda: any(path.stat().st_size > 100_000 for path in files(tmp_path)))
    (half,) = files(tmp_path)
    assert (half.suffix, half.parent.name, stat.S_IMODE(half.stat().st_mode)) == (UNFINISHED, dead, 0o600)
    workshop.template()
    summary = await workshop.run(limit=3)
    assert (summary.records, summary.exit_status) == (3, 0)
    assert not list((tmp_path / "spools").iterdir())


async def test_run_that_was_stopped_keeps_its_records_until_it_is_resumed(workshop: Workshop, tmp_path: Path) -> None:
    workshop.numbered(20)
    workshop.sandbox.configure(spend_limit=1)
    with pytest.raises(StoppingCallError):
        await workshop.run(concurrency=1)
    assert [path.suffix for path in files(tmp_path)] == [SPOOL_SUFFIX]
    workshop.sandbox.configure(spend_limit=0)
    stopped = str(workshop.value("SELECT max(id) FROM runs"))
    assert (await workshop.run(resumes=stopped)).exit_status == 0
    assert not files(tmp_path)


async def test_record_that_can_not_be_read_fails_alone_by_its_key(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(4)
    real: Callable[[str, Mapping[str, Any]], values.Record] = values.make_record

    def reading(key: str, data: Mapping[str, Any]) -> values.Record:
        if key == "00002":
            raise ValueError("no such moment")
        return real(key, data)

    monkeypatch.setattr("db.sources.select.make_record", reading)
    summary = await workshop.run()
    assert (summary.records, summary.succeeded, summary.failed, summary.exit_status) == (4, 3, 1, 1)
    (failure,) = summary.failures
    assert (failure.record_key, failure.kind) == ("00002", "unreadable")
    assert failure.message == "the record can't be read: no such moment"
    assert workshop.requests == 3


async def test_what_a_select_tells_stands_in_the_log_of_its_flow_run(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presswork.engine.materials.run_selects.TELL_AFTER_S", 0.0)
    workshop.numbered(8)
    template(workshop, f"SELECT id, name, ({SLOW} WHERE length(items.id) > 0) AS slow FROM items")
    await workshop.run()
    (host,) = workshop.hosts
    assert "note.md.j2: 0 records read so far." in host.logged
    assert "note selects 8 records." in host.logged
