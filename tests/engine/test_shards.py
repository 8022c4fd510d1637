"""A shard does its part and nothing else; what it did counts as its run's."""

from __future__ import annotations

from decimal import Decimal

import pytest
from prefect import flow
from sqlalchemy import Engine, event

from db.ledger.clock import new_id
from db.readers.figures import list_runs
from db.readers.old_shards import shards_of
from flows.engine import RunOptions, open_run
from flows.engine.options import Shard
from flows.errors import ConfigurationError
from flows.newsletter import newsletter
from tests.engine.workshop import Workshop


def shard(
    parent: str,
    number: int,
    *,
    of: int = 3,
    records: int,
    select: str = "note.md.j2",
    nth: int = 1,
    limit: int | None = None,
) -> Shard:
    return Shard(parent=parent, select=select, nth=nth, number=number, of=of, records=records, limit=limit)


@flow
async def tea_and_coffee(options: RunOptions) -> None:
    """Two selects of one template, the first with fewer records, and a step for each."""
    async with open_run(options) as run:
        tea, coffee = run.select("note", {"kind": "tea"}), run.select("note", {"kind": "coffee"})
        await run.generate("other", coffee)
        await run.generate("note", tea)


def order(workshop: Workshop, by: str) -> None:
    file = workshop.templates / "note.md.j2"
    file.write_text(
        file.read_text(encoding="utf-8").replace("FROM items", f"FROM items ORDER BY {by}"), encoding="utf-8"
    )


async def test_shard_asks_for_its_part_alone(workshop: Workshop) -> None:
    workshop.numbered(10)
    parent = (await workshop.run(limit=1)).run_id
    summary = await workshop.run(shard=shard(parent, 2, records=10))
    assert (summary.records, summary.succeeded) == (3, 3)
    made = workshop.rows("SELECT record_key FROM generations WHERE run_id = :id ORDER BY 1", id=summary.run_id)
    assert [row["record_key"] for row in made] == ["00003", "00004", "00005"]
    (row,) = workshop.rows("SELECT * FROM runs WHERE id = :id", id=summary.run_id)
    assert (row["parent_run_id"], row["trigger"]) == (parent, "shard")
    assert workshop.hosts[-1].shard == shard(parent, 2, records=10)
    # The run had ended when this one worked: it is none of its figures, and no line in the list either.
    assert shards_of(workshop.ledger, parent) == []
    assert [line.id for line in list_runs(workshop.ledger)] == [parent]


async def test_shards_share_the_first_records_of_a_select_with_a_limit(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(10)
    order(workshop, "id DESC")
    parent = (await workshop.run(limit=1)).run_id
    made = []
    for number in (1, 2):
        summary = await workshop.run(shard=shard(parent, number, of=2, records=4, limit=4))
        rows = workshop.rows("SELECT record_key FROM generations WHERE run_id = :id ORDER BY 1", id=summary.run_id)
        made.append([row["record_key"] for row in rows])
    assert made == [["00006", "00007"], ["00008", "00009"]]


async def test_shard_executes_its_select_once_and_no_other(workshop: Workshop) -> None:
    workshop.numbered(10)
    parent = (await workshop.run(limit=1)).run_id
    executed: list[str] = []

    def note(_connection: object, _cursor: object, sql: str, *_rest: object) -> None:
        if "FROM items" in sql:
            executed.append(sql)

    event.listen(Engine, "before_cursor_execute", note)
    summary = await workshop.run(shard=shard(parent, 2, records=10))
    event.remove(Engine, "before_cursor_execute", note)
    assert (summary.records, len(executed)) == (3, 1)


@pytest.fixture
def drinks(workshop: Workshop) -> Workshop:
    """Two teas and four coffees, which one template selects by their kind."""
    workshop.items({"t1": "tea", "t2": "tea", "c1": "coffee", "c2": "coffee", "c3": "coffee", "c4": "coffee"})
    file = workshop.templates / "note.md.j2"
    select = "SELECT id, name FROM items WHERE name = :kind\nparams: {kind: {type: str}}"
    source = file.read_text(encoding="utf-8").replace("SELECT id, name FROM items", select)
    file.write_text(source, encoding="utf-8")
    workshop.template(name="other")
    return workshop


async def test_shard_divides_the_one_select_of_a_template_that_its_run_divides(drinks: Workshop) -> None:
    await drinks.call(tea_and_coffee, RunOptions(shards=2))
    (spread,) = drinks.hosts[0].spread_runs
    assert (spread.selected.query.name, spread.selected.nth, spread.records) == ("note.md.j2", 2, 4)
    await drinks.call(
        tea_and_coffee, RunOptions(shard=shard(spread.ledger.run_id, 2, of=2, records=4, nth=spread.selected.nth))
    )
    made = drinks.rows(
        "SELECT step, record_key FROM generations WHERE run_id <> :id ORDER BY 2", id=spread.ledger.run_id
    )
    assert [(row["step"], row["record_key"]) for row in made] == [("other", "c3"), ("other", "c4")]


async def test_shard_leaves_to_its_run_what_gathers(shop: Workshop) -> None:
    await shop.call(newsletter, options=RunOptions(limit=1))
    parent = shop.value("SELECT id FROM runs")
    own = shard(parent, 1, of=2, records=6, select="newsletter_summary.md.j2")
    await shop.call(newsletter, options=RunOptions(shard=own))
    made = "SELECT step, count(*) FROM generations WHERE run_id <> '{}' GROUP BY 1"
    assert shop.counts(made.format(parent)) == {"newsletter_summary": 3}


async def test_shard_whose_run_is_in_another_ledger_asks_for_nothing(workshop: Workshop) -> None:
    workshop.numbered(3)
    with pytest.raises(ConfigurationError, match="is not in this worker's ledger"):
        await workshop.run(shard=shard(new_id(), 1, records=3))
    assert workshop.requests == 0


async def test_one_record_is_not_divided(workshop: Workshop) -> None:
    workshop.numbered(1)
    summary = await workshop.run(shards=3)
    assert (summary.succeeded, summary.cost_usd is not None and summary.cost_usd > Decimal(0)) == (1, True)
