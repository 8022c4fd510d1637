"""The inputs that a step had in an earlier run: the same prompts again, and clear errors where there are none."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import flow

from flows.newsletter import Articles, newsletter
from presswork import Summary, open_run
from presswork.trying.inputs import find_inputs, past_run
from tests.engine.workshop import Workshop

FAN_OUT = ("newsletter_summary", "newsletter_digest", "newsletter_subject", "newsletter_choice")


@flow
async def step_again(flow_name: str, template: str, run_id: str, asked: dict[str, Any]) -> tuple[Summary, list[str]]:
    """Generate one step from the inputs that it had in a run."""
    async with open_run(flow=flow_name) as run:
        ledger = run.ledger.engine
        inputs = find_inputs(ledger, past_run(ledger, run_id), run.briefs.template(template), **asked)
        await run.generate(template, inputs, variants=inputs.variants)
        return run.summary(), list(inputs.keys)


@pytest.mark.parametrize("step", FAN_OUT)
async def test_unchanged_step_of_a_newsletter_pays_nothing(shop: Workshop, step: str) -> None:
    await shop.call(newsletter, Articles(section="tea"))
    run_id = shop.value("SELECT max(id) FROM runs")
    count = shop.value("SELECT count(*) FROM generations WHERE step = :step", step=step)
    summary, _keys = await shop.call(step_again, "newsletter", step, run_id[:18], {})
    assert (summary.requests, summary.cached, summary.failed) == (0, count, 0)
    # Nothing differs from the content, so its inputs and keys are those of the real step.
    assert shop.value("SELECT count(*) FROM generations WHERE run_id > :id", id=run_id) == 0
