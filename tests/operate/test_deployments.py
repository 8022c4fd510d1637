"""Deploying: what is made on a real Prefect server, what a second time changes, and what is never touched."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from presswork.engine.orchestration.origin import check_worker, ledger_label
from presswork.errors import ConfigurationError
from presswork.operate.deployments import Deployed, deploy
from presswork.settings import Settings
from presswork.terminal.endings import EXIT_FAILED, EXIT_WRONG
from tests.commands.conftest import call
from tests.engine.workshop import Workshop

pytestmark = pytest.mark.prefect

POOL = "tests"
DECLARED = {
    "product-copy/nightly",
    "support-replies/quarter-hourly",
    "newsletter/monday-morning",
    "content/any-template",
}
FRONT = """---
description: A line about each item
select: SELECT id, name FROM items WHERE (:since IS NULL OR id > :since)
params: {since: {type: int, default: null, title: After}}
key: id
output: SubjectLine
---
{% block user %}{{ record.name }}{% endblock %}
"""


@pytest.fixture
async def pool(prefect_api: str) -> str:
    async with get_client() as client:
        with suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    return POOL


@pytest.fixture
async def deployed(workshop: Workshop, pool: str) -> Deployed:
    return await again()


async def again(**options: Any) -> Deployed:
    return await deploy(work_pool=POOL, say=lambda _line: None, **options)


async def read(name: str) -> DeploymentResponse:
    async with get_client() as client:
        return await client.read_deployment_by_name(name)


async def test_flows_and_templates_become_deployments_and_a_second_time_changes_nothing(
    deployed: Deployed, workshop: Workshop
) -> None:
    (workshop.templates / "mine.md.j2").write_text(FRONT, encoding="utf-8")
    said: list[str] = []
    names = (await deploy(work_pool=POOL, say=said.append)).names

    assert set(names) == {*DECLARED, "content/note", "content/mine"}
    assert "Deployment content/mine: created." in said
    assert any("Paused schedules" in line and "product-copy/nightly (0 3 * * *)" in line for line in said)
    mine = await read("content/mine")
    assert mine.description == "A line about each item"
    assert mine.parameters == {"template": "mine"}
    assert mine.parameter_openapi_schema["definitions"]["Params"]["properties"]["since"]["title"] == "After"  # type: ignore[index]
    assert mine.enforce_parameter_schema
    before = {name: await read(name) for name in names}

    assert set((await again()).changes.values()) == {"unchanged"}
    assert {name: await read(name) for name in names} == before


async def test_template_that_is_gone_loses_its_deployment_and_nothing_else_does(
    deployed: Deployed, workshop: Workshop
) -> None:
    (workshop.templates / "mine.md.j2").write_text(FRONT, encoding="utf-8")
    await again()
    async with get_client() as client:
        flow = await client.read_flow_by_name("content")
        await client.create_deployment(flow.id, "somebodys", parameters={"template": "somebodys"})
    (workshop.templates / "mine.md.j2").unlink()
    workshop.template("{{ broken", name="note")

    made = await again()
    assert made.changes["content/mine"] == "removed"
    assert "content/mine" not in made.names
    with pytest.raises(ObjectNotFound):
        await read("content/mine")
    assert (await read("content/somebodys")).name == "somebodys"
    # A template with a mistake keeps the deployment that it had.
    assert "note.md.j2" in made.left_out["note"]
    assert (await read("content/note")).parameters == {"template": "note"}


async def test_template_that_is_a_step_loses_the_deployment_that_was_made_of_it_before(
    deployed: Deployed, workshop: Workshop
) -> None:
    (workshop.templates / "newsletter_summary.md.j2").write_text(FRONT, encoding="utf-8")
    (workshop.templates / "mine.md.j2").write_text(FRONT, encoding="utf-8")
    await again()
    made_before = await read("content/mine")
    same = made_before.model_dump(include={"flow_id", "job_variables", "tags", "entrypoint"})
    async with get_client() as client:
        await client.create_deployment(
            name="newsletter_summary",
            parameters={"template": "newsletter_summary"},
            schedules=[DeploymentScheduleCreate(schedule=CronSchedule(cron="0 5 * * *", timezone="Europe/Berlin"))],
            **same,
        )
        await client.create_deployment(made_before.flow_id, "newsletter_summary-shards", tags=["presswork-shard"])
        await client.create_deployment(made_before.flow_id, "mine-shards", tags=["presswork-shard"])
        # Somebody else's, of another step.
        await client.create_deployment(
            made_before.flow_id, "support_triage", parameters={"template": "support_triage"}, tags=["presswork"]
        )

    said: list[str] = []
    made = await deploy(work_pool=POOL, say=said.append)
    assert made.is_whole
    assert made.changes["content/newsletter_summary"] == "removed"
    assert made.covered == {"newsletter_summary": ["newsletter"]}
    assert made.unscheduled == {"content/newsletter_summary": ["0 5 * * * Europe/Berlin (on)"]}
    assert "newsletter_summary is a step of newsletter, so it has no deployment." in said
    assert any("removed with content/newsletter_summary: 0 5 * * * Europe/Berlin (on)." in line for line in said)
    for gone in ("content/newsletter_summary", "content/newsletter_summary-shards"):
        with pytest.raises(ObjectNotFound):
            await read(gone)
    for kept in ("content/mine", "content/mine-shards", "content/support_triage"):
        await read(kept)
    later = await again()
    assert set(later.changes.values()) == {"unchanged"}
    assert (later.covered, later.unscheduled) == (made.covered, {})


async def test_deployment_of_a_template_stays_for_a_draft_and_for_a_flow_that_can_not_be_read(
    deployed: Deployed, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await read("content/note")
    monkeypatch.setattr("presswork.operate.deployment_specs.FLOWS", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    draft, file = tmp_path / "night_notes.py", tmp_path / "prefect.yaml"
    draft.write_text("from prefect import flow\n@flow\ndef night_notes(run): run.generate('note')\n", encoding="utf-8")
    file.write_text("deployments: []", encoding="utf-8")
    said: list[str] = []
    made = await deploy(work_pool=POOL, say=said.append, file=file)
    assert made.is_whole
    assert made.changes["content/note"] == "unchanged"
    assert any("flows/night_notes.py names note, but has no deployment" in line for line in said)

    draft.write_text("def (:\n", encoding="utf-8")
    file.write_text("deployments: [{name: nightly, entrypoint: night_notes.night_notes}]", encoding="utf-8")
    made = await deploy(work_pool=POOL, say=said.append, file=file)
    assert not made.is_whole
    assert "content/note" not in made.changes
    assert any("night_notes.py: not read." in line for line in said)
    assert await read("content/note") == before


async def test_schedule_is_left_on_or_paused_as_it_stands_and_one_made_by_hand_stays(deployed: Deployed) -> None:
    found = await read("product-copy/nightly")
    (nightly,) = found.schedules
    async with get_client() as client:
        await client.update_deployment_schedule(
            found.id, nightly.id, active=True, schedule=CronSchedule(cron="0 4 * * *")
        )
        by_hand = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 12 1 1 *"), active=False)
        await client.create_deployment_schedules(found.id, [by_hand])

    made = await again()
    assert made.changes["product-copy/nightly"] == "updated"
    assert not any("product-copy" in line for line in made.paused)
    now = {schedule.slug: schedule for schedule in (await read("product-copy/nightly")).schedules}
    assert now["nightly"].active
    assert now["nightly"].schedule.cron == "0 3 * * *"  # type: ignore[union-attr]
    assert now[None].schedule.cron == "0 12 1 1 *"  # type: ignore[union-attr]
    async with get_client() as client:
        await client.update_deployment_schedule(found.id, now["nightly"].id, active=False)
        await client.delete_deployment_schedule(found.id, now[None].id)
    assert (await again()).changes["product-copy/nightly"] == "unchanged"


async def test_pool_that_is_not_there_changes_nothing_and_says_what_to_do(workshop: Workshop, prefect_api: str) -> None:
    with pytest.raises(ConfigurationError, match=r"no work pool 'nowhere'.*presswork up"):
        await deploy(work_pool="nowhere", say=print)


async def test_mistake_in_prefect_yaml_changes_nothing(workshop: Workshop, pool: str, tmp_path: Path) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text(
        "deployments: [{name: x, entrypoint: flows.product_copy.product_copy, schedules: [{slug: x, cron: often}]}]"
    )
    with pytest.raises(ConfigurationError, match="schedule 'x': 'often'"):
        await again(file=file)
    file.write_text("deployments: [{name: q&a, entrypoint: flows.product_copy.product_copy}]")
    with pytest.raises(ConfigurationError, match="name: A deployment's name can't contain &"):
        await again(file=file)


NAMES = ["two words", "商品", "Ka\u0308se", "what?#", "Note", "x" * 248, "{{ a }}", "-x"]
REFUSED = ["q&a", "50%", "a<b", "a>b", "a\nb", "note-shards", "any-template", "any-template-shards"]


async def test_template_whose_name_prefect_refuses_is_left_out_and_all_others_are_deployed(
    workshop: Workshop, pool: str
) -> None:
    for name in (*NAMES, *REFUSED):
        (workshop.templates / f"{name}.md.j2").write_text(FRONT, encoding="utf-8")
    with suppress(OSError):  # a file system may refuse such a name too
        (workshop.templates / os.fsdecode(b"K\xe4se.md.j2")).write_text(FRONT, encoding="utf-8")
    # No deployment is made of a step, so its name is free.
    (workshop.templates / "a&b.md.j2").write_text(
        "---\noutput: SubjectLine\n---\n{% block user %}x{% endblock %}", encoding="utf-8"
    )

    said: list[str] = []
    made = await deploy(work_pool=POOL, say=said.append)
    assert set(made.names) == {*DECLARED, "content/note", *(f"content/{name}" for name in NAMES)}
    assert set(made.left_out) >= set(REFUSED)
    assert "a&b" not in made.left_out
    assert any("q&a" in line and "/ % & < >" in line and "Rename" in line for line in said)
    declared = await read("content/any-template")
    assert declared.parameters == {}
    assert declared.parameter_openapi_schema is not None
    assert "q&a" in declared.parameter_openapi_schema["properties"]["template"]["enum"], "it can run all the same"
    assert set((await again()).changes.values()) == {"unchanged"}


def test_command_names_what_was_left_out_for_its_name(workshop: Workshop, pool: str) -> None:
    (workshop.templates / "q&a.md.j2").write_text(FRONT, encoding="utf-8")
    result = call("deploy", "--pool", POOL)
    assert result.exit_code == EXIT_FAILED, result.output
    assert "Template q&a: not deployed." in result.stdout


async def test_deployment_that_is_refused_is_named_and_keeps_no_other_from_being_made(
    workshop: Workshop, pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_flow.py").write_text("raise LookupError\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SECRET", "kraken")
    file = tmp_path / "prefect.yaml"
    file.write_text(
        """
