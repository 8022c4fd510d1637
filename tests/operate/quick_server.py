"""A stand-in for the process of a Prefect server: `quick_server.py HOST PORT LOCK HEADER=MARK`. It starts in a moment.

It answers /api/health like Prefect, and ends like server_process when nobody holds it. MODE changes how it behaves.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from presswork.operate import server_process

MODE = "QUICK_SERVER_MODE"
SILENT, SLOW, ENDING, OTHER, NFS = "silent", "slow", "ending", "other", "nfs"
_LOCK = fcntl.flock


def lock_as_nfs(file: Any, kind: int) -> None:
    """Lock as the system does on NFS: exclusively only a file that may be written (flock(2))."""
    if kind & fcntl.LOCK_EX and fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    _LOCK(file, kind)


class Quick:
    """What server_process ends."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server

    @property
    def should_exit(self) -> bool:
        return False

    @should_exit.setter
    def should_exit(self, _value: bool) -> None:
        threading.Thread(target=self._server.shutdown).start()


def main(host: str, port: str, lock: str, header: str) -> int:
    mode = os.environ.get(MODE)
    name, _, mark = header.partition("=")
    if mode == ENDING:
        return 1

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if mode == SILENT:
                time.sleep(60)
            self.send_response(200)
            self.send_header(name, "another" if mode == OTHER else mark)
            self.end_headers()
            self.wfile.write(b"true")

        def log_message(self, *_arguments: object) -> None:
            pass

    if mode == NFS:
        fcntl.flock = lock_as_nfs
    if mode == SLOW:
        time.sleep(1)
    server = ThreadingHTTPServer((host, int(port)), Handler)
    server_process.CHECK_LOCK_S = 0.02
    threading.Thread(target=server_process.end_when_idle, args=(Path(lock), Quick(server)), daemon=True).start()
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
