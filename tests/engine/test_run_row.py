"""The summary and the page of a run, with figures that match the attempts."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from prefect import flow

from flows.content import content
from presswork import RunOptions, Summary, open_run
from presswork.errors import ConfigurationError
from presswork.report.prefect.artifacts import summary_markdown
from tests.engine.workshop import Workshop

COUNTED = ("generations", "cached", "succeeded", "invalid", "truncated", "refused", "failed", "skipped", "left_out")


def page_of(workshop: Workshop) -> str:
    """Return the page that the last run's host published."""
    found = workshop.hosts[-1].summary
    assert found is not None
    return summary_markdown(found)


async def test_summary_and_page_say_what_the_ledger_says(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    # This record comes first in the select's order, because only the first failures are listed.
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

    page = page_of(workshop)
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
    # A `|` in a key does not end its table cell.
    assert r"| \!\|bad |" in page
    assert page.count("presswork show") == len(summary.failures) == min(41 - summary.succeeded, 10)


@flow(retries=1)
async def stumbling() -> Summary:
    async with open_run(RunOptions()) as run:
        await run.generate("note", run.select("note"))
        stumbled_in.append(run.ledger.run_id)
        if len(stumbled_in) == 1:
            raise RuntimeError("stumbled")
        return run.summary()


stumbled_in: list[str] = []


async def test_retry_of_a_flow_run_goes_on_with_the_same_run(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(3)
    workshop.template("{{ (record.name * 1) | length }} letters: {{ record.name }}")
    stumbled_in.clear()
    stumbled_in.append("a run before")
    first = await workshop.call(stumbling)
    workshop.items({"a": "new", "b": None, "c": "another"})
    stumbled_in.clear()
    summary = await workshop.call(stumbling)

    _before, run = workshop.rows("SELECT * FROM runs ORDER BY id")
    assert stumbled_in == [run["id"], run["id"]]
    assert (run["status"], run["resumes_run_id"], run["ended_at"] is not None) == ("completed", None, True)
    # Earlier content is confirmed in each pass, and counted once.
    assert (first.succeeded, summary.cached, summary.succeeded, summary.failed) == (3, 3, 2, 1)
    assert (summary.run_id, summary.records, summary.requests) == (run["id"], 6, 2)
    assert workshop.statuses(run["id"]) == {"succeeded": 5, "failed": 1}
    assert workshop.written(run["id"]) == {"succeeded": 2, "failed": 1}
    assert [host.summary and host.summary.status for host in workshop.hosts] == ["completed", "failed", "completed"]


async def test_run_that_breaks_is_closed_as_failed_with_its_summary(workshop: Workshop) -> None:
    workshop.numbered(1)

    @flow
    async def broken() -> None:
        async with open_run(RunOptions()) as run:
            await run.generate("note", run.select("note"))
            raise RuntimeError("after the fact")

    with pytest.raises(RuntimeError, match="after the fact"):
        await workshop.call(broken)
    (row,) = workshop.rows("SELECT * FROM runs")
    assert (row["status"], row["flow"], row["ended_at"] is not None) == ("failed", "broken", True)
    assert "# broken: failed" in page_of(workshop)
    # Earlier answers are kept.
    assert (await workshop.run()).cached == 1


async def test_run_outside_a_flow_says_where_it_belongs() -> None:
    with pytest.raises(ConfigurationError, match="@flow"):
        async with open_run():
            pass


@pytest.mark.parametrize("options", [{"limit": 0}, {"concurrency": 0}, {"chunk_size": 1001}, {"nonsense": 1}])
async def test_options_out_of_bounds_are_refused(workshop: Workshop, options: dict[str, Any]) -> None:
    wrong: Any = options
    with pytest.raises(Exception, match=next(iter(options))):
        await workshop.call(content, "note", options=wrong)
    assert workshop.requests == 0
