"""Find the server of this state folder's commands, or start it, and hold it for as long as a command uses it.

A command holds a server by a shared lock on its use file; the server ends some time after the last lock. The server
holds a lock on its record from its first moment to its last, so two never use one database. A server that this command
must not use is replaced if nobody uses it; else this command starts one apart, with a database of its own.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import IO

from db.machine import boot_time_s
from presswork.operate.command_server.server_record import (
    RECORD_FILE,
    SETTINGS_FILES,
    TO_LOCK,
    USE_FILE,
    ServerRecord,
    lock_now,
    lock_soon,
    read_record,
    settings_files,
    starting_alone,
    why_unusable,
    write_record,
)
from presswork.operate.prefect_server import (
    LOOPBACK,
    SERVER_STOPS_WITHIN_S,
    Server,
    wait_until_healthy,
)
from presswork.operate.processes import known, let_go, stop_processes
from presswork.settings import Settings

LOG_FILE = "prefect-server.log"
STAYS_FOR_S = 600.0
"""How long a server stays without a command."""
ANSWERS_AGAIN_WITHIN_S = 10.0
"""How long a server that has answered before may be silent."""
_SILENT_STOPS_WITHIN_S = 5.0
_ENDED_WITHIN_S = 1.0
"""How long the lock of a server that is ending is waited for."""
_OFF = frozenset({"", "0", "false", "no"})
TellWaiting = Callable[[float], None]


def say_nothing(_seconds: float) -> None:
    """Wait without a word."""


@dataclass(frozen=True)
class ServerPlan:
    """The server that a command wants: with a `stays_s` of 0 it ends with the last command that uses it."""

    home: Path
    starts_within_s: float
    stays_s: float = 0.0
    with_ui: bool = False
    is_apart: bool = False
    """Whether its folder is temporary, because another server has the state folder's database."""

    def server(self, port: int, mark: str = "") -> Server:
        """Return how to start it."""
        home = self.home
        settings = {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
            "PREFECT_UI_ENABLED": str(self.with_ui),
            "PREFECT_UI_API_URL": f"http://{LOOPBACK}:{port}/api",
            "PREFECT_UI_STATIC_DIRECTORY": str(home / "ui"),
            SETTINGS_FILES: settings_files(),
        }
        if not self.with_ui:
            # It omits what only people and schedules need: services, and the types of blocks that a form offers.
            settings["PREFECT__SERVER_EPHEMERAL"] = "1"
            settings["PREFECT_API_BLOCKS_REGISTER_ON_START"] = "false"
            settings["PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION"] = "false"
            # Prefect's default lets the pages of all sites that a browser here shows read this server.
            settings["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"] = f"http://{LOOPBACK}:{port}"
        return Server(LOOPBACK, port, settings, home / LOG_FILE, home / USE_FILE.format(port), mark)


def plan_server(settings: Settings) -> ServerPlan:
    """Plan the server of a command. It does not stay under CI or systemd, or if PRESSWORK_KEEP_SERVER is 0."""
    is_watched = os.environ.get("CI", "").lower() not in _OFF or bool(os.environ.get("INVOCATION_ID"))
    stays_s = STAYS_FOR_S if settings.keep_server and not is_watched else 0.0
    return ServerPlan(settings.state_dir.resolve(), settings.prefect_startup_timeout_s, stays_s)


@dataclass
class HeldServer:
    """A server that this command holds. `note` says why an earlier one could not be used; `child` if we started it."""

    plan: ServerPlan
    record: ServerRecord
    use: IO[bytes] = field(repr=False)
    child: subprocess.Popen[bytes] | None = None
    note: str | None = None

    @property
    def stays_s(self) -> float:
        """How long it will stay without a command, as its use file says now."""
        self.use.seek(0)
        with suppress(ValueError):
            return float(self.use.read())
        return 0.0

    def wait(self, waiting: TellWaiting = say_nothing) -> None:
        """Wait until it answers. Raises ServerStartError if it ends, is silent for too long, or is another's."""
        plan, record = self.plan, self.record
        left_s = max(ANSWERS_AGAIN_WITHIN_S, record.began_s + plan.starts_within_s - boot_time_s())
        within_s = plan.starts_within_s if self.child else left_s
        wait_until_healthy(record.api, record.process, within_s, plan.home / LOG_FILE, waiting, mark=record.mark)

    def let_go(self, *, failed: bool = False) -> None:
        """Release the server. The last command ends one that does not stay, or that has failed to start."""
        with self.use:
            is_over = (failed or not self.stays_s) and lock_soon(self.use)
            if is_over:
                within_s = _SILENT_STOPS_WITHIN_S if failed else SERVER_STOPS_WITHIN_S
                stop_processes([self.record.process], within_s=within_s)
                self.record.use_file(self.plan.home).unlink(missing_ok=True)
            if self.child is not None:
                # One that stays outlives us: Python must not warn that we never waited for it.
                _ = self.child.wait() if is_over else let_go(self.child)
        if self.plan.is_apart and not failed:  # its log says why
            shutil.rmtree(self.plan.home, ignore_errors=True)


