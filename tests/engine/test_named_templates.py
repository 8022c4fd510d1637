"""Every template named anywhere in a flow's code is checked before the first request."""

from __future__ import annotations

import pytest
from prefect import flow

from presswork import Generations, Run, Summary, open_run
from presswork.errors import TemplateError
from tests.engine.workshop import Workshop

LATER = "later"


async def second_step(run: Run, first: Generations) -> None:
    await run.generate(LATER, first)


@flow
async def two_steps() -> Summary:
    async with open_run() as run:
        await second_step(run, await run.generate("note", run.select("note")))
        return run.summary()


@flow
async def misspelt() -> None:
    async with open_run() as run:
        notes = await run.generate("note", run.select("note"))
        await run.generate("latre", notes)


async def test_mistake_in_the_template_of_a_later_step_stops_the_run_before_the_first_request(
    workshop: Workshop,
) -> None:
    workshop.numbered(2)
    workshop.template("{{ record.name", name=LATER)
    with pytest.raises(TemplateError, match=r"later\.md\.j2"):
        await workshop.call(two_steps)
    assert workshop.requests == 0
    workshop.template("Another line about {{ record.name }}.", name=LATER)
    assert (await workshop.call(two_steps)).requests == 4


async def test_misspelt_template_of_a_later_step_stops_the_run_before_the_first_request(workshop: Workshop) -> None:
    workshop.numbered(2)
    workshop.template("Another line about {{ record.name }}.", name=LATER)
    with pytest.raises(TemplateError, match="latre"):
        await workshop.call(misspelt)
    assert workshop.requests == 0


class Frame:
    """Like a data frame: its `select` takes column names."""

    def select(self, column: str) -> str:
        return column


@flow
async def selects_a_column() -> Summary:
    async with open_run() as run:
        assert Frame().select("colour") == "colour"
        await run.generate("note", run.select("note"))
        return run.summary()


async def test_select_of_something_else_names_no_template(workshop: Workshop) -> None:
    workshop.numbered(1)
    assert (await workshop.call(selects_a_column)).succeeded == 1
