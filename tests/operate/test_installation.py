"""What `up` and `down` take for their own, and what they refuse: said in a word that helps."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import httpx2
import psutil
import pytest

from presswork.errors import ConfigurationError
from presswork.operate import installation as installations
from presswork.operate import services as service_calls
from presswork.operate import supervisor as supervisors
from presswork.operate.installation import (
    SERVICE_NAMES,
    STOP_ORDER,
    Installation,
    State,
    SupervisedError,
    locked,
    read_state,
    stop_services,
    write_state,
)
from presswork.operate.prefect_server import PrefectServerError, ServerStartError, is_healthy, require_answer
from presswork.operate.processes import MARK, Process, born, current_process, known, marked_processes
from presswork.operate.services import foreground_services, start_services
from presswork.operate.supervisor import PAUSES_S, ServiceError, Supervisor, supervising
from tests.operate.machine import Machine, answering, free_port, wait_for

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


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


def test_audit_room_that_ends_too_often_stops_nothing_else(
    installation: Installation, bystander: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_later() -> None:
        if supervisor.state.audit_error:
            later.append(supervisor.state)
        if len(later) == 5:
            raise InterruptedError

    later: list[State] = []
    heard: list[str] = []
    monkeypatch.setattr(supervisors, "PAUSES_S", (0,) * len(PAUSES_S))
    monkeypatch.setattr(supervisors, "CHECK_SERVICES_S", 0.05)
    monkeypatch.setattr(supervisors, "reap_children", end_later)
    monkeypatch.setattr(Supervisor, "_start_auditing", lambda _self: Ending().start({}))
    service = known(bystander.pid)
    write_state(installation.home, State("a-mark", installation.api, server=service, worker=service, audit=service))
    supervisor = Supervisor(installation, heard.append, logs=True)
    supervisor.state = replace(supervisor.state, audit=Process(1, "the boot before"))
    write_state(installation.home, supervisor.state)
    with pytest.raises(InterruptedError):
        supervisor.watch()
    assert sum("audit room has ended by itself" in line for line in heard) == len(PAUSES_S) + 1
    assert "The other services go on without it." in heard[-1]
    state = read_state(installation.home)
    assert state is not None
    assert (state.audit, state.living("server"), state.living("worker")) == (None, service, service)
    assert "has ended by itself" in (state.audit_error or "")


def test_port_of_the_audit_room_that_is_taken_is_said_and_stops_nothing_else(
    installation: Installation, bystander: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(supervisors, "wait_until_healthy", lambda *_given: None)
    service = known(bystander.pid)
    write_state(installation.home, State("a-mark", installation.api, server=service, worker=service))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        supervisor = Supervisor(replace(installation, audit_port=port), heard.append, logs=True)
        supervisor.start()
    (said,) = heard
    assert "The audit room was not started" in said
    assert f"port {port}: Address already in use. Set PRESSWORK_AUDIT_HOST or PRESSWORK_AUDIT_PORT" in said
    assert supervisor.state.audit is None
    state = read_state(installation.home)
    assert state is not None
    write_state(installation.home, replace(state, server=None, worker=None))
    told = Machine(installation.home).call("status").stdout
    assert f"✘ audit does not run. It can't listen on 127.0.0.1, port {port}" in " ".join(told.split())
    assert "Address already in use" in (Machine(installation.home).told("status", status=1)["audit_error"] or "")


@pytest.mark.parametrize(
    ("variable", "file", "url"),
    [
        (None, "", "http://127.0.0.1:4201"),
        ("https://audit.example", "", "https://audit.example"),
        ("", "", ""),
        (None, "PRESSWORK_AUDIT_URL=https://audit.example", None),
    ],
)
def test_runs_of_the_worker_know_where_the_audit_room_is_unless_told(
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str | None,
    file: str,
    url: str | None,
) -> None:
    given: dict[str, str] = {}

    def keep(_command: object, environment: Mapping[str, str], *_more: object) -> NoReturn:
        given.update(environment)
        raise InterruptedError

    (tmp_path / ".env").write_text(file)
    monkeypatch.setattr(supervisors, "ROOT", tmp_path)
    monkeypatch.setattr(supervisors, "start_in_own_session", keep)
    if variable is None:
        monkeypatch.delenv("PRESSWORK_AUDIT_URL", raising=False)
    else:
        monkeypatch.setenv("PRESSWORK_AUDIT_URL", variable)
    supervisor = Supervisor(installation, say, logs=True)
    supervisor.state = replace(supervisor.state, audit=current_process(), audit_url="http://127.0.0.1:4201")
    with pytest.raises(InterruptedError):
        supervisor._start("worker")
    assert given.get("PRESSWORK_AUDIT_URL") == url


def test_state_of_a_release_without_an_audit_room_is_read(installation: Installation) -> None:
    (installation.home / "control.json").write_text(
        '{"mark": "m", "api": "http://127.0.0.1:1/api", "server": {"pid": 1, "born": "x"}, "worker": null,'
        ' "supervisor": null, "stopping": false}'
    )
    state = read_state(installation.home)
    assert state is not None
    assert (state.server, state.audit, state.audit_url) == (Process(1, "x"), None, None)


def test_second_supervisor_ends(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisors, "ENDS_WITHIN_S", 0.1)
    monkeypatch.setattr(Supervisor, "start", lambda _self: None)
    with (
        supervising(installation, say, logs=True),
        pytest.raises(SupervisedError, match="Another supervisor runs here"),
        supervising(installation, say, logs=True),
    ):
        pass


def test_supervisor_leaves_what_another_has_taken_over(
    installation: Installation, bystander: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = known(bystander.pid)
    others = State("a-mark", installation.api, server=service, worker=service, supervisor=service)
    monkeypatch.setattr(Supervisor, "start", lambda _self: write_state(installation.home, others))
    with supervising(installation, say, logs=True) as supervisor, pytest.raises(SupervisedError):
        supervisor.watch()
    assert bystander.poll() is None
    assert read_state(installation.home) == others


@pytest.mark.parametrize("damage", ["", "{", None])
def test_supervisor_writes_a_lost_or_damaged_state_again(
    installation: Installation, bystander: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, damage: str | None
) -> None:
    def end() -> NoReturn:
        raise InterruptedError

    monkeypatch.setattr(supervisors, "reap_children", end)
    write_state(
        installation.home,
        State("a-mark", installation.api, server=known(bystander.pid), worker=known(bystander.pid)),
    )
    supervisor = Supervisor(installation, say, logs=True)
    file = installation.home / "control.json"
    file.unlink() if damage is None else file.write_text(damage)
    with pytest.raises(InterruptedError):
        supervisor.watch()
    assert read_state(installation.home) == supervisor.state


def test_signal_does_not_interrupt_a_supervisor_that_stops_all(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[State | None] = []

    def stop_started(home: Path, _within_s: float, _say: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        states.append(read_state(home))

    monkeypatch.setattr(Supervisor, "start", lambda self: write_state(installation.home, self.state))
    monkeypatch.setattr(supervisors, "stop_started", stop_started)
    with pytest.raises(ServiceError), supervising(installation, say, logs=True):
        raise ServiceError
    assert [state is not None and state.stopping for state in states] == [True]


def test_up_that_is_interrupted_stops_the_supervisor_that_it_has_started(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(supervisor: Process, *_more: object, **_options: object) -> NoReturn:
        started.append(supervisor)
        raise KeyboardInterrupt

    started: list[Process] = []
    monkeypatch.setattr(service_calls, "follow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start_services(installation, say)
    assert [process.is_alive for process in started] == [False]
    assert read_state(installation.home) is None


def test_supervisor_that_ends_before_it_has_read_its_installation_is_reported(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_given: object) -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE)
        wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
        os.waitpid(child.pid, 0)
        return child

    monkeypatch.setattr(supervisors, "start_in_own_session", ended)
    with pytest.raises(ServiceError, match=r"did not start; see .*supervisor\.log"):
        start_services(installation, say)


def test_up_waits_for_a_supervisor_that_stops_all(installation: Installation) -> None:
    heard: list[str] = []
    with subprocess.Popen(SLEEP) as supervisor, socket.socket() as other:
        write_state(
            installation.home, State("a-mark", installation.api, supervisor=known(supervisor.pid), stopping=True)
        )

        def hear(text: str) -> None:
            heard.append(text)
            supervisor.kill()

        other.bind(("127.0.0.1", installation.port))
        other.listen()
        with pytest.raises(ConfigurationError, match="taken by another program"):
            start_services(installation, hear)
        assert supervisor.wait() == -signal.SIGKILL
    assert heard == [
        f"The services are being stopped. Waiting until the supervisor (process {supervisor.pid}) has ended ..."
    ]


def test_up_stops_services_that_no_supervisor_could_record(installation: Installation) -> None:
    heard: list[str] = []
    mark = {MARK: "a-mark"}
    with (
        subprocess.Popen([*SLEEP, "-m", "presswork.operate.server_process"], env=mark) as server,
        subprocess.Popen([*SLEEP, "-m", "prefect", "worker", "start"], env=mark) as worker,
        subprocess.Popen([*SLEEP, "-m", "presswork.cli", "audit"], env=mark) as audit,
        subprocess.Popen([*SLEEP, "-m", "prefect", "worker", "start"], env=mark) as recorded,
        subprocess.Popen([*SLEEP, "-m", "prefect.flow_engine"], env=mark) as flow_run,
        socket.socket() as other,
    ):
        write_state(installation.home, State("a-mark", installation.api, worker=known(recorded.pid)))
        other.bind(("127.0.0.1", installation.port))
        other.listen()
        wait_for(lambda: len(marked_processes("a-mark", "-m")) == 5)
        with pytest.raises(ConfigurationError, match="taken by another program"):
            start_services(installation, heard.append)
        assert [process.wait() for process in (server, worker, audit)] == [-signal.SIGTERM] * 3
        assert (recorded.poll(), flow_run.poll()) == (None, None)
        recorded.kill()
        flow_run.kill()
    stopped = [SERVICE_NAMES[service] for service in STOP_ORDER]
    assert heard == [f"Stopping {name} that a killed supervisor has left ..." for name in stopped]


def test_down_leaves_what_an_up_has_started_while_it_waited(
    installation: Installation, bystander: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked_once_up_has_ended(home: Path, patience_s: float) -> AbstractContextManager[None]:
        write_state(home, again)
        return locked(home, patience_s)

    service = known(bystander.pid)
    again = State("a-mark", installation.api, server=service, worker=service, supervisor=service)
    write_state(installation.home, replace(again, supervisor=None))
    monkeypatch.setattr(installations, "locked", locked_once_up_has_ended)
    assert stop_services(installation.home, 1, say) == []
    assert bystander.poll() is None


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


@pytest.mark.parametrize("content", [b"", b"no JSON", b"\xff", b"[]", b'{"mark": 1}'])
@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_damaged_state_is_reported_by_each_command(tmp_path: Path, command: str, content: bytes) -> None:
    (tmp_path / "control.json").write_bytes(content)
    machine = Machine(tmp_path)
    assert "control.json can't be read" in machine.told(command, status=2)["error"]
    assert (tmp_path / "control.json").read_bytes() == content


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


@pytest.mark.parametrize("api", ["http://a..b/api", "http://[::1/api", "http://127.0.0.1:99999/api", "nowhere"])
def test_malformed_address_is_reported(api: str) -> None:
    with pytest.raises(PrefectServerError, match="does not answer"):
        require_answer(api)


@pytest.mark.parametrize("variable", [("ALL_PROXY", "socks5://127.0.0.1:1"), ("SSL_CERT_FILE", "/nowhere")])
def test_request_that_can_not_be_made_is_reported(monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]) -> None:
    monkeypatch.setenv(*variable)
    with pytest.raises(PrefectServerError, match="does not answer"):
        require_answer("https://127.0.0.1:1/api")


def test_no_proxy_is_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with answering(version("prefect")) as port:
        require_answer(f"http://127.0.0.1:{port}/api")


def test_certificates_are_always_checked_and_a_server_here_leads_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(url: str, **options: object) -> httpx2.Response:
        asked[url] = {name: bool(options[name]) for name in ("verify", "follow_redirects", "trust_env")}
        raise httpx2.ConnectError("It is not asked.")

    asked: dict[str, dict[str, bool]] = {}
    monkeypatch.setattr(httpx2, "get", get)
    for url in (
        "http://127.0.0.1:1",
        "http://localhost:1",
        "http://[::1]:1",
        "https://127.0.0.1:1",
        "http://a.example",
    ):
        is_healthy(url)
    assert [set(options.values()) for options in asked.values()] == [{False}, {False}, {False}, {True}, {True}]
