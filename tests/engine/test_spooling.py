"""A run works on what its select gave once: across a crash, a retry and a resume on this machine, and nowhere else."""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from sqlalchemy import text

from db.database_errors import KeyValueError, SpoolError
from db.sources import values
from db.sources.spool import SUFFIX, UNFINISHED
from flows.engine import RunOptions, Summary, open_run
from flows.engine.report.progress import Progress, watch
from flows.errors import StoppingCallError
from tests.engine.workshop import Workshop

SAMPLE = "SELECT id, name FROM items ORDER BY random() LIMIT 40"
SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT count(*) FROM n"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id, i AS name FROM n"


def template(workshop: Workshop, select: str) -> None:
    file = workshop.templates / "note.md.j2"
    file.write_text(file.read_text(encoding="utf-8").replace("SELECT id, name FROM items", select), encoding="utf-8")


def files(tmp_path: Path) -> list[Path]:
    found = (tmp_path / "spools").rglob("*") if (tmp_path / "spools").is_dir() else ()
    return sorted(path for path in found if path.suffix in {SUFFIX, UNFINISHED})


def keys(workshop: Workshop, run_id: str) -> set[str]:
    rows = workshop.rows("SELECT record_key FROM generations WHERE run_id = :id", id=run_id)
    return {row["record_key"] for row in rows}


async def killed(workshop: Workshop, tmp_path: Path) -> str:
    """A run that was killed half-way through a random sample of 40 of 1,000 records."""
    workshop.numbered(1000)
    template(workshop, SAMPLE)
    workshop.sandbox.configure(latency_ms=300)
    run_id = await workshop.killed(partial(workshop.has_answered, 10), concurrency=5)
    assert [path.suffix for path in files(tmp_path)] == [SUFFIX]
    workshop.sandbox.configure(latency_ms=0)
    return run_id


async def test_resumed_run_sees_the_same_sample_and_then_it_is_gone(workshop: Workshop, tmp_path: Path) -> None:
    dead = await killed(workshop, tmp_path)
    begun = keys(workshop, dead)
    with workshop.source.begin() as connection:
        # What comes and goes in the source meanwhile is not this run's.
        connection.execute(text("DELETE FROM items"))
    summary = await workshop.run(resumes=dead)
    assert (summary.records, summary.exit_status, summary.notes) == (40, 0, [])
    assert begun < keys(workshop, summary.run_id)
    assert workshop.value("SELECT count(*) FROM current_content") == 40
    assert not list((tmp_path / "spools").iterdir())


async def test_command_that_is_typed_again_reads_its_source_again(workshop: Workshop, tmp_path: Path) -> None:
    dead = await killed(workshop, tmp_path)
    begun = keys(workshop, dead)
    summary = await workshop.run()
    assert (summary.records, summary.notes) == (40, [])
    assert not begun < keys(workshop, summary.run_id)
    # The killed one may still be resumed.
    assert [path.parent.name for path in files(tmp_path)] == [dead]


@pytest.mark.parametrize("how", ["elsewhere", "another limit"])
async def test_resumed_run_that_finds_no_sample_selects_again_and_says_so(
    workshop: Workshop, tmp_path: Path, how: str
) -> None:
    dead = await killed(workshop, tmp_path)
    options: dict[str, Any] = {"limit": 30} if how == "another limit" else {}
    if how == "elsewhere":
        shutil.rmtree(tmp_path / "spools")
    summary = await workshop.run(resumes=dead, **options)
    (note,) = summary.notes
    assert "note.md.j2: the select ran again" in note
    assert dead in note
    assert summary.records == (30 if options else 40)
    assert not files(tmp_path)


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
    assert (summary.records, summary.cached, workshop.requests) == (40, 40, 40)
    assert not files(tmp_path)


async def test_second_select_of_the_same_template_has_a_sample_of_its_own(workshop: Workshop, tmp_path: Path) -> None:
    workshop.numbered(5)

    @flow
    async def twice() -> list[int]:
        async with open_run(RunOptions()) as run:
            first = run.select("note")
            counts = [await first.count()]
            workshop.items({"more": "one more"})
            second = run.select("note")
            counts += [await second.count(), await first.count()]
            assert len(files(tmp_path)) == 2
            return counts

    assert await workshop.call(twice) == [5, 6, 5]
    assert not files(tmp_path)


