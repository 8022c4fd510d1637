"""Check README and docs against the product: commands, options, settings, links, fields. Run the README's commands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import typing
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer

import presswork
from presswork.cli import app
from presswork.output_classes.fields import TYPES
from presswork.prompts.flow_source import list_flows
from presswork.prompts.front_matter import FrontMatter, Param, read_front_matter
from presswork.prompts.templates import list_templates
from presswork.settings import ROOT, Settings
from sandbox import sandbox_process

PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEMPLATES_PAGE = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

READERS_OWN = {"NAME", "product_notes"}
"""Jobs that the reader writes."""
SPARE_VARIABLES = {"PRESSWORK_DEBUG", "PRESSWORK_SOURCE_SHOP_URL", "PRESSWORK_SOURCE_<NAME>_URL"}
"""Variables that are not in Settings."""

COMMANDS: Any = typer.main.get_command(app)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SHELL = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
VARIABLE = re.compile(r"PRESSWORK_(?:SOURCE_<NAME>_URL|[A-Z_]+)")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code_of(page: Path) -> Iterator[str]:
    """Yield each line of the page's shell blocks, and each piece of code in its text."""
    text = page.read_text(encoding="utf-8")
    for block in SHELL.findall(text):
        yield from block.splitlines()
    for piece in INLINE.findall(re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)):
        yield " ".join(piece.split())


def calls_of(page: Path, program: str) -> Iterator[list[str]]:
    """Yield the words of each call of a program, without its name."""
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
def test_links_have_targets(page: Path) -> None:
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
        for before, word in zip(["", *words], words, strict=False):
            if word.startswith("--"):
                assert word.partition("=")[0] in options_of(command), f"presswork {' '.join(words)}"
            elif hasattr(command, "commands") and not before.startswith("--"):
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
    known = {*list_flows(), *list_templates(ROOT / "templates"), *READERS_OWN}
    named = {words[1] for words in calls_of(ROOT / "README.md", "presswork") if words[:1] == ["run"]}

    assert named, "the README runs nothing"
    assert named <= known


def test_readme_names_every_content_flow() -> None:
    for name in [*list_flows(), "content"]:
        assert f"(flows/{name}.py)" in README


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the project in which everything is installed, and a shop's database for its reader."""
    project = tmp_path / "presswork"
    for name in ("db", "flows", "presswork", "sandbox", "templates"):
        shutil.copytree(ROOT / name, project / name)
    for name in ("Makefile", "constraints.txt", "prefect.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, project / name)
    environment = project / ".venv"
    environment.mkdir()
    (environment / "bin").symlink_to(Path(sys.prefix) / "bin")
    for stamp in (".presswork-runs", ".presswork-installed"):
        (environment / stamp).touch()
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as connection:
        connection.execute("CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, category TEXT, price NUMERIC)")
        rows = [(1, "Chai", "Beverages", 18), (2, "Chang", "Beverages", 19), (3, "Syrup", "Condiments", 10)]
        connection.executemany(
            "INSERT INTO products VALUES (?, ?, ?, ?)", [*rows, (4, "Pavlova", "Confections", 17.45)]
        )
        connection.commit()
    return project


AN_ID = (
    '"$(presswork history product_copy --key TEA-001 --json | grep -oE "\\"generation_id\\": \\"[0-9a-f-]{36}" '
    '| tail -1 | grep -oE "[0-9a-f-]{36}")"'
)
"""Where the README writes ID: the newest content of a record."""


def readers_script(sandbox: str, shop: Path) -> str:
    """All commands of the README in their order, as a reader without a key types them."""
    script = "\n".join(SHELL.findall(README))
    for written, typed in (
        ("sqlite:////path/to/shop.sqlite", f"sqlite:///{shop}"),
        ("http://127.0.0.1:8765", sandbox),
        # It runs until Ctrl-C; tests/commands/test_sandbox_command.py runs it.
        ("\npresswork sandbox\n", "\n"),
        # No test reaches Claude: the sandbox answers here too.
        ("unset ANTHROPIC_BASE_URL", ":"),
        ("show ID", f"show {AN_ID}"),
        ("diff ID", f"diff {AN_ID}"),
    ):
        assert script.count(written) == 1, written
        script = script.replace(written, typed)
    return f"set -euo pipefail\n{script}"


@pytest.mark.prefect
@pytest.mark.slow
@pytest.mark.timeout(600)  # some fifteen processes, most of which load Prefect
def test_commands_and_sql_of_the_readme_do_what_it_says(clone: Path, prefect_server: str) -> None:
    (template,) = re.findall(r"^```\n(---\n.*?)^```", README, re.DOTALL | re.MULTILINE)
    (clone / "templates" / "product_notes.md.j2").write_text(template, encoding="utf-8")
    shop = clone.parent / "shop.sqlite"
    settings = {"PYTHONPATH": str(clone), "PREFECT_API_URL": prefect_server, "PS1": ""}

    with sandbox_process() as sandbox:
        ended = subprocess.run(
            ["bash", "-c", readers_script(sandbox, shop)],
            cwd=clone, env=os.environ | settings, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert ended.returncode == 0, ended.stderr + ended.stdout
    (query,) = re.findall(r"^```sql\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    attach, join = query.replace("/path/to/shop.sqlite", str(shop)).split(";\n", 1)
    with closing(sqlite3.connect(clone / "presswork-sandbox.sqlite")) as connection:
        connection.execute(attach)
        found = connection.execute(join).fetchall()
    assert [row[0] for row in found] == [1, 2, 3, 4]
    assert all(title and len(title) <= 70 and text for _id, _name, title, text in found)


def test_every_command_of_the_readme_is_run() -> None:
    typed = [" ".join(line.split()) for block in SHELL.findall(README) for line in block.splitlines()]
    elsewhere = {
        "presswork up": ("operate/test_services.py", '"up"'),
        "presswork audit": ("commands/test_audit_command.py", '"audit"'),
        "presswork db upgrade": ("commands/test_ledger.py", '"upgrade"'),
        "presswork db recover": ("commands/test_ledger.py", '"recover"'),
        "presswork run NAME": ("commands/test_run.py", '"run"'),
    }
    for words in calls_of(ROOT / "README.md", "presswork"):
        command = " ".join(["presswork", *words])
        if command not in typed:
            file, shown = elsewhere[command]
            assert shown in (ROOT / "tests" / file).read_text(encoding="utf-8"), command


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


def test_names_that_the_reference_imports_exist() -> None:
    imports = [line for line in TEMPLATES_PAGE.splitlines() if line.startswith("from presswork import ")]
    names = {name for line in imports for name in line.removeprefix("from presswork import ").split(", ")}

    assert names
    assert names <= set(presswork.__all__)


def test_decisions_are_numbered() -> None:
    numbers = [page.name[:4] for page in sorted((ROOT / "docs" / "decisions").glob("*.md"))]

    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