deployments:
  - {name: wrong, entrypoint: flows.product_copy.product_copy, parameters: {options: {max_cost: -1}},
     work_pool: {name: x, job_variables: {env: {TOKEN: "{{ $SECRET }}"}}}}
  - {name: broken, entrypoint: broken_flow.run}
  - {name: nothing, entrypoint: flows.product_copy.nothing}
  - {name: right, entrypoint: flows.product_copy.product_copy}
""",
        encoding="utf-8",
    )
    said: list[str] = []
    made = await deploy(work_pool=POOL, say=said.append, file=file)
    assert set(made.names) == {"product-copy/right", "content/note"}
    assert set(made.refused) == {
        "product-copy/wrong",
        "broken_flow.run/broken",
        "flows.product_copy.nothing/nothing",
    }
    assert "max_cost" in made.refused["product-copy/wrong"]
    assert "LookupError" in made.refused["broken_flow.run/broken"]
    assert not made.is_whole
    assert all(any(name in line for line in said) for name in made.refused)
    assert not any("kraken" in line for line in said)


async def test_what_was_deployed_before_stays_when_it_is_refused(
    workshop: Workshop, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workshop.templates / "mine.md.j2").write_text(FRONT, encoding="utf-8")
    await again()
    before = await read("content/mine")

    async def refuse(*_given: Any) -> None:
        raise ValueError("it does not fit")

    monkeypatch.setattr("presswork.operate.deployments._apply", refuse)
    made = await again()
    assert made.refused["content/mine"] == "ValueError: it does not fit."
    assert made.names == []
    assert await read("content/mine") == before


async def test_notification_that_can_not_be_made_is_named_and_the_rest_is_deployed(
    workshop: Workshop, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a new machine nobody can make the block before the server is up.
    monkeypatch.setenv("PRESSWORK_NOTIFY_BLOCK", "slack-webhook/nobody")
    made = await again()
    assert {*DECLARED, "content/note"} <= set(made.names)
    assert ["slack-webhook/nobody" in error for error in made.refused.values()] == [True]


async def test_server_that_is_not_there_is_no_refusal(
    deployed: Deployed, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_given: Any, **_named: Any) -> None:
        raise httpx.ConnectError("nobody is there")

    monkeypatch.setattr("presswork.operate.deployments._apply", fail)
    with pytest.raises(httpx.ConnectError):
        await again()


def test_command_says_what_it_did_and_what_it_left_out(workshop: Workshop, pool: str) -> None:
    workshop.template("{{ broken", name="broken")
    result = call("deploy", "--pool", POOL, "--json")
    assert result.exit_code == EXIT_FAILED, result.output
    assert '"content/note"' in result.stdout
    assert "broken.md.j2" in result.stdout
    assert call("deploy", "--pool", "nowhere").exit_code == EXIT_WRONG


async def test_worker_with_another_ledger_stops_and_one_with_other_code_warns(
    deployed: Deployed, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    found = await read("product-copy/nightly")
    here = Settings(database_url=workshop.ledger_url)
    check_worker(found, here, str(found.version))

    there = Settings(database_url="postgresql://writer:kraken@db.example/presswork")
    with pytest.raises(
        ConfigurationError, match=r"for the ledger sqlite .*postgresql db\.example:5432/presswork"
    ) as told:
        check_worker(found, there, str(found.version))
    assert "kraken" not in str(told.value)
    # What `prefect deploy` made says nothing about it.
    check_worker(found.model_copy(update={"job_variables": {}}), there, "other")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://writer:kraken@DB/presswork", "postgresql db:5432/presswork"),
        ("postgresql+psycopg://db:5432/presswork", "postgresql db:5432/presswork"),
        ("postgres://a:b%40c@db:6000/presswork", "postgresql db:6000/presswork"),
        ("postgresql:///presswork?host=/run/pg", "postgresql /run/pg:5432/presswork"),
        ("sqlite:////data/x.sqlite", "sqlite /data/x.sqlite"),
    ],
)
def test_ledgers_name_is_the_same_however_its_url_is_written_and_holds_no_password(url: str, name: str) -> None:
    assert ledger_label(Settings(database_url=url)) == name
