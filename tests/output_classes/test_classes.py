"""Find output classes in the user's modules of flows/, which must load quickly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import flows.outputs
from presswork.errors import OutputClassError
from presswork.output_classes.classes import load_output_class
from presswork.prompts.lint import lint_template
from tests.pieces import Put, Write

ROOT = Path(__file__).parents[2]
ENTRY = """
from pydantic import Field
from flows.outputs import Output

class Entry(Output):
    title: str = Field(max_length=70)
"""


def test_class_of_the_shared_file_needs_no_module() -> None:
    assert load_output_class("ProductCopy") is flows.outputs.ProductCopy
    assert load_output_class("outputs.ProductCopy") is flows.outputs.ProductCopy


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("shop.py", "shop.Entry"),
        ("shop/__init__.py", "shop.Entry"),
        ("shop/copy.py", "shop.copy.Entry"),
        ("shop/deep/copy.py", "shop.deep.copy.Entry"),
    ],
)
def test_class_of_another_module_is_found(put: Put, file: str, name: str) -> None:
    put(file, ENTRY)

    assert list(load_output_class(name).model_fields) == ["title"]


def test_template_names_such_a_class(put: Put, write: Write) -> None:
    put("shop.py", ENTRY)

    template = write(front="output: shop.Entry\n")

    assert template.schema["title"] == "Entry"


@pytest.mark.parametrize("name", ["Nothing", "Output", "Field", "BaseModel"])
def test_missing_output_class_lists_the_available_ones(put: Put, name: str) -> None:
    put("shop.py", ENTRY + "class Other(Output):\n    text: str\n")

    with pytest.raises(OutputClassError, match=r"class '.+' in flows/shop\.py\. Available: Entry, Other\."):
        load_output_class(f"shop.{name}")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("shop.Entry", r"There is no module flows/shop\.py for the output class 'shop\.Entry'\. Create it, or"),
        ("flows.shop.Entry", r"must not begin with 'flows'\. Write 'shop\.Entry'"),
        ("flows.ProductCopy", r"Write 'ProductCopy'"),
        ("engine.run.Run", r"flows/engine, which is part of Presswork\. Put your class into your own module"),
        ("content.Params", "flows/content, which is part of Presswork"),
        ("settings.Settings", r"There is no module flows/settings\.py"),
        ("os.path.Entry", r"There is no module flows/os/path\.py"),
        ("../outputs.Entry", "is not the name of an output class. Write Entry for a class in flows/outputs.py"),
        ("..outputs.Entry", "is not the name of an output class"),
        ("shop/Entry", "is not the name of an output class"),
        ("shop.Entry()", "is not the name of an output class"),
        ("__init__.Entry", "is not the name of an output class"),
        ("a b", "is not the name of an output class"),
        ("", "is not the name of an output class"),
    ],
)
def test_wrong_name_is_rejected_with_the_remedy(name: str, told: str) -> None:
    with pytest.raises(OutputClassError, match=told):
        load_output_class(name)


@pytest.mark.parametrize("name", ["product_copy.Products", "newsletter.Articles", "support_replies.Tickets"])
def test_content_flow_can_not_contain_output_classes(name: str) -> None:
    with pytest.raises(OutputClassError, match=r"line \d+, imports prefect\.flow\. Move the classes"):
        load_output_class(name)


@pytest.mark.parametrize(
    ("imports", "line", "told"),
    [
        ("import prefect", 1, "prefect"),
        ("import prefect.blocks.core as blocks", 1, "prefect.blocks.core"),
        ("from prefect import flow", 1, "prefect.flow"),
        ("\nimport json, sqlalchemy", 2, "sqlalchemy"),
        ("from anthropic import Anthropic", 1, "anthropic.Anthropic"),
        ("from db.sources.select import read_record", 1, "db.sources.select.read_record"),
        ("from presswork import open_run", 1, "presswork.open_run"),
        ("from flows import content", 1, "flows.content"),
        ("from .engine import open_run", 1, "flows.engine.open_run"),
        ("from . import engine", 1, "flows.engine"),
        ("try:\n    import prefect\nexcept ImportError:\n    pass", 2, "prefect"),
        ("try:\n    import json\nexcept ImportError:\n    import prefect", 4, "prefect"),
        ("if True:\n    from prefect import flow", 2, "prefect.flow"),
        ("class A:\n    import prefect", 2, "prefect"),
    ],
)
def test_import_of_prefect_or_sql_is_rejected_with_its_line(put: Put, imports: str, line: int, told: str) -> None:
    put("shop.py", f"{imports}\n{ENTRY}")

    with pytest.raises(OutputClassError) as raised:
        load_output_class("shop.Entry")

    assert f"flows/shop.py can't contain output classes: flows/shop.py, line {line}, imports {told}." in str(
        raised.value
    )
    assert "flows.shop" not in sys.modules


def test_import_through_another_module_of_the_user_is_rejected(put: Put) -> None:
    put("shop.py", "from flows.shelf import LABEL\n" + ENTRY)
    put("shelf.py", "from flows import store\nLABEL = 1\n")
    put("store.py", "from prefect import flow\n")

    with pytest.raises(
        OutputClassError, match=r"flows/shop\.py can't contain .*flows/store\.py, line 1, imports prefect"
    ):
        load_output_class("shop.Entry")


@pytest.mark.parametrize(
    "harmless",
    [
        "import json",
        "from flows.outputs import Line",
        "from presswork.errors import PressworkError",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from prefect import Flow",
        "import typing\nif typing.TYPE_CHECKING:\n    import prefect\nelse:\n    import json",
        "def later():\n    import prefect",
        "from .shelf import LABEL",
        "from . import shelf",
    ],
)
def test_import_that_does_not_load_them_is_allowed(put: Put, harmless: str) -> None:
    put("shop.py", harmless + "\n" + ENTRY)
    put("shelf.py", "import flows.shop\nLABEL = 1\n")  # a circular import, which Python allows

    assert load_output_class("shop.Entry").__name__ == "Entry"


def test_import_that_only_loading_shows_is_rejected_each_time(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_friend.py").write_text("import sys\nsys.modules['prefect'] = sys\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(
        sys.modules, "prefect", sys
    )  # so that it is removed afterwards, whether it was loaded before or not
    monkeypatch.delitem(sys.modules, "prefect")
    put("shop.py", "import heavy_friend\n" + ENTRY)

    for _time in range(2):
        with pytest.raises(OutputClassError, match="one of its imports loads prefect"):
            load_output_class("shop.Entry")


@pytest.mark.parametrize(
    "text", ["class Entry(:\n", "raise ValueError('no')\n", "import nowhere_at_all\n", "exit(3)\n", "\x00"]
)
def test_mistake_in_the_users_module_is_reported_with_its_file(put: Put, text: str) -> None:
    put("shop.py", text)

    with pytest.raises(OutputClassError, match=r"^flows/shop\.py(, line [12],)? can't be loaded: \w+: "):
        load_output_class("shop.Entry")


def test_lint_reports_a_forbidden_import_at_the_line_of_output(put: Put, folder: Path) -> None:
    put("shop.py", "import prefect\n" + ENTRY)
    (folder / "made.md.j2").write_text("---\nmax_tokens: 5\noutput: shop.Entry\n---\n{% block user %}x{% endblock %}")

    (found,) = lint_template(folder, "made")

    assert (found.level, found.code, found.line) == ("error", "outputclass", 3)
    assert "flows/shop.py, line 1, imports prefect" in found.message


def test_output_class_of_a_module_is_found_without_prefect_or_the_sdk(put: Put) -> None:
    code = (
        "import sys; from presswork.output_classes.classes import load_output_class\n"
        "load_output_class('ProductCopy')\n"
        "print(sorted({'prefect', 'sqlalchemy', 'anthropic', 'db.session'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
