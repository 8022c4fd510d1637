"""Which files belong to a template: all whose save can change what is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from presswork.trying.template_files import files_of_template
from tests.pieces import Put

ENTRY = "from pydantic import BaseModel\nclass Entry(BaseModel):\n    title: str\n"


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def named(folder: Path, template: str = "note") -> set[str]:
    return set(files_of_template(folder, template).texts.values())


def front(body: str, **more: str) -> str:
    lines = "".join(f"{name}: {value}\n" for name, value in {"output": "{title: {type: str}}", **more}.items())
    return f"---\n{lines}---\n{body}"


def test_parts_of_parts_belong(folder: Path) -> None:
    write(
        folder, "note.md.j2", front("{% import '_macros.j2' as m %}{% block user %}{% include '_a.j2' %}{% endblock %}")
    )
    write(folder, "_macros.j2", "{% macro x() %}{% endmacro %}")
    write(folder, "_a.j2", "{% include ['deep/_b.j2', '_c.j2'] %}{% from '_macros.j2' import x %}")
    write(folder, "deep/_b.j2", "{% include '_a.j2' %}")  # a circle, which the lint reports

    assert named(folder) == {"note.md.j2", "_macros.j2", "_a.j2", "deep/_b.j2", "_c.j2"}


def test_select_in_a_file_belongs(folder: Path) -> None:
    write(folder, "note.md.j2", front("{% block user %}x{% endblock %}", select=" items.sql", key="id"))

    assert named(folder) == {"note.md.j2", "items.sql"}


def test_missing_template_and_missing_part_are_waited_for(folder: Path) -> None:
    assert named(folder) == {"note.md.j2"}
    write(folder, "note.md.j2", front("{% block user %}{% include '_later.j2' %}{% endblock %}"))
    assert named(folder) == {"note.md.j2", "_later.j2"}


@pytest.mark.parametrize(
    "broken",
    [
        "---\noutput: [\n---\n{% include '_part.j2' %}",
        "{% include '_part.j2' %}",
        "---\noutput: X\nunknown: 1\n---\n{% include '_part.j2' %}{{ a|nofilter }}",
        "---\noutput: X\n---\n{% include '_part.j2' %}{{ a.__class__ }}",
    ],
)
def test_parts_of_a_template_with_mistakes_belong(folder: Path, broken: str) -> None:
    write(folder, "note.md.j2", broken)

    assert named(folder) == {"note.md.j2", "_part.j2"}


@pytest.mark.parametrize(
    "broken", ["---\noutput: X\n---\n{% include '_part.j2' %}{% if %}", "\x00", "{{ " + "(" * 5000]
)
def test_template_that_can_not_be_parsed_belongs_itself(folder: Path, broken: str) -> None:
    write(folder, "note.md.j2", broken)

    assert named(folder) == {"note.md.j2"}


def test_template_that_is_not_utf_8_belongs_itself(folder: Path) -> None:
    (folder / "note.md.j2").write_bytes(b"---\n\xff\xfe")

    assert named(folder) == {"note.md.j2"}


@pytest.mark.parametrize("outside", ["../secret.j2", "/etc/hostname", "leads_out.j2", "a\\0b"])
def test_no_file_outside_of_the_folder_is_read(folder: Path, outside: str) -> None:
    write(folder.parent, "secret.j2", "{% include 'more.j2' %}")
    (folder / "leads_out.j2").symlink_to(folder.parent / "secret.j2")
    write(folder, "note.md.j2", front(f"{{% include '{outside}' %}}"))

    assert named(folder) == {"note.md.j2"}


def test_modules_of_the_output_class_belong(folder: Path, put: Put) -> None:
    put("shop/__init__.py", "from flows.shelf import LABEL\n")
    put("shop/copy.py", "from . import sizes\nimport json\n" + ENTRY)
    put("shop/sizes.py", "from flows.missing import SIZE\n")
    put("shelf.py", "LABEL = 1\n")
    put("unused.py", "")
    write(folder, "note.md.j2", front("x", output="shop.copy.Entry"))

    found = files_of_template(folder, "note")

    assert found.module_names == {"shop", "shop.copy", "shop.sizes", "shelf"}
    names = {path.name for path in found.modules}
    assert {"__init__.py", "copy.py", "sizes.py", "shelf.py", "missing.py"} <= names
    assert "unused.py" not in names


def test_missing_module_of_the_output_class_is_waited_for(folder: Path, put: Put) -> None:
    file = put("shop.py", "")
    file.unlink()
    write(folder, "note.md.j2", front("x", output="shop.Entry"))

    assert file in files_of_template(folder, "note").modules


def test_fields_in_the_front_matter_need_no_module(folder: Path) -> None:
    write(folder, "note.md.j2", front("x"))

    assert files_of_template(folder, "note").modules == {}


def test_presswork_s_own_modules_do_not_belong(folder: Path) -> None:
    write(folder, "note.md.j2", front("x", output="content.Params"))

    assert files_of_template(folder, "note").modules == {}
