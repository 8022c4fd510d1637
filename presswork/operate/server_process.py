"""The process of a Prefect server: `python -m presswork.operate.server_process HOST PORT [LOCK IDLE_S]`.

With a lock file, it ends by itself when no process has held that file for some seconds. The system releases the file
when its holder ends, even by `kill -9`. A module of its own because no other process needs uvicorn.
"""

import fcntl
import os
import signal
import sys
import threading
import time
from pathlib import Path

import uvicorn

CHECK_LOCK_S = 0.5


def serve(host: str, port: int) -> None:
    """Serve until SIGTERM."""
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host=host,
        port=port,
        log_level="error",
        lifespan="on",
        timeout_graceful_shutdown=3,
    )


def end_when_idle(lock: Path, idle_s: float) -> None:
    """Wait until no process has held the lock file for `idle_s` seconds, then remove it and end this process."""
    last_held = time.monotonic()
    while (is_held := _is_held(lock)) or time.monotonic() - last_held < idle_s:
        if is_held:
            last_held = time.monotonic()
        time.sleep(CHECK_LOCK_S)
    lock.unlink(missing_ok=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def main(host: str, port: str, *idle: str) -> None:
    """Serve, with or without an idle limit."""
    if idle:
        lock, idle_s = idle
        threading.Thread(target=end_when_idle, args=(Path(lock), float(idle_s)), daemon=True).start()
    serve(host, int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
