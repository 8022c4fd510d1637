"""What `presswork run NAME` finds, and how it reads its values."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from presswork.errors import ConfigurationError, ParameterError
from presswork.jobs import named_jobs as jobs
from presswork.jobs.named_jobs import find_job, make_selection
from presswork.prompts.flow_source import FLOWS, list_flows
from presswork.settings import load_settings
from presswork.terminal.flags import parse_sets

FLOW = """
from prefect import flow
@flow(name="x")
async def notes(selection=None):
    async with open_run() as run:
        found = run.select("first", selection)
        await run.generate("second", found)
"""


class Wanted(BaseModel):
    category: str | None = None
    many: int = Field(1, ge=1)


@pytest.fixture
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(jobs, "FLOWS", tmp_path)
    return tmp_path


def test_shipped_flows_are_found_with_the_templates_that_they_name() -> None:
    assert list_flows() == ["newsletter", "product_copy", "support_replies"]
    job = find_job("newsletter", load_settings())
    assert job.kind == "flow"
    assert job.selected == ("newsletter_summary",)
    assert set(job.templates) == {
        "newsletter_summary",
        "newsletter_digest",
        "newsletter_subject",
        "newsletter_choice",
    }


def test_a_flow_file_wins_over_a_template(flows: Path) -> None:
    (flows / "album_notes.py").write_text(FLOW.replace("notes", "album_notes"))

    job = find_job("album_notes", load_settings())

    assert (job.kind, job.selected, job.templates) == ("flow", ("first",), ("first", "second"))


def test_a_template_is_run_by_itself_where_no_flow_has_its_name(flows: Path) -> None:
    assert find_job("album_notes", load_settings()).kind == "template"


@pytest.mark.parametrize(
    "source", ["async def notes(): ...", "from prefect import flow\n@flow\nasync def other(): ...", "notes = 1"]
)
def test_a_file_without_a_flow_of_its_name_is_no_job(flows: Path, source: str) -> None:
    (flows / "notes.py").write_text(source)

    assert list_flows(flows) == []
    with pytest.raises(ConfigurationError, match="no flow or template 'notes'"):
        find_job("notes", load_settings())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("templates/album_notes.md.j2", "album_notes"), ("album-notes", "album_notes"), ("flows/notes.py", "notes")],
)
def test_path_that_a_shell_completes_suggests_the_name(flows: Path, typed: str, meant: str) -> None:
    (flows / "notes.py").write_text("from prefect import flow\n@flow\nasync def notes(): ...")

    with pytest.raises(ConfigurationError, match=f"Did you mean '{meant}'"):
        find_job(typed, load_settings())


def test_a_flow_that_is_no_python_is_told_with_its_line(flows: Path) -> None:
    (flows / "notes.py").write_text("x = 1\ndef (:\n")

    with pytest.raises(ConfigurationError, match=r"notes\.py, line 2"):
        find_job("notes", load_settings())


def test_a_byte_order_mark_in_a_flow_file_is_no_fault(flows: Path) -> None:
    (flows / "notes.py").write_text("\ufefffrom prefect import flow\n@flow\nasync def notes(): ...", encoding="utf-8")

    assert list_flows(flows) == ["notes"]


@pytest.mark.parametrize("name", ["content", "../db/models", "cli", "errors", ""])
def test_what_is_no_content_flow_is_not_run(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no flow or template"):
        find_job(name, load_settings())


def test_sets_keep_what_stands_behind_the_first_equals_sign() -> None:
    assert parse_sets(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"colour": "red"}, "no parameter 'colour'. Available: category, many"),
        ({"many": "none"}, "'many' of the flow 'f'"),
        ({"many": "0"}, "greater than or equal to 1"),
    ],
)
def test_a_selection_says_what_it_takes(sets: dict[str, str], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_selection("f", Wanted, sets)


def test_a_selection_takes_text_for_what_it_wants() -> None:
    assert make_selection("f", Wanted, {"many": "3", "category": "tea"}) == Wanted(many=3, category="tea")


def test_every_shipped_flow_names_its_templates_in_plain_text() -> None:
    # Otherwise none of it could be checked before Prefect starts.
    for name in list_flows():
        tree = ast.parse((FLOWS / f"{name}.py").read_text())
        calls = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"select", "generate"}
        ]
        assert calls
        assert all(isinstance(call.args[0], ast.Constant) for call in calls)
