"""A run reuses what trials were answered, and only then it is content; a trial next to a run changes none."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from db.upkeep.rebuilding import compare
from presswork.settings import load_settings
from presswork.trying.sessions import TrySession
from presswork.trying.trials import Asked, Trial
from tests.engine.workshop import Workshop


@pytest.fixture
def shop(workshop_on_each: Workshop) -> Workshop:
    """Three records and a template for them, with a ledger on each database."""
    workshop_on_each.numbered(3)
    return workshop_on_each


async def tried(**asked: Any) -> Trial:
    async with TrySession(load_settings()) as session:
        return await session.run(Asked("note", **asked))


def content(shop: Workshop) -> list[dict[str, Any]]:
    return shop.rows("SELECT * FROM content ORDER BY record_key")


async def test_run_pays_nothing_for_what_was_tried_and_makes_it_content(shop: Workshop) -> None:
    trial = await tried()
    assert (shop.requests, content(shop), shop.outputs("note")) == (3, [], {})

    run = await shop.run()

    assert (shop.requests, run.requests, run.cached) == (3, 0, 3)
    assert shop.outputs("note") == {record.key: record.output for record in trial.records}
    sources = shop.rows("SELECT origin, source_generation_id FROM generations WHERE run_id = :id", id=run.run_id)
    assert {row["origin"] for row in sources} == {"cache"}
    assert {row["source_generation_id"] for row in sources} == {each.generation_id for each in trial.records}
    # From now on it is as any other content: a run confirms it, and writes nothing.
    again = await shop.run()
    assert (again.cached, shop.written(again.run_id), shop.requests) == (3, {}, 3)
    assert compare(shop.ledger).wrong == 0


async def test_second_trial_reuses_the_first_ones_answers(shop: Workshop) -> None:
    await tried()
    second = await tried()
    assert [record.is_cached for record in second.records] == [True] * 3
    assert (shop.requests, second.requests, content(shop)) == (3, 0, [])


async def test_trial_of_another_version_leaves_the_content_as_it_is(shop: Workshop) -> None:
    await shop.run()
    await shop.run()
    before = content(shop)
    shop.template("Another line about {{ record.name }}.")

    trial = await tried()

    assert (trial.requests, content(shop)) == (3, before)
    shop.template()
    back = await tried()
    assert (back.requests, [record.is_cached for record in back.records]) == (0, [True] * 3)
    assert {record.generation_id for record in back.records} == {row["generation_id"] for row in before}
    assert content(shop) == before
    run = await shop.run()
    assert (run.requests, run.cached, shop.written(run.run_id)) == (0, 3, {})
    assert [row["confirmed"] for row in content(shop)] == [2] * 3


async def test_trial_that_asks_again_changes_no_content(shop: Workshop) -> None:
    await shop.run()
    before = shop.outputs("note")
    await tried(refresh=True)
    run = await shop.run()
    assert (shop.requests, run.cached, shop.written(run.run_id), shop.outputs("note")) == (6, 3, {}, before)


async def test_trial_leaves_forgotten_spools_to_the_next_run(shop: Workshop) -> None:
    forgotten = load_settings().spool_folder / "forgotten"
    forgotten.mkdir(parents=True)
    (forgotten / "presswork-process").write_text("elsewhere/1/1")
    for path in (forgotten / "presswork-process", forgotten):
        os.utime(path, (1, 1))
    await tried()
    assert forgotten.exists()
    await shop.run()
    assert not forgotten.exists()


async def test_trial_and_run_at_once_pay_once(shop: Workshop) -> None:
    shop.sandbox.configure(latency_ms=300)

    trial, run = await asyncio.gather(tried(), shop.run())

    assert shop.requests == 3
    assert (trial.requests + run.requests, run.succeeded + run.cached) == (3, 3)
    assert shop.outputs("note") == {record.key: record.output for record in trial.records}
    by_run = {row["confirmed_run_id"] for row in content(shop)}
    assert by_run == {run.run_id}
    assert compare(shop.ledger).wrong == 0


async def test_tried_answers_without_content_make_no_run_skip_a_record(shop: Workshop) -> None:
    shop.sandbox.configure(refused=1)
    for _try in range(4):
        trial = await tried()
        assert [record.status for record in trial.records] == ["refused"] * 3
    assert content(shop) == []
    shop.sandbox.configure(refused=0)
    run = await shop.run()
    assert (run.succeeded, run.skipped) == (3, 0)
