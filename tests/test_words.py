"""The stored words stand once, in db/words.py: tables, views, docs and screens keep to them; no module repeats one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, inspect

from bench.shape import SourceFile, product_files
from db import words
from presswork.report.prefect.events import ENDINGS
from presswork.report.progress import WORDS
from presswork.report.summary import StepSummary, Summary
from presswork.terminal import screen

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
STORED = frozenset(
    {
        *words.COUNTED,
        *words.ORIGINS,
        *words.KINDS,
        *words.RUN_STATUSES,
        *words.TRIGGERS,
        *(value for name, value in vars(words).items() if name.isupper() and isinstance(value, str)),
    }
)
ANOTHER_MEANING = {
    "anthropic": "a Python package, and genai-prices' name of a provider",
    "batch": "a service tier of the API, and a key of spill files",
    "cache": "a field of the front matter, and a code of the lint",
    "cached": "a column's title on screens, and a key of events",
    "connect": "SQLAlchemy's event",
    "connection": "an attribute of Alembic's configuration",
    "deployment": "a column's title on a screen",
    "failed": "a title on a screen, for Prefect's state",
    "invalid": "a switch of the sandbox",
    "presswork": "the product's package",
    "refused": "a switch of the sandbox, and a key of what `deploy` and `db recover` print",
    "running": "a title on a screen, and a key of what `status` prints",
    "sandbox": "a package, a ledger's file, and where a forecast's lengths come from",
    "helper": "an option of a run",
    "timeout": "an argument of sqlite3",
    "truncated": "a switch of the sandbox",
    "try": "the name of a command",
    "unreadable": "a key of what `deploy` prints",
}
"""Words that product modules spell for something that the ledger does not store."""


# The tables and the views, as migrations made them


@pytest.mark.parametrize(
    ("table", "constraint", "stored"),
    [
        ("generations", "ck_generations_status", words.STATUSES),
        ("generations", "ck_generations_origin", words.ORIGINS),
        ("attempts", "ck_attempts_kind", words.KINDS),
        ("runs", "ck_runs_status", words.RUN_STATUSES),
    ],
)
def test_table_takes_the_words_and_no_other(
    ledger: Engine, table: str, constraint: str, stored: tuple[str, ...]
) -> None:
    texts = {found["name"]: found["sqltext"] for found in inspect(ledger).get_check_constraints(table)}

    assert quoted(texts[constraint]) == set(stored)


def test_view_counts_by_the_words(ledger: Engine) -> None:
    usage = inspect(ledger).get_view_definition("usage_by_day")

    assert quoted(str(usage)) - {"UTC"} == {*words.UNSENT, *words.PERHAPS_BILLED}


def quoted(sql: str) -> set[str]:
    return set(re.findall(r"'(\w+)'", sql))


# The page that tells of them


def test_page_lists_each_word_where_it_tells_what_it_means() -> None:
    assert first_cells("`status`") == list(words.STATUSES)
    assert bold_in("`origin`:") == list(words.ORIGINS)
    assert bold_in("`kind` of an attempt:") == list(words.KINDS)
    assert listed("`started_at`, `ended_at`, `status`") == list(words.RUN_STATUSES)
    assert set(listed("`trigger`")) == set(words.TRIGGERS)


def test_page_says_what_is_billed() -> None:
    rows = [cells(line) for line in table_under("`error_type`")]

    assert {name for name, _means, billed in rows if billed == "perhaps"} == set(words.PERHAPS_BILLED)
    assert {name for name, _means, billed in rows if (billed == "no" and "_" in name) or name == words.CONNECT} >= set(
        words.UNSENT
    )
    lists = re.findall(r"error_type IN \(([^)]*)\)", PAGE)
    assert {frozenset(quoted(each)) for each in lists} == {frozenset(words.UNSENT), frozenset(words.PERHAPS_BILLED)}


def table_under(head: str) -> Iterator[str]:
    lines = iter(PAGE.splitlines())
    next(line for line in lines if line.startswith(f"| {head} |"))
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        yield line


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def first_cells(head: str) -> list[str]:
    return [cells(line)[0] for line in table_under(head)]


def listed(cell: str) -> list[str]:
    """The words of a row that tells of a column."""
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {cell} |"))
    return cells(line)[1].split(", ")


def bold_in(head: str) -> list[str]:
    """The words in bold of the paragraph that begins so."""
    paragraph = PAGE[PAGE.index(f"\n{head}") :].strip().partition("\n\n")[0]
    return re.findall(r"\*\*(\w+)\*\*", paragraph)


# The screens


def test_each_status_is_a_count_of_a_summary() -> None:
    assert set(words.COUNTED) <= set(Summary.model_fields)
    assert set(words.COUNTED) <= set(StepSummary.model_fields)


@pytest.mark.parametrize("shown", [screen.STYLES, WORDS, ENDINGS], ids=["styles", "words of counts", "endings"])
def test_screen_shows_no_status_that_is_not_stored(shown: dict[str, Any]) -> None:
    assert set(shown) <= {*words.COUNTED, *words.RUN_STATUSES}


# Nobody else spells them


def test_no_module_spells_a_stored_word() -> None:
    found = [
        f"{file.path}:{line}: {word!r}"
        for file in product_files()
        if file.path.parts[:2] != ("db", "migrations") and file.path != Path("db/words.py")
        for line, word in literals_of(file)
        if word in STORED - set(ANOTHER_MEANING)
    ]

    assert not found, "use the constants of db/words.py"


def test_each_word_with_another_meaning_has_it_somewhere() -> None:
    spelled = {
        word for file in product_files() if file.path != Path("db/words.py") for _line, word in literals_of(file)
    }

    assert set(ANOTHER_MEANING) <= STORED & spelled


def literals_of(file: SourceFile) -> Iterator[tuple[int, str]]:
    """The texts in a module's code; the members of a Literal are types, which say no more than the constant does."""
    types = {
        id(part)
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal"
        for part in ast.walk(node)
    }
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in types:
            yield node.lineno, node.value
