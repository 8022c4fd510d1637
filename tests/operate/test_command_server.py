"""The server that stays after a command: found, held, replaced, retired, and all that can be wrong with it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from presswork.errors import ConfigurationError
from presswork.operate import prefect_server, processes
from presswork.operate.command_server import held_server, server_record
from presswork.operate.command_server.held_server import STAYS_FOR_S, ServerPlan, hold_server, plan_server
from presswork.operate.command_server.retiring_server import kept_server, retire_server
from presswork.operate.command_server.server_context import CommandServer
from presswork.operate.command_server.server_record import RECORD_FILE, ServerRecord, read_record, write_record
from presswork.operate.installation import Installation
from presswork.operate.prefect_server import ServerStartError, is_healthy
from presswork.operate.services import _read_startable
from presswork.settings import ROOT, Settings
from tests.operate.machine import free_port, wait_for
from tests.operate.quick_server import ENDING, MODE, NFS, OTHER, SILENT, SLOW, lock_as_nfs

QUICK = str(Path(__file__).with_name("quick_server.py"))


@pytest.fixture(autouse=True)
def not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "INVOCATION_ID", "PRESSWORK_KEEP_SERVER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder whose servers start in a moment; none is left."""

    def start(command: Sequence[str], environment: Mapping[str, str], *given: Any, **named: Any) -> Any:
        quick = [sys.executable, QUICK, *command[3:]]
        return processes.start_in_own_session(quick, {**environment, "PYTHONPATH": str(ROOT)}, *given, **named)

    monkeypatch.setattr(prefect_server, "start_in_own_session", start)
    monkeypatch.setattr(held_server, "ANSWERS_AGAIN_WITHIN_S", 1.0)
    home = tmp_path / "state"
    yield home
    for server in quick_servers():
        server.kill()
        server.wait(10)


def quick_servers() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and QUICK in child.cmdline()
    ]


def plan(home: Path, stays_s: float = STAYS_FOR_S, **changed: Any) -> ServerPlan:
    return ServerPlan(home, 20, stays_s, **changed)


def used(home: Path, stays_s: float = STAYS_FOR_S) -> str:
    """Use the server for a moment, as a command does; the URL of its API."""
    with CommandServer(plan(home, stays_s)) as server:
        return server.answering()


def record_of(home: Path) -> ServerRecord:
    with (home / RECORD_FILE).open("rb") as file:
        record = read_record(file)
    assert record is not None
    return record


def change_record(home: Path, **changed: Any) -> None:
    record = replace(record_of(home), **changed)
    with (home / RECORD_FILE).open("r+b") as file:
        write_record(file, record)


# A server that stays


def test_server_stays_for_the_next_command(home: Path) -> None:
    first = used(home)
    with CommandServer(plan(home)) as server:
        assert server.answering() == first
        assert not server.is_starting
        assert server.note is None
    assert is_healthy(first)
    assert len(quick_servers()) == 1


def test_server_that_stays_ends_when_no_command_has_used_it_for_a_while(home: Path) -> None:
    used(home, stays_s=0.3)
    wait_for(lambda: not quick_servers())
    assert list(home.glob("prefect-server-*.lock")) == []


def test_server_does_not_end_while_a_command_uses_it(home: Path) -> None:
    with CommandServer(plan(home, 0.1)) as server:
        api = server.answering()
        time.sleep(0.6)
        assert is_healthy(api)
    wait_for(lambda: not quick_servers())


def test_server_that_does_not_stay_ends_with_the_last_command_that_uses_it(home: Path) -> None:
    with CommandServer(plan(home, 0)) as second:
        with CommandServer(plan(home, 0)) as first:
            api = first.answering()
            assert second.answering() == api
        assert is_healthy(api)
    assert quick_servers() == []


def test_commands_that_start_at_once_start_one_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODE, SLOW)
    found: list[str] = []
    together = threading.Barrier(4)

    def use() -> None:
        together.wait()
        with CommandServer(plan(home)) as server:
            found.append(server.answering())
            together.wait()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(quick_servers()) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from presswork.operate import prefect_server, processes
from presswork.operate.command_server import held_server
from presswork.operate.command_server.server_context import CommandServer

def kill(*_given):
    os.kill(os.getpid(), signal.SIGKILL)

quick, home, moment = sys.argv[1:]
start = processes.start_in_own_session
prefect_server.start_in_own_session = lambda command, *given, **named: start(
    [sys.executable, quick, *command[3:]], *given, **named
)
if moment == "before its record":
    held_server.write_record = kill
server = CommandServer(held_server.ServerPlan(Path(home), 20, 5.0 if moment == "after its answer" else 600.0))
print(server.answering(), flush=True)
kill()
"""


def servers_of(home: Path) -> list[psutil.Process]:
    """The servers of this folder, whoever started them."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if QUICK in (words := process.info["cmdline"] or ()) and any(word.startswith(str(home)) for word in words)
    ]


def killed(home: Path, moment: str) -> str:
    """Start a server by a command that is killed; what this printed."""
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, QUICK, str(home), moment],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return ended.stdout.strip()


