"""Check the project itself: packages, pins without an index or a machine, make targets, settings, CI."""

from __future__ import annotations

import importlib
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import dotenv
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pytest_socket import SocketConnectBlockedError

from presswork.errors import ConfigurationError
from presswork.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
FOR_DEVELOPMENT = "# What follows is for development alone.\n"

# In halves, so that this file does not contain the names that it forbids.
REGISTRY_HOSTS = [
    "".join(halves)
    for halves in (
        ("pypi", ".org"),
        ("python", "hosted.org"),
        ("npm", "js.org"),
        ("npm", "js.com"),
        ("deb.", "debian.org"),
        ("security.", "debian.org"),
        ("crates", ".io"),
        ("proxy.", "golang.org"),
        ("repo.maven", ".apache.org"),
        ("ruby", "gems.org"),
    )
]
WORKPLACES = ["".join(halves) for halves in (("/work", "/main"), ("/work", "/shared"), (".lib", "rary/"))]


def pins(text: str = CONSTRAINTS) -> dict[str, tuple[Requirement, list[str]]]:
    """Read constraints.txt: each package's requirement and its hashes."""
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for pin in text.replace(FOR_DEVELOPMENT, "").replace("\\\n", " ").splitlines():
        wanted, *hashes = pin.split("--hash=")
        requirement = Requirement(wanted)
        found[canonicalize_name(requirement.name)] = requirement, [item.strip() for item in hashes]
    return found


