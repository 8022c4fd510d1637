"""What `up` and `down` take for their own, and what they refuse: said in a word that helps."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from presswork.errors import ConfigurationError
from presswork.operate.installation import Installation, State, locked, read_state, stop_services, write_state
from presswork.operate.prefect_server import PrefectServerError, ServerStartError, require_answer
from presswork.operate.processes import MARK, Process, born, current_process, known, marked_processes
from presswork.operate.services import foreground_services, start_services
from presswork.operate.supervisor import PAUSES_S, ServiceError, Supervisor, supervising
from tests.operate.machine import answering, free_port

SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]


def say(_text: str) -> None:
    """Say nothing."""


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path, "127.0.0.1", free_port(), None, starts_within_s=5, run_stops_within_s=1)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that nobody here has started."""
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def test_pid_that_was_given_again_is_neither_taken_nor_ended(
    installation: Installation, bystander: subprocess.Popen[bytes]
) -> None:
    another = Process(bystander.pid, "the boot before 12345")
    write_state(
        installation.home, State("a-mark", installation.api, server=another, worker=another, supervisor=another)
    )
    assert stop_services(installation.home, 1, say) == []
    assert bystander.poll() is None
    assert read_state(installation.home) is None


def test_what_was_started_is_ended_with_what_it_has_left_behind(installation: Installation) -> None:
    with (
        subprocess.Popen(SLEEP) as worker,
        subprocess.Popen(SLEEP, env={MARK: "a-mark"}, start_new_session=True) as orphan,
    ):
        assert [process.pid for process in marked_processes("a-mark")] == [orphan.pid]
        write_state(installation.home, State("a-mark", installation.api, worker=known(worker.pid)))
        assert stop_services(installation.home, 5, say) == ["flow runs", "the worker"]
        assert (worker.wait(), orphan.wait()) == (-15, -15)


def test_process_that_has_ended_and_is_not_reaped_counts_as_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        while born(process.pid):
            pass
        assert process.returncode is None


def test_service_that_ends_too_often_ends_the_supervisor(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presswork.operate.supervisor.PAUSES_S", (0,) * len(PAUSES_S))
    monkeypatch.setattr("presswork.operate.supervisor.CHECK_SERVICES_S", 0.01)
    monkeypatch.setattr("presswork.operate.supervisor.reap_children", lambda: None)  # others' are in this process too
    monkeypatch.setattr(Supervisor, "_server", lambda _self: Ending())
    heard: list[str] = []
    supervisor = Supervisor(installation, heard.append, logs=True)
    with pytest.raises(ServiceError, match=r"server has ended by itself 5 times within 10 minutes; see .*server\.log"):
        supervisor.watch()
    assert sum("Restarting it in 0 s" in line for line in heard if "server" in line) == len(PAUSES_S)


class Ending:
    """A server that ends at once."""

    def start(self, given: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", ""])


def test_supervisor_loads_neither_prefect_nor_sqlalchemy() -> None:
    code = "import sys, presswork.operate.supervisor; print({'prefect', 'sqlalchemy', 'anthropic'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_state_survives_being_written_and_a_damaged_one_is_refused(installation: Installation) -> None:
    state = State("a-mark", installation.api, server=current_process())
    write_state(installation.home, state)
    assert read_state(installation.home) == state
    (installation.home / "control.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"control\.json can't be read"):
        start_services(installation, say)


def test_two_calls_do_not_work_at_once(installation: Installation) -> None:
    with (
        locked(installation.home, 0),
        pytest.raises(ConfigurationError, match="Another `presswork up`"),
        locked(installation.home, 0),
    ):
        pass


def test_server_that_already_runs_elsewhere_is_said(
    installation: Installation, bystander: subprocess.Popen[bytes]
) -> None:
    write_state(installation.home, State("a-mark", "http://127.0.0.1:1/api", server=known(bystander.pid)))
    with pytest.raises(ConfigurationError, match=r"already runs here, at http://127\.0\.0\.1:1/api"):
        start_services(installation, say)


def test_supervisor_that_runs_is_said(installation: Installation, bystander: subprocess.Popen[bytes]) -> None:
    write_state(installation.home, State("a-mark", installation.api, supervisor=known(bystander.pid)))
    with (
        pytest.raises(ConfigurationError, match=f"services already run here, supervised by process {bystander.pid}"),
        foreground_services(installation, say),
    ):
        pass


def test_server_that_lives_but_does_not_answer_is_said_and_left(
    installation: Installation, bystander: subprocess.Popen[bytes]
) -> None:
    state = State("a-mark", installation.api, server=known(bystander.pid))
    write_state(installation.home, state)
    slow = replace(installation, starts_within_s=0.5)
    with pytest.raises(ServerStartError, match="does not answer"), supervising(slow, say, logs=True):
        pass
    with pytest.raises(ServiceError, match="does not answer"):
        start_services(slow, say)
    assert bystander.poll() is None
    assert read_state(installation.home) == state


def test_port_of_another_program_is_said(installation: Installation) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", installation.port))
        other.listen()
        with pytest.raises(
            ConfigurationError, match=f"taken by another program.*PREFECT_SERVER_API_PORT={installation.port + 1}"
        ):
            start_services(installation, say)
    assert read_state(installation.home) is None


def test_port_of_another_prefect_server_is_said(installation: Installation) -> None:
    with (
        answering("3.8.8") as port,
        pytest.raises(ConfigurationError, match=r"another Prefect server \(version 3\.8\.8\)"),
    ):
        start_services(replace(installation, port=port), say)


def test_address_of_another_machine_is_said(installation: Installation) -> None:
    with pytest.raises(ConfigurationError, match=r"can't listen on 192\.0\.2\.1"):
        start_services(replace(installation, host="192.0.2.1"), say)


@pytest.mark.parametrize("served", ["2.20.4", "3.1.0", "4.0.0"])
def test_server_of_an_incompatible_version_is_refused(served: str) -> None:
    with (
        answering(served) as port,
        pytest.raises(PrefectServerError, match=f"version {served}.*prefect=={version('prefect')}"),
    ):
        require_answer(f"http://127.0.0.1:{port}/api")


@pytest.mark.parametrize("served", [version("prefect"), "3.99.0"])
def test_server_of_this_version_or_a_newer_one_is_taken(served: str) -> None:
    with answering(served) as port:
        require_answer(f"http://127.0.0.1:{port}/api")


def test_what_is_no_prefect_server_is_refused() -> None:
    with answering(None) as port, pytest.raises(PrefectServerError, match="is no Prefect server"):
        require_answer(f"http://127.0.0.1:{port}/api")
