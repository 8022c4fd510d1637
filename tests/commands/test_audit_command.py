"""`presswork audit` serves the ledger to its owner: on this machine, or with a password."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from pydantic import SecretStr

from presswork.errors import ConfigurationError
from presswork.settings import load_settings
from tests.commands.conftest import PRESSWORK, call, first_answer

PASSWORD = "walnut-harbour"


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PRESSWORK_DATABASE_URL", f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    for name in ("HOST", "PORT", "URL", "USER", "PASSWORD"):
        monkeypatch.delenv(f"PRESSWORK_AUDIT_{name}", raising=False)


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Serve the audit room in a process of its own; the process, and what it has printed."""
    running = subprocess.Popen(
        [str(PRESSWORK), "audit", "--json", *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running, first_answer(running)
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_audit_room_is_open_until_it_is_told_to_end(number: signal.Signals) -> None:
    with serving("--port", "0") as (running, told):
        # There is no ledger yet: it says so, and is not created.
        answer = httpx2.get(f"{told['url']}/runs")
        assert (answer.status_code, "There is no ledger yet" in answer.text) == (503, True)
        assert not Path(told["ledger"]).exists()
        running.send_signal(number)
        _stdout, stderr = running.communicate(timeout=20)
    assert (running.returncode, stderr) == (0, "")


def test_unix_socket_is_its_owners_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "audit.sock"
    with serving("--uds", str(path)) as (running, told):
        assert told["url"] == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
            assert client.get("/runs").status_code == 503
        refused = call("audit", "--uds", str(path))
        assert refused.exit_code == 2
        assert "Address already in use" in refused.stderr
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=20)
    assert not path.exists()


def test_unix_socket_that_was_left_is_used_again_and_a_file_is_kept(tmp_path: Path) -> None:
    left, file = tmp_path / "left.sock", tmp_path / "file"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(left))
    file.write_text("kept")
    with serving("--uds", str(left)):
        assert stat.S_IMODE(left.stat().st_mode) == 0o600

    assert call("audit", "--uds", str(file)).exit_code == 2
    assert file.read_text() == "kept"


def test_password_is_asked_for_and_shown_nowhere(tmp_path: Path) -> None:
    secret = {"PRESSWORK_AUDIT_USER": "auditor", "PRESSWORK_AUDIT_PASSWORD": PASSWORD}
    with serving("--port", "0", **secret) as (running, told):
        url = f"{told['url']}/runs?flow=x"
        assert [httpx2.get(url, auth=auth).status_code for auth in (None, ("auditor", "wrong"))] == [401, 401]
        assert httpx2.get(url, auth=("auditor", PASSWORD)).status_code == 503
        assert PASSWORD not in json.dumps(told)
        assert not any(PASSWORD in word for word in psutil.Process(running.pid).cmdline())
        running.send_signal(signal.SIGTERM)
        stdout, stderr = running.communicate(timeout=20)
    assert PASSWORD not in stdout + stderr
    assert "flow=x" not in stdout + stderr, "addresses hold what was searched for"


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--port", "70000"], {}, "--port"),
        (["--host", "::"], {}, "needs a password"),
        (["--host", "127.evil.example"], {}, "needs a password"),
        ([], {"PRESSWORK_AUDIT_HOST": "192.0.2.1"}, "192.0.2.1 can be reached from other machines"),
        (["--host", "192.0.2.1"], {"PRESSWORK_AUDIT_USER": "a", "PRESSWORK_AUDIT_PASSWORD": PASSWORD}, "can't listen"),
        ([], {"PRESSWORK_AUDIT_USER": "auditor"}, "Set both"),
        ([], {"PRESSWORK_AUDIT_PASSWORD": PASSWORD}, "Set both"),
        ([], {"PRESSWORK_AUDIT_USER": "a:b", "PRESSWORK_AUDIT_PASSWORD": PASSWORD}, "without a colon"),
        ([], {"PRESSWORK_AUDIT_USER": "a", "PRESSWORK_AUDIT_PASSWORD": ""}, "needs a password"),
        ([], {"PRESSWORK_AUDIT_PORT": PASSWORD}, "PRESSWORK_AUDIT_PORT"),
        (["--uds", "/nowhere/audit.sock"], {}, "No such file or directory"),
        (["--uds", "audit.sock", "--port", "4201"], {}, "Give either --uds"),
        (["--port", "4201", "index"], {}, "Give the options of 'index' after its name"),
    ],
)
def test_wrong_call_is_told(
    arguments: list[str], environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = call("audit", *arguments)

    assert result.exit_code == 2
    assert message in result.stderr
    assert PASSWORD not in result.output


def test_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = call("audit", "--port", str(other.getsockname()[1]))

    assert result.exit_code == 2
    assert "Address already in use. Set another port with --port" in result.stderr


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "audit.example",
        "https://user:secret@audit.example",
        "https://audit.example/a)b",
        "https://audit.example/ [x](y)",
        "https://audit.example/?run=",
    ],
)
def test_address_that_can_be_no_link_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_AUDIT_URL", url)
    with pytest.raises(ConfigurationError, match="PRESSWORK_AUDIT_URL") as refused:
        load_settings()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:4201", "http://[::1]:4201", "https://audit.example/presswork/", ""])
def test_address_that_can_be_a_link_is_taken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_AUDIT_URL", url)
    assert load_settings().audit_url == (url or None)


def test_settings_do_not_show_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_AUDIT_PASSWORD", PASSWORD)
    settings = load_settings()
    assert settings.audit_password == SecretStr(PASSWORD)
    assert PASSWORD not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_audit_room_loads_neither_prefect_nor_the_sdk() -> None:
    code = "import sys, presswork.commands.audit.serve_audit; print({'prefect', 'anthropic'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