def test_server_of_a_command_that_is_killed_ends_after_its_time(home: Path) -> None:
    api = killed(home, "after its answer")
    assert is_healthy(api)
    wait_for(lambda: not is_healthy(api))


def test_server_that_no_record_names_ends_at_once(home: Path) -> None:
    assert killed(home, "before its record") == ""
    wait_for(lambda: not servers_of(home))
    with CommandServer(plan(home)) as server:
        server.answering()
        assert server.note is None


def test_server_is_held_and_ends_where_only_a_file_that_may_be_written_can_be_locked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODE, NFS)
    monkeypatch.setattr(fcntl, "flock", lock_as_nfs)
    first = used(home)
    assert used(home) == first
    assert kept_server(home) is not None
    assert retire_server(home) == (True, None)
    used(home, stays_s=0.3)
    wait_for(lambda: not quick_servers())


@pytest.mark.parametrize(
    ("variable", "value", "stays"),
    [
        ("CI", "true", False),
        ("CI", "false", True),
        ("INVOCATION_ID", "8f1c", False),
        ("PRESSWORK_KEEP_SERVER", "0", False),
        ("PRESSWORK_KEEP_SERVER", "1", True),
    ],
)
def test_server_stays_where_a_person_may_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, stays: bool
) -> None:
    monkeypatch.setenv(variable, value)
    assert bool(plan_server(Settings(state_dir=tmp_path)).stays_s) is stays


# A server that can't be used


def test_server_that_was_killed_is_replaced_without_a_word(home: Path) -> None:
    first = used(home)
    process = record_of(home).process
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not process.is_alive)
    with CommandServer(plan(home)) as server:
        assert server.answering() != first
        assert server.note is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"prefect": "3.0.1"}, "is Prefect 3.0.1"), ({"mark": "of something else"}, "does not answer")],
)
def test_server_that_must_not_be_used_is_said_and_replaced(home: Path, changed: dict[str, Any], reason: str) -> None:
    first = used(home)
    change_record(home, **changed)
    with CommandServer(plan(home)) as server:
        assert server.answering() != first
        assert server.note is not None
        assert reason in server.note
        assert "replaced" in server.note
    assert len(quick_servers()) == 1


@pytest.mark.parametrize("changed", [{"prefect": "3.0.1"}, {"user": os.getuid() + 1}])
def test_server_that_others_need_is_left_alone_and_the_command_starts_its_own(
    home: Path, changed: dict[str, Any]
) -> None:
    with CommandServer(plan(home)) as earlier:
        first = earlier.answering()
        change_record(home, **changed)
        with CommandServer(plan(home)) as server:
            second = server.answering()
            assert second != first
            assert is_healthy(first)
            assert server.note is not None
            assert "starts one of its own, which ends with it" in server.note
            assert server.stays_s == 0
        assert not is_healthy(second)
        assert is_healthy(first)


def test_server_of_another_user_is_never_stopped(home: Path) -> None:
    first = used(home)
    change_record(home, user=os.getuid() + 1)
    with CommandServer(plan(home)) as server:
        assert server.answering() != first
        assert "belongs to the user" in str(server.note)
    was_stopped, note = retire_server(home)
    assert (was_stopped, "another user" in str(note)) == (False, True)
    assert is_healthy(first)


def test_server_with_other_settings_is_replaced_and_no_value_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:before")
    first = used(home)
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:knock-knock")
    with CommandServer(plan(home)) as server:
        assert server.answering() != first
        assert "PREFECT_SERVER_API_AUTH_STRING" in str(server.note)
        assert "knock-knock" not in str(server.note)
        assert "before" not in str(server.note)
    assert not any(b"knock-knock" in file.read_bytes() for file in home.iterdir())


def test_server_is_given_neither_the_key_nor_passwords_of_databases(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "knock-knock")
    monkeypatch.setenv("PRESSWORK_SOURCE_SHOP_URL", "postgresql://me:knock-knock@db/shop")
    used(home)
    given = psutil.Process(record_of(home).process.pid).environ()
    assert "PREFECT_UI_ENABLED" in given
    assert "knock-knock" not in str(given)


def test_setting_of_clients_leaves_the_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = used(home)
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    assert used(home) == first


def test_changed_file_of_settings_replaces_the_server(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = tmp_path / "profiles.toml"
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(profiles))
    first = used(home)
    profiles.write_text('active = "mine"\n', encoding="utf-8")
    assert used(home) != first


def test_server_that_hangs_is_replaced(home: Path) -> None:
    first = used(home)
    hanging = record_of(home).process.pid
    os.kill(hanging, signal.SIGSTOP)
    change_record(home, began_s=record_of(home).began_s - 3600)
    with CommandServer(plan(home)) as server:
        assert server.answering() != first
        assert "does not answer" in str(server.note)
    assert [child.pid for child in quick_servers()] != [hanging]
    assert len(quick_servers()) == 1


