"""Helpers take ranges of a run's records under their own leases, and the run does the rest. All of it is one run."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.exceptions import Abort
from sqlalchemy import Engine, event, text

from db.clock import new_id
from db.ledger.leases import end_lapsed
from flows.newsletter import newsletter
from presswork import RunOptions, Summary, open_run
from presswork.engine.materials.taken_records import size_of_range
from presswork.engine.orchestration.host import SpreadRun
from presswork.errors import ConfigurationError
from presswork.options import Helper
from tests.db.rows import count_open, run_lines
from tests.engine.plain_host import HELPING
from tests.engine.workshop import Workshop

Helping = Callable[[SpreadRun], Awaitable[None]]


def helper(run: SpreadRun, number: int = 1, *, of: int = 3) -> Helper:
    selected = run.selected
    return Helper(run=run.ledger.run_id, select=selected.query.name, nth=selected.nth, number=number, of=of)


@contextmanager
def helped(helping: Helping) -> Iterator[None]:
    token = HELPING.set(helping)
    try:
        yield
    finally:
        HELPING.reset(token)


async def run_with(workshop: Workshop, helping: Helping, **options: Any) -> Summary:
    """Run a template; `helping` works on its records first."""
    with helped(helping):
        return await workshop.run(**{"shards": 3, **options})


def makers(workshop: Workshop, run_id: str, step: str = "note") -> Mapping[str, str | None]:
    """Return the lease by which each record's generation was made; None for the run itself."""
    made = "SELECT record_key, lease_id FROM generations WHERE run_id = :id AND step = :step ORDER BY 1"
    return {row["record_key"]: row["lease_id"] for row in workshop.rows(made, id=run_id, step=step)}


def left_behind(workshop: Workshop) -> list[int]:
    """Count the rows that a closed run must not leave: working rows, leases, claims, attempts in flight."""
    counted = ("working_rows", "leases", "claims", "attempts WHERE ended_at IS NULL")
    return [workshop.value(f"SELECT count(*) FROM {rows}") for rows in counted]


@flow
async def tea_and_coffee(options: RunOptions) -> None:
    """Select twice by one template, first fewer records, with a step for each select."""
    async with open_run(options) as run:
        tea, coffee = run.select("note", {"kind": "tea"}), run.select("note", {"kind": "coffee"})
        await run.generate("other", coffee)
        await run.generate("note", tea)


def order(workshop: Workshop, by: str) -> None:
    file = workshop.templates / "note.md.j2"
    file.write_text(
        file.read_text(encoding="utf-8").replace("FROM items", f"FROM items ORDER BY {by}"), encoding="utf-8"
    )


# The work of a helper


