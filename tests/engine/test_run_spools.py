"""A run's selected records are kept for its steps and for the runs that resume it, and for no other run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from db.database_errors import KeyValueError, SpoolError
from db.sources import values
from db.sources.access import open_source
from db.sources.spool import SPOOL_SUFFIX, UNFINISHED, RunSpools
from db.sources.statements import Query
from presswork.engine.materials.handles import Material, Selected
from presswork.engine.materials.run_selects import Spooling
from presswork.engine.resources.source_reads import SourceReader
from presswork.report.progress import Progress
from tests.waiting import until

SAMPLE = "SELECT id, name FROM items ORDER BY random() LIMIT 40"
ALL = "SELECT id, name FROM items"

Runs = Callable[..., "Selecting"]


class Selecting:
    """The parts of a run that its selects need."""

    def __init__(self, folder: Path, source: Engine, run_id: str, resumed: Sequence[str] = ()) -> None:
        self.folder = folder
        self.progress = Progress(run_id, "note", "sandbox")
        self.spools = RunSpools(folder, run_id, resumed)
        self.spooling = Spooling(self.spools, self.progress)
        self.url = str(source.url)
        self.reader = SourceReader(partial(open_source, self.url), contextlib.nullcontext)
        self.records = 0

    def select(self, sql: str = ALL, *, limit: int | None = None) -> Selected:
        query = Query("note.md.j2", sql, ("id",), {}, limit)
        name = self.spooling.name(query, self.url)
        find = partial(self.spooling.records, name, query, self.reader)
        return Selected(query, find=find, read=self.reader.work, tell=self._count, params={})

    def files(self) -> list[Path]:
        found = self.folder.rglob("*") if self.folder.is_dir() else ()
        return sorted(path for path in found if path.suffix in {SPOOL_SUFFIX, UNFINISHED})

    def _count(self, count: int) -> None:
        self.records += count


async def materials(selected: Selected) -> list[Material]:
    return [material async for page in selected.pages(frozenset()) for material in page]


async def keys(selected: Selected) -> list[str]:
    return [material.key for material in await materials(selected)]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Engine]:
    """A source with 1,000 items."""
    engine = create_engine(f"sqlite:///{tmp_path / 'source.sqlite'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE items (id TEXT, name TEXT)"))
        rows = [{"id": f"{number:05}", "name": f"item {number}"} for number in range(1000)]
        connection.execute(text("INSERT INTO items VALUES (:id, :name)"), rows)
    yield engine
    engine.dispose()


@pytest.fixture
def runs(tmp_path: Path, source: Engine) -> Iterator[Callable[..., Selecting]]:
    """Open runs, and close them at the end of the test."""
    opened: list[Selecting] = []

    def open_one(run_id: str, resumed: Sequence[str] = ()) -> Selecting:
        opened.append(Selecting(tmp_path / "spools", source, run_id, resumed))
        return opened[-1]

    yield open_one
    for run in opened:
        run.spooling.spools.close()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("prefect.presswork")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, "prefect.presswork"):
        yield caplog
    logger.removeHandler(caplog.handler)


class Gate:
    """Pauses each select after it has spooled its first rows."""

    def __init__(self) -> None:
        self._met = threading.Semaphore(0)
        self._opened = threading.Event()

    def hold(self) -> None:
        self._met.release()
        assert self._opened.wait(60)

    async def reached(self, selects: int) -> None:
        for _select in range(selects):
            assert await asyncio.to_thread(self._met.acquire, timeout=60)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate, real = Gate(), RunSpools.writing

    @contextlib.contextmanager
    def writing(spools: RunSpools, name: str) -> Iterator[Any]:
        with real(spools, name) as file:
            add = file.add

            def added(records: Sequence[Any]) -> None:
                if file.count == 500:
                    gate.hold()
                add(records)

            file.add = added  # type: ignore[method-assign] # the select is held up between two pages
            yield file

    monkeypatch.setattr(RunSpools, "writing", writing)
    return gate


async def test_run_that_resumes_another_works_on_its_sample_until_it_has_completed(
    runs: Runs, source: Engine, log: pytest.LogCaptureFixture
) -> None:
    first = runs("first")
    sample = await keys(first.select(SAMPLE))
    first.spooling.spools.close()
    with source.begin() as connection:
        # Changes in the source do not affect this run.
        connection.execute(text("DELETE FROM items"))
    second = runs("second", ["first"])

    assert await keys(second.select(SAMPLE)) == sample
    assert (len(sample), second.records, second.progress.notes) == (40, 40, {})
    assert "note.md.j2: using the records that were read at " in log.text
    second.spooling.spools.remove()
    assert not list(second.folder.iterdir())


async def test_run_that_resumes_none_reads_its_source_again_and_leaves_the_others_files(runs: Runs) -> None:
    first, second = runs("first"), runs("second")
    sample = await keys(first.select(SAMPLE))

    assert await keys(second.select(SAMPLE)) != sample
    second.spooling.spools.remove()
    assert [path.parent.name for path in first.files()] == ["first"]


@pytest.mark.parametrize("how", ["elsewhere", "another limit"])
async def test_run_that_finds_no_sample_selects_again_and_says_so(
    runs: Runs, how: str, log: pytest.LogCaptureFixture
) -> None:
    first = runs("first")
    await keys(first.select(SAMPLE))
    first.spooling.spools.close()
    if how == "elsewhere":
        shutil.rmtree(first.folder)
    second = runs("second", ["first"])

    found = await keys(second.select(SAMPLE, limit=30 if how == "another limit" else None))

    (note,) = second.progress.notes.values()
    assert len(found) == (30 if how == "another limit" else 40)
    assert "note.md.j2: the select was executed again" in note
    assert "that the run first read" in note
    assert note in log.text


async def test_second_select_of_the_same_template_has_records_of_its_own(runs: Runs, source: Engine) -> None:
    run = runs("run")
    first = run.select()
    counts = [await first.count()]
    with source.begin() as connection:
        connection.execute(text("INSERT INTO items VALUES ('more', 'one more')"))
    second = run.select()
    counts += [await second.count(), await first.count()]

    assert counts == [1000, 1001, 1000]
    assert len(run.files()) == 2


async def test_two_selects_of_one_template_tell_apart_how_far_they_are(runs: Runs, gate: Gate) -> None:
    run = runs("run")
    reading = asyncio.gather(*(run.select().count() for _select in range(2)))
    await gate.reached(2)
    said = run.progress.selected()
    gate.open()

    assert await reading == [1000, 1000]
    assert said == ["500 records read by note.md.j2"] * 2
    assert run.progress.selected() == []


async def test_select_that_takes_long_tells_the_log_how_far_it_is(
    runs: Runs, gate: Gate, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presswork.engine.materials.run_selects.TELL_AFTER_S", 0.01)
    monkeypatch.setattr("presswork.engine.materials.run_selects.TELL_EVERY_S", 0.01)
    run = runs("run")
    reading = asyncio.create_task(run.select().count())
    await gate.reached(1)
    await until(lambda: "500 records read so far" in log.text)
    words = run.progress.words()
    gate.open()

    assert await reading == 1000
    assert "selecting; 500 records read by note.md.j2" in words


async def test_select_of_a_run_that_is_stopping_ends_where_its_driver_can_not_be_interrupted(
    runs: Runs, gate: Gate
) -> None:
    run = runs("run")
    reading = asyncio.create_task(run.select().count())
    await gate.reached(1)
    run.progress.is_stopping = lambda: True
    gate.open()

    with pytest.raises(InterruptedError):
        await reading
    assert not run.files()


async def test_select_whose_keys_can_not_be_used_keeps_nothing(runs: Runs) -> None:
    run = runs("run")
    with pytest.raises(KeyValueError, match="999 records repeat one, such as 1"):
        await run.select("SELECT 1 AS id, name FROM items").count()
    run.spooling.spools.close()
    assert not list(run.folder.iterdir())
    assert run.records == 0


async def test_folder_that_takes_nothing_is_an_error_that_names_its_setting(tmp_path: Path, source: Engine) -> None:
    (tmp_path / "file").touch()
    run = Selecting(tmp_path / "file", source, "run")
    with pytest.raises(SpoolError, match=r"can't be stored in .*/file: .* PRESSWORK_SPOOL_DIR"):
        await run.select().count()


async def test_limit_takes_the_first_records_of_the_select_in_its_own_order(runs: Runs) -> None:
    found = await keys(runs("run").select(f"{ALL} ORDER BY id DESC", limit=3))
    assert found == ["00999", "00998", "00997"]


async def test_record_that_can_not_be_read_is_a_material_with_a_fault(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[str, Mapping[str, Any]], values.Record] = values.make_record

    def reading(key: str, data: Mapping[str, Any]) -> values.Record:
        if key == "00002":
            raise ValueError("no such moment")
        return real(key, data)

    monkeypatch.setattr("db.sources.select.make_record", reading)
    found = await materials(runs("run").select(limit=4))

    assert [material.key for material in found] == ["00000", "00001", "00002", "00003"]
    (fault,) = [material.fault for material in found if material.fault is not None]
    assert (fault.kind, str(fault)) == ("unreadable", "the record can't be read: no such moment")
    assert found[2].record is None
