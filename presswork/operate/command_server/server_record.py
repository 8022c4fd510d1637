"""Record which server the commands of a state folder use, and find out why one can't be used.

The server inherits the record's open file with a lock on it. The system releases this lock when the server ends, even
by `kill -9`. So a locked record means that a server uses the folder's database, and no second one may be started.
"""

import fcntl
import hashlib
import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import psutil
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from db.machine import monotonic_s, pause
from presswork.errors import ConfigurationError
from presswork.operate.prefect_server import LOOPBACK
from presswork.operate.processes import Process
from presswork.settings import ROOT

RECORD_FILE = "prefect-server.json"
USE_FILE = "prefect-server-{}.lock"
TO_LOCK = "r+b"
"""How a file is opened to lock it: NFS grants the lock of one who excludes others only if the file may be written."""
SETTINGS_FILES = "PRESSWORK_PREFECT_FILES"
"""The variable that tells, in a server's environment, which files with settings of Prefect it has read."""
_PREFECT = "PREFECT_"
_CLIENTS = tuple(_PREFECT + part for part in ("CLI_", "CLIENT_", "FLOWS_", "LOGGING_", "RESULTS_", "TASKS_"))
"""How the names of settings begin that a server does not depend on."""
_LOOK_S = 0.01


@dataclass(frozen=True)
class ServerRecord:
    """A server that a command has started: `mark` is in its answers, `began_s` is its start on db.identity's clock."""

    process: Process
    port: int
    mark: str
    prefect: str
    user: int
    began_s: float

    @property
    def api(self) -> str:
        """The URL of its API."""
        return f"http://{LOOPBACK}:{self.port}/api"

    def use_file(self, home: Path) -> Path:
        """Return the file that commands lock while they use it, and that says how long it stays without one."""
        return home / USE_FILE.format(self.port)


_RECORDS = TypeAdapter(ServerRecord)


def lock_now(file: IO[Any], kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file unless another process has locked it; returns whether it is locked now."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_soon(file: IO[Any], kind: int = fcntl.LOCK_EX, within_s: float = 0.1) -> bool:
    """Lock an open file as lock_now does, but wait a little.

    A server locks its use file for a moment when it looks at it, and so do commands. Only a command that uses the
    server, or a server that ends, keeps the lock.
    """
    deadline = monotonic_s() + within_s
    while not lock_now(file, kind):
        if monotonic_s() > deadline:
            return False
        pause(_LOOK_S)
    return True


@contextmanager
def starting_alone(home: Path, patience_s: float) -> Iterator[None]:
    """Be the only process that starts or ends the server of commands here. Raises ConfigurationError if that fails."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / "prefect-server.lock", timeout=patience_s):
            yield
    except Timeout:
        raise ConfigurationError(
            f"Another command has been starting Prefect's server in {home} for {patience_s:.0f} s. Wait until it has "
            "ended, or set PRESSWORK_STATE_DIR to another folder."
        ) from None
    except OSError as error:
        raise ConfigurationError(_unwritable(error, home)) from None


def read_record(file: IO[bytes]) -> ServerRecord | None:
    """Read a record; None if its writer was killed before it was complete."""
    file.seek(0)
    try:
        return _RECORDS.validate_json(file.read())
    except ValidationError:
        return None


def write_record(file: IO[bytes], record: ServerRecord) -> None:
    """Replace the record in place: another file would not have the server's lock."""
    file.seek(0)
    file.truncate()
    file.write(_RECORDS.dump_json(record))
    file.flush()


def why_unusable(record: ServerRecord, wanted: Mapping[str, str]) -> str | None:
    """Say why a command must not use this server; None if it may. `wanted` is the environment that it should have."""
    if record.user != os.getuid():
        return f"belongs to the user {_name_of(record.user)}"
    if record.prefect != version("prefect"):
        return f"is Prefect {record.prefect}, and this Presswork has {version('prefect')}"
    try:
        given = psutil.Process(record.process.pid).environ() if record.process.is_alive else {}
    except (psutil.Error, OSError):
        given = {}
    if not given:
        return "can't be seen from here"
    changed = sorted(name for name in {*given, *wanted} if _matters(name) and given.get(name) != wanted.get(name))
    # Names only: a value may be a password.
    return f"was started with other settings ({', '.join(changed)})" if changed else None


def settings_files() -> str:
    """Identify the present state of the files with Prefect's settings, but not what is in them."""
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    found = []
    for file in (profiles, ROOT / "prefect.toml", ROOT / "pyproject.toml"):
        with suppress(OSError):
            facts = file.stat()
            found.append(f"{file} {facts.st_mtime_ns} {facts.st_size} {facts.st_ino}")
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]


def _matters(name: str) -> bool:
    return name == SETTINGS_FILES or (name.startswith(_PREFECT) and not name.startswith(_CLIENTS))


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _unwritable(error: OSError, home: Path) -> str:
    """Say what can't be written, whose it is, and what to do."""
    file = Path(error.filename) if isinstance(error.filename, str) else home
    whose = ""
    with suppress(OSError, KeyError):
        whose = f" It belongs to the user {file.owner()}."
    return (
        f"{file} can't be written: {error.strerror or error}.{whose} Fix that, or set PRESSWORK_STATE_DIR to another "
        "folder."
    )
