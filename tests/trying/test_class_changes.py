"""An output class has changed if it, or what it is made with, differs; the rest of its file does not count."""

from __future__ import annotations

from pathlib import Path

import pytest

import flows.outputs
from flows.outputs import ProductCopy, SubjectLine
from presswork.trying.class_changes import has_changed

SOURCE = Path(flows.outputs.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("max_length=70", "max_length=71", True),
        ("The words of one product's page in the shop.", "The words of a page.", True),
        ("if len(text.splitlines()) > 1:", "if len(text.splitlines()) > 2:", True),
        ('ConfigDict(extra="forbid"', 'ConfigDict(extra="ignore"', True),
        ("from pydantic import AfterValidator", "from mine import AfterValidator", True),
        ("class ProductCopy", "class ProductText", True),
        ("class TicketTriage", "class Triage", False),
        ('"wholesale",', "", False),
        ("class ProductCopy(Output):", "# a comment\nclass ProductCopy(Output):", False),
    ],
)
def test_only_what_a_class_is_made_with_counts(old: str, new: str, changed: bool) -> None:
    assert old in SOURCE
    assert has_changed(ProductCopy, lambda _file: SOURCE.replace(old, new, 1)) is changed


@pytest.mark.parametrize("then", [None, "class (", "\0"])
def test_file_that_can_not_be_read_says_nothing(then: str | None) -> None:
    assert not has_changed(SubjectLine, lambda _file: then)
