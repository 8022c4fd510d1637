"""Which deployments there should be: one for each job, none for a step of a flow; without a server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from presswork.operate import deployment_specs
from presswork.operate.deployment_specs import DeploymentPlan, plan_deployments
from presswork.settings import ROOT, Settings, load_settings

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
    for module in ("mine", "other", "helper"):
        monkeypatch.delitem(sys.modules, module, raising=False)
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
    assert (made.left_out, made.refused, made.undeclared, made.unreadable) == ({}, {}, {}, {})


def test_template_without_a_flow_keeps_its_deployment(project: Path) -> None:
    assert set(plan(project).specs) == {"content/alone", "content/first", "content/second"}


def declare(project: Path, *entrypoints: str) -> None:
    lines = [f"  - {{name: weekly, entrypoint: {entrypoint}}}\n" for entrypoint in entrypoints]
    (project / "prefect.yaml").write_text("deployments:\n" + "".join(lines))


def test_flow_that_is_not_declared_takes_no_deployment_away_and_is_named(project: Path) -> None:
    (project / "flows" / "mine.py").write_text(FLOW)
    made = plan(project)
    assert set(made.specs) == {"content/alone", "content/first", "content/second"}
    assert made.covered == {}
    assert made.undeclared == {"mine": ["first", "second"]}
    declare(project, "mine.mine")
    made = plan(project)
    assert set(made.specs) == {"mine/weekly", "content/alone"}
    assert (made.covered, made.undeclared) == ({"first": ["mine"], "second": ["mine"]}, {})


def test_flow_file_that_is_no_python_is_named_and_one_that_is_not_declared_hides_no_step(project: Path) -> None:
    broken = project / "flows" / "broken.py"
    broken.write_text("x = 1\ndef (:")
    made = plan(project)
    assert set(made.specs) == {"content/alone", "content/first", "content/second"}
    assert list(made.unreadable) == [str(broken)]
    assert "line 2" in made.unreadable[str(broken)]
    assert made.left_out == {}


@pytest.mark.parametrize("broken", ["mine.py", "helper.py"])
def test_while_a_declared_flow_can_not_be_read_templates_that_no_other_covers_are_left_as_they_are(
    project: Path, broken: str
) -> None:
    (project / "flows" / "mine.py").write_text(f"from helper import step\n{FLOW}    step(run)\n")
    (project / "flows" / "other.py").write_text(FLOW.replace("mine", "other").replace('"first", ', ""))
    (project / "flows" / broken).write_text("def (:")
    declare(project, "mine.mine", "other.other")
    made = plan(project)
    assert set(made.specs) == {"other/weekly"}
    assert made.covered == {"second": ["other"]}
    assert set(made.left_out) == {"alone", "first"}
    assert "mine.py" in made.left_out["first"]
    assert broken in made.unreadable[str(project / "flows" / "mine.py")]


def test_declared_flow_that_can_not_be_loaded_leaves_its_steps_as_they_are(project: Path) -> None:
    (project / "flows" / "mine.py").write_text(f"import nothing_of_this_name\n{FLOW}")
    declare(project, "mine.mine")
    made = plan(project)
    assert set(made.specs) == {"content/alone"}
    assert set(made.left_out) == {"first", "second"}
    assert (made.covered, made.unreadable) == ({}, {})
    assert set(made.refused) == {"mine.mine/weekly"}


def test_deployment_that_prefect_yaml_declares_is_made_although_another_flow_can_not_be_read(project: Path) -> None:
    (project / "flows" / "mine.py").write_text("def (:")
    (project / "prefect.yaml").write_text(
        "deployments: [{name: first, entrypoint: flows.content.content, parameters: {template: first}},"
        "{name: weekly, entrypoint: mine.mine}]"
    )
    made = plan(project)
    assert set(made.specs) == {"content/first"}
    assert set(made.left_out) == {"alone", "second"}


def test_flow_that_is_declared_covers_its_steps_wherever_it_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "elsewhere").mkdir()
    (project / "elsewhere" / "chains.py").write_text(FLOW.replace("mine", "chain"))
    monkeypatch.syspath_prepend(project / "elsewhere")
    (project / "prefect.yaml").write_text("deployments: [{name: weekly, entrypoint: chains.chain}]")
    made = plan(project)
    assert set(made.specs) == {"chain/weekly", "content/alone"}
    assert made.covered == {"first": ["chain"], "second": ["chain"]}
    assert made.undeclared == {}


def test_step_that_prefect_yaml_declares_is_deployed(project: Path) -> None:
    (project / "flows" / "mine.py").write_text(FLOW)
    (project / "prefect.yaml").write_text(
        "deployments: [{name: first, entrypoint: flows.content.content, parameters: {template: first}},"
        "{name: weekly, entrypoint: mine.mine}]"
    )
    made = plan(project)
    assert set(made.specs) == {"content/alone", "content/first", "mine/weekly"}
    assert set(made.covered) == {"second"}
    assert made.left_out == {}


def test_step_with_a_mistake_is_still_named(project: Path) -> None:
    (project / "flows" / "mine.py").write_text(FLOW)
    (project / "templates" / "first.md.j2").write_text(TEMPLATE + "{{ broken")
    assert set(plan(project).left_out) == {"first"}
