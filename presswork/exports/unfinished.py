"""Keep an export that has not ended: its rows in FILE.part, and in FILE.part.json how far it has come.

FILE itself appears only when the export is complete, and an existing one is never replaced. What the notes say is on
disk before they say it, so that an export resumes after Ctrl-C, `kill -9` or a power cut.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from presswork.errors import ConfigurationError


class ExportError(ConfigurationError):
    """The export can't be written to this file."""


class ExportPlan(BaseModel):
    """What an export is of. Only an equal one can resume it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ledger: str
    kind: str
    bom: bool
    columns: tuple[str, ...]
    filters: Mapping[str, str]


class ExportState(BaseModel):
    """How far an export has come: all up to the generation `after` is on disk, of all up to `newest`.

    `kept` says where its rows end: bytes of the part file, or segments of Parquet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: ExportPlan
    newest: str
    began_at: datetime
    after: str = ""
    rows: int = 0
    kept: int = 0


class Unfinished:
    """The files of an export to `target` that has not ended."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.part = _next_to(target, ".part")
        self._notes = _next_to(target, ".part.json")
        self._fresh = _next_to(target, ".part.json.new")
        self._lock = _next_to(target, ".part.lock")

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other exports from this target. Raises ExportError if it exists, can't be written or is in use."""
        self._require_new()
        lock = FileLock(self._lock, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ExportError(f"Another export to {self.target} is running. Wait until it ends.") from None
        try:
            self._require_new()
            yield
        finally:
            # Removed while it is held: after the release another process might hold it.
            with suppress(OSError):
                self._lock.unlink()
            lock.release()

    def segment(self, number: int) -> Path:
        """Return the file of a segment."""
        return _next_to(self.target, f".part.{number:05d}")

    def read(self) -> ExportState | None:
        """Return how far an earlier export came, None if there is none. Raises ExportError if that can't be read."""
        try:
            return ExportState.model_validate_json(self._notes.read_bytes())
        except FileNotFoundError:
            if self.part.exists():
                raise ExportError(
                    f"{self.part} is in the way, and is no export that can be resumed. Move or delete it."
                ) from None
            return None
        except ValidationError:
            raise ExportError(f"{self._notes} can't be read. Use --restart to begin again.") from None

    def save(self, state: ExportState) -> None:
        """Say how far the export has come; the rows must be on disk."""
        with self._fresh.open("wb") as file:
            file.write(state.model_dump_json(indent=2).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._fresh.replace(self._notes)

    @contextmanager
    def at_once(self) -> Iterator[IO[bytes]]:
        """Write the target in one go, in a claimed place: it appears when the block ends, and never in part."""
        try:
            with self.part.open("xb", buffering=0) as file:
                yield file
                os.fsync(file.fileno())
        except FileExistsError:
            raise ExportError(f"{self.part} is in the way. Move or delete it.") from None
        except OSError as error:
            self.part.unlink(missing_ok=True)
            raise ExportError(f"{self.target} can't be written: {error.strerror or error}.") from None
        except BaseException:
            self.part.unlink(missing_ok=True)
            raise
        self.finish()

    def discard(self) -> None:
        """Delete what an earlier export has left."""
        for file in (*self.segments(), self.part, self._fresh, self._notes):
            file.unlink(missing_ok=True)

    def segments(self, after: int = 0) -> list[Path]:
        """Return the segments that exist, in order, without the first ones."""
        found = self.target.parent.glob(f"{_escaped(self.target.name)}.part.[0-9][0-9][0-9][0-9][0-9]")
        return sorted(file for file in found if int(file.suffix[1:]) > after)

    def finish(self) -> None:
        """Give the complete part file its name. Raises ExportError if that exists meanwhile."""
        try:
            # Unlike a rename, a link never replaces a file.
            self.target.hardlink_to(self.part)
        except FileExistsError:
            # Even if it is gone by now: the only other copy is discarded below.
            raise ExportError(f"{self.target} exists, and nothing is overwritten. {self.part} is complete.") from None
        except OSError:  # a file system without links
            self._require_new()
            self.part.rename(self.target)
        self.discard()

    def _require_new(self) -> None:
        if os.path.lexists(self.target):
            raise ExportError(f"{self.target} exists, and nothing is overwritten. Choose another name, or delete it.")
        if not self.target.parent.is_dir():
            raise ExportError(f"The folder {self.target.parent} does not exist. Create it, or choose another file.")
        if not os.access(self.target.parent, os.W_OK):
            raise ExportError(f"The folder {self.target.parent} can't be written to. Choose another file.")


def _next_to(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def _escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
