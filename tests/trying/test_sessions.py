"""Try a template on a few records: what is asked, what is shown, what it costs, and what it leaves alone."""

from __future__ import annotations

from presswork.settings import load_settings
from presswork.trying.sessions import TrySession
from presswork.trying.trials import Asked, Trial, TriedRecord
from tests.engine.workshop import Workshop


async def tried(asked: Asked | None = None) -> Trial:
    async with TrySession(load_settings()) as session:
        return await session.run(asked or Asked("note"))


async def test_trial_asks_the_first_records_and_says_all_about_them(workshop: Workshop) -> None:
    workshop.numbered(5)
    told: list[TriedRecord] = []
    async with TrySession(load_settings()) as session:
        trial = await session.run(Asked("note"), on_record=told.append)

    assert [record.key for record in trial.records] == ["00000", "00001", "00002"]
    assert {record.generation_id for record in told} == {record.generation_id for record in trial.records}
    first = trial.records[0]
    assert (first.status, first.is_cached, first.faults, first.error, first.raw) == ("succeeded", False, (), None, None)
    assert (first.system, first.prompt) == ("You write subject lines.", "A line about item 0.")
    assert first.output["subject"].startswith("A line about item 0")
    assert (trial.requests, workshop.requests, first.requests) == (3, 3, 1)
    assert trial.tokens.output_tokens == sum(record.tokens.output_tokens for record in trial.records)
    assert trial.cost_usd == trial.session_usd == sum(record.cost_usd or 0 for record in trial.records)
    assert workshop.rows("SELECT trigger, status, prefect_flow_run_id FROM runs") == [
        {"trigger": "try", "status": "completed", "prefect_flow_run_id": None}
    ]
