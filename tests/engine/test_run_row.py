"""What a run leaves for people: its row, its summary, its artifact, and figures that the attempts bear out."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
)

from flows.content import content
from flows.engine import RunOptions, Summary, open_run
from flows.engine.orchestration.origin import code_version
from flows.errors import ConfigurationError
from flows.product_copy import Products, product_copy
from tests.engine.workshop import Workshop, eventually, log_lines

pytestmark = pytest.mark.prefect


async def artifact_of(workshop: Workshop, run_id: str) -> str:
    async with get_client() as client:
        found = await client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["presswork-summary"])),
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(workshop.flow_run_of(run_id))])),
        )
    (artifact,) = found
    assert artifact.type == "markdown"
    return str(artifact.data)


async def test_row_says_what_ran_and_how_it_ended(shop: Workshop) -> None:
    before = datetime.now(UTC)
    summary = await product_copy(Products(category="tea"), RunOptions(limit=3, chunk_size=2))

    (row,) = shop.rows("SELECT * FROM runs")
    assert (row["id"], row["flow"], row["status"]) == (summary.run_id, "product_copy", "completed")
    assert (row["endpoint"], row["mode"], row["trigger"]) == ("sandbox", "live", "command")
    assert (row["deployment"], row["resumes_run_id"]) == (None, None)
    assert '"category":"tea"' in row["parameters"]
    assert '"limit":3' in row["parameters"]
    assert row["code_version"] == code_version()
    started, ended = (datetime.fromisoformat(row[name]).replace(tzinfo=UTC) for name in ("started_at", "ended_at"))
    assert before <= started <= ended <= datetime.now(UTC)
    async with get_client() as client:
        flow_run = await client.read_flow_run(UUID(row["prefect_flow_run_id"]))
    assert flow_run.name == "product-copy category=tea"
    assert summary.wall_s == pytest.approx((ended - started).total_seconds(), abs=1)


async def test_templates_job_has_the_templates_name(workshop: Workshop) -> None:
    workshop.numbered(1)
    summary = await workshop.run()
    assert (summary.flow, workshop.value("SELECT flow FROM runs")) == ("note", "note")
    async with get_client() as client:
        flow_run = await client.read_flow_run(UUID(workshop.flow_run_of(summary.run_id)))
    assert flow_run.name == "note"


async def test_summary_and_artifact_say_what_the_ledger_says(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    # First, as records come in the select's own order: of the failures, only the first are listed.
    workshop.items({"!|bad": None})
    workshop.numbered(40)
    workshop.template("{{ (record.name * 1) | length }} letters: {{ record.name }}")
    workshop.sandbox.configure(refused=0.2, invalid=0.2, truncated=0.2)
    summary = await workshop.run()

    assert workshop.statuses(summary.run_id) == {
        status: count
        for status in ("succeeded", "invalid", "truncated", "refused", "failed")
        if (count := getattr(summary, status))
    }
    (sums,) = workshop.rows(
        "SELECT count(*) AS requests, sum(input_tokens + cache_creation_5m_tokens + cache_creation_1h_tokens "
        "+ cache_read_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, "
        "sum(cache_read_tokens) AS cache_read_tokens, sum(cost_usd) AS cost FROM attempts"
    )
    assert summary.requests == sums["requests"] == workshop.requests
    assert summary.input_tokens == sums["input_tokens"]
    assert summary.output_tokens == sums["output_tokens"]
    assert summary.cache_read_tokens == sums["cache_read_tokens"]
    assert summary.cost_usd == Decimal(str(sums["cost"])).quantize(Decimal("1e-10"))
    assert summary.records == 41

    page = await artifact_of(workshop, summary.run_id)
    table = dict(re.findall(r"^\| ([a-z][^|]*?) \| ([^|]+?) \|$", page, re.MULTILINE))
    assert table["requests"] == f"{summary.requests:,}"
    assert table["tokens"].startswith(f"{summary.input_tokens:,} in, {summary.output_tokens:,} out")
    assert table["records"] == "41"
    assert table["cost"] == f"${summary.cost_usd:,.4f} (as Claude would bill it)"
    assert "requests a minute" in table["pace"]
    (step,) = re.findall(r"^\| note \| (.+) \|$", page, re.MULTILINE)[:1]
    counts = [summary.steps[0].model_dump()[name] for name in COUNTED]
    assert step.split(" | ") == [str(count) for count in counts]
    assert "sandbox" in page
    # A key is data: it does not end its cell.
    assert r"| \!\|bad |" in page
    assert page.count("presswork show") == len(summary.failures) == min(41 - summary.succeeded, 10)


COUNTED = ("generations", "cached", "succeeded", "invalid", "truncated", "refused", "failed", "skipped", "left_out")


@flow(retries=1)
async def stumbling() -> Summary:
    async with open_run(RunOptions()) as run:
        await run.generate("note", run.select("note"))
        if not run.summary().cached:
            raise RuntimeError("stumbled")
        return run.summary()


async def test_retry_of_a_flow_run_is_a_new_run_that_resumes_the_last(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(3)
    summary = await stumbling()

    first, second = workshop.rows("SELECT * FROM runs ORDER BY id")
    assert (first["status"], first["resumes_run_id"]) == ("failed", None)
    assert (second["status"], second["resumes_run_id"]) == ("completed", first["id"])
    assert first["prefect_flow_run_id"] == second["prefect_flow_run_id"]
    assert (summary.run_id, summary.cached, summary.requests) == (second["id"], 3, 0)


async def test_run_that_breaks_is_closed_as_failed_with_its_summary(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(1)

    @flow
    async def broken() -> None:
        async with open_run(RunOptions()) as run:
            await run.generate("note", run.select("note"))
            raise RuntimeError("after the fact")

    with pytest.raises(RuntimeError, match="after the fact"):
        await broken()
    (row,) = workshop.rows("SELECT * FROM runs")
    assert (row["status"], row["flow"], row["ended_at"] is not None) == ("failed", "broken", True)
    assert "# broken: failed" in await artifact_of(workshop, row["id"])
    # What was answered before is kept.
    assert (await workshop.run()).cached == 1


async def test_run_outside_a_flow_says_where_it_belongs() -> None:
    with pytest.raises(ConfigurationError, match="@flow"):
        async with open_run():
            pass


@pytest.mark.parametrize("options", [{"limit": 0}, {"concurrency": 0}, {"chunk_size": 1001}, {"nonsense": 1}])
async def test_options_out_of_bounds_are_refused(workshop: Workshop, options: dict[str, Any]) -> None:
    wrong: Any = options
    with pytest.raises(Exception, match=next(iter(options))):
        await content("note", options=wrong)
    assert workshop.requests == 0


async def test_run_is_told_by_tags_progress_and_log_lines_in_prefect(workshop: Workshop) -> None:
    workshop.numbered(3)
    summary = await workshop.run()
    flow_run_id = UUID(workshop.flow_run_of(summary.run_id))
    async with get_client() as client:
        flow_run = await client.read_flow_run(flow_run_id)
        of_run = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]), key=ArtifactFilterKey(any_=["presswork-progress"])
        )
        (progress,) = await client.read_artifacts(artifact_filter=of_run)
    assert {"presswork", "note", "sandbox"} <= set(flow_run.tags)
    assert progress.data == 100
    assert "completed; 3 new" in str(progress.description)

    def told(lines: list[str]) -> list[str]:
        return [line for line in lines if line.startswith(("Run ", "note"))]

    lines = await eventually(lambda: log_lines(str(flow_run_id)), lambda found: len(told(found)) >= 4)
    opened, selected, ended, closed = _in_order(told(lines))
    assert "endpoint sandbox, ledger sqlite" in opened
    assert selected == "note selects 3 records."
    assert ended == "note: 3 generations: 3 new."
    assert "completed" in closed
    assert "3 requests, cost $" in closed


def _in_order(lines: list[str]) -> list[str]:
    marks = ("opened", "selects", "generations:", "completed")
    assert len(lines) == len(marks), lines
    return [next(line for line in lines if mark in line) for mark in marks]