async def test_two_selects_of_one_template_tell_apart_how_far_they_are(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.sources.select.AT_ONCE", 1)
    workshop.numbered(3)
    template(workshop, f"SELECT id, name, ({SLOW} WHERE length(items.id) > 0) AS slow FROM items")
    said: list[list[str]] = []

    @flow
    async def twice() -> list[int]:
        async with open_run(RunOptions()) as run:
            selects = [run.select("note"), run.select("note")]
            reading = asyncio.gather(*(select.count() for select in selects))
            while not reading.done():
                said.append(run.context.progress.selected())
                await asyncio.sleep(0.005)
            assert run.context.progress.selected() == []
            return await reading

    assert await workshop.call(twice) == [3, 3]
    assert 2 in map(len, said)
    assert all(line.endswith(" records read by note.md.j2") for lines in said for line in lines)


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


async def test_run_that_can_not_use_its_keys_keeps_nothing(workshop: Workshop, tmp_path: Path) -> None:
    workshop.numbered(20)
    template(workshop, "SELECT 1 AS id, name FROM items")
    with pytest.raises(KeyValueError, match="19 records repeat one, such as 1"):
        await workshop.run()
    assert workshop.requests == 0
    assert not list((tmp_path / "spools").iterdir())


async def test_run_that_was_stopped_keeps_its_records_until_it_is_resumed(workshop: Workshop, tmp_path: Path) -> None:
    workshop.numbered(20)
    workshop.sandbox.configure(spend_limit=1)
    with pytest.raises(StoppingCallError):
        await workshop.run(concurrency=1)
    assert [path.suffix for path in files(tmp_path)] == [SUFFIX]
    workshop.sandbox.configure(spend_limit=0)
    stopped = str(workshop.value("SELECT max(id) FROM runs"))
    assert (await workshop.run(resumes=stopped)).exit_status == 0
    assert not files(tmp_path)


async def test_folder_that_takes_nothing_ends_the_run_before_it_asks(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(3)
    (tmp_path / "file").touch()
    monkeypatch.setenv("PRESSWORK_SPOOL_DIR", str(tmp_path / "file"))
    with pytest.raises(SpoolError, match=r"can't be kept in .*/file: .* PRESSWORK_SPOOL_DIR"):
        await workshop.run()
    assert workshop.requests == 0


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


async def test_limit_takes_the_first_records_of_the_select_in_its_own_order(workshop: Workshop) -> None:
    workshop.numbered(10)
    template(workshop, "SELECT id, name FROM items ORDER BY id DESC")
    summary = await workshop.run(limit=3)
    assert keys(workshop, summary.run_id) == {"00007", "00008", "00009"}


async def test_select_that_takes_long_tells_how_far_it_is(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.engine.resources.spooling.TELL_AFTER_S", 0.05)
    monkeypatch.setattr("flows.engine.resources.spooling.TELL_EVERY_S", 0.05)
    monkeypatch.setattr("db.sources.select.AT_ONCE", 1)
    workshop.numbered(8)
    # Two rows take all the time: some of Python's drivers read one ahead, and four records have come in either case.
    slow = SLOW.replace("300000", "3000000") + " WHERE length(items.id) > 0"
    template(workshop, f"SELECT id, name, CASE WHEN id IN ('00004', '00005') THEN ({slow}) END AS slow FROM items")
    seen: list[Progress] = []
    end = watch(seen.append)
    said: set[str] = set()

    async def look() -> None:
        while True:
            said.update(words for progress in seen for words in progress.words().split("; "))
            await asyncio.sleep(0.01)

    looking = asyncio.create_task(look())
    await workshop.run()
    looking.cancel()
    end()
    assert "4 records read by note.md.j2" in said
    assert "read by" not in seen[0].words()

    (host,) = workshop.hosts
    assert "note.md.j2: 4 records read so far." in host.logged
    assert "note selects 8 records." in host.logged