def test_server_that_never_answers_is_stopped_and_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODE, SILENT)
    with (
        pytest.raises(ServerStartError, match="PRESSWORK_PREFECT_STARTUP_TIMEOUT_S"),
        CommandServer(ServerPlan(home, 1, STAYS_FOR_S)) as server,
    ):
        server.answering()
    assert quick_servers() == []


def test_server_that_ends_as_it_starts_is_said_and_nothing_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODE, ENDING)
    with pytest.raises(ServerStartError, match="ended while it started"), CommandServer(plan(home)) as server:
        server.answering()
    monkeypatch.delenv(MODE)
    assert is_healthy(used(home))


def test_other_program_at_the_port_is_never_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODE, OTHER)
    with pytest.raises(ServerStartError, match="Another program answers"), CommandServer(plan(home)) as server:
        server.answering()


def test_second_command_says_why_the_server_of_the_first_did_not_start(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODE, ENDING)
    first = hold_server(plan(home))
    with pytest.raises(ServerStartError, match="ended while it started"), CommandServer(plan(home)) as second:
        second.answering()
    first.let_go(failed=True)


# A state folder with trouble


def test_record_that_is_damaged_leaves_the_server_alone(home: Path) -> None:
    first = used(home)
    (home / RECORD_FILE).write_bytes(b"{")
    with CommandServer(plan(home)) as server:
        assert server.answering() != first
        assert "is damaged" in str(server.note)
    assert is_healthy(first)


def test_record_of_an_earlier_boot_starts_another_server(home: Path) -> None:
    used(home)
    record = record_of(home)
    assert retire_server(home) == (True, None)
    with (home / RECORD_FILE).open("r+b") as file:
        write_record(file, replace(record, process=processes.Process(1, "another boot")))
    assert kept_server(home) is None
    assert is_healthy(used(home))


def test_removed_state_folder_ends_the_server(home: Path) -> None:
    used(home)
    for file in home.iterdir():
        file.unlink()
    home.rmdir()
    wait_for(lambda: not quick_servers())


def test_state_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="set PRESSWORK_STATE_DIR to another folder"):
        hold_server(plan(tmp_path / "file" / "state"))


def test_record_that_cannot_be_opened_is_said_with_its_owner(home: Path) -> None:
    (home / RECORD_FILE).mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"prefect-server.json can't be written: .*\. It belongs to the user"):
        hold_server(plan(home))


def test_full_disk_leaves_no_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_file: IO[bytes], _record: ServerRecord) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(held_server, "write_record", fail)
    with pytest.raises(ConfigurationError, match="No space left on device"):
        hold_server(plan(home))
    assert quick_servers() == []
    assert list(home.glob("prefect-server-*.lock")) == []


def test_command_that_starts_for_too_long_does_not_block_others_for_ever(home: Path) -> None:
    with (
        server_record.starting_alone(home, 1),
        pytest.raises(ConfigurationError, match="Another command has been starting"),
    ):
        hold_server(ServerPlan(home, 0.2))


# `presswork down`, `up` and `status`


def test_retired_server_ends_at_once_if_nobody_uses_it(home: Path) -> None:
    api = used(home)
    assert retire_server(home) == (True, None)
    assert not is_healthy(api)
    assert retire_server(home) == (False, None)


def test_retired_server_ends_with_the_command_that_uses_it(home: Path) -> None:
    with CommandServer(plan(home)) as server:
        api = server.answering()
        was_stopped, note = retire_server(home)
        assert (was_stopped, "ends with it" in str(note)) == (False, True)
        assert is_healthy(api)
        assert server.stays_s == 0
    assert quick_servers() == []


def eventually_kept(home: Path, is_right: Callable[[datetime | None], bool]) -> None:
    def look() -> bool:
        found = kept_server(home)
        return found is not None and is_right(found.until)

    wait_for(look, within_s=10)


def test_status_says_until_when_the_server_stays(home: Path) -> None:
    assert kept_server(home) is None
    with CommandServer(plan(home)) as server:
        server.answering()
        eventually_kept(home, lambda until: until is None)
    left = timedelta(seconds=STAYS_FOR_S)
    eventually_kept(home, lambda until: until is not None and until - datetime.now(UTC) <= left)
    # The clock is set back by a day: it still ends in ten minutes.
    ahead = time.time() + 86400
    os.utime(record_of(home).use_file(home), (ahead, ahead))
    eventually_kept(home, lambda until: until is not None and until - datetime.now(UTC) <= left)


def test_up_takes_the_place_of_the_server_that_stays(home: Path) -> None:
    here = Installation(home, "127.0.0.1", free_port(), None, 20, 1)
    said: list[str] = []
    with CommandServer(plan(home)) as server:
        api = server.answering()
        _read_startable(here, said.append)
        # A command that uses it is not interrupted.
        assert is_healthy(api)
        assert "Later commands use the server that starts now" in said[-1]
    assert quick_servers() == []
    api = used(home)
    _read_startable(here, said.append)
    assert not is_healthy(api)
    assert len(said) == 1
