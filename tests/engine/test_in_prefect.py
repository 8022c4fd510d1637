"""A run in Prefect: its names, tags, states, pages, events and assets there, and Cancel."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil
import pytest
from prefect import flow, get_client
from prefect.blocks.system import Secret
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Abort
from prefect.states import Cancelling, Scheduled
from sqlalchemy import make_url

from db.clock import new_id, now
from db.ledger.lifecycle import begin_or_resume, close_run
from db.ledger.ranges import divide
from flows.content import content
from flows.product_copy import Products, product_copy
from flows.support_replies import support_replies
from presswork import RunOptions, Summary, open_run
from presswork.engine.orchestration import prefect_helpers
from presswork.engine.orchestration.helper_runs import HelpersUnavailableError
from presswork.engine.orchestration.prefect_helpers import PrefectHelperRuns, _deployment_of
from presswork.engine.orchestration.prefect_host import PrefectHost
from presswork.engine.orchestration.running_code import code_version
from presswork.engine.resources.writer import Writer
from presswork.errors import ConfigurationError, MissingKeyError
from presswork.options import Helper
from presswork.report.prefect.events import asset_key
from tests.db.rows import run_row
from tests.engine.test_suspension import DUE_IN_S, REASON, approve, held, prepare, run_of
from tests.engine.test_timeouts import ANSWERED, when_answered
from tests.engine.workshop import Workshop, eventually, log_lines, task_runs
from tests.workers import Pool, prefect, start, work_pool

pytestmark = pytest.mark.prefect


async def flow_run_of(workshop: Workshop) -> FlowRun:
    """Return the flow run of the last run."""
    found = workshop.value("SELECT prefect_flow_run_id FROM runs ORDER BY id DESC LIMIT 1")
    async with get_client() as client:
        return await client.read_flow_run(UUID(str(found)))


async def artifacts_of(workshop: Workshop, run_id: str) -> str:
    """Return the pages of a run's flow run, joined."""
    async with get_client() as client:
        found = await client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["presswork-summary"])),
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(workshop.flow_run_of(run_id))])),
        )
    assert {artifact.type for artifact in found} == {"markdown"}
    return "\n".join(str(artifact.data) for artifact in found)


# A run and its page


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
    assert (await flow_run_of(shop)).name == "product-copy category=tea"
    assert summary.wall_s == pytest.approx((ended - started).total_seconds(), abs=1)


async def test_run_is_told_by_its_name_tags_progress_page_and_log_lines(workshop: Workshop) -> None:
    workshop.numbered(3)
    summary = await workshop.run()
    # A template's job has the template's name.
    assert (summary.flow, workshop.value("SELECT flow FROM runs")) == ("note", "note")
    flow_run = await flow_run_of(workshop)
    flow_run_id = flow_run.id
    assert flow_run.name == "note"
    async with get_client() as client:
        of_run = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]), key=ArtifactFilterKey(any_=["presswork-progress"])
        )
        (progress,) = await client.read_artifacts(artifact_filter=of_run)
    assert {"presswork", "note", "sandbox"} <= set(flow_run.tags)
    assert progress.data == 100
    assert "completed; 3 new" in str(progress.description)
    page = await artifacts_of(workshop, summary.run_id)
    assert "# note: completed" in page
    assert "| requests | 3 |" in page

    def told(lines: list[str]) -> list[str]:
        return [line for line in lines if line.startswith(("Run ", "note"))]

    lines = await eventually(lambda: log_lines(str(flow_run_id)), lambda found: len(told(found)) >= 4)
    opened, selected, ended, closed = _in_order(told(lines))
    assert "endpoint sandbox, ledger sqlite" in opened
    assert selected == "note selects 3 records."
    assert ended == "note: 3 generations (3 new)."
    assert "completed" in closed
    assert "3 requests, cost $" in closed


def _in_order(lines: list[str]) -> list[str]:
    marks = ("opened", "selects", "generations (", "completed")
    assert len(lines) == len(marks), lines
    return [next(line for line in lines if mark in line) for mark in marks]


@flow(retries=1, retry_delay_seconds=0)
async def stumbling() -> Summary:
    async with open_run(RunOptions()) as run:
        await run.generate("note", run.select("note"))
        if not run.ledger.has_past:
            raise RuntimeError("stumbled")
        return run.summary()