def hold_server(plan: ServerPlan, silent: ServerRecord | None = None) -> HeldServer:
    """Find the server, or start one that need not answer yet; `silent` is one that has not answered this command.

    Raises ConfigurationError if the state folder can't be written.
    """
    with starting_alone(plan.home, plan.starts_within_s), _opened(plan.home) as file:
        return _find_or_start(plan, file, silent)


@contextmanager
def _opened(home: Path) -> Iterator[IO[bytes]]:
    # Only its owner may read it. It is never removed, because a lock on a removed file would protect nothing.
    with os.fdopen(os.open(home / RECORD_FILE, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        yield file


def _find_or_start(plan: ServerPlan, file: IO[bytes], silent: ServerRecord | None) -> HeldServer:
    record = read_record(file)
    if lock_now(file) or (record is not None and _has_ended(record, file)):
        _remove_free_use_files(plan.home)
        return _start(plan, file)
    if record is None:
        return _start_apart(plan, f"{plan.home / RECORD_FILE} is damaged. A server that it does not name still runs.")
    wanted = plan.server(record.port).environment(os.environ)
    reason = "does not answer" if record == silent else why_unusable(record, wanted)
    if reason is not None and _has_ended(record, file):
        # It was killed a moment ago, and ended while this command looked at it.
        return _start(plan, file)
    if reason is None and (use := _shared(record.use_file(plan.home))):
        return HeldServer(plan, record, use)
    # It is ending already, or nobody uses it.
    if reason is None or _is_ours_and_idle(record, plan.home):
        stop_processes([record.process], within_s=_SILENT_STOPS_WITHIN_S if silent else SERVER_STOPS_WITHIN_S)
        if _is_released(file):
            return _start(plan, file, reason and f"Prefect's server that stayed {reason}. It was replaced.")
    found = f"Prefect's server that stayed (process {record.process.pid})"
    return _start_apart(plan, f"{found} {reason or 'does not end'}.")


def _has_ended(record: ServerRecord, file: IO[bytes]) -> bool:
    return not record.process.is_alive and _is_released(file)


def _is_released(file: IO[bytes]) -> bool:
    """Lock the record of a server that has ended: the last of its threads may end a moment after the process."""
    return lock_soon(file, within_s=_ENDED_WITHIN_S)


def _start(plan: ServerPlan, record_file: IO[bytes], note: str | None = None) -> HeldServer:
    """Start a server, which inherits the locked record. If the record can't be written, end it again."""
    port, mark = _free_port(), uuid.uuid4().hex
    server = plan.server(port, mark)
    assert server.lock is not None
    with ExitStack() as failing:
        use = failing.enter_context(server.lock.open("w+b"))
        fcntl.flock(use, fcntl.LOCK_SH)
        record_file.truncate(0)
        child = server.start(os.environ, record_file.fileno())
        record = ServerRecord(known(child.pid), port, mark, version("prefect"), os.getuid(), boot_time_s())
        held = HeldServer(plan, record, use, child, note)
        failing.callback(held.let_go, failed=True)
        write_record(record_file, record)
        # Last, so that a server which no record names ends at once if this command is killed here.
        use.write(str(plan.stays_s).encode())
        use.flush()
        failing.pop_all()
    return held


def _start_apart(plan: ServerPlan, why: str) -> HeldServer:
    """Start a server in a temporary folder, which ends with this command."""
    home = Path(tempfile.mkdtemp(prefix="presswork-server-"))
    held = hold_server(replace(plan, home=home, stays_s=0.0, is_apart=True))
    held.note = f"{why} So this command starts one of its own, which ends with it."
    return held


def _is_ours_and_idle(record: ServerRecord, home: Path) -> bool:
    """Whether this user started the server, it can be seen from here, and no command uses it."""
    if record.user != os.getuid() or not record.process.is_alive:
        return False
    with suppress(FileNotFoundError), record.use_file(home).open(TO_LOCK) as use:
        return lock_soon(use)
    return False


def _shared(use_file: Path) -> IO[bytes] | None:
    """Hold a server by its use file; None if the server is ending."""
    try:
        use = use_file.open(TO_LOCK)
    except FileNotFoundError:
        return None
    if lock_soon(use, fcntl.LOCK_SH, within_s=_ENDED_WITHIN_S):
        return use
    use.close()
    return None


def _remove_free_use_files(home: Path) -> None:
    """Remove the files that were left when a command and its server were both killed. Call it while no server runs."""
    for left in home.glob(USE_FILE.format("*")):
        with suppress(FileNotFoundError), left.open(TO_LOCK) as file:
            if lock_now(file):
                left.unlink()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
