"""Prefect servers, and what one machine needs: one command starts it, the next repairs it, `down` leaves nothing."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Pending, Running, Scheduled

from presswork.audit.next_runs import NextRuns, PrefectApi
from presswork.operate.command_server.server_context import own_server
from presswork.operate.deployments import deploy, ensure_pool
from presswork.operate.overview import read_overview
from presswork.operate.prefect_server import ServerStartError, is_healthy
from presswork.operate.processes import MARK
from presswork.settings import ROOT
from tests.conftest import PREFECT_DATABASE, new_postgres_database
from tests.engine.workshop import Workshop, eventually, task_runs
from tests.operate.machine import AUTH, PRESSWORK, Machine, free_port, wait_for
from tests.workers import PREFECT

pytestmark = pytest.mark.prefect

PAGE, COUNT = 5, 7


@pytest.fixture
def machine(prefect_home: Path, tmp_path: Path) -> Iterator[Machine]:
    """A machine whose server's tables are made: making them takes as long as all the rest."""
    home = tmp_path / "state"
    home.mkdir()
    (prefect_home / PREFECT_DATABASE).rename(home / "control.db")
    machine = Machine(home)
    machine.settings["PRESSWORK_DATABASE_URL"] = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    yield machine
    if machine.processes():
        machine.presswork("down")
    for process in machine.processes():
        process.kill()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_up_starts_what_is_needed_restarts_what_ends_and_down_leaves_nothing(machine: Machine) -> None:
    machine.settings["PREFECT_SERVER_API_AUTH_STRING"] = AUTH
    machine.settings["PRESSWORK_AUDIT_PORT"] = str(free_port())
    # A machine starts even if a file's name is bad or a block does not exist yet.
    machine.settings["PRESSWORK_NOTIFY_BLOCK"] = "slack-webhook/nobody"
    machine.settings["PRESSWORK_TEMPLATES_DIR"] = str(shutil.copytree(ROOT / "templates", machine.home / "templates"))
    shutil.copy(ROOT / "templates" / "album_notes.md.j2", machine.home / "templates" / "q&a.md.j2")
    started = machine.presswork("up", "--json")
    assert started.returncode == 0, started.stderr
    for line in ("Starting Prefect's server", "Template q&a: not deployed.", "slack-webhook/nobody"):
        assert line in started.stderr
    first = json.loads(started.stdout)
    assert first["api"] == machine.api
    assert {"product-copy/nightly", "content/any-template", "content/album_notes"} <= set(first["deployments"])
    assert "<title>" in httpx2.get(first["ui"], timeout=30).text
    assert first["audit"] == f"http://127.0.0.1:{machine.settings['PRESSWORK_AUDIT_PORT']}"
    # No run has made a ledger yet.
    assert "There is no ledger yet" in httpx2.get(f"{first['audit']}/runs", timeout=30).text
    worker, audit = (psutil.Process(first["pids"][service]) for service in ("worker", "audit"))
    assert worker.environ()["PRESSWORK_AUDIT_URL"] == first["audit"]
    assert audit.environ()["PREFECT_API_URL"] == machine.api
    with closing(NextRuns(lambda: PrefectApi(machine.api, AUTH))) as ask:
        # The schedules start paused; None would mean that the server has not understood the question.
        assert wait_for(lambda: ask() is not None)
    seen = machine.told("status")
    assert seen["well"]
    assert [worker["online"] for worker in seen["outlook"]["workers"]] == [True]

    assert machine.told("up")["pids"] == first["pids"], "what runs was started again"

    # What ends by itself is restarted by the supervisor.
    killed = machine.kill("audit")
    for service in ("worker", "server"):
        machine.kill(service)
        wait_for(machine.is_well, within_s=120)
    machine.wait_for_another("audit", killed)
    log = (machine.home / "supervisor.log").read_text()
    assert "The worker has ended by itself" in log
    assert "Prefect's server has ended by itself" in log
    assert "The audit room has ended by itself" in log

    # Without a supervisor they continue, and the next `up` supervises them.
    machine.kill("supervisor")
    before = machine.pids()
    assert machine.told("up")["pids"] == {name: before[name] for name in ("server", "worker", "audit")}
    assert machine.pids()["supervisor"] != before["supervisor"]

    refused = machine.call("status", PREFECT_API_AUTH_STRING="operator:wrong")
    assert "refuses the user and password" in refused.stderr
    # What is known of it is on no disk.
    assert not any(AUTH in file.read_text(errors="replace") for file in machine.home.glob("*.[jl]*"))

    assert machine.told("down")["stopped"] == ["the worker", "the audit room", "Prefect's server"]
    machine.assert_nothing_is_left()
    assert machine.told("down") == {"stopped": []}


