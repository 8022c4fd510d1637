"""Conditions see outputs as their classes read them from JSON; if one fails on a record, only that record fails."""

from __future__ import annotations

import logging
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine

from presswork.engine.materials.conditions import Generated
from presswork.engine.materials.handles import Generations, Material, Source
from tests.db.rows import Book

SECRET = "a record's own text"


class Dated(BaseModel):
    """A strict class: it accepts a date, or its text in JSON."""

    model_config = ConfigDict(strict=True)

    day: date
    name: str = ""


@pytest.fixture
def dated(ledger: Engine) -> Generations:
    book = Book(ledger)
    for key, name in {"a": "tea", "b": SECRET, "c": "cup"}.items():
        book.add(key, output={"day": "2026-03-01", "name": name})
    return Generations(ledger, book.run_id, "product_copy", Dated)


class NotBool:
    def __bool__(self) -> bool:
        raise RuntimeError(SECRET)


class Condition:
    def __call__(self, seen: Generated) -> bool:
        raise ValueError(SECRET)


async def materials(source: Source) -> dict[str, Material]:
    pages = [page async for page in source.pages(frozenset({"product_copy"}))]
    return {material.key: material for page in pages for material in page}


def fails_on_one(seen: Generated) -> bool:
    if seen.output.name == SECRET:
        raise KeyError(seen.output.name)
    return True


async def test_strict_class_with_a_date_is_seen_by_conditions_in_every_handle(dated: Generations) -> None:
    kept = dated.where(lambda seen: seen.output.day == date(2026, 3, 1))

    assert [seen.output.day for seen in [seen async for seen in kept]] == [date(2026, 3, 1)] * 3
    assert {key: found.fault for key, found in (await materials(kept)).items()} == {"a": None, "b": None, "c": None}
    (together,) = (await materials(kept.together())).values()
    assert [found["day"] for found in together.inputs["product_copy"]] == ["2026-03-01"] * 3


async def test_condition_that_fails_on_one_generation_is_that_ones_failure(dated: Generations) -> None:
    found = await materials(dated.where(fails_on_one))

    assert {key for key, material in found.items() if material.fault is None} == {"a", "c"}
    failed = found["b"]
    assert str(failed.fault) == (
        f"The condition of `.where()` in test_conditions.py, line {fails_on_one.__code__.co_firstlineno}, "
        "fails with KeyError."
    )
    assert failed.record is not None
    assert len(failed.parents) == 1


@pytest.mark.parametrize(
    "condition",
    [
        pytest.param(lambda seen: seen.output.nothing, id="attribute"),
        pytest.param(lambda seen: NotBool(), id="truth"),
        pytest.param(lambda seen: 1 / 0, id="division"),
        pytest.param(Condition(), id="object"),
    ],
)
async def test_whatever_a_condition_raises_is_a_failure(dated: Generations, condition: Any) -> None:
    found = await materials(dated.where(condition))

    assert all(" fails with " in str(material.fault) for material in found.values())
    assert SECRET not in str(found["b"].fault)
    assert set(found) == {"a", "b", "c"}


async def test_later_condition_sees_only_what_earlier_ones_keep(dated: Generations) -> None:
    kept = dated.where(lambda seen: seen.output.name != SECRET).where(fails_on_one)

    assert {key: found.fault for key, found in (await materials(kept)).items()} == {"a": None, "c": None}


async def test_those_that_fail_are_told_apart_from_what_comes_together(dated: Generations) -> None:
    together = dated.where(fails_on_one).together()

    found = await materials(together)

    assert [output["name"] for output in found[""].inputs["product_copy"]] == ["tea", "cup"]
    assert len(found[""].parents) == 2
    assert found["b"].fault is not None
    assert await together.count() is None
    assert await dated.together().count() == 1


async def test_output_that_fits_its_class_no_more_is_that_ones_failure(ledger: Engine) -> None:
    book = Book(ledger)
    book.add("a", output={"day": "2026-03-01"})
    book.add("b", output={"day": SECRET})
    stored = Generations(ledger, book.run_id, "product_copy", Dated)

    found = await materials(stored.where(lambda seen: True))

    assert found["a"].fault is None
    assert str(found["b"].fault) == "The output of product_copy no longer fits Dated: ValidationError."
    # Without a condition, generations are passed on unread.
    assert {key: material.fault for key, material in (await materials(stored)).items()} == {"a": None, "b": None}


async def test_loop_over_generations_goes_on_and_says_what_it_leaves_out(
    dated: Generations, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("prefect.presswork")
    logger.addHandler(caplog.handler)
    try:
        seen = [found.key async for found in dated.where(fails_on_one)]
    finally:
        logger.removeHandler(caplog.handler)

    assert seen == ["a", "c"]
    assert f"skipped the generation {(await materials(dated))['b'].parents[0]}." in caplog.text
    assert "KeyError" in caplog.text
    assert SECRET not in caplog.text
