"""The process of a Prefect server: `python -m presswork.operate.server_process HOST PORT [LOCK HEADER=MARK]`.

With a lock file, it ends by itself when no process has held that file for the seconds that are written in it. The
system releases the file when its holder ends, even by `kill -9`. A module of its own because no other process needs
uvicorn.
"""

import fcntl
import gc
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

import uvicorn

from db.machine import monotonic_s, pause

CHECK_LOCK_S = 0.5
_NOT_STARTED = 3


def serve(host: str, port: int, lock: Path | None = None, header: str = "") -> int:
    """Serve until SIGTERM, or until nobody has needed the server for a while; returns the exit status."""
    name, _, mark = header.partition("=")
    server = uvicorn.Server(
        uvicorn.Config(
            "prefect.server.api.server:create_app",
            factory=True,
            host=host,
            port=port,
            log_level="error",
            lifespan="on",
            timeout_graceful_shutdown=3,
            headers=[(name, mark)] if name else None,
        )
    )
    if lock is not None:
        threading.Thread(target=end_when_idle, args=(lock, server), daemon=True).start()
    server.run()
    return 0 if server.started else _NOT_STARTED


def end_when_idle(lock: Path, server: uvicorn.Server) -> None:
    """Wait until no process has held the lock file for long enough, then remove it and let the server end.

    The file stays locked until this process has ended, so that a command which finds it waits for that.
    """
    # To be written, though nothing is: NFS grants no lock of this kind on a file that is only read.
    with lock.open("r+b") as file:
        last_held, was_held = monotonic_s(), False
        while (is_held := not _locked(file)) or monotonic_s() - last_held < _stays_s(lock):
            if is_held:
                last_held = monotonic_s()
            else:
                fcntl.flock(file, fcntl.LOCK_UN)
            if was_held and not is_held:
                # `presswork status` reads from this since when nobody has used the server.
                with suppress(OSError):
                    os.utime(lock)
            was_held = is_held
            pause(CHECK_LOCK_S)
        lock.unlink(missing_ok=True)
        server.should_exit = True
        threading.Event().wait()


def _locked(file: IO[bytes]) -> bool:
    """Lock the file unless a process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stays_s(lock: Path) -> float:
    # Without the file, its folder is gone, and so is the database.
    try:
        return float(lock.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0.0


def main(host: str, port: str, lock: str | None = None, header: str = "") -> int:
    """Serve, with or without a lock file."""
    # Loading makes half a million objects that stay: visiting them again and again takes a fifth of a start.
    gc.set_threshold(50_000, 20, 100)
    return serve(host, int(port), Path(lock) if lock else None, header)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
