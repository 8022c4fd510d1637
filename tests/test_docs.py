"""What README and docs say is there: commands and their options, settings, links, flows, fields of a template."""

from __future__ import annotations

import re
import shlex
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from presswork.cli import app
from presswork.output_classes.fields import TYPES
from presswork.prompts.flow_source import list_flows
from presswork.prompts.front_matter import FrontMatter, Param, read_front_matter
from presswork.prompts.templates import list_templates
from presswork.settings import ROOT, Settings

PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEMPLATES_PAGE = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

STAND_INS = {"NAME", "your_name"}
"""What stands for a job of the reader's own."""
SPARE_VARIABLES = {"PRESSWORK_DEBUG", "PRESSWORK_SOURCE_CHINOOK_URL", "PRESSWORK_SOURCE_<NAME>_URL"}
"""Read elsewhere than in Settings."""

COMMANDS: Any = typer.main.get_command(app)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SHELL = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
VARIABLE = re.compile(r"PRESSWORK_(?:SOURCE_<NAME>_URL|[A-Z_]+)")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code_of(page: Path) -> Iterator[str]:
    """Each line of the page's shell blocks, and each piece of code in its text."""
    text = page.read_text(encoding="utf-8")
    for block in SHELL.findall(text):
        yield from block.splitlines()
    for piece in INLINE.findall(re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)):
        yield " ".join(piece.split())


def calls_of(page: Path, program: str) -> Iterator[list[str]]:
    """The words of each call of a program, without its name."""
    for code in code_of(page):
        words = re.sub(r"\s#.*", "", code).split()
        if words and words[0].rpartition("/")[2] == program:
            yield shlex.split(" ".join(words[1:]))


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


def all_options(command: Any = COMMANDS) -> set[str]:
    below = (all_options(sub) for sub in getattr(command, "commands", {}).values())
    return options_of(command).union(*below)


def bench_options() -> set[str]:
    source = (ROOT / "bench" / "__main__.py").read_text(encoding="utf-8")
    return set(re.findall(r'add_argument\("(--[a-z-]+)"', source))


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@pages
def test_commands_and_options_exist(page: Path) -> None:
    for words in calls_of(page, "presswork"):
        command = COMMANDS
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in options_of(command), f"presswork {' '.join(words)}"
            elif hasattr(command, "commands"):
                assert word in command.commands, f"presswork {' '.join(words)}"
                command = command.commands[word]


@pages
def test_options_named_alone_exist(page: Path) -> None:
    for code in code_of(page):
        if code.startswith("--"):
            assert code.split()[0] in all_options() | bench_options(), code


@pages
def test_make_targets_exist(page: Path) -> None:
    for words in calls_of(page, "make"):
        assert re.search(rf"^{words[0]}:", MAKEFILE, re.MULTILINE), words


@pages
def test_variables_are_settings(page: Path) -> None:
    known = {f"PRESSWORK_{name.upper()}" for name in Settings.model_fields} | SPARE_VARIABLES

    assert set(VARIABLE.findall(page.read_text(encoding="utf-8"))) <= known


def test_jobs_that_the_readme_runs_exist() -> None:
    known = {*list_flows(), *list_templates(ROOT / "templates"), *STAND_INS}
    named = {words[1] for words in calls_of(ROOT / "README.md", "presswork") if words[:1] == ["run"]}

    assert named, "the README runs nothing"
    assert named <= known


def test_readme_names_every_content_flow() -> None:
    for name in [*list_flows(), "content"]:
        assert f"(flows/{name}.py)" in README


def test_readme_shows_the_example_template_as_it_is() -> None:
    (shown,) = re.findall(r"^```\n(---\n.*?)^```", README, re.DOTALL | re.MULTILINE)
    whole = read_front_matter("album_notes", (ROOT / "templates" / "album_notes.md.j2").read_text(encoding="utf-8"))

    assert read_front_matter("album_notes", shown) == whole.model_copy(update={"description": None})


def test_readme_lints_its_example_without_an_error() -> None:
    ((*words,),) = [words for words in calls_of(ROOT / "README.md", "presswork") if words[:2] == ["templates", "lint"]]
    result = CliRunner().invoke(app, words)

    assert result.exit_code == 0, result.output


def test_readme_joins_as_the_tested_page_does() -> None:
    (query,) = re.findall(r"^```sql\n(.*?)^```", README, re.DOTALL | re.MULTILINE)

    assert query.replace("'anthropic'", "'sandbox'") in (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")


def test_reference_has_every_field_of_a_template() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", TEMPLATES_PAGE, re.MULTILINE)) >= set(FrontMatter.model_fields)
    for name in (*Param.model_fields, *TYPES):
        assert f"`{name}`" in TEMPLATES_PAGE
    for field in ("effort", "cache"):
        values = typing.get_args(FrontMatter.model_fields[field].annotation)
        for value in (inner for part in values for inner in (typing.get_args(part) or (part,))):
            assert value is type(None) or f"`{value}`" in TEMPLATES_PAGE


def test_reference_shows_a_template_that_is_one() -> None:
    (shown,) = re.findall(r"^```\n(---\n.*?)^```", TEMPLATES_PAGE, re.DOTALL | re.MULTILINE)

    assert read_front_matter("product_copy", shown).params["category"].default is None


def test_every_decision_has_a_number_of_its_own() -> None:
    numbers = [page.name[:4] for page in sorted((ROOT / "docs" / "decisions").glob("*.md"))]

    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
