"""Load output classes again in the same process after their files were saved."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from pathlib import Path

import pytest
from pydantic import BaseModel

from presswork.errors import OutputClassError
from presswork.output_classes.classes import load_output_class
from presswork.output_classes.reloading import forget_modules
from tests.pieces import Put

ENTRY = """
from pydantic import BaseModel, Field

class Entry(BaseModel):
    {field}: str = Field(max_length=70)
"""
ENTRY_OF_SHELF = """
from pydantic import BaseModel
{imports}

class Entry(BaseModel):
    title: {kind}
"""
SHELF = """
from pydantic import BaseModel

class Label(BaseModel):
    {field}: str
"""


def fields() -> list[str]:
    return list(load_output_class("shop.Entry").model_fields)


def test_forgotten_class_is_loaded_from_its_file_as_it_is_now(put: Put) -> None:
    put("shop.py", ENTRY.format(field="title"))
    assert fields() == ["title"]

    put("shop.py", ENTRY.format(field="headline"))
    assert fields() == ["title"]
    forget_modules(["shop"])

    assert fields() == ["headline"]


@pytest.mark.parametrize(
    ("imports", "kind"),
    [
        ("from flows.shelf import Label", "Label"),
        ("from .shelf import Label", "Label"),
        ("from flows import shelf", "shelf.Label"),
        ("import flows.shelf", "flows.shelf.Label"),
    ],
)
def test_class_has_what_an_imported_module_now_says(put: Put, imports: str, kind: str) -> None:
    put("shop.py", ENTRY_OF_SHELF.format(imports=imports, kind=kind))
    put("shelf.py", SHELF.format(field="old"))
    assert "old" in str(load_output_class("shop.Entry").model_json_schema())

    put("shelf.py", SHELF.format(field="new"))
    forget_modules(["shop", "shelf"])

    assert "new" in str(load_output_class("shop.Entry").model_json_schema())


def test_second_save_of_a_second_is_seen_although_its_bytecode_looks_new(
    put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python compares the second and the size of the source.
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for field in ("title", "label", "lines"):
        os.utime(put("shop.py", ENTRY.format(field=field)), (1_000_000_000, 1_000_000_000))
        assert fields() == [field]
        forget_modules(["shop"])


def test_module_that_comes_later_is_found(put: Put) -> None:
    put("other.py", "")
    with pytest.raises(OutputClassError, match=r"no module flows/shop\.py"):
        load_output_class("shop.Entry")

    put("shop.py", ENTRY.format(field="title"))
    forget_modules(["shop"])

    assert fields() == ["title"]


def test_broken_module_says_where_and_is_loaded_when_it_is_repaired(put: Put) -> None:
    put("shop.py", ENTRY.format(field="title"))
    assert fields() == ["title"]

    put("shop.py", "from pydantic import BaseModel\n\nclass Entry(BaseModel:\n    title: str\n")
    forget_modules(["shop"])
    with pytest.raises(OutputClassError, match=r"^flows/shop\.py, line 3, can't be loaded: SyntaxError: \w"):
        load_output_class("shop.Entry")
    put("shop.py", ENTRY.format(field="headline"))
    forget_modules(["shop"])

    assert fields() == ["headline"]


def test_error_of_an_imported_module_is_placed_there(put: Put) -> None:
    put("shop.py", "from flows.shelf import Label\n")
    put("shelf.py", "LABELS = {}\n\nLabel = LABELS['none']\n")

    with pytest.raises(OutputClassError, match=r"^flows/shelf\.py, line 3, can't be loaded: KeyError: 'none'\.$"):
        load_output_class("shop.Entry")


def test_error_of_pydantic_is_placed_in_the_users_module(put: Put) -> None:
    put("shop.py", "from pydantic import BaseModel\n\nclass Entry(BaseModel):\n    title: object()\n")

    with pytest.raises(OutputClassError, match=r"^flows/shop\.py, line 3, can't be loaded: PydanticSchemaGeneration"):
        load_output_class("shop.Entry")


def test_class_that_is_gone_is_reported_with_those_that_are_there(put: Put) -> None:
    put("shop.py", ENTRY.format(field="title"))
    assert fields() == ["title"]

    put("shop.py", ENTRY.format(field="title").replace("Entry", "Item"))
    forget_modules(["shop"])

    with pytest.raises(OutputClassError, match=r"no output class 'Entry' in flows/shop\.py\. Available: Item\."):
        load_output_class("shop.Entry")


def test_module_without_its_heavy_import_is_accepted_again(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_friend.py").write_text("import sys\nsys.modules['prefect'] = sys\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "prefect", sys)  # so that it is removed afterwards
    monkeypatch.delitem(sys.modules, "prefect")
    put("shop.py", "import heavy_friend\n" + ENTRY.format(field="title"))
    with pytest.raises(OutputClassError, match="one of its imports loads prefect"):
        load_output_class("shop.Entry")

    put("shop.py", ENTRY.format(field="title"))
    forget_modules(["shop"])

    assert fields() == ["title"]


def test_a_hundred_reloads_leave_one_class(put: Put) -> None:
    loaded: weakref.WeakSet[type[BaseModel]] = weakref.WeakSet()
    for number in range(100):
        put("shop.py", ENTRY.format(field=f"title{number}"))
        forget_modules(["shop"])
        loaded.add(load_output_class("shop.Entry"))
        assert fields() == [f"title{number}"]
    gc.collect()

    assert [list(each.model_fields) for each in loaded] == [["title99"]]
    assert sum(type(finder).__module__.startswith("presswork") for finder in sys.meta_path) == 1