@pytest.mark.slow
def test_down_stops_what_a_killed_supervisor_and_an_earlier_release_have_left(machine: Machine) -> None:
    machine.json("up")
    machine.kill("supervisor")
    # As the release before this one wrote it: its `up` knew no supervisor.
    state = json.loads((machine.home / "control.json").read_text())
    (machine.home / "control.json").write_text(json.dumps({**state, "supervisor": None}))
    assert machine.told("down")["stopped"] == ["the worker", "Prefect's server"]
    machine.assert_nothing_is_left()


@pytest.mark.slow
def test_foreground_stays_until_it_is_told_to_end(machine: Machine) -> None:
    # The pages of its server are short, and it refuses to be asked for longer ones.
    machine.settings["PREFECT_SERVER_API_DEFAULT_LIMIT"] = str(PAGE)
    with machine.foreground() as supervisor:
        assert first_words(supervisor)["api"] == machine.api
        with temporary_settings({PREFECT_API_URL: machine.api}):
            asyncio.run(require_all_are_seen())
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(timeout=150) == 0
        assert supervisor.stderr is not None
        assert "Traceback" not in supervisor.stderr.read()
    machine.assert_nothing_is_left()


async def require_all_are_seen() -> None:
    """What `presswork status` says of a server has all of what is more than a page."""
    now = datetime.now(UTC)
    async with get_client() as client:
        flow = await client.create_flow_from_name("many")
        for number in range(COUNT):
            made = await client.create_deployment(flow, f"many-{number}")
            # Later ones come first: the next run is found by its time, not by its page.
            for hours in (COUNT, COUNT - number):
                soon: State[None] = Scheduled(scheduled_time=now + timedelta(hours=hours))
                await client.create_flow_run_from_deployment(made, state=soon)
            late: State[None] = Scheduled(scheduled_time=now - timedelta(hours=number + 1))
            await client.create_flow_run_from_deployment(made, state=late)
            running = await client.create_flow_run_from_deployment(made, state=Pending())
            await client.set_flow_run_state(running.id, Running())

    outlook = await read_overview("nowhere", datetime.now(UTC))

    assert outlook.deployments >= COUNT
    names = [f"many/many-{number}" for number in range(COUNT)]
    assert [run.deployment for run in outlook.next if run.deployment in names] == names[::-1]
    assert [run.deployment for run in outlook.waiting if run.deployment in names] == names[::-1]
    assert [run.deployment for run in outlook.running if run.deployment in names] == names[::-1]


@pytest.mark.soak
def test_foreground_ends_with_a_status_when_a_service_ends_too_often(machine: Machine) -> None:
    with machine.foreground() as supervisor:
        first_words(supervisor)
        for number in range(1, 6):
            killed = machine.kill("worker")
            if number < 5:
                machine.wait_for_another("worker", killed)
        assert supervisor.wait(timeout=60) == 1
        assert supervisor.stderr is not None
        assert "The worker has ended by itself 5 times within 10 minutes" in supervisor.stderr.read()
    machine.assert_nothing_is_left()


@pytest.mark.soak
def test_ten_times_up_and_down_leaves_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "state")
    for _ in range(10):
        assert machine.json("up")["seconds"] < 60
        machine.json("down")
        machine.assert_nothing_is_left()


@pytest.mark.soak
@pytest.mark.parametrize("killed", ["supervisor", "server", "worker", "supervisor server worker"])
def test_next_up_repairs_what_was_killed(machine: Machine, killed: str) -> None:
    machine.json("up")
    before = machine.pids()
    for service in killed.split():
        machine.kill(service)
    machine.json("up")
    assert machine.told("status")["well"]
    after = machine.pids()
    assert {name for name, pid in after.items() if pid != before[name]} == set(killed.split())
    assert len(machine.processes()) == 3
    machine.json("down")
    machine.assert_nothing_is_left()


