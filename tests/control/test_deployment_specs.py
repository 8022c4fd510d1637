"""Which deployments there should be: one for each job, none for a step of a flow; without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.control import deployment_specs
from flows.control.deployment_specs import DeploymentPlan, plan_deployments
from flows.settings import ROOT, Settings, load_settings

DECLARED = {
    "product-copy/nightly",
    "support-replies/quarter-hourly",
    "newsletter/monday-morning",
    "content/any-template",
}
TEMPLATE = """---
select: SELECT id, name FROM items
key: id
output: SubjectLine
---
{% block user %}{{ record.name }}{% endblock %}
"""
FLOW = """
from prefect import flow

STEPS = ["first", "second"]

@flow
async def mine(run):
    for step in STEPS:
        await run.generate(step)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with templates, without a flow."""
    monkeypatch.setattr(deployment_specs, "FLOWS", tmp_path / "flows")
    monkeypatch.syspath_prepend(tmp_path / "flows")
    for folder in ("flows", "templates"):
        (tmp_path / folder).mkdir()
    for name in ("first", "second", "alone"):
        (tmp_path / "templates" / f"{name}.md.j2").write_text(TEMPLATE)
    (tmp_path / "prefect.yaml").write_text("deployments: []")
    return tmp_path


def plan(project: Path) -> DeploymentPlan:
    return plan_deployments(Settings(templates_dir=project / "templates"), project / "prefect.yaml")


def test_shipped_templates_that_are_steps_get_no_deployment() -> None:
    made = plan_deployments(load_settings(), ROOT / "prefect.yaml")
    assert set(made.specs) == {*DECLARED, "content/album_notes", "content/customer_thanks"}
    assert made.covered == {
        "newsletter_summary": ["newsletter"],
        "product_copy": ["product_copy"],
        "support_triage": ["support_replies"],
    }
    assert (made.left_out, made.refused, made.undeclared) == ({}, {}, [])


def test_template_without_a_flow_keeps_its_deployment(project: Path) -> None:
    assert set(plan(project).specs) == {"content/alone", "content/first", "content/second"}


def test_flow_that_is_not_declared_covers_its_steps_and_is_named(project: Path) -> None:
    (project / "flows" / "mine.py").write_text(FLOW)
    (project / "flows" / "broken.py").write_text("def (:")
    made = plan(project)
    assert set(made.specs) == {"content/alone"}
    assert made.covered == {"first": ["mine"], "second": ["mine"]}
    assert made.undeclared == ["mine"]


def test_flow_that_is_declared_covers_its_steps_wherever_it_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "elsewhere").mkdir()
    (project / "elsewhere" / "chains.py").write_text(FLOW.replace("mine", "chain"))
    monkeypatch.syspath_prepend(project / "elsewhere")
    (project / "prefect.yaml").write_text("deployments: [{name: weekly, entrypoint: chains.chain}]")
    made = plan(project)
    assert set(made.specs) == {"chain/weekly", "content/alone"}
    assert made.covered == {"first": ["chain"], "second": ["chain"]}
    assert made.undeclared == []


def test_step_that_prefect_yaml_declares_is_deployed(project: Path) -> None:
    (project / "flows" / "mine.py").write_text(FLOW)
    (project / "prefect.yaml").write_text(
        "deployments: [{name: first, entrypoint: flows.content.content, parameters: {template: first}}]"
    )
    made = plan(project)
    assert set(made.specs) == {"content/alone", "content/first"}
    assert set(made.covered) == {"second"}
    assert made.left_out == {}


def test_step_with_a_mistake_is_still_named(project: Path) -> None:
    (project / "flows" / "mine.py").write_text(FLOW)
    (project / "templates" / "first.md.j2").write_text(TEMPLATE + "{{ broken")
    assert set(plan(project).left_out) == {"first"}
