"""Flags in groups, and the environment as it was."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from flows.commands.terminal.environment import environment
from flows.commands.terminal.flags import takes_groups


@dataclass(frozen=True)
class Limits:
    most: Annotated[int | None, typer.Option(help="At most.")] = None
    names: Annotated[list[str] | None, typer.Option("--name")] = None


def test_a_group_of_flags_is_taken_flag_by_flag_in_its_place() -> None:
    seen: list[tuple[str, Limits, bool]] = []

    @takes_groups
    def count(
        what: Annotated[str, typer.Argument()],
        *,
        limits: Limits,
        loud: Annotated[bool, typer.Option("--loud")] = False,
    ) -> None:
        seen.append((what, limits, loud))

    app = typer.Typer()
    app.command()(count)

    assert CliRunner().invoke(app, ["a"]).exit_code == 0
    assert CliRunner().invoke(app, ["b", "--most", "3", "--name", "x", "--name", "y", "--loud"]).exit_code == 0
    assert seen == [("a", Limits(), False), ("b", Limits(3, ["x", "y"]), True)]
    said = CliRunner().invoke(app, ["--help"]).stdout
    assert said.index("--most") < said.index("--name") < said.index("--loud")
    assert "--limits" not in said


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