async def test_retry_of_a_flow_run_goes_on_with_its_run_and_each_pass_has_a_page(workshop: Workshop) -> None:
    workshop.numbered(3)
    summary = await stumbling()

    (run,) = workshop.rows("SELECT * FROM runs")
    assert (run["flow"], run["status"], run["resumes_run_id"]) == ("stumbling", "completed", None)
    assert (summary.run_id, summary.succeeded, summary.requests) == (run["id"], 3, 3)
    titles = re.findall(r"# stumbling: (\w+)", await artifacts_of(workshop, run["id"]))
    assert sorted(titles) == ["completed", "failed"]


async def test_chunks_that_wait_for_an_endpoint_show_as_awaiting_retry(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_REQUEST_RETRIES", "0")
    monkeypatch.setenv("PRESSWORK_CHUNK_RETRY_DELAY_S", "0.3")
    workshop.numbered(2)
    workshop.sandbox.configure(overloaded=1)
    running = asyncio.create_task(workshop.run(chunk_size=1))
    await workshop.asked(2)
    workshop.sandbox.configure(overloaded=0)
    summary = await running

    assert (summary.succeeded, summary.exit_status) == (2, 0)
    found = await task_runs(workshop.flow_run_of(summary.run_id), count=2)
    assert {run.state_name for run in found} == {"Completed"}
    (carried_over, *_rest) = [run for run in found if run.run_count > 1]
    async with get_client() as client:
        states = await client.read_task_run_states(carried_over.id)
    assert "AwaitingRetry" in {state.name for state in states}


async def test_chunks_that_no_retry_helps_show_as_failed(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUEST_RETRIES", "CHUNK_RETRIES"):
        monkeypatch.setenv(f"PRESSWORK_{name}", "0")
    workshop.numbered(2)
    workshop.sandbox.configure(overloaded=1)
    summary = await workshop.run(chunk_size=1)
    assert (summary.failed, summary.status) == (2, "completed")
    assert await workshop.task_states(summary.run_id, 2) == ["Failed"] * 2


async def test_flow_run_that_was_stopped_says_why_in_prefect(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(1)
    workshop.sandbox.configure(spend_limit=1)
    state = await content("note", return_state=True)
    assert state.is_failed()
    flow_run_id = workshop.value("SELECT prefect_flow_run_id FROM runs")
    lines = await eventually(
        lambda: log_lines(flow_run_id), lambda found: any("usage limits" in line for line in found)
    )
    assert any("usage limits" in line for line in lines)


# Cancel, signals, and a newer run


@pytest.fixture
def at_work(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setattr("presswork.engine.orchestration.prefect_host.WATCH_S", 0.2)
    workshop.numbered(200)
    workshop.sandbox.configure(latency_ms=400)
    return workshop


async def stopped(workshop: Workshop, run: asyncio.Task[Summary]) -> str:
    """Wait for the end of a stopped run and its cancelled flow run; returns the run's message."""
    with pytest.raises(Abort) as stop:
        await run
    found: FlowRun = await eventually(
        lambda: flow_run_of(workshop), lambda flow_run: flow_run.state_name == "Cancelled"
    )
    assert found.state_name == "Cancelled"
    assert workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    assert workshop.value("SELECT count(*) FROM claims") == 0
    assert workshop.value("SELECT status FROM runs") == "cancelled"
    return str(stop.value)


async def test_cancel_stops_the_run_and_running_again_goes_on(at_work: Workshop) -> None:
    run = asyncio.create_task(at_work.run(concurrency=4, chunk_size=5))
    await at_work.asked(6)
    async with get_client() as client:
        await client.set_flow_run_state((await flow_run_of(at_work)).id, Cancelling())
    assert "Cancel in Prefect" in await stopped(at_work, run)
    asked = at_work.requests
    assert asked < 200
    assert at_work.value("SELECT count(*) FROM current_content") == asked
    at_work.sandbox.configure(latency_ms=0)
    again = await at_work.run()
    assert (again.cached, again.succeeded, again.exit_status) == (asked, 200 - asked, 0)


async def test_signal_leaves_the_flow_run_cancelled(at_work: Workshop) -> None:
    run = asyncio.create_task(at_work.run(concurrency=4, chunk_size=5))
    await at_work.asked(4)
    os.kill(os.getpid(), signal.SIGTERM)
    assert "SIGTERM" in await stopped(at_work, run)


async def test_run_that_has_a_newer_one_in_its_flow_run_leaves_the_state_to_that(workshop: Workshop) -> None:
    @flow
    async def superseded() -> None:
        raise await PrefectHost().stopped("The run was stopped (a newer one continues).", cancelled=False)

    flow_run_ids: list[UUID] = []
    async with get_client() as client:
        with pytest.raises(Abort):
            await superseded.with_options(on_running=[lambda _flow, run, _state: flow_run_ids.append(run.id)])()
        state = (await client.read_flow_run(flow_run_ids[0])).state
    assert state is not None
    assert not state.is_final()


@pytest.mark.soak
async def test_flow_with_a_timeout_of_prefects_keeps_what_it_paid_for(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow(timeout_seconds=20)
    async def timed() -> None:
        async with open_run(flow="note") as run:
            await run.generate("note", run.select("note"))

    def commit_late(writer: Writer) -> None:
        writer._thread.submit(time.sleep, 25)

    workshop.numbered(8)
    when_answered(commit_late, monkeypatch)
    with pytest.raises(TimeoutError):
        await timed()
    assert workshop.value("SELECT status FROM runs") == "cancelled"
    # On a busy machine the writer may wait before the last attempts are committed; those are not sent.
    assert workshop.value("SELECT count(*) FROM current_content") == workshop.requests >= ANSWERED


# A suspended run


@pytest.fixture
async def deployed(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    """A work pool with a deployment of a flow that suspends itself until approval, by default until tomorrow."""
    prepare(workshop, tmp_path, monkeypatch)
    async with work_pool(tmp_path) as pool:
        await prefect("deploy", "tests.engine.test_suspension:approved", "--name", "notes", "--pool", pool.name)
        yield pool


async def left(pool: Pool, workshop: Workshop) -> FlowRun:
    """Start the flow and wait until its run is suspended; the flow run shows this, and until when."""
    worker = psutil.Process(await pool.worker())
    flow_run = await pool.reached(await start("approved/notes"), "Running", "Resuming")
    # Nobody takes it up meanwhile, however long the first process takes to end.
    await pool.pause()
    flow_run = await pool.reached(flow_run, "Resuming")
    assert flow_run.state is not None
    row = run_of(workshop)
    assert (row["status"], row["suspended_for"], held(workshop)) == ("suspended", REASON, (0, 0, 0))
    due = flow_run.state.state_details.scheduled_time
    assert due is not None
    assert abs(datetime.fromisoformat(row["due_at"]).replace(tzinfo=UTC) - due).total_seconds() < 1
    assert flow_run.state.message == f"The run is suspended until {due:%Y-%m-%d %H:%M} UTC: {REASON}"

    async def processes() -> list[psutil.Process]:
        return worker.children(recursive=True)

    assert await eventually(processes, lambda found: not found, within_s=120) == []
    await pool.pause(is_paused=False)
    return flow_run


async def ended_as_one(pool: Pool, workshop: Workshop, flow_run: FlowRun) -> None:
    """Wait for its end, and assert that it was one run in two processes without a repeated request."""
    ended = await pool.reached(flow_run, "Completed")
    row = run_of(workshop)
    assert (row["status"], row["prefect_flow_run_id"]) == ("completed", str(flow_run.id))
    assert (workshop.requests, workshop.sandbox.stats()["repeated_bodies"]) == (5, 0)
    assert workshop.value("SELECT count(DISTINCT lease_id) FROM attempts") == 2
    # A resumption uses up no retries and no attempts after a crash.
    assert ended.run_count == 1


@pytest.mark.soak
async def test_run_that_is_left_is_taken_up_by_a_worker_when_it_is_due(
    workshop: Workshop, deployed: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DUE_IN_S, "8")
    flow_run = await left(deployed, workshop)

    async def leaves() -> int:
        async with get_client() as client:
            states = await client.read_flow_run_states(flow_run.id)
            return [state.name for state in states].count("Resuming")

    # It is not approved by then, so it is suspended again.
    assert await eventually(leaves, lambda found: found > 1, within_s=180) > 1
    approve()
    await ended_as_one(deployed, workshop, flow_run)


@pytest.mark.soak
async def test_run_that_is_left_is_taken_up_earlier_or_cancelled_by_a_person(
    workshop: Workshop, deployed: Pool
) -> None:
    flow_run = await left(deployed, workshop)
    approve()
    async with get_client() as client:
        await client.set_flow_run_state(flow_run.id, Scheduled())
    await ended_as_one(deployed, workshop, flow_run)

    approve(by_now=False)
    again = await deployed.reached(await start("approved/notes"), "Resuming")
    async with get_client() as client:
        await client.set_flow_run_state(again.id, Cancelling())
        assert (await client.read_flow_run(again.id)).state_name == "Cancelled"


# Shards


async def test_helper_has_its_number_in_its_name_and_its_lease_has_the_id_of_its_flow_run(workshop: Workshop) -> None:
    workshop.numbered(3)
    with run_to_help(workshop) as run_id:
        await workshop.run(helper=Helper(run=run_id, select="note.md.j2", number=2, of=3))
        flow_run_id = workshop.value("SELECT DISTINCT lease_id FROM attempts")
        async with get_client() as client:
            flow_run = await client.read_flow_run(flow_run_id)
            artifacts = await client.read_artifacts(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
            )
    assert flow_run.name == "note, helper 2 of 3"
    assert "presswork" not in flow_run.tags
    # It has its progress, but no summary, which belongs to its run.
    assert [artifact.type for artifact in artifacts] == ["progress"]
    assert str(artifacts[0].description).startswith("helper 2 of 3; ")
    assert workshop.value("SELECT count(*) FROM runs") == 1


async def test_helper_that_somebody_has_deleted_is_missing_and_no_traceback(workshop: Workshop) -> None:
    # Other tests on the same server may have deployed `content`.
    alone = content.with_options(name=f"alone-{new_id()}")
    async with get_client() as client:
        flow_run = await client.create_flow_run(alone, parameters={"template": "note"})
        runs = PrefectHelperRuns(client, flow_run, deployment=uuid4(), parameters={}, options_name="options")
        assert list(await runs.states([str(flow_run.id)])) == [str(flow_run.id)]
        await client.delete_flow_run(flow_run.id)
        assert await runs.states([str(flow_run.id)]) == {}
        for end in (runs.report_crashed(str(flow_run.id)), runs.cancel(str(flow_run.id), "It ends.")):
            with pytest.raises(HelpersUnavailableError):
                await end
        # The run's own deployment, too, may be gone by now.
        with pytest.raises(ConfigurationError, match="needs a deployment of the flow 'alone-"):
            await _deployment_of(client, flow_run.model_copy(update={"deployment_id": uuid4()}))


async def test_helper_of_a_run_that_has_ended_is_completed_and_says_why(workshop: Workshop) -> None:
    workshop.numbered(3)
    run_id = (await workshop.run()).run_id
    ended: list[UUID] = []
    late = content.with_options(on_running=[lambda _flow, run, _state: ended.append(run.id)])
    with pytest.raises(Abort, match="this helper has nothing to do"):
        await late("note", options=RunOptions(helper=Helper(run=run_id, select="note.md.j2", number=1, of=3)))
    async with get_client() as client:
        state = (await client.read_flow_run(ended[0])).state
    assert state is not None
    assert (state.name, "has ended (completed)" in str(state.message)) == ("Completed", True)
    assert workshop.requests == 3


@contextmanager
def run_to_help(workshop: Workshop) -> Iterator[str]:
    """A run that has divided its records and waits for helpers."""
    row = run_row(flow="note")
    lease = begin_or_resume(workshop.ledger, row, new_id())
    divide(workshop.ledger, lease, "note", [["00000", "00001", "00002"]])
    yield row.id
    close_run(workshop.ledger, lease, "completed", now())


async def test_select_that_gives_other_records_each_time_is_not_spread(workshop: Workshop) -> None:
    workshop.numbered(10)
    file = workshop.templates / "note.md.j2"
    file.write_text(file.read_text(encoding="utf-8").replace("FROM items", "FROM items ORDER BY random()"))
    with pytest.raises(
        ConfigurationError, match=r"note\.md\.j2: the run can't be split into shards: .* random\(\) gives other"
    ):
        await workshop.run(shards=3)
    assert workshop.requests == 0


async def test_run_with_shards_says_what_it_needs_where_nothing_is_deployed(workshop: Workshop) -> None:
    workshop.numbered(3)
    async with get_client() as client:
        # Other tests deploy on the same server, and a run uses any deployment that it finds.
        for deployment in await client.read_deployments():
            await client.delete_deployment(deployment.id)
    with pytest.raises(ConfigurationError, match="presswork deploy"):
        await workshop.run(shards=3)
    assert workshop.requests == 0


async def test_shards_of_a_run_whose_deployment_was_deleted_name_the_deployment_that_they_use(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(prefect_helpers._log, "warning", lambda message, *args: said.append(message % args))
    async with get_client() as client:
        pool = await client.create_work_pool(WorkPoolCreate(name="of-another-team", type="process"))
        flow_run = await client.create_flow_run(content, parameters={"template": "note"})
        other = await client.create_deployment(flow_run.flow_id, "aa-another-team", work_pool_name=pool.name)
        try:
            found = await _deployment_of(client, flow_run)
            assert (found.id, said) == (other, [])
            found = await _deployment_of(client, flow_run.model_copy(update={"deployment_id": uuid4()}))
            assert found.id == other
        finally:
            await client.delete_deployment(other)
            await client.delete_work_pool(pool.name)
    (line,) = said
    assert "'aa-another-team'" in line
    assert workshop.requests == 0


# Events, assets, and a key from a block


async def events(api: str, name: str, resource: str) -> list[dict[str, Any]]:
    """Return the events with a name and a resource, when the server has stored one."""

    async def look() -> list[dict[str, Any]]:
        wanted = {"filter": {"event": {"prefix": [name]}, "resource": {"id": [resource]}}, "limit": 50}
        async with httpx.AsyncClient() as client:
            found: list[dict[str, Any]] = (await client.post(f"{api}/events/filter", json=wanted)).json()["events"]
            return found

    found: list[dict[str, Any]] = await eventually(look, bool)
    return found


async def asset_of(api: str, key: str, run_id: str) -> dict[str, Any]:
    """Return a run's event about an asset. The ledgers of other tests have the same name, so their keys are equal."""

    async def look() -> list[dict[str, Any]]:
        found = await events(api, "prefect.asset.materialization.succeeded", key)
        return [one for one in found if one["payload"]["run_id"] == run_id]

    (asset,) = await eventually(look, bool)
    return dict(asset)


async def test_run_that_ends_is_an_event(workshop: Workshop, prefect_api: str) -> None:
    workshop.items({"1": "Name: Teapot", "2": None})
    workshop.template("{{ (record.name * 1) | length }}")
    summary = await workshop.run()
    (event,) = await events(prefect_api, "presswork.run.completed", f"presswork.run.{summary.run_id}")
    assert (event["payload"]["succeeded"], event["payload"]["failed"]) == (1, 1)
    flow_run_id = workshop.flow_run_of(summary.run_id)
    assert f"prefect.flow-run.{flow_run_id}" in {one["prefect.resource.id"] for one in event["related"]}

    made = asset_key(make_url(workshop.ledger_url), "current_content", "note", "note")
    asset = await asset_of(prefect_api, made, summary.run_id)
    made_from = {one["prefect.resource.id"] for one in asset["related"] if one["prefect.resource.role"] == "asset"}
    ledger, source = make_url(workshop.ledger_url), make_url(workshop.source_url)
    assert made_from == {asset_key(source), asset_key(ledger, "templates", "note")}


async def test_assets_of_a_later_step_are_made_from_the_one_before(shop: Workshop, prefect_api: str) -> None:
    summary = await support_replies()
    ledger = make_url(shop.ledger_url)
    triage = asset_key(ledger, "current_content", "support_replies", "support_triage")
    reply = asset_key(ledger, "current_content", "support_replies", "support_reply")
    asset = await asset_of(prefect_api, reply, summary.run_id)
    assert triage in {one["prefect.resource.id"] for one in asset["related"]}


async def test_run_that_fails_is_an_event(
    workshop: Workshop, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(1)
    monkeypatch.setenv("PRESSWORK_ENDPOINT", "sandbox")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-invalid")
    with pytest.raises(Exception, match="ANTHROPIC_API_KEY"):
        await workshop.run()
    run_id = workshop.value("SELECT id FROM runs")
    assert await events(prefect_api, "presswork.run.failed", f"presswork.run.{run_id}")


async def test_key_comes_from_a_secret_block(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.numbered(1)
    monkeypatch.setenv("PRESSWORK_API_KEY_BLOCK", "presswork-key")
    with pytest.raises(MissingKeyError, match="presswork-key"):
        await workshop.run()
    await Secret(value="sk-ant-api03-inablock").asave("presswork-key", overwrite=True)
    assert (await workshop.run()).succeeded == 1
    assert "sk-ant-api03-inablock" not in str(workshop.rows("SELECT * FROM runs"))
