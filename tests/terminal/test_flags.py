"""The flags and functions of each command, the modules that help loads, and restoring the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

import pytest

from presswork.cli import COMMANDS
from presswork.terminal.endings import CommandContext
from presswork.terminal.environment import environment

HEAVY = {"prefect", "anthropic", "sqlalchemy", "alembic", "sqlglot", "jinja2", "rich"}


def kinds(hint: Any) -> set[Any]:
    """The types that a hint allows, exit statuses aside."""
    allowed = set(get_args(hint)) if isinstance(hint, UnionType) else {hint}
    return allowed - {int, NoneType}


@pytest.mark.parametrize(("_group", "_name", "taken", "work"), COMMANDS)
def test_each_function_of_a_command_takes_what_the_one_before_returns(
    _group: object, _name: str, taken: type, work: str
) -> None:
    passed = {taken}
    for module, _, function in (named.partition(":") for named in work.split(" -> ")):
        hints = get_type_hints(getattr(import_module(f"presswork.commands.{module}"), function))
        returned = hints.pop("return")
        command, given = hints.values()
        assert (command, kinds(given)) == (CommandContext, passed)
        passed = kinds(returned)
    # The last returns an exit status, or nothing.
    assert passed == set()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["history", "--help"], ["show"], ["run", "--nonsense"]]
)
def test_help_and_mistakes_of_typing_load_nothing_that_takes_time(arguments: list[str]) -> None:
    # The last line lists the modules that are loaded at the end.
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('loaded', sorted({HEAVY!r} & set(sys.modules))))\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "from presswork.cli import main\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == (0 if ended.stderr == "" else 2)
    assert ended.stdout.splitlines()[-1] == "loaded []"


def test_loading_modules_for_a_command_never_collects_all_garbage() -> None:
    program = (
        "import gc, sys\n"
        "from presswork.cli import main\n"
        "before = gc.get_stats()[2]['collections']\n"
        "sys.argv[1:] = ['run', 'no_such_job']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n"
        "    print(end.code, 'prefect' in sys.modules, gc.get_freeze_count() > 10_000)\n"
        "import prefect\n"
        "print(gc.get_stats()[2]['collections'] - before)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert ended.stdout.split() == ["2", "False", "True", "0"]


def test_environment_is_as_it_was_after_a_block_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_TEST_SET", "before")
    monkeypatch.delenv("PRESSWORK_TEST_UNSET", raising=False)
    monkeypatch.setenv("PRESSWORK_TEST_GONE", "before")
    changes = {"PRESSWORK_TEST_SET": "inside", "PRESSWORK_TEST_UNSET": "inside", "PRESSWORK_TEST_GONE": None}

    def fail_inside() -> None:
        with environment(changes):
            assert {name: os.environ.get(name) for name in changes} == changes
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()

    assert (os.environ["PRESSWORK_TEST_SET"], os.environ["PRESSWORK_TEST_GONE"]) == ("before", "before")
    assert "PRESSWORK_TEST_UNSET" not in os.environ
