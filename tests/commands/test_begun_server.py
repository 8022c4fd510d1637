"""The server of a command starts before Prefect is loaded, unless Prefect's settings may name another one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from presswork.commands.run.begun_server import beginning
from presswork.operate.command_server.held_server import ServerPlan
from presswork.operate.command_server.server_context import CommandServer
from presswork.operate.installation import State, write_state
from presswork.operate.processes import current_process
from presswork.settings import Settings
from tests.commands.conftest import Desk

LOADED = """
import sys
from presswork.operate.command_server.server_context import CommandServer
CommandServer.begin = lambda server: sys.exit("loaded " + str(sorted({"anthropic", "prefect"} & {*sys.modules})))
sys.argv[1:] = ["run", "notes"]
from presswork.cli import main
main()
"""


def test_server_begins_before_the_sdk_and_prefect_are_loaded(desk: Desk, tmp_path: Path) -> None:
    desk.notes({1: "one"})
    own = {"PREFECT_API_URL": "", "PREFECT_HOME": str(tmp_path), "PRESSWORK_STATE_DIR": str(tmp_path / "state")}

    ended = subprocess.run(
        [sys.executable, "-c", LOADED], env={**os.environ, **own}, capture_output=True, text=True, check=False
    )

    assert ended.stderr.splitlines()[-1] == "loaded []"


def begins(home: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    begun: list[bool] = []
    monkeypatch.setattr(CommandServer, "begin", lambda _server: begun.append(True))
    beginning(CommandServer(ServerPlan(home, 1)), Settings(state_dir=home))()
    return bool(begun)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder, which is Prefect's home too, without any setting."""
    for name in ("PREFECT_API_URL", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_server_begins_if_nothing_names_another(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty / "profiles.toml").write_text('active = "mine"\n[profiles.mine]\n', encoding="utf-8")
    (empty / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    assert begins(empty, monkeypatch)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("profiles.toml", '[profiles.mine]\nPREFECT_API_URL = "http://127.0.0.1:4200/api"\n'),
        (".env", "PREFECT_API_URL=http://127.0.0.1:4200/api\n"),
        ("prefect.toml", '[api]\nurl = "http://127.0.0.1:4200/api"\n'),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://127.0.0.1:4200/api"\n'),
    ],
)
def test_server_does_not_begin_early_if_a_file_may_name_another(
    empty: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    (empty / file).write_text(text, encoding="utf-8")
    assert not begins(empty, monkeypatch)


def test_server_does_not_begin_early_if_a_variable_names_another(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert not begins(empty, monkeypatch)


def test_server_does_not_begin_if_that_of_up_runs(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(empty, State("mark", "http://127.0.0.1:4200/api", server=current_process()))
    assert not begins(empty, monkeypatch)
