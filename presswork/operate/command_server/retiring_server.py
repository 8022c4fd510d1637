"""End the server of commands for `presswork down` and `presswork up`, and describe it for `presswork status`.

A command that uses it is never interrupted: the server then ends with that command.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from db.machine import utc_now
from presswork.operate.command_server.server_record import (
    RECORD_FILE,
    TO_LOCK,
    ServerRecord,
    lock_soon,
    read_record,
    starting_alone,
)
from presswork.operate.prefect_server import SERVER_STOPS_WITHIN_S
from presswork.operate.processes import stop_processes

KEPT_SERVER = "Prefect's server that stayed"
_AT_ONCE = "0"


@dataclass(frozen=True)
class KeptServer:
    """A server that a command started: `until` is when it ends unless a command uses it, None while one does."""

    pid: int
    until: datetime | None


def kept_server(home: Path) -> KeptServer | None:
    """Find the server of this state folder's commands; None if none runs."""
    record = _living(home)
    if record is None:
        return None
    use_file = record.use_file(home)
    try:
        with use_file.open(TO_LOCK) as use:
            stays_s = float(use.read() or 0)
            is_used = not lock_soon(use)
            # The server sets this time when the last command has let go of it.
            idle_since = use_file.stat().st_mtime
    except (OSError, ValueError):
        return KeptServer(record.process.pid, utc_now())
    now = utc_now()
    # The clock may have been set since.
    left_s = min(max(idle_since + stays_s - now.timestamp(), 0.0), stays_s)
    return KeptServer(record.process.pid, None if is_used else now + timedelta(seconds=left_s))


def retire_server(home: Path) -> tuple[bool, str | None]:
    """End the server of commands. Returns whether it was stopped, and what to say if it runs on.

    Raises ConfigurationError if the state folder can't be written.
    """
    if _living(home) is None:
        return False, None
    with starting_alone(home, SERVER_STOPS_WITHIN_S):
        record = _living(home)
        if record is None:
            return False, None
        named = f"{KEPT_SERVER} (process {record.process.pid})"
        if record.user != os.getuid():
            return False, f"{named} was started by another user, who can stop it."
        use_file = record.use_file(home)
        with suppress(OSError), use_file.open(TO_LOCK) as use:
            if not lock_soon(use):
                use.truncate(0)
                use.write(_AT_ONCE.encode())
                return False, f"A command uses {named}, which ends with it."
            stop_processes([record.process], within_s=SERVER_STOPS_WITHIN_S)
            use_file.unlink(missing_ok=True)
        return not record.process.is_alive, None


def _living(home: Path) -> ServerRecord | None:
    try:
        with (home / RECORD_FILE).open("rb") as file:
            record = read_record(file)
    except OSError:
        return None
    return record if record is not None and record.process.is_alive else None
