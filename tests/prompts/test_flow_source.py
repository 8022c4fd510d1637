"""The templates that a flow names are found anywhere in its source, without importing the flow."""

from __future__ import annotations

import importlib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest

from presswork.errors import ConfigurationError
from presswork.prompts.flow_source import FLOWS, FlowSource, list_flows, read_flow, read_function

FLOW = '''
from prefect import flow
from presswork import open_run, RunOptions
import shared
import package.deep as deep
from shared import choose, Steps as Named
from .relative import RELATIVE
raise RuntimeError("nobody imports me")

CONSTANT = "of_constant"
PAIR: tuple[str, str] = ("of_tuple", DERIVED := "unused")
TABLE = {"urgent": "of_table", **shared.MORE}

class Selection:
    category: str | None = Field(None, examples=["of_form"])

def helper(run, template="of_default"):
    """helper"""
    return inner(run, CONSTANT)

def inner(run, name):
    return run.generate(name, helper), run.generate("of_helper"), PAIR, TABLE

def never(run):
    run.generate("of_nobody")

@flow(name="of_decorator")
async def job(selection: Selection = Selection(), other: str = "of_parameter"):
    from shared import LOCAL
    async with open_run() as run:
        found = run.select("of_select", selection)
        log("a sentence with of_sentence in it")
        choose(run, Named.FIRST, deep.things.NAME, RELATIVE, LOCAL)
        helper(run)

@flow
async def another():
    async with open_run() as run:
        await run.generate("of_another")
'''
SHARED = """
from back import TEMPLATE
MORE = {"x": "of_shared_table"}
LOCAL = "of_local_import"
UNUSED = "of_unused"
class Steps:
    FIRST = "of_class"
def choose(run, *names):
    return run.generate(TEMPLATE)
"""
NAMED = set(
    "of_select of_parameter of_constant of_tuple of_table of_default of_helper of_shared_table of_local_import "
    "of_class of_deep of_relative of_back".split()
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.py").write_text(FLOW)
    (tmp_path / "shared.py").write_text(SHARED)
    # Modules that import each other do not break the reading.
    (tmp_path / "back.py").write_text('from shared import TEMPLATE\nTEMPLATE = "of_back"\n')
    (tmp_path / "relative.py").write_text('RELATIVE = "of_relative"\n')
    (tmp_path / "package" / "deep").mkdir(parents=True)
    (tmp_path / "package" / "deep" / "__init__.py").write_text("")
    (tmp_path / "package" / "deep" / "things.py").write_text('NAME = "of_deep"\n')
    return tmp_path


def load(file: Path) -> ModuleType:
    spec = spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(source: str, file: str) -> FunctionType:
    """Return the first function of a source text, without writing a file."""
    code = next(found for found in compile(source, file, "exec").co_consts if isinstance(found, CodeType))
    return FunctionType(code, {})


def of_names(source: FlowSource | None) -> set[str]:
    assert source is not None
    return {text for text in source.texts if text.startswith("of_")}


def test_names_are_found_anywhere_the_flow_refers_to_them(folder: Path) -> None:
    assert of_names(read_flow(folder / "job.py", "job")) == NAMED
    assert of_names(read_flow(folder / "job.py", "another")) == {"of_another"}


def test_templates_are_those_of_calls_and_those_that_are_known(folder: Path) -> None:
    source = read_flow(folder / "job.py", "job")
    assert source is not None
    assert source.selects == ("of_select",)
    assert source.templates([]) == ("of_select", "of_helper")
    assert source.templates(["of_sentence", "of_back", "of_select"]) == ("of_select", "of_helper", "of_back")


def test_loaded_function_is_read_with_the_function_around_it(folder: Path) -> None:
    # The import alone names nothing.
    (folder / "loaded.py").write_text("""
def make():
    around = "of_around"
    def helper():
        return around
    def job():
        from shared import UNUSED
        return helper() + "of_body"
    return job
""")
    module = load(folder / "loaded.py")

    assert of_names(read_function(module.make())) == {"of_around", "of_body"}


def test_function_without_a_source_has_the_texts_in_its_code() -> None:
    source = """
def job(run, name):
    def inner():
        return run.generate('of_inner')
    return 'of_text', [each for each in ('of_tuple', 1) if name in {'of_set', 'of_sets'}], lambda: 'of_lambda'
"""
    found = read_function(compiled(source, "<string>"))
    assert of_names(found) == {"of_inner", "of_text", "of_tuple", "of_set", "of_sets", "of_lambda"}
    assert found.templates(["of_inner", "other"]) == ("of_inner",)


def test_function_whose_file_has_changed_has_the_texts_in_its_code(folder: Path) -> None:
    job = compiled("def job(): return 'of_text'", str(folder / "job.py"))
    assert of_names(read_function(job)) == {"of_text"}
    (folder / "job.py").write_text("def (:\n")
    assert of_names(read_function(job)) == {"of_text"}


def test_template_that_is_given_by_name_is_one_of_the_calls(folder: Path) -> None:
    (folder / "job.py").write_text(
        "@flow\ndef job(run):\n    run.generate(variants=2, template_name='of_given', source=run.select('of_first'))\n"
    )
    source = read_flow(folder / "job.py", "job")
    assert source is not None
    assert (source.selects, source.generates) == (("of_first",), ("of_given",))


def test_shipped_flows_say_the_same_loaded_and_unloaded() -> None:
    assert list_flows() == ["newsletter", "product_copy", "support_replies"]
    for name in list_flows():
        flow = getattr(importlib.import_module(f"flows.{name}"), name)
        assert read_function(flow.fn) == read_flow(FLOWS / f"{name}.py", name)


def test_file_that_is_not_python_is_named_with_its_line(folder: Path) -> None:
    (folder / "shared.py").write_text("x = 1\ndef (:\n")
    with pytest.raises(ConfigurationError, match=r"shared\.py, line 2"):
        read_flow(folder / "job.py", "job")