def committed_files() -> list[Path]:
    """List the files in git; skip in a copy without git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("package", ["flows", "presswork", "db", "sandbox"])
def test_package_imports_from_this_repository(package: str) -> None:
    file = importlib.import_module(package).__file__
    assert file is not None
    assert Path(file).resolve().parent == ROOT / package


def test_every_pin_is_exact_and_has_a_hash() -> None:
    assert len(pins()) > len(PROJECT["project"]["dependencies"])
    for name, (requirement, hashes) in pins().items():
        assert [part.operator for part in requirement.specifier] == ["=="], name
        assert hashes, name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", item) for item in hashes), name


def test_every_requirement_is_pinned() -> None:
    asked = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    asked += PROJECT["build-system"]["requires"]
    for wanted in map(Requirement, asked):
        (pinned,) = pins()[canonicalize_name(wanted.name)][0].specifier
        assert wanted.specifier.contains(pinned.version), wanted


def needed(wanted: Iterable[str]) -> set[str]:
    """Name all packages that these requirements need, from the metadata of the installed ones."""
    todo, done = [Requirement(text) for text in wanted], set[tuple[str, str]]()
    while todo:
        requirement = todo.pop()
        for extra in {"", *requirement.extras}:
            if (name := str(canonicalize_name(requirement.name)), extra) not in done:
                done.add((name, extra))
                below = map(Requirement, distribution(name).requires or [])
                todo += [need for need in below if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name for name, _extra in done}


def test_demo_installs_exactly_the_packages_that_a_run_needs() -> None:
    assert FOR_DEVELOPMENT.strip() in MAKEFILE.replace("\\#", "#")
    running, development = map(pins, CONSTRAINTS.split(FOR_DEVELOPMENT))
    wanted = needed([*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]])
    assert wanted <= set(running)
    assert not wanted & set(development)
    assert {"playwright", "pytest", "mypy"} <= set(development)


def test_constraints_name_no_address_no_path_and_no_option() -> None:
    assert not re.search(r"https?[:_]", CONSTRAINTS)
    assert "://" not in CONSTRAINTS
    assert not re.search(r"(^|\s)[./~]", CONSTRAINTS)
    assert not re.search(r"^\s*-(?!-hash=)", CONSTRAINTS, re.MULTILINE)


@pytest.mark.parametrize(("package", "version"), [("prefect", "3.8.8"), ("fastapi", "0.144.0")])
def test_packages_that_depend_on_each_other_are_pinned_together(package: str, version: str) -> None:
    assert str(pins()[package][0].specifier) == f"=={version}"
    assert f"{package}=={version}" in PROJECT["tool"]["uv"]["constraint-dependencies"]


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0", "3.13.0"])
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_every_requirement_is_pinned_on_every_platform(python: str, platform: str) -> None:
    where = {"python_version": python[:4], "python_full_version": python, "sys_platform": platform}
    where |= {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    for wanted in map(Requirement, PROJECT["project"]["dependencies"]):
        pin = pins()[canonicalize_name(wanted.name)][0]
        is_pinned, is_wanted = (each.marker is None or each.marker.evaluate(where) for each in (pin, wanted))
        assert is_pinned or not is_wanted, wanted


def test_no_committed_file_names_a_registry_or_this_workplace() -> None:
    forbidden = [name.encode() for name in (*REGISTRY_HOSTS, *WORKPLACES)]
    found = [
        (str(file.relative_to(ROOT)), name.decode())
        for file in committed_files()
        for content in [file.read_bytes()]
        for name in forbidden
        if name in content
    ]
    assert found == []


def test_no_committed_file_is_a_ledger_or_a_secret() -> None:
    names = {file.name for file in committed_files()}
    assert ".env" not in names
    assert [name for name in names if name.endswith((".sqlite", ".sqlite-wal", ".db"))] == []


def test_ci_runs_the_check() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("make check")


@pytest.mark.parametrize("target", ["help", "install", "demo", "test", "check", "bench", "pins", "clean"])
def test_makefile_has_and_explains_the_target(target: str) -> None:
    assert re.search(rf"^{target}:.* ## \S", MAKEFILE, re.MULTILINE)


def test_nothing_that_a_run_or_a_server_loads_is_left_out_when_modules_are_compiled() -> None:
    (left_out,) = re.findall(r"^NEVER_IMPORTED := (.*)$", MAKEFILE, re.MULTILINE)
    loads = "presswork.commands.run.running, presswork.audit.app, presswork.claude.client, prefect.server.api.server"
    program = f"import sys, {loads}; print(*(m.__file__ for m in [*sys.modules.values()] if hasattr(m, '__file__')))"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    files = loaded.stdout.split()
    assert len(files) > 2000
    assert [file for file in files if re.search(left_out, file)] == []


@pytest.mark.parametrize("setting", ["DO_NOT_TRACK := 1", "PREFECT_SERVER_ANALYTICS_ENABLED := false"])
def test_make_turns_telemetry_off(setting: str) -> None:
    assert f"export {setting}" in MAKEFILE


def test_env_example_documents_every_setting_and_no_other() -> None:
    text = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^# (PRESSWORK_[A-Z_]+)=", text, re.MULTILINE))
    known = {f"PRESSWORK_{name.upper()}" for name in Settings.model_fields}
    assert named - {"PRESSWORK_SOURCE_SHOP_URL"} == known


def test_tests_reach_only_loopback() -> None:
    # A connected datagram socket sends nothing, so even without the guard nothing would leave this machine.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", 9))
        with pytest.raises(SocketConnectBlockedError):
            probe.connect(("192.0.2.1", 9))


def test_byte_order_mark_in_env_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("\ufeffPRESSWORK_CONCURRENCY=7\n", encoding="utf-8")
    monkeypatch.setattr("presswork.settings.ROOT", tmp_path)
    monkeypatch.setattr("presswork.settings.load_dotenv", dotenv.load_dotenv)
    # So that the loaded value is gone after the test.
    monkeypatch.setenv("PRESSWORK_CONCURRENCY", "")
    monkeypatch.delenv("PRESSWORK_CONCURRENCY")

    assert load_settings().concurrency == 7
    assert dotenv.dotenv_values(tmp_path / ".env") == {"PRESSWORK_CONCURRENCY": "7"}


def test_settings_are_read_in_any_case_and_what_is_given_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("presswork_concurrency", "7")
    monkeypatch.setenv("PRESSWORK_CHUNK_SIZE", "9")

    assert (Settings().concurrency, Settings().chunk_size) == (7, 9)
    assert Settings(concurrency=3).concurrency == 3


def test_wrong_settings_are_named_without_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_CONCURRENCY", "kraken")
    monkeypatch.setenv("PRESSWORK_RPM", "")
    with pytest.raises(ConfigurationError) as raised:
        load_settings()

    assert re.findall(r"PRESSWORK_\w+", str(raised.value)) == ["PRESSWORK_CONCURRENCY", "PRESSWORK_RPM"]
    assert "kraken" not in str(raised.value)
