"""Selects are executed when a flow awaits them, outside the event loop, and all of them before the first request."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.exceptions import Abort
from sqlalchemy import Engine, event

from db.database_errors import KeyValueError, SelectError, SourceUnreachableError
from flows.newsletter import newsletter
from flows.support_replies import support_replies
from presswork import RunOptions, Summary, open_run
from presswork.engine.orchestration.host import SpreadRun
from presswork.errors import ParameterError, StoppingCallError, TemplateError
from presswork.options import Helper
from tests.engine.plain_host import HELPING
from tests.engine.workshop import NOTE, USER, Workshop
from tests.waiting import until

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def template(workshop: Workshop, select: str, *, name: str = "note", front: str = "") -> None:
    text_of = NOTE.format(user=USER, max_tokens=256).replace("SELECT id, name FROM items", select)
    (workshop.templates / f"{name}.md.j2").write_text(text_of.replace("---\n", f"---\n{front}", 1), encoding="utf-8")


@flow
async def note_then(second: str) -> Summary:
    async with open_run(RunOptions()) as run:
        notes, others = run.select("note"), run.select(second)
        await run.generate("note", notes)
        await run.generate(second, others)
        return run.summary()


# When errors and counts are known


async def test_wrong_second_select_stops_the_run_before_its_first_request(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(3)
    template(workshop, "SELECT 1 AS id, 'one' AS name UNION ALL SELECT 1, 'two'", name="second")
    with pytest.raises(KeyValueError, match=r"second\.md\.j2.*not unique"):
        await workshop.call(note_then, "second")
    assert workshop.requests == 0
    assert workshop.rows("SELECT * FROM generations") == []
    assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"failed": 1}


async def test_select_asks_no_database_and_says_at_once_what_the_template_tells(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_SOURCE_URL", "sqlite:////nowhere/at-all.sqlite")
    template(workshop, "SELECT id FROM items WHERE id = :wanted", front="params: {wanted: {type: int}}\n")

    @flow
    async def selecting(nonsense: str) -> None:
        async with open_run(RunOptions()) as run:
            with pytest.raises(TemplateError, match="nonsense"):
                run.select(nonsense)
            with pytest.raises(ParameterError, match="wanted"):
                run.select("note", {})
            found = run.select("note", {"wanted": 1})
            with pytest.raises(SourceUnreachableError, match="PRESSWORK_SOURCE_URL"):
                await found.count()
            with pytest.raises(SourceUnreachableError, match="PRESSWORK_SOURCE_URL"):
                await run.generate("note", found)

    # A name in the flow's code would already stop the run when it opens.
    await workshop.call(selecting, "nonsense")
    assert workshop.requests == 0


async def test_step_whose_source_was_away_can_be_tried_again(workshop: Workshop, tmp_path: Path) -> None:
    workshop.numbered(3)
    file, aside = tmp_path / "source.sqlite", tmp_path / "aside.sqlite"
    workshop.dispose()
    file.rename(aside)

    @flow
    async def patient() -> Summary:
        async with open_run(RunOptions()) as run:
            notes = run.select("note")
            with pytest.raises(SourceUnreachableError):
                await run.generate("note", notes)
            aside.rename(file)
            await run.generate("note", notes)
            return run.summary()

    summary = await workshop.call(patient)
    assert (summary.records, summary.succeeded) == (3, 3)


async def test_each_select_is_read_once_and_one_that_nobody_awaits_not_at_all(workshop: Workshop) -> None:
    workshop.numbered(5)
    template(workshop, "SELECT id, name FROM items WHERE id > '00002'", name="second")
    template(workshop, "SELECT id FROM nowhere", name="never")

    @flow
    async def several() -> list[int]:
        async with open_run(RunOptions(limit=4)) as run:
            seen = []
            notes = run.select("note")
            seen.append(run.summary().records)
            assert await notes.count() == 4
            seen.append(run.summary().records)
            await run.generate("note", notes)
            seen.append(run.summary().records)
            seconds = run.select("second")
            seen.append(run.summary().records)
            await run.generate("second", seconds)
            run.select("never")
            seen.append(run.summary().records)
            return seen

    assert await workshop.call(several) == [0, 4, 4, 4, 6]
    assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"completed": 1}


async def test_select_made_after_a_step_is_checked_before_the_next(workshop: Workshop) -> None:
    workshop.numbered(2)
    workshop.template("Second: {{ note.subject }}", name="second")
    template(workshop, "SELECT name FROM items", name="late")

    @flow
    async def late() -> None:
        async with open_run(RunOptions()) as run:
            notes = await run.generate("note", run.select("note"))
            run.select("late")
            await run.generate("second", notes)

    with pytest.raises(SelectError, match=r"late\.md\.j2.*key column"):
        await workshop.call(late)
    assert workshop.requests == 2


async def test_steps_at_the_same_time_check_a_select_once(workshop: Workshop) -> None:
    workshop.numbered(3)
    template(workshop, "SELECT id, name FROM items", name="second")

    @flow
    async def at_once() -> Summary:
        async with open_run(RunOptions()) as run:
            notes, seconds = run.select("note"), run.select("second")
            await asyncio.gather(run.generate("note", notes), run.generate("second", seconds))
            return run.summary()

    summary = await workshop.call(at_once)
    assert (summary.records, summary.succeeded, summary.exit_status) == (6, 6, 0)
    assert workshop.rows("SELECT DISTINCT status FROM generations") == [{"status": "succeeded"}]


async def test_summary_says_what_the_ledger_says_also_after_a_step_that_broke_off(workshop: Workshop) -> None:
    workshop.numbered(3)
    workshop.template("Second: {{ note.subject }}", name="second")

    @flow
    async def broken_off() -> tuple[Summary, Summary]:
        async with open_run(RunOptions()) as run:
            notes = await run.generate("note", run.select("note"))
            before = run.summary()
            workshop.sandbox.configure(spend_limit=1)
            with pytest.raises(StoppingCallError):
                await run.generate("second", notes)
            return before, run.summary()

    before, after = await workshop.call(broken_off)
    assert (before.succeeded, before.requests) == (3, 3)
    assert after.requests == workshop.value("SELECT count(*) FROM attempts")


# Which thread does the work


@pytest.fixture
def on_the_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The calls of databases and programs on the event loop's thread: there should be none."""
    met: list[str] = []
    watching = threading.get_ident()

    def statement(_connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
        if threading.get_ident() == watching:
            met.append(sql)

    def connect(*_arguments: Any) -> None:
        if threading.get_ident() == watching:
            met.append("connect")

    real = subprocess.run

    def run(*arguments: Any, **options: Any) -> Any:
        if threading.get_ident() == watching:
            met.append(str(arguments))
        return real(*arguments, **options)

    monkeypatch.setattr(subprocess, "run", run)
    event.listen(Engine, "before_cursor_execute", statement)
    event.listen(Engine, "do_connect", connect)
    yield met
    event.remove(Engine, "before_cursor_execute", statement)
    event.remove(Engine, "do_connect", connect)


async def test_no_statement_is_run_on_the_event_loop(shop: Workshop, on_the_loop: list[str]) -> None:
    on_the_loop.clear()
    newsletters, replies = await shop.call(newsletter), await shop.call(support_replies)
    again = await shop.call(newsletter)
    assert (newsletters.records, replies.records, again.cached) == (24, 30, 31)
    assert on_the_loop == []


async def test_no_statement_of_a_helper_or_of_its_run_is_run_on_the_event_loop(
    workshop_on_each: Workshop, on_the_loop: list[str]
) -> None:
    workshop = workshop_on_each
    workshop.numbered(10)

    async def help_alone(run: SpreadRun) -> None:
        await workshop.run(helper=Helper(run=run.ledger.run_id, select="note.md.j2", number=2, of=3))

    token = HELPING.set(help_alone)
    on_the_loop.clear()
    summary = await workshop.run(shards=3)
    HELPING.reset(token)
    assert (summary.records, summary.succeeded, on_the_loop) == (10, 10, [])


# Stopping during a select


SLOW_SELECTS = {
    "sqlite": f"SELECT id, name FROM items WHERE ({ENDLESS}) > 0",
    "postgresql": "SELECT id, name FROM items WHERE pg_sleep(600) IS NOT NULL",
}


async def stopped(run: asyncio.Task[Summary]) -> str:
    with pytest.raises(Abort) as stop:
        await asyncio.wait_for(run, 60)
    return str(stop.value)


async def selecting(workshop: Workshop) -> None:
    """Wait until the run reads its source."""
    await workshop.begun(1)
    await until(lambda: any(thread.name == "presswork-source" for thread in threading.enumerate()))
    await asyncio.sleep(0.3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_signal_ends_a_run_that_selects(workshop_on_each: Workshop, number: signal.Signals) -> None:
    workshop = workshop_on_each
    workshop.numbered(3)
    template(workshop, SLOW_SELECTS[workshop.source.dialect.name])
    run = asyncio.create_task(workshop.run())
    await selecting(workshop)
    os.kill(os.getpid(), number)
    assert number.name in await stopped(run)
    assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"cancelled": 1}
    assert workshop.requests == 0


async def test_cancel_ends_a_run_that_selects(workshop: Workshop) -> None:
    workshop.numbered(3)
    template(workshop, SLOW_SELECTS["sqlite"])
    run = asyncio.create_task(workshop.run())
    await selecting(workshop)
    (host,) = workshop.hosts
    assert host.stopper is not None
    host.stopper.stop("Cancel in Prefect")
    assert "Cancel in Prefect" in await stopped(run)