@pytest.mark.soak
def test_up_during_a_down_waits_for_it_and_starts_again(machine: Machine) -> None:
    before = machine.json("up")["pids"]
    mark = json.loads((machine.home / "control.json").read_text())["mark"]
    # A flow run that needs some seconds to end.
    code = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: time.sleep(5) or exit()); time.sleep(60)"
    flow_run = subprocess.Popen([sys.executable, "-c", code], env={MARK: mark}, start_new_session=True)
    wait_for(lambda: signal.SIGTERM in caught(flow_run.pid))
    with subprocess.Popen([str(PRESSWORK), "down"], env=machine.environment) as down:
        wait_for(lambda: json.loads((machine.home / "control.json").read_text())["stopping"])
        up = machine.presswork("up", "--json")
        assert down.wait(timeout=60) == 0
    assert flow_run.wait() == 0
    assert "Waiting until the supervisor" in up.stderr
    assert not {*before.values()} & {*json.loads(up.stdout)["pids"].values()}
    assert machine.is_well()
    machine.json("down")
    machine.assert_nothing_is_left()


def caught(pid: int) -> set[int]:
    """The signals that a process handles itself."""
    mask = int(Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0], 16)
    return {number for number in range(1, 32) if mask >> (number - 1) & 1}


def first_words(supervisor: subprocess.Popen[str]) -> Any:
    """What it says once all is healthy."""
    assert supervisor.stdout is not None
    return json.loads("".join(iter(supervisor.stdout.readline, "}\n")) + "}")


# A server of one's own


def servers() -> list[psutil.Process]:
    """The servers that this process started, and that still run."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "presswork.operate.server_process" in child.cmdline()
    ]


def test_server_starts_answers_and_leaves_no_process(prefect_home: Path) -> None:
    before = {child.pid for child in servers()}
    waited: list[float] = []
    with own_server(timeout_s=120, home=prefect_home, waiting=waited.append) as url:
        assert is_healthy(url)
        (server,) = [child for child in servers() if child.pid not in before]
        assert waited
        assert "127.0.0.1" in url
        asked_by_a_site = httpx2.get(f"{url}/health", headers={"Origin": "https://example.com"})
        assert "access-control-allow-origin" not in asked_by_a_site.headers
    assert not is_healthy(url)
    assert not server.is_running()
    assert {child.pid for child in servers()} == before
    assert list(prefect_home.glob("prefect-server-*.lock")) == []
    # What it had to say as it stopped is nothing that a person must read.
    assert "Traceback" not in (prefect_home / "prefect-server.log").read_text()


def test_server_dies_with_a_parent_that_is_killed(prefect_home: Path) -> None:
    code = f"""
        import time
        from pathlib import Path
        from presswork.operate.command_server.server_context import own_server
        with own_server(timeout_s=120, home=Path({str(prefect_home)!r})) as url:
            print(url, flush=True)
            time.sleep(600)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        url = parent.stdout.readline().strip()
        (server,) = psutil.Process(parent.pid).children()
        assert is_healthy(url)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    psutil.wait_procs([server], timeout=120)
    assert not server.is_running()
    assert not is_healthy(url)
    assert list(prefect_home.glob("prefect-server-*.lock")) == []


def test_server_that_does_not_start_in_time_is_stopped_and_said(tmp_path: Path) -> None:
    before = {child.pid for child in servers()}
    began = time.monotonic()
    with (
        pytest.raises(ServerStartError, match="PRESSWORK_PREFECT_STARTUP_TIMEOUT_S"),
        own_server(timeout_s=0.5, home=tmp_path),
    ):
        pass
    assert time.monotonic() - began < 15
    assert {child.pid for child in servers()} == before


def test_server_that_ends_as_it_starts_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", str(tmp_path / "nowhere"))
    left, held = tmp_path / "prefect-server-1.lock", tmp_path / "prefect-server-2.lock"
    left.touch()
    with held.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ServerStartError, match="ended while it started"), own_server(timeout_s=60, home=tmp_path):
            pass
    # It removes the lock of a command and a server that were both killed, but no other.
    assert list(tmp_path.glob("prefect-server-*.lock")) == [held]


# Prefect's own command


def read(url: str) -> str:
    try:
        answer = httpx2.get(url, timeout=30)
    except httpx2.HTTPError:
        return ""
    return answer.text if answer.is_success else ""