async def test_helper_works_on_its_runs_records_and_the_run_has_all_figures(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(10)

    async def help_alone(run: SpreadRun) -> None:
        await workshop.run(helper=helper(run, 2))

    summary = await run_with(workshop, help_alone)
    assert (summary.records, summary.succeeded, summary.cached, summary.requests) == (10, 10, 0, 10)
    (lease_id,) = set(makers(workshop, summary.run_id).values())
    assert lease_id is not None
    assert workshop.counts("SELECT lease_id, count(*) FROM attempts GROUP BY 1") == {lease_id: 10}
    assert (workshop.requests, left_behind(workshop)) == (10, [0, 0, 0, 0])
    # A helper has no row in `runs`, and publishes no summary.
    assert [line.id for line in run_lines(workshop.ledger)] == [summary.run_id]
    assert workshop.value("SELECT count(*) FROM runs") == 1
    assert [(host.helper is not None, host.summary is not None) for host in workshop.hosts] == [
        (False, True),
        (True, False),
    ]


async def test_helpers_at_once_share_the_records_and_no_two_have_the_same(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(60)
    workshop.sandbox.configure(latency_ms=300)  # so long that each of the three opens before the last range is taken

    async def help_three(run: SpreadRun) -> None:
        await asyncio.gather(*(workshop.run(helper=helper(run, number), concurrency=2) for number in (1, 2, 3)))
        assert count_open(workshop.ledger, run.ledger.run_id, "note") == (0, 0)

    summary = await run_with(workshop, help_three)
    assert (summary.succeeded, workshop.requests) == (60, 60)
    by_helper = list(makers(workshop, summary.run_id).values())
    assert len(set(by_helper)) == 3
    assert None not in by_helper


async def test_run_does_what_no_helper_has_done(workshop: Workshop) -> None:
    workshop.numbered(6)

    async def help_nobody(_run: SpreadRun) -> None:
        return

    summary = await run_with(workshop, help_nobody)
    assert (summary.succeeded, workshop.requests) == (6, 6)
    assert set(makers(workshop, summary.run_id).values()) == {None}


async def test_run_expects_no_price_of_a_cheaper_model_that_answered_its_helper(workshop: Workshop) -> None:
    workshop.numbered(30)

    async def help_until_it_may_spend_no_more(run: SpreadRun) -> None:
        await workshop.run(helper=helper(run), concurrency=1, max_cost=0.01)
        with workshop.ledger.begin() as connection:
            connection.execute(text("UPDATE attempts SET model = 'claude-haiku-4-5', cost_usd = cost_usd / 3"))

    await run_with(workshop, help_until_it_may_spend_no_more, concurrency=1, max_cost=1)
    mean = workshop.value("SELECT avg(cost_usd) FROM attempts WHERE model = 'claude-haiku-4-5'")
    first = workshop.value("SELECT likely_cost_usd FROM attempts WHERE model = 'claude-sonnet-4-6' ORDER BY id LIMIT 1")
    assert float(first) == pytest.approx(1.25 * 3 * float(mean))


@pytest.mark.parametrize(
    ("records", "helpers", "size"), [(5000, 8, 157), (10, 3, 1), (2, 2, 1), (0, 2, 1), (10**6, 8, 1000)]
)
def test_range_is_a_quarter_of_a_helpers_part_and_at_most_a_page(records: int, helpers: int, size: int) -> None:
    assert size_of_range(records, helpers) == size


async def test_helpers_share_the_first_records_of_a_select_with_a_limit(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(10)
    order(workshop, "id DESC")

    async def help_with_limit(run: SpreadRun) -> None:
        await workshop.run(helper=helper(run), limit=4)

    summary = await run_with(workshop, help_with_limit, limit=4)
    assert list(makers(workshop, summary.run_id)) == ["00006", "00007", "00008", "00009"]
    assert None not in makers(workshop, summary.run_id).values()


async def test_variants_of_a_record_are_made_by_whoever_has_taken_it(workshop: Workshop) -> None:
    workshop.numbered(4)

    @flow
    async def thrice(options: RunOptions) -> None:
        async with open_run(options) as run:
            await run.generate("note", run.select("note"), variants=3)

    async def help_alone(run: SpreadRun) -> None:
        await workshop.call(thrice, RunOptions(helper=helper(run)))
        assert count_open(workshop.ledger, run.ledger.run_id, "note") == (0, 0)

    with helped(help_alone):
        await workshop.call(thrice, RunOptions(shards=2))
    assert workshop.requests == 12
    assert None not in makers(workshop, workshop.value("SELECT id FROM runs")).values()


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The executed selects of items."""
    executed: list[str] = []

    def note(_connection: object, _cursor: object, sql: str, *_rest: object) -> None:
        if "FROM items" in sql:
            executed.append(sql)

    event.listen(Engine, "before_cursor_execute", note)
    yield executed
    event.remove(Engine, "before_cursor_execute", note)


async def test_helper_on_the_same_machine_reads_what_its_run_has_read(
    workshop: Workshop, statements: list[str]
) -> None:
    workshop.numbered(10)
    statements.clear()

    async def help_alone(run: SpreadRun) -> None:
        helping = await workshop.run(helper=helper(run))
        assert helping.notes == []

    await run_with(workshop, help_alone)
    assert (len(statements), workshop.requests) == (1, 10)


async def test_helper_on_another_machine_reads_them_once_and_leaves_nothing(
    workshop: Workshop, statements: list[str], elsewhere: Path
) -> None:
    workshop.numbered(10)
    statements.clear()

    async def help_from_elsewhere(run: SpreadRun) -> None:
        with pytest.MonkeyPatch.context() as machine:
            machine.setenv("PRESSWORK_SPOOL_DIR", str(elsewhere))
            helping = await workshop.run(helper=helper(run))
        assert helping.notes == []
        assert is_empty(elsewhere)

    await run_with(workshop, help_from_elsewhere)
    assert (len(statements), workshop.requests) == (2, 10)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The spool folder of another machine."""
    return tmp_path / "elsewhere"


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


# Work that a helper leaves to its run


@pytest.fixture
def drinks(workshop: Workshop) -> Workshop:
    """Two teas and four coffees, which one template selects by kind."""
    workshop.items({"t1": "tea", "t2": "tea", "c1": "coffee", "c2": "coffee", "c3": "coffee", "c4": "coffee"})
    file = workshop.templates / "note.md.j2"
    select = "SELECT id, name FROM items WHERE name = :kind\nparams: {kind: {type: str}}"
    source = file.read_text(encoding="utf-8").replace("SELECT id, name FROM items", select)
    file.write_text(source, encoding="utf-8")
    workshop.template(name="other")
    return workshop


async def test_helper_works_on_the_one_select_of_a_template_that_its_run_divides(drinks: Workshop) -> None:
    async def help_alone(run: SpreadRun) -> None:
        assert (run.selected.query.name, run.selected.nth, run.records) == ("note.md.j2", 2, 4)
        await drinks.call(tea_and_coffee, RunOptions(helper=helper(run)))

    with helped(help_alone):
        await drinks.call(tea_and_coffee, RunOptions(shards=2))
    run_id = drinks.value("SELECT id FROM runs")
    assert None not in makers(drinks, run_id, "other").values()
    assert makers(drinks, run_id, "note") == {"t1": None, "t2": None}


async def test_helper_leaves_to_its_run_what_gathers(shop: Workshop) -> None:
    seen: list[dict[str, int]] = []

    async def help_alone(run: SpreadRun) -> None:
        await shop.call(newsletter, options=RunOptions(helper=helper(run)))
        seen.append(shop.counts("SELECT step, count(*) FROM generations GROUP BY 1"))

    with helped(help_alone):
        await shop.call(newsletter, options=RunOptions(shards=2))
    assert [list(steps) for steps in seen] == [["newsletter_summary"]]
    by_helpers = shop.counts("SELECT step, count(*) FROM generations WHERE lease_id IS NOT NULL GROUP BY 1")
    assert by_helpers == {"newsletter_summary": shop.requests - 7}


@flow
async def two_steps(options: RunOptions) -> None:
    async with open_run(options) as run:
        notes = await run.generate("note", run.select("note"))
        await run.generate("other", notes)


async def test_helper_goes_on_with_what_it_has_made_itself(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(12)
    workshop.template("Another line about {{ record.name }}: {{ note.subject }}.", name="other")
    seen: list[set[str | None]] = []

    async def help_twice(run: SpreadRun) -> None:
        await asyncio.gather(
            *(workshop.call(two_steps, RunOptions(helper=helper(run, number), concurrency=1)) for number in (1, 2))
        )
        first, second = (makers(workshop, run.ledger.run_id, step) for step in ("note", "other"))
        assert first == second
        seen.append(set(first.values()))

    with helped(help_twice):
        await workshop.call(two_steps, RunOptions(shards=2))
    assert (len(seen[0] - {None}), workshop.requests) == (2, 24)
    assert left_behind(workshop) == [0, 0, 0, 0]


async def test_what_a_helper_was_refused_its_run_does_not_ask_for_again(workshop: Workshop) -> None:
    workshop.numbered(20)
    workshop.sandbox.configure(refused=1.0)

    async def help_alone(run: SpreadRun) -> None:
        await workshop.run(helper=helper(run))

    summary = await run_with(workshop, help_alone)
    assert (summary.refused, workshop.requests) == (20, 20)


async def test_one_record_is_not_divided(workshop: Workshop) -> None:
    workshop.numbered(1)
    summary = await workshop.run(shards=3)
    assert (summary.succeeded, workshop.hosts[0].spread_runs) == (1, [])


# Unchanged records


async def test_helper_confirms_what_stands_and_the_run_counts_it(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(10)
    await workshop.run()
    workshop.items({"x": "one more"})

    async def help_alone(run: SpreadRun) -> None:
        await workshop.run(helper=helper(run))

    summary = await run_with(workshop, help_alone)
    assert (summary.cached, summary.succeeded, summary.requests, workshop.requests) == (10, 1, 1, 11)
    assert list(makers(workshop, summary.run_id)) == ["x"]
    (step,) = workshop.rows("SELECT * FROM run_steps WHERE run_id = :id", id=summary.run_id)
    assert (step["unchanged"], step["total"], step["state"]) == (10, 11, "done")


# The source of a helper


async def help_from(workshop: Workshop, elsewhere: Path, run: SpreadRun, change: str) -> tuple[int, int]:
    """Help from a machine where the select's result has changed; returns the records that are open afterwards."""
    with workshop.source.begin() as connection:
        connection.exec_driver_sql(change)
    with pytest.MonkeyPatch.context() as machine:
        machine.setenv("PRESSWORK_SPOOL_DIR", str(elsewhere))
        await workshop.run(helper=helper(run))
    return count_open(workshop.ledger, run.ledger.run_id, "note")


@pytest.mark.parametrize(
    ("change", "still_open", "by_the_run"),
    [
        ("DELETE FROM items WHERE id < '00004'", (4, 0), 4),
        ("INSERT INTO items VALUES ('x', 'one more')", (0, 0), 0),
        ("UPDATE items SET name = 'another ' || id WHERE id < '00004'", (0, 0), 0),
        ("DELETE FROM items", (10, 0), 10),
    ],
    ids=["fewer", "more", "changed", "none"],
)
async def test_helper_whose_source_gives_other_records_does_those_that_its_run_has(
    workshop: Workshop, elsewhere: Path, change: str, still_open: tuple[int, int], by_the_run: int
) -> None:
    workshop.numbered(10)
    found: list[tuple[int, int]] = []

    async def help_elsewhere(run: SpreadRun) -> None:
        found.append(await help_from(workshop, elsewhere, run, change))

    summary = await run_with(workshop, help_elsewhere)
    assert found == [still_open]
    made = makers(workshop, summary.run_id)
    assert (len(made), list(made.values()).count(None)) == (10, by_the_run)
    assert (summary.succeeded, workshop.requests) == (10, 10)


# Runs that a helper may help


async def test_helper_whose_run_is_in_another_ledger_asks_for_nothing(workshop: Workshop) -> None:
    workshop.numbered(3)
    with pytest.raises(ConfigurationError, match="is not in this worker's ledger"):
        await workshop.run(helper=Helper(run=new_id(), select="note.md.j2", number=1, of=3))
    assert workshop.requests == 0


async def test_helper_of_a_run_of_another_flow_asks_for_nothing(drinks: Workshop) -> None:
    async def help_wrongly(run: SpreadRun) -> None:
        with pytest.raises(ConfigurationError, match="has the flow 'tea_and_coffee' and the endpoint"):
            await drinks.run(helper=helper(run))

    with helped(help_wrongly):
        await drinks.call(tea_and_coffee, RunOptions(shards=2))
    # The run requests its own two prompts.
    assert drinks.requests == 2


async def test_helper_of_a_run_that_has_ended_ends_well_and_says_so(workshop: Workshop) -> None:
    workshop.numbered(3)
    run_id = (await workshop.run()).run_id
    with pytest.raises(Abort, match=r"has ended \(completed\), so this helper has nothing to do"):
        await workshop.run(helper=Helper(run=run_id, select="note.md.j2", number=1, of=3))
    assert (workshop.requests, left_behind(workshop)) == (3, [0, 0, 0, 0])


async def test_helper_whose_run_closes_while_it_begins_takes_no_lease(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(3)
    run_id = (await workshop.run()).run_id
    # As if the run was still open when the helper looked.
    monkeypatch.setattr("presswork.engine.opening.require_run", lambda *_which: None)
    with pytest.raises(Abort, match=r"nothing to do: the run has ended \(completed\)"):
        await workshop.run(helper=Helper(run=run_id, select="note.md.j2", number=1, of=3))
    assert (workshop.requests, left_behind(workshop)) == (3, [0, 0, 0, 0])
    assert workshop.value("SELECT count(*) FROM rolled_up") == 1


async def test_helper_that_is_late_finds_nothing_and_adds_nothing(workshop: Workshop) -> None:
    workshop.numbered(6)

    async def help_twice(run: SpreadRun) -> None:
        await workshop.run(helper=helper(run, 1))
        await workshop.run(helper=helper(run, 2))
        assert len(set(makers(workshop, run.ledger.run_id).values())) == 1

    await run_with(workshop, help_twice)
    assert workshop.requests == 6


# The costs of a helper


async def test_helper_that_has_spent_its_part_leaves_the_rest_to_others(workshop: Workshop) -> None:
    workshop.numbered(40)
    seen: list[int] = []

    async def help_a_little(run: SpreadRun) -> None:
        await workshop.run(helper=helper(run), max_cost=0.005, concurrency=1)
        seen.append(workshop.requests)
        # It has not skipped records that another helper could pay for.
        free, _taken = count_open(workshop.ledger, run.ledger.run_id, "note")
        assert free >= 40 - seen[0] - 2 * size_of_range(40, 3)
        await workshop.run(helper=helper(run, 2))

    summary = await run_with(workshop, help_a_little)
    assert 0 < seen[0] < 20
    assert (summary.status, summary.succeeded, summary.skipped, workshop.requests) == ("completed", 40, 0, 40)


async def test_run_counts_under_its_cap_what_its_helpers_have_spent(workshop: Workshop) -> None:
    workshop.numbered(60)

    async def help_a_lot(run: SpreadRun) -> None:
        await workshop.run(helper=helper(run), max_cost=0.009)

    summary = await run_with(workshop, help_a_lot, max_cost=0.01)
    assert summary.status == "capped"
    assert float(workshop.value("SELECT sum(cost_usd) FROM attempts")) <= 0.01


# Crashed, frozen or cancelled helpers


async def test_cancelled_helper_gives_back_what_it_has_taken(workshop: Workshop) -> None:
    workshop.numbered(40)
    workshop.sandbox.configure(latency_ms=300)

    async def help_until_cancelled(run: SpreadRun) -> None:
        helping = asyncio.create_task(workshop.run(helper=helper(run), concurrency=2))
        await workshop.asked(2)
        stopper = workshop.hosts[-1].stopper
        assert stopper is not None
        stopper.stop("Cancel in Prefect", 0.1)
        with pytest.raises(Abort):
            await helping
        _free, taken = count_open(workshop.ledger, run.ledger.run_id, "note")
        assert (taken, left_behind(workshop)[1:]) == (0, [1, 0, 0])
        workshop.sandbox.configure(latency_ms=0)
        await workshop.run(helper=helper(run, 2))

    summary = await run_with(workshop, help_until_cancelled)
    assert (summary.succeeded, left_behind(workshop)) == (40, [0, 0, 0, 0])
    assert 40 <= workshop.requests <= 42


async def test_helper_that_returns_after_it_lost_its_lease_buys_nothing_twice(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(40)
    workshop.sandbox.configure(latency_ms=100)

    async def help_and_sleep(run: SpreadRun) -> None:
        sleeping = asyncio.create_task(workshop.run(helper=helper(run, 1), concurrency=2))
        await workshop.asked(4)
        for column, value in (("until_s", "0"), ("alive_until", "'2020-01-01 00:00:00'")):
            with workshop.ledger.begin() as connection:
                connection.exec_driver_sql(f"UPDATE leases SET {column} = {value} WHERE worker <> 'main'")
        end_lapsed(workshop.ledger, except_lease=run.ledger.lease_id)
        await workshop.run(helper=helper(run, 2), concurrency=2)
        await sleeping

    summary = await run_with(workshop, help_and_sleep)
    assert (summary.succeeded, workshop.requests) == (40, 40)
    assert len(set(makers(workshop, summary.run_id).values()) - {None}) == 2
    assert left_behind(workshop) == [0, 0, 0, 0]


CRASHES = """
import os
from {module} import {name} as real
import {module} as module
calls = []
def crashes(*args, **kwargs):
    calls.append(args)
    crashing = len(calls) == {at}
    if crashing and {before}:
        os.kill(os.getpid(), 9)
    done = real(*args, **kwargs)
    if crashing:
        os.kill(os.getpid(), 9)
    return done
module.{name} = crashes
"""
EDGES = [
    ("db.ledger.lifecycle", "join_run", 1),
    ("db.ledger.ranges", "take_range", 1),
    ("db.ledger.ranges", "take_range", 3),
    ("db.ledger.ranges", "finish_range", 1),
    ("db.ledger.ranges", "finish_range", 2),
    ("db.ledger.leases", "free_records", 1),
    ("db.ledger.lifecycle", "leave_run", 1),
]


async def crash(workshop: Workshop, module: str, name: str, at: int, *, before: bool) -> None:
    """Kill a helper at an edge, and let another one take its records."""
    workshop.numbered(24)
    in_flight: list[int] = []
    first = CRASHES.format(module=module, name=name, at=at, before=before)

    async def help_and_crash(run: SpreadRun) -> None:
        crashing = await workshop.process(first=first, helper=helper(run, 1, of=2).model_dump(), concurrency=2)
        await asyncio.wait_for(crashing.communicate(), 120)
        assert crashing.returncode == -signal.SIGKILL
        in_flight.append(workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL"))
        await workshop.run(helper=helper(run, 2, of=2))
        assert count_open(workshop.ledger, run.ledger.run_id, "note") == (0, 0)

    summary = await run_with(workshop, help_and_crash, shards=2)
    assert summary.succeeded == 24
    assert None not in makers(workshop, summary.run_id).values()
    assert 24 <= workshop.requests <= 24 + in_flight[0]
    assert left_behind(workshop) == [0, 0, 0, 0]
    assert workshop.value("SELECT count(*) FROM runs") == 1


@pytest.mark.parametrize("before", [True, pytest.param(False, marks=pytest.mark.soak)], ids=["before", "after"])
@pytest.mark.parametrize(("module", "name", "at"), EDGES)
async def test_helper_that_is_killed_loses_its_range_and_another_takes_it(
    workshop: Workshop, module: str, name: str, at: int, before: bool
) -> None:
    await crash(workshop, module, name, at, before=before)


@pytest.mark.parametrize("before", [pytest.param(True, marks=pytest.mark.soak), False], ids=["before", "after"])
@pytest.mark.parametrize("name", ["take_range", "finish_range"])
@pytest.mark.postgres
async def test_helper_that_is_killed_on_postgres_loses_its_range_too(
    workshop_on_each: Workshop, name: str, before: bool
) -> None:
    if workshop_on_each.ledger.dialect.name != "postgresql":
        pytest.skip("the test above has all edges on SQLite")
    await crash(workshop_on_each, "db.ledger.ranges", name, 2, before=before)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_run_that_is_killed_as_it_divides_leaves_nothing_in_the_way(workshop: Workshop, before: bool) -> None:
    workshop.numbered(24)
    first = CRASHES.format(module="db.ledger.ranges", name="divide", at=1, before=before)
    crashing = await workshop.process(first=first, shards=2)
    await asyncio.wait_for(crashing.communicate(), 120)
    assert crashing.returncode == -signal.SIGKILL

    async def help_alone(run: SpreadRun) -> None:
        await workshop.run(helper=helper(run))

    again = await run_with(workshop, help_alone)
    assert (again.succeeded, workshop.requests) == (24, 24)
