"""Give a rehearsal its own sandbox and ledger, and an environment from which nothing else can be reached.

Whichever keys, endpoints and ledger the environment and `.env` name, a run inside talks to the sandbox and writes to a
SQLite file in a temporary folder. The folder is removed at the end in any case; after a kill, the next rehearsal
removes it.
"""

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from db.machine import wall_time_s
from db.words import SANDBOX
from presswork.errors import StoppedError
from presswork.settings import AUDIT_URL
from presswork.terminal.environment import environment
from sandbox import Switches, sandbox_process

PREFIX, KEPT = "presswork-rehearsal-", "presswork-kept-rehearsal-"
LOCK = "alive.lock"
NEW_S = 60.0  # a folder younger than this may not have its lock yet
REHEARSAL_KEY = "rehearsal"  # the sandbox accepts any key, and must not get the user's


@contextmanager
def isolated(switches: Switches, source: str | None, *, keep: bool) -> Iterator[str]:
    """Start a sandbox, point the environment at it and at a new ledger, and yield the ledger's URL.

    `source` is the database that PRESSWORK_SOURCE_URL will name. SIGTERM outside of a run raises StoppedError, so that
    cleaning up happens then too.
    """
    with _terminated_in_order(), _folder(keep=keep) as folder, sandbox_process(switches) as url:
        ledger = f"sqlite:///{folder / 'ledger.sqlite'}"
        changes = {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": REHEARSAL_KEY,
            # Under this name a run stops if anything but the sandbox answers.
            "PRESSWORK_ENDPOINT": SANDBOX,
            "PRESSWORK_DATABASE_URL": ledger,
            "PRESSWORK_SPILL_DIR": str(folder / "spill"),
            "PRESSWORK_SPOOL_DIR": str(folder / "spools"),
            # The audit room shows another ledger, so a link to this run would find nothing.
            AUDIT_URL: "",
        }
        with environment(changes if source is None else {**changes, "PRESSWORK_SOURCE_URL": source}):
            yield ledger


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    remove_leftovers(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=KEPT if keep else PREFIX))
    if keep:
        yield folder
        return
    try:
        with FileLock(folder / LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(among: Path) -> None:
    """Remove the folders of killed rehearsals; their locks ended with their processes."""
    for folder in among.glob(f"{PREFIX}*"):
        try:
            if folder.stat().st_uid != os.getuid() or wall_time_s() - folder.stat().st_mtime < NEW_S:
                continue
            with FileLock(folder / LOCK, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (Timeout, OSError):
            continue


@contextmanager
def _terminated_in_order() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise StoppedError(f"The rehearsal was stopped ({signal.Signals(number).name}).")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
