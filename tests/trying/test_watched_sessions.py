"""A watched template in a session of real trials: what each save sends, and what it leaves."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from unittest.mock import AsyncMock

import pytest

import flows
from presswork.claude.client import Client
from presswork.errors import EndpointError
from presswork.settings import load_settings
from presswork.trying.saves import Broken, Capped, Version, WatchEvent, watch_saves
from presswork.trying.sessions import TrySession
from presswork.trying.trials import Asked, Trial
from tests.engine.workshop import NOTE, Workshop
from tests.pieces import Put

WITHIN_S = 60
ENTRY = "from pydantic import BaseModel\n\nclass Entry(BaseModel):\n    {field}: str\n"


@asynccontextmanager
async def watched(workshop: Workshop, asked: Asked) -> AsyncIterator[AsyncIterator[WatchEvent]]:
    settings = load_settings()
    async with asyncio.timeout(WITHIN_S), TrySession(settings) as session:

        async def ask() -> Trial:
            return await session.run(asked)

        async with aclosing(watch_saves(workshop.templates, "note", ask)) as events:
            yield events


async def version(events: AsyncIterator[WatchEvent]) -> Trial:
    async for event in events:
        assert not isinstance(event, Broken), event
        if isinstance(event, Version):
            return event.trial
    raise AssertionError("the watch ended")


def save(workshop: Workshop, *changes: tuple[str, str]) -> None:
    text = NOTE.format(user="A line about {{ record.name }}.", max_tokens=256)
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (workshop.templates / "note.md.j2").write_text(text, encoding="utf-8")


async def test_each_save_asks_for_the_same_records_and_an_old_prompt_costs_nothing(workshop: Workshop) -> None:
    workshop.numbered(5)
    async with watched(workshop, Asked("note", limit=2)) as events:
        trials = [await version(events)]
        for changes in (
            [("A line", "Another line")],
            [("SELECT id", "SELECT  id"), ("items", "items ORDER BY id DESC")],
            [],
        ):
            save(workshop, *changes)
            trials.append(await version(events))

    assert [[record.key for record in trial.records] for trial in trials] == [["00000", "00001"]] * 4
    assert [trial.requests for trial in trials] == [2, 2, 0, 0]
    assert workshop.requests == 4


async def test_record_that_an_edited_select_loses_is_named_and_the_others_are_asked(workshop: Workshop) -> None:
    workshop.numbered(3)
    async with watched(workshop, Asked("note")) as events:
        await version(events)
        save(workshop, ("FROM items", "FROM items WHERE id <> '00001'"), ("A line", "Another"))
        trial = await version(events)

    assert trial.missing == ("00001",)
    assert [record.key for record in trial.records] == ["00000", "00002"]


async def test_select_that_fails_sends_nothing_until_it_is_repaired(workshop: Workshop) -> None:
    workshop.numbered(3)
    async with watched(workshop, Asked("note")) as events:
        await version(events)
        save(workshop, ("FROM items", "FROM itemz"))
        broken = [event async for event in _until_broken(events)][-1]
        save(workshop, ("A line", "Another"))
        trial = await version(events)

    assert isinstance(broken, Broken)
    assert "no such table: itemz" in str(broken.mistakes[0])
    assert trial.requests == 3


async def test_endpoint_that_can_not_be_reached_is_asked_again_at_the_next_save(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(1)
    await workshop.run()
    monkeypatch.setenv("PRESSWORK_ENDPOINT", "sandbox")
    identify = AsyncMock(side_effect=EndpointError("It can't be reached."))
    async with watched(workshop, Asked("note")) as events:
        # What the ledger has needs no endpoint.
        assert (await version(events)).requests == 0
        with monkeypatch.context() as outage:
            outage.setattr(Client, "identify", identify)
            save(workshop, ("A line", "Another"))
            broken = [event async for event in _until_broken(events)][-1]
        (workshop.templates / "note.md.j2").touch()
        trial = await version(events)

    assert isinstance(broken, Broken)
    assert "It can't be reached. Save again to ask again." in str(broken.mistakes[0])
    assert trial.requests == 1


async def _until_broken(events: AsyncIterator[WatchEvent]) -> AsyncIterator[WatchEvent]:
    async for event in events:
        yield event
        if isinstance(event, Broken):
            return


async def test_saved_output_class_is_sent_and_validates_the_answers(workshop: Workshop, put: Put) -> None:
    workshop.numbered(1)
    put("shop.py", ENTRY.format(field="title"))
    save(workshop, ("output: SubjectLine", "output: shop.Entry"))
    async with watched(workshop, Asked("note")) as events:
        first = await version(events)
        put("shop.py", ENTRY.format(field="headline"))
        second = await version(events)

    assert [list(trial.records[0].output) for trial in (first, second)] == [["title"], ["headline"]]
    assert "headline" in vars(vars(flows)["shop"])["Entry"].model_fields
    assert sys.modules["flows.shop"] is vars(flows)["shop"]


async def test_cap_of_all_versions_ends_the_watch(workshop: Workshop) -> None:
    workshop.numbered(3)
    seen: list[WatchEvent] = []
    async with watched(workshop, Asked("note", max_cost=0.004)) as events:
        async for event in events:
            seen.append(event)
            if isinstance(event, Version):
                save(workshop, ("A line", f"A line {len(seen)}"))

    assert isinstance(seen[-1], Capped)
    assert sum(isinstance(event, Version) for event in seen) > 1
    assert float(workshop.billed_usd) <= 0.004
