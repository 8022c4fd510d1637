"""Waiting for a save: however an editor saves, only what a file then says counts."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from presswork.trying import changes
from presswork.trying.changes import Snapshot, changed_between, next_save, take_snapshot

WITHIN_S = 30


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "templates"
    folder.mkdir()
    file = folder / "note.md.j2"
    file.write_text("one", encoding="utf-8")
    return file


def save_in_place(file: Path, text: str = "two") -> None:
    file.write_text(text, encoding="utf-8")


def remove(file: Path) -> None:
    file.unlink()


def save_by_renaming(file: Path) -> None:
    """As PyCharm and vim do, with a copy of the file as it was."""
    shutil.copy(file, file.with_name(file.name + "~"))
    new = file.with_name(f".{file.name}.tmp")
    new.write_text("two", encoding="utf-8")
    new.replace(file)


def save_by_moving_away(file: Path) -> None:
    """As vim does with `backupcopy=no`: for a moment there is no file."""
    file.rename(file.with_name(file.name + "~"))
    file.write_text("two", encoding="utf-8")


def save_twice(file: Path) -> None:
    file.write_text("almost two", encoding="utf-8")
    file.write_text("two", encoding="utf-8")


SAVES = [save_in_place, save_by_renaming, save_by_moving_away, save_twice]


@asynccontextmanager
async def waiting_for(seen: Snapshot) -> AsyncIterator[asyncio.Task[Snapshot]]:
    """Wait for a save in the background, long enough for the watch to stand before the block saves."""
    async with asyncio.timeout(WITHIN_S):
        task = asyncio.create_task(next_save(seen))
        await asyncio.sleep(0.2)
        yield task
        task.cancel()


@pytest.mark.parametrize("save", SAVES)
async def test_save_is_seen_however_the_editor_does_it(file: Path, save: Callable[[Path], None]) -> None:
    seen = take_snapshot([file])
    async with waiting_for(seen) as task:
        save(file)
        now = await task

    assert changed_between(seen, now) == [file]
    assert now == take_snapshot([file])


async def test_save_before_the_wait_is_seen_without_an_event(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_events", no_events)
    seen = take_snapshot([file])
    save_in_place(file)

    assert changed_between(seen, await next_save(seen)) == [file]


def no_events(*_folders: object) -> AsyncIterator[object]:
    raise OSError(28, "no more watches")


async def test_save_is_seen_where_no_events_arrive(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_events", no_events)
    monkeypatch.setattr(changes, "LOOK_EVERY_S", 0.01)
    seen = take_snapshot([file])
    async with waiting_for(seen) as task:
        save_by_renaming(file)

        assert changed_between(seen, await task) == [file]


async def test_touched_file_has_no_change(file: Path) -> None:
    seen = take_snapshot([file])
    async with waiting_for(seen) as task:
        os.utime(file, (1, 1))
        now = await task

    assert changed_between(seen, now) == []
    assert now != seen


async def test_files_of_an_editor_are_no_save(file: Path) -> None:
    seen = take_snapshot([file])
    async with waiting_for(seen) as task:
        for name in (".note.md.j2.swp", "4913", ".#note.md.j2", "note.md.j2~", "#note.md.j2#"):
            save_in_place(file.with_name(name))
        await asyncio.sleep(0.3)
        assert not task.done()
        save_in_place(file)

        assert changed_between(seen, await task) == [file]


async def test_file_that_is_missing_while_it_is_saved_counts_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "VANISHED_S", WITHIN_S)
    monkeypatch.setattr(changes, "MOST_S", WITHIN_S)
    seen = take_snapshot([file])
    async with waiting_for(seen) as task:
        save_in_place(file, "")
        await asyncio.sleep(0.2)
        remove(file)
        await asyncio.sleep(0.2)
        save_in_place(file)
        now = await task

    assert now == take_snapshot([file])


async def test_removed_file_is_a_change_and_so_is_its_return(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "VANISHED_S", 0.1)
    seen = take_snapshot([file])
    remove(file)
    gone = await next_save(seen)
    assert changed_between(seen, gone) == [file]
    async with waiting_for(gone) as task:
        save_in_place(file)

        assert changed_between(gone, await task) == [file]


async def test_folder_that_goes_and_comes_back_is_watched_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "VANISHED_S", 0.1)
    seen = take_snapshot([file])
    async with waiting_for(seen) as task:
        shutil.rmtree(file.parent)
        gone = await task
    async with waiting_for(gone) as task:
        file.parent.mkdir()
        await asyncio.sleep(0.2)
        save_in_place(file)
        back = await task

    assert changed_between(seen, gone) == changed_between(gone, back) == [file]


async def test_save_of_the_file_behind_a_symbolic_link_is_seen(file: Path) -> None:
    linked, target = file.parent / "linked.md.j2", file.parent / "deep" / "note.md.j2"
    target.parent.mkdir()
    save_in_place(target, "one")
    linked.symlink_to(target)
    seen = take_snapshot([linked])
    async with waiting_for(seen) as task:
        save_by_renaming(target)

        assert changed_between(seen, await task) == [linked]


async def test_many_files_saved_at_once_are_one_save(file: Path) -> None:
    files = [file.with_name(f"part{number}.j2") for number in range(50)]
    seen = take_snapshot(files)
    async with waiting_for(seen) as task:
        for each in files:
            each.write_text("two", encoding="utf-8")

        assert changed_between(seen, await task) == files


async def test_second_save_soon_after_the_first_counts_as_the_same(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "QUIET_S", 1.0)
    seen = take_snapshot([file])
    async with waiting_for(seen) as task:
        save_in_place(file, "almost two")
        await asyncio.sleep(0.3)
        save_in_place(file)
        now = await task

    assert now == take_snapshot([file])


async def test_file_that_never_rests_does_not_delay_without_end(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MOST_S", 0.2)
    seen = take_snapshot([file])
    async with waiting_for(seen) as task:
        number = 0
        while not task.done():
            number += 1
            save_in_place(file, str(number))
            await asyncio.sleep(0.01)

        assert changed_between(seen, await task) == [file]


async def test_wait_can_be_ended(file: Path) -> None:
    async with waiting_for(take_snapshot([file])) as task:
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
