"""Wait until one of some files is saved.

What counts is the files' content: an event of the operating system only tells when to read them. So an editor that
saves by renaming, writes copies and swap files or touches a file without changing it needs no rule of its own, no
save during a trial is missed, and where no events arrive (network folders, containers) the files are read each second.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import watchfiles

from db.machine import monotonic_s

QUIET_S = 0.1
"""How long no file may change before a save is complete: editors that format a file on saving write it twice."""
VANISHED_S = 0.5
"""How long a file may be missing or empty while it is saved."""
LOOK_EVERY_S = 1.0
"""How often files are read where no events arrive."""
MOST_S = 2.0
"""How long to wait for the end of saves that follow each other."""
_STEP_MS, _MOST_MS = 5, 50


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was read: the hash of its content (None: missing or unreadable), and when it was written."""

    digest: bytes | None = None
    is_empty: bool = False
    saved_at: tuple[int, int] = (0, 0)


Snapshot = Mapping[Path, FileState]


def take_snapshot(paths: Collection[Path]) -> Snapshot:
    """Read files as they are now."""
    return {path: _state_of(path) for path in paths}


def changed_between(before: Snapshot, after: Snapshot) -> list[Path]:
    """Return the files of the snapshot before whose content is another one in the snapshot after."""
    return [path for path in before if path in after and before[path].digest != after[path].digest]


async def next_save(seen: Snapshot) -> Snapshot:
    """Wait until a file is saved, whether its content changes or not, and return how the files are afterwards.

    Returns at once if a file is no longer as it was seen. Saves that follow closely count as one.
    """
    now = take_snapshot(seen)
    if now == seen:
        async with aclosing(_hints(seen)) as hints:
            async for _hint in hints:
                now = take_snapshot(seen)
                if now != seen:
                    break
    return await _settled(seen, now)


async def _settled(seen: Snapshot, now: Snapshot) -> Snapshot:
    began = monotonic_s()
    while True:
        await asyncio.sleep(QUIET_S)
        before, now, waited = now, take_snapshot(seen), monotonic_s() - began
        is_half_saved = any(_is_blank(now[path]) and not _is_blank(seen[path]) for path in seen)
        if waited >= MOST_S or (now == before and not (is_half_saved and waited < VANISHED_S)):
            return now


def _is_blank(state: FileState) -> bool:
    return state.digest is None or state.is_empty


def _state_of(path: Path) -> FileState:
    try:
        content, stat = path.read_bytes(), path.stat()
    except (OSError, ValueError):
        return FileState()
    return FileState(hashlib.sha256(content).digest(), not content, (stat.st_mtime_ns, stat.st_ino))


async def _hints(paths: Collection[Path]) -> AsyncGenerator[None, None]:
    """Yield whenever it is worth reading the files again: at events in their folders, and each second."""
    while True:
        folders = _folders_of(paths)
        try:
            async with aclosing(_events(folders)) as events:
                async for found in events:
                    yield
                    if any(Path(path) in folders for _change, path in found) or _folders_of(paths) != folders:
                        break
        except (OSError, RuntimeError):
            # The system may have no more watches to give, or a folder disappeared at this moment.
            await asyncio.sleep(LOOK_EVERY_S)
            yield


def _events(folders: Collection[Path]) -> AsyncGenerator[set[tuple[watchfiles.Change, str]], None]:
    return watchfiles.awatch(
        *folders,
        watch_filter=None,
        debounce=_MOST_MS,
        step=_STEP_MS,
        rust_timeout=round(LOOK_EVERY_S * 1000),
        yield_on_timeout=True,
        recursive=False,
    )


def _folders_of(paths: Collection[Path]) -> dict[Path, int]:
    """Return the folders to watch, each with what tells it from a later folder of its name.

    Files are saved by renaming, so their folders are watched; of a symbolic link also the folder that it leads to. Of
    a folder that is missing, the nearest one that is there sees it come.
    """
    found = {}
    for path in paths:
        # Symbolic links in a circle are a RuntimeError before Python 3.13.
        with suppress(OSError, RuntimeError):
            for file in (path, path.resolve()):
                folder = next(each for each in file.parents if each.is_dir())
                found[folder] = folder.stat().st_ino
    return found
