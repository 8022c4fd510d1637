"""The source and the disks of a night fail when its plan says so, and only then."""

import errno

import pytest

from db.database_errors import SelectError, SourceUnreachableError, SpoolError
from db.ledger import spill
from db.ledger.refused_rows import RefusedRow
from db.ledger.rows import TextRow, WriteBatch
from db.sources import select
from db.sources.access import open_source
from db.sources.spool import RunSpools, sweep
from db.sources.statements import Query
from tests.nights.plan import AT_A_TIME, Event, Night
from tests.nights.simulated.database import TROUBLES, Outage
from tests.nights.simulated.disks import DISK_TROUBLES
from tests.nights.simulated.machines import KilledError
from tests.nights.simulated.sources import SOURCE_TROUBLES
from tests.nights.simulated.workplace import RECORDS_KEPT_S, Workplace
from tests.nights.simulated.world import World

ALL = Query("note", "SELECT id, name FROM items ORDER BY id", ("id",), {})


async def _no_work() -> None:
    """Do nothing."""


@pytest.fixture
def world(place: Workplace) -> World:
    """A world in which one process is at work, on the machine A."""
    world = World(0, str(place.folder))
    world.start("p0", world.host("machine A"), _no_work)
    return world


def begin(place: Workplace, world: World, *troubles: Outage) -> RunSpools:
    place.begin(world, Night(0, records=6), troubles)
    return RunSpools(place.spool_folder("machine A"), "run-1")


def read(place: Workplace, spools: RunSpools) -> int:
    engine = open_source(str(place.settings.source_url))
    select.spool(engine, ALL, lambda: spools.writing("a"))
    engine.dispose()
    spool = spools.open("a")
    spool.close()
    return spool.count


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        ("source_unavailable", SourceUnreachableError),
        ("source_lost", SourceUnreachableError),
        ("source_fails", SelectError),
        ("spool_full", SpoolError),
    ],
)
def test_source_and_spools_fail_while_they_are_in_trouble(
    place: Workplace, world: World, trouble: str, error: type[Exception]
) -> None:
    spools = begin(place, world, Outage(trouble, 0.0, 500.0, "machine A" if trouble == "spool_full" else None))
    with pytest.raises(error):
        read(place, spools)
    world.now = 500.0
    assert read(place, spools) == 6


def test_source_that_is_lost_for_a_moment_is_read_again(place: Workplace, world: World) -> None:
    assert read(place, begin(place, world, Outage("source_lost", 0.0, 2.0))) == 6
    assert world.now >= 2.0


@pytest.mark.parametrize(
    ("trouble", "code"),
    [("spill_full", errno.ENOSPC), ("spill_unwritable", errno.EROFS), ("disks_full", errno.ENOSPC)],
)
def test_spill_file_can_not_be_written_while_its_disk_is_in_trouble(
    place: Workplace, world: World, trouble: str, code: int
) -> None:
    begin(place, world, Outage(trouble, 0.0, 9.0))
    folder, other = place.folder / "spill" / "machine A", place.folder / "temporary" / "presswork-spill"
    with pytest.raises(OSError, match=r".") as raised:
        spill.keep_batch(folder, "r1", WriteBatch())
    assert raised.value.errno == code
    if trouble != "disks_full":
        assert spill.keep_batch(other, "r1", WriteBatch()).exists()
    world.now = 9.0
    assert spill.keep_batch(folder, "r1", WriteBatch()).exists()


def test_kill_in_a_write_leaves_half_a_line(place: Workplace, world: World) -> None:
    begin(place, world)
    place.disks.cut["p0"] = 2
    path = spill.keep_batch(place.folder / "spill" / "machine A", "r1", WriteBatch())
    whole = path.read_bytes()
    # Only writes to spill files count.
    spill.keep_refused(path.parent, "r1", [RefusedRow(TextRow("h", "a text"), None, "refused", None)])
    assert not place.disks.cut_files
    with pytest.raises(KilledError):
        spill.keep_batch(path.parent, "r1", WriteBatch())
    assert len(whole) < len(path.read_bytes()) < 2 * len(whole)
    assert place.disks.cut_files == {path}


def test_records_are_swept_by_the_clock_of_the_machine(place: Workplace, world: World) -> None:
    read(place, begin(place, world))
    folder = place.spool_folder("machine A")
    world.kill(world.processes[0])
    world.start("p1", world.host("machine A"), _no_work)
    world.now = RECORDS_KEPT_S - 10
    sweep(folder)
    assert len(list(folder.rglob("*.spool"))) == 1
    # The folder itself was seen for the first time.
    world.now += RECORDS_KEPT_S + 10
    assert sweep(folder) == 1
    assert not list(folder.rglob("*.spool"))


def test_event_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no such kind of event"):
        Event("kil", nth=1)


def test_all_troubles_are_kinds_of_events_that_happen_at_a_time() -> None:
    assert TROUBLES | DISK_TROUBLES | SOURCE_TROUBLES <= AT_A_TIME