def test_prefect_server_start_works_as_it_is_pinned(prefect_home: Path) -> None:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("prefect")), "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        env={
            **environment,
            "PREFECT_HOME": str(prefect_home),
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 100
        while not read(f"{base}/api/health") and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert read(f"{base}/api/health") == "true"
        assert read(f"{base}/api/admin/version").startswith('"3.')
        assert "/flow_runs/" in read(f"{base}/api/openapi.json") or "/flow_runs/" in read(f"{base}/openapi.json")
    finally:
        server.terminate()
        try:
            server.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()


# Two servers: a real installation in small

# The PostgreSQL of the wheel comes without the extension pg_trgm, with which Prefect makes a few indexes of names. Real
# installations have it; here these indexes are left out, and all else of Prefect's own migrations is run.
MAKE_TABLES = """
import asyncio
from sqlalchemy import Engine, event
from prefect.server.database import provide_database_interface

@event.listens_for(Engine, "before_cursor_execute", retval=True)
def without_trigrams(connection, cursor, statement, parameters, context, many):
    return "SELECT 1" if "trgm" in statement else statement, parameters

asyncio.run(provide_database_interface().create_db())
"""


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def two_servers(postgres_server: str, tmp_path: Path) -> Iterator[list[str]]:
    """The APIs of two servers that docs/operations.md has set up."""
    redis = shutil.which("redis-server")
    if redis is None:
        pytest.skip("redis-server is not installed; Debian's package of that name has it")
    database = new_postgres_database(postgres_server).replace("postgresql+psycopg://", "postgresql+asyncpg://", 1)
    redis_port = str(free_port())
    settings = {
        "PREFECT_HOME": str(tmp_path / "prefect-home"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
        "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
        "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE": "prefect_redis.cleanup_queue",
        "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
        "PREFECT_REDIS_MESSAGING_PORT": redis_port,
        "PREFECT_SERVER_DOCKET_URL": f"redis://127.0.0.1:{redis_port}/1",
    }
    environment = {**os.environ, **settings}
    subprocess.run([sys.executable, "-c", MAKE_TABLES], env=environment, cwd=ROOT, check=True, timeout=200)
    apis = []
    with ExitStack() as stack:
        stack.enter_context(
            running([redis, "--port", redis_port, "--bind", "127.0.0.1", "--save", ""], tmp_path / "redis.log")
        )
        for number in (1, 2):
            port = free_port()
            log = tmp_path / f"server-{number}.log"
            command = [PREFECT, "--no-prompt", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
            stack.enter_context(running(command, log, **settings))
            api = f"http://127.0.0.1:{port}/api"
            wait_for(partial(is_healthy, api), within_s=180)
            apis.append(api)
        yield apis


@pytest.mark.postgres
@pytest.mark.soak
async def test_run_goes_through_two_servers(two_servers: list[str], shop: Workshop, tmp_path: Path) -> None:
    one, other = two_servers
    with temporary_settings({PREFECT_API_URL: one}):
        await ensure_pool("presswork", print)
        await deploy(work_pool="presswork", say=print)
        async with get_client() as client:
            deployment = await client.read_deployment_by_name("product-copy/nightly")
            flow_run = await client.create_flow_run_from_deployment(
                deployment.id, parameters={"selection": {"category": "tea"}, "options": {"limit": 3}}
            )
    worker = [PREFECT, "--no-prompt", "worker", "start", "--pool", "presswork", "--run-once"]
    with (
        temporary_settings({PREFECT_API_URL: other}),
        running(worker, tmp_path / "worker.log", PREFECT_API_URL=other) as process,
    ):
        async with get_client() as client:

            async def look() -> FlowRun:
                return await client.read_flow_run(flow_run.id)

            done = await eventually(look, lambda found: bool(found.state and found.state.is_final()), within_s=150)
            await asyncio.to_thread(process.wait, 60)
    assert done.state_name == "Completed", (tmp_path / "worker.log").read_text()
    with temporary_settings({PREFECT_API_URL: one}):
        # They reach the database as events, over Redis.
        assert len(await task_runs(str(flow_run.id), count=3)) == 3
    assert shop.requests == 3
    assert shop.value("SELECT count(*) FROM current_content WHERE step = 'product_copy'") == 3
