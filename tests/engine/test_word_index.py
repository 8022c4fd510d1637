"""A run that closes is indexed, if the ledger has an index; a failure there is no failure of the run."""

from __future__ import annotations

import logging

import pytest

from db.search.index_places import opened_index, side_file
from db.search.indexing import index_all
from presswork.settings import load_settings
from presswork.trying.sessions import TrySession
from presswork.trying.trials import Asked
from tests.engine.workshop import Workshop


def indexed(workshop: Workshop) -> tuple[int, int]:
    """Count the generations that are indexed, and the runs that are not."""
    ids = [row["id"] for row in workshop.rows("SELECT id FROM generations")]
    with opened_index(workshop.ledger) as index:
        assert index is not None
        return len(ids) - len(index.missing(ids)), len(index.unindexed())


async def test_run_is_indexed_when_it_closes(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.template()
    workshop.numbered(3)
    await workshop.run()
    index_all(workshop.ledger)
    before = indexed(workshop)
    workshop.items({f"new {number}": f"new item {number}" for number in range(4)})
    await workshop.run()

    assert (before, indexed(workshop)) == ((3, 0), (7, 0))


async def test_trial_leaves_its_words_to_the_next_run(workshop: Workshop) -> None:
    workshop.template()
    workshop.numbered(3)
    index_all(workshop.ledger)
    async with TrySession(load_settings()) as session:
        await session.run(Asked("note"))
    before = indexed(workshop)
    await workshop.run()

    assert (before, indexed(workshop)) == ((0, 1), (3, 0))


async def test_index_that_fails_is_only_noted(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    workshop.template()
    workshop.numbered(3)
    file = side_file(workshop.ledger)
    assert file is not None
    file.write_bytes(b"damaged" * 1_000)
    with caplog.at_level(logging.INFO, "prefect.presswork"):
        summary = await workshop.run()

    assert summary.status == "completed"
    assert "words are not indexed" in caplog.text
