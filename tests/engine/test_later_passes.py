"""A flow run that starts again resumes its run, and does again what has changed since."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from prefect import flow
from prefect.exceptions import Pause
from sqlalchemy import text

from db.clock import new_id
from presswork import RunOptions, Summary, open_run
from presswork.engine.orchestration.host import RunOrigin
from presswork.errors import ConfigurationError
from presswork.prompts.flow_source import read_function
from tests.engine.plain_host import FLOW_RUN
from tests.engine.workshop import Workshop
from tests.machines import SetMachine, using

GATHERED = """---
output: SubjectLine
---
{% block user %}One line for {% for line in note %}{{ line.subject }} {% endfor %}{% endblock %}
"""


class FlowBrokeError(Exception):
    """The flow's own code fails after its steps."""


@pytest.fixture
def once(workshop_on_each: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop whose calls all belong to one flow run; a failed request is not retried."""
    monkeypatch.setenv(FLOW_RUN, new_id())
    for setting in ("REQUEST_RETRIES", "CHUNK_RETRIES", "REPAIRS"):
        monkeypatch.setenv(f"PRESSWORK_{setting}", "0")
    return workshop_on_each


def change_names(workshop: Workshop) -> None:
    with workshop.source.begin() as connection:
        connection.execute(text("UPDATE items SET name = name || ' of spring'"))


@pytest.mark.parametrize("how", ["fails", "is left"])
async def test_step_that_gathers_takes_in_what_only_the_second_pass_brought(once: Workshop, how: str) -> None:
    once.numbered(6)
    (once.templates / "gathered.md.j2").write_text(GATHERED, encoding="utf-8")
    passes: list[int] = []

    @flow(name="gathers")
    async def gathers() -> Summary:
        async with open_run(RunOptions()) as run:
            passes.append(1)
            once.sandbox.configure(server_error=0.5 if len(passes) == 1 else 0)
            notes = await run.generate("note", run.select("note"))
            once.sandbox.configure(server_error=0)
            await run.generate("gathered", notes.together())
            if len(passes) == 1 and how == "fails":
                raise FlowBrokeError
            if len(passes) == 1:
                await run.suspend("waits for spring", datetime.now(UTC) + timedelta(days=1))
            return run.summary()

    with pytest.raises((FlowBrokeError, Pause)):
        await once.call(gathers)
    first = once.value("SELECT count(*) FROM current_content WHERE step = 'note'")
    assert 0 < first < 6
    summary = await once.call(gathers)
    assert (summary.status, summary.succeeded, summary.failed) == ("completed", 7, 0)
    gathered = "SELECT generation_id FROM current_content WHERE step = 'gathered'"
    parents = f"SELECT count(*) FROM generation_parents WHERE generation_id IN ({gathered})"
    assert once.value(parents) == 6
    # The first one was paid for, and stays.
    assert once.value("SELECT count(*) FROM generations WHERE step = 'gathered' AND replaced_by <> ''") == 1
    assert once.value("SELECT count(*) FROM runs") == 1


@pytest.mark.parametrize("malformed", [0.0, 1.0])
async def test_template_that_was_fixed_counts_in_the_next_pass(once: Workshop, malformed: float) -> None:
    once.numbered(4)
    passes: list[int] = []

    @flow(name="breaks")
    async def breaks() -> Summary:
        async with open_run(RunOptions()) as run:
            passes.append(1)
            once.sandbox.configure(malformed=malformed if len(passes) == 1 else 0)
            await run.generate("note", run.select("note"))
            if len(passes) == 1:
                raise FlowBrokeError
            return run.summary()

    with pytest.raises(FlowBrokeError):
        await once.call(breaks)
    once.template(user="A much better line about {{ record.name }}.")
    summary = await once.call(breaks)
    assert (summary.succeeded, summary.invalid, summary.requests, summary.exit_status) == (4, 0, 8, 0)
    assert once.value("SELECT count(DISTINCT template_hash) FROM current_content") == 1


async def test_second_run_of_a_flow_run_goes_over_records_that_have_changed(once: Workshop) -> None:
    once.numbered(3)

    @flow(name="twice")
    async def twice() -> list[str]:
        found = []
        for _block in range(2):
            async with open_run(RunOptions()) as run:
                await run.generate("note", run.select("note"))
                found.append(run.ledger.run_id)
            change_names(once)
        return found

    first, second = await once.call(twice)
    assert (first == second, once.requests) == (True, 6)
    assert once.statuses(first) == {"succeeded": 3}


async def test_second_run_of_a_flow_run_keeps_what_the_first_has_counted(
    once: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    once.numbered(3)
    once.template(name="other", user="Another line about {{ record.name }}.")

    @flow(name="blocks")
    async def blocks() -> Summary:
        for step in ("note", "other"):
            async with open_run(RunOptions(), flow="blocks") as run:
                await run.generate(step, run.select("note"))
                summary = run.summary()
        return summary

    await once.call(blocks)
    monkeypatch.setenv(FLOW_RUN, new_id())
    summary = await once.call(blocks)
    counts = once.counts("SELECT step, unchanged FROM run_steps WHERE run_id = (SELECT max(id) FROM runs)")
    assert counts == {"note": 3, "other": 3}
    assert (summary.cached, once.requests) == (6, 6)


async def test_two_runs_of_one_name_at_once_are_refused_in_words(once: Workshop) -> None:
    once.numbered(20)
    once.sandbox.configure(latency_ms=100)

    @flow(name="at-once")
    async def at_once() -> list[int | BaseException]:
        async def one() -> int:
            async with open_run(RunOptions(concurrency=2)) as run:
                await run.generate("note", run.select("note"))
                return run.summary().succeeded

        return list(await asyncio.gather(one(), one(), return_exceptions=True))

    refused, done = sorted(await once.call(at_once), key=lambda found: isinstance(found, int))
    assert done == 20
    assert isinstance(refused, ConfigurationError)
    assert "open_run(flow=...)" in str(refused)


def test_open_run_of_another_process_keeps_no_flow_run_from_opening_its_own(machine: SetMachine) -> None:
    origin = RunOrigin("at-once", None, new_id(), "command", {}, "0", read_function(change_names))
    with origin.alone():
        with pytest.raises(ConfigurationError, match="opens two runs at once"), origin.alone():
            pass
        with using(SetMachine()), origin.alone():
            pass
