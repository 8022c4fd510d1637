"""The shape of the product, and of its tests: small files in small folders, no name twice, few tests with a server."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from bench.shape import (
    SourceFile,
    bench_files,
    classes_twice,
    constants_twice,
    modules_by_folder,
    modules_twice,
    parameters,
    product_files,
    sandbox_files,
)

TESTS = Path(__file__).resolve().parent
MODULES, LINES, PARAMETERS, WITH_A_SERVER = 12, 300, 9, 12
MARK = re.compile(r"\bpytest\.mark\.prefect\b")
SERVER = re.compile(r"\b(prefect_server|prefect_api|prefect_home|prefect_folder): ")
"""A parameter that asks for a fixture that starts a Prefect server, or gets ready for one."""


@lru_cache(maxsize=1)
def product() -> list[SourceFile]:
    return product_files()


def test_no_folder_has_more_modules_than_one_can_know() -> None:
    folders = modules_by_folder(product() + bench_files())
    assert {folder: count for folder, count in folders.items() if count > MODULES} == {}


def test_no_file_is_long() -> None:
    assert {str(file.path): file.lines for file in product() if file.lines > LINES} == {}


def test_no_function_takes_many_parameters() -> None:
    assert [(count, where) for count, where in parameters(product()) if count > PARAMETERS] == []


def test_no_type_and_no_module_has_the_name_of_another() -> None:
    everything = product() + sandbox_files()
    assert classes_twice(everything) == {}
    assert modules_twice(everything) == {}


def test_no_constant_has_the_name_of_another() -> None:
    assert constants_twice(product() + sandbox_files()) == {}


def test_few_test_files_need_a_prefect_server() -> None:
    found = [name for name, text in all_tests().items() if MARK.search(text)]
    assert len(found) <= WITH_A_SERVER, found


def test_whoever_uses_the_prefect_server_is_marked() -> None:
    assert [name for name, text in all_tests().items() if SERVER.search(text) and not MARK.search(text)] == []


@lru_cache(maxsize=1)
def all_tests() -> dict[str, str]:
    """Read all test files, by their paths in this folder."""
    return {str(file.relative_to(TESTS)): file.read_text(encoding="utf-8") for file in sorted(TESTS.rglob("test_*.py"))}
