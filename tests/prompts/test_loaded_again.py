"""A template is compiled again only if one of its files or its output class has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from presswork.errors import OutputClassError, TemplateError
from presswork.output_classes.reloading import forget_modules
from presswork.prompts import templates
from presswork.prompts.templates import load_template
from tests.pieces import Put, Write

PART = {"_part.j2": "a part"}
BODY = "{% block user %}{% include '_part.j2' %}{% endblock %}"
SELECT = "select: items.sql\nkey: id\n"
ENTRY = "from pydantic import BaseModel\nclass Entry(BaseModel):\n    {field}: str\n"


def test_unchanged_template_is_returned_again(write: Write, folder: Path) -> None:
    template = write(BODY, files=PART)
    (folder / "_part.j2").write_text("a part", encoding="utf-8")

    assert load_template(folder, "note") is template


@pytest.mark.parametrize("file", ["_part.j2", "items.sql", "note.md.j2"])
def test_template_with_a_changed_file_is_another(write: Write, folder: Path, file: str) -> None:
    template = write(BODY, SELECT, {**PART, "items.sql": "SELECT 1 AS id"})
    text = (folder / file).read_text(encoding="utf-8")
    (folder / file).write_text(text.replace("a part", "another").replace("1 AS", "2 AS") + "\n", encoding="utf-8")

    again = load_template(folder, "note")

    assert again.hash != template.hash
    assert load_template(folder, "note") is again


def test_template_of_a_changed_class_is_another(write: Write, folder: Path, put: Put) -> None:
    put("shop.py", ENTRY.format(field="title"))
    template = write(front="output: shop.Entry\n")
    put("shop.py", ENTRY.format(field="headline"))
    forget_modules(["shop"])

    assert list(load_template(folder, "note").schema["properties"]) == ["headline"]
    assert list(template.schema["properties"]) == ["title"]


def test_mistake_in_a_known_template_is_found(write: Write, folder: Path, put: Put) -> None:
    put("shop.py", ENTRY.format(field="title"))
    template = write(BODY, "output: shop.Entry\n", PART)
    (folder / "_part.j2").unlink()
    with pytest.raises(TemplateError, match=r"includes '_part\.j2', which is not in"):
        load_template(folder, "note")
    (folder / "_part.j2").write_text("a part", encoding="utf-8")
    put("shop.py", "raise ValueError('no')")
    forget_modules(["shop"])
    with pytest.raises(OutputClassError, match="can't be loaded"):
        load_template(folder, "note")
    put("shop.py", ENTRY.format(field="title"))
    forget_modules(["shop"])

    assert load_template(folder, "note").hash == template.hash


def test_few_templates_are_kept(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MOST_LOADED", 3)
    for number in range(10):
        write(name=f"note{number}")

    assert len(templates._LOADED) <= 3
