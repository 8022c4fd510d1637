"""A select runs once, into a file for this user only, which survives a crash and is removed after its use."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.pool import QueuePool

from db.database_errors import KeyValueError, SelectError, SourceUnreachableError, SpoolError
from db.identity import this_process
from db.sources import select
from db.sources import spool as spools
from db.sources.access import open_source
from db.sources.select import check_columns, read_record
from db.sources.spool import KEPT_S, RunSpools, Spool, Unreadable, spool_name, sweep
from db.sources.statements import Query
from db.sources.values import Record
from tests.conftest import ROOT
from tests.machines import SetMachine

RANDOM = {"mysql": "rand()"}
FILL = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last}) SELECT i FROM n",
    "postgresql": "SELECT i FROM generate_series(0, {last}) AS n(i)",
    "mysql": "SELECT seq FROM seq_0_to_{last}",
    "duckdb": "SELECT i FROM range({last} + 1) AS n(i)",
}


@pytest.fixture
def items(source_database_url: str) -> Iterator[Engine]:
    """A source on each database, with 2,000 rows."""
    writer = create_engine(source_database_url)
    with writer.begin() as connection:
        connection.execute(text("CREATE TABLE items (id INT, name VARCHAR(50))"))
        numbers = FILL[writer.dialect.name].format(last=1999)
        connection.execute(
            text(f"INSERT INTO items SELECT i, 'some item' FROM ({numbers.replace('seq ', 'seq AS i ')}) AS n")
        )
    writer.dispose()
    engine = open_source(source_database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[RunSpools]:
    made = RunSpools(tmp_path / "spools", "run-1")
    yield made
    made.close()


def query(sql: str, *key: str, limit: int | None = None) -> Query:
    return Query("items.md.j2", sql, key or ("id",), {}, limit)


def spooled(engine: Engine, mine: RunSpools, asked: Query, **options: Any) -> Spool:
    name = spool_name(asked.sql, asked.limit)
    select.spool(engine, asked, lambda: mine.writing(name), **options)
    return mine.open(name)


def keys(found: Spool) -> list[str]:
    return [record.key for page in found.pages(500) for record in page]


def connections(engine: Engine) -> int:
    """How many connections of an engine are in use."""
    assert isinstance(engine.pool, QueuePool)
    return engine.pool.checkedout()


def files(mine: RunSpools) -> list[Path]:
    return sorted(path for path in mine._folder.rglob("*") if path.suffix in {spools.SPOOL_SUFFIX, spools.UNFINISHED})


# Once, unchanged


def test_select_is_executed_once_and_its_connection_is_released(items: Engine, mine: RunSpools) -> None:
    statements: list[str] = []
    event.listen(items, "before_cursor_execute", lambda _c, _cursor, sql, *_rest: statements.append(sql))
    found = spooled(items, mine, query("SELECT id, name FROM items"))
    assert (found.count, len(set(keys(found)))) == (2000, 2000)
    assert sum("FROM items" in sql for sql in statements) == 1
    assert connections(items) == 0


def test_sample_in_random_order_has_each_of_its_records_once(items: Engine, mine: RunSpools) -> None:
    random = RANDOM.get(items.dialect.name, "random()")
    found = spooled(items, mine, query(f"SELECT id, name FROM items ORDER BY {random} LIMIT 700"))
    assert (found.count, len(set(keys(found)))) == (700, 700)
    assert keys(found) != sorted(keys(found), key=int)


def test_now_is_one_moment(items: Engine, mine: RunSpools) -> None:
    now = {"sqlite": "strftime('%f', 'now')", "mysql": "now(6)"}.get(items.dialect.name, "now()")
    found = spooled(items, mine, query(f"SELECT id, {now} AS at FROM items"), tell=lambda _count: time.sleep(0.01))
    moments = {record.data["at"] for page in found.pages(500) for record in page if isinstance(record, Record)}
    assert len(moments) == 1


def test_columns_keep_their_order(items: Engine, mine: RunSpools) -> None:
    found = spooled(items, mine, query("SELECT name, id, id + 1 AS a FROM items WHERE id = 7"))
    ((record,),) = found.pages(10)
    assert isinstance(record, Record)
    assert (list(record.data), record.body) == (["name", "id", "a"], '{"a":8,"id":7,"name":"some item"}')


def test_key_of_several_columns(items: Engine, mine: RunSpools) -> None:
    part = "CASE WHEN id < 2 THEN 'a|b' ELSE 'c' END AS part"
    found = spooled(items, mine, query(f"SELECT id, {part} FROM items WHERE id < 3 ORDER BY id", "part", "id"))
    assert keys(found) == [r"a\|b|0", r"a\|b|1", "c|2"]
    with pytest.raises(KeyValueError, match=r"1 of 3 records has no 'id', 'part' \(one of them is null\)"):
        spooled(items, mine, query("SELECT id, NULLIF(id, 1) AS part FROM items WHERE id < 3", "id", "part"))
    with pytest.raises(SelectError, match="does not yield the key column 'line'"):
        spooled(items, mine, query("SELECT id FROM items", "id", "line"))


ENDLESS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id FROM n",
    "postgresql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id FROM n",
    "mysql": "SELECT seq AS id FROM seq_1_to_1000000000",
    "duckdb": "SELECT i AS id FROM range(1, 100000000000) AS n(i)",
}


@pytest.mark.parametrize("limit", [3, 500, 1200])
def test_reading_stops_at_the_limit(items: Engine, mine: RunSpools, limit: int) -> None:
    found = spooled(items, mine, query(ENDLESS[items.dialect.name], limit=limit))
    assert keys(found) == [str(number) for number in range(1, limit + 1)]


def test_reading_that_is_stopped_leaves_nothing(items: Engine, mine: RunSpools) -> None:
    def give_up(count: int) -> None:
        if count >= 1000:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        spooled(items, mine, query(ENDLESS[items.dialect.name]), tell=give_up)
    assert files(mine) == []
    assert connections(items) == 0


def test_breaking_off_prints_nothing_on_the_screen(
    items: Engine, mine: RunSpools, caplog: pytest.LogCaptureFixture
) -> None:
    asked = query("SELECT id, name FROM items", limit=3)

    assert spooled(items, mine, asked).count == 3
    assert select.read_record(items, asked, "1999") is not None
    with pytest.raises(SelectError):
        spooled(items, mine, query("SELECT name FROM items"))

    # SQLAlchemy logs a cursor that can't be closed with its traceback, and Python prints that.
    assert [record.getMessage() for record in caplog.records] == []


KILL = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
    "AND datname = current_database()",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()",
}


@pytest.mark.parametrize("source_database_url", ["postgres", "mariadb"], indirect=True)
def test_connection_that_is_lost_meanwhile_begins_the_spool_from_scratch(
    items: Engine, mine: RunSpools, source_database_url: str
) -> None:
    killer = create_engine(source_database_url)
    told: list[int] = []

    def kill(count: int) -> None:
        told.append(count)
        if told != [500]:
            return
        with killer.connect() as connection:
            found = connection.execute(text(KILL[killer.dialect.name])).scalars().all()
            for number in found if killer.dialect.name == "mysql" else ():
                connection.execute(text(f"KILL {number}"))

    # Long enough that not all rows are already on their way.
    wide = query("SELECT a.id * 2000 + b.id AS id, repeat('x', 200) AS wide FROM items a, items b WHERE a.id < 100")
    found = spooled(items, mine, wide, tell=kill)
    assert (found.count, len(set(keys(found)))) == (200_000, 200_000)
    # MariaDB's rows may be on their way already when the connection ends.
    begun_again = told.index(0)
    assert told[begun_again + 1 :] == [*range(500, 200_001, 500)]
    killer.dispose()


def test_source_that_stays_away_is_waited_for_and_then_named(
    items: Engine, mine: RunSpools, machine: SetMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    machine.sleep = slept.append
    monkeypatch.setattr(select, "is_lost", lambda *_: True)
    with pytest.raises(SourceUnreachableError, match=r"items\.md\.j2: the source can't be reached"):
        spooled(items, mine, query("SELECT * FROM gone"))
    assert sum(slept) >= select.RECONNECT_WITHIN_S
    assert files(mine) == []


@pytest.mark.parametrize(
    "sql",
    ["DELETE FROM items", "DROP TABLE items", "", "SELECT nonsense FROM items", "SELECT id FROM nowhere", "SELEC 1"],
)
def test_what_is_no_select_or_writes_is_refused_and_changes_nothing(items: Engine, mine: RunSpools, sql: str) -> None:
    with pytest.raises(SelectError, match=r"^items\.md\.j2: the select (fails: .+ Try the SQL|begins with|is empty)"):
        spooled(items, mine, query(sql))
    assert files(mine) == []
    assert spooled(items, mine, query("SELECT id FROM items")).count == 2000


# Checks before a run


EXECUTED = {
    "sqlite": "executed()",
    "postgresql": "executed()",
    "mysql": "sleep(3)",
    "duckdb": "error('executed')",
}
SHAPES = [
    "SELECT {call} AS id",
    "SELECT id, {call} AS called FROM items",
    "SELECT id FROM items WHERE {call} IS NOT NULL",
    "SELECT id, {call} AS called FROM items ORDER BY 2 LIMIT 10",
    "SELECT DISTINCT id, {call} AS called FROM items",
    "SELECT id, max({call}) AS called FROM items GROUP BY id",
    "SELECT id, {call} AS called FROM items UNION ALL SELECT 1, {call}",
    "SELECT id, {call} AS called FROM items UNION SELECT 1, {call}",
    "WITH called AS (SELECT id, {call} AS it FROM items) SELECT id, it FROM called",
]


@pytest.mark.parametrize("shape", SHAPES)
def test_columns_are_found_without_executing_the_select(source_database_url: str, items: Engine, shape: str) -> None:
    called: list[int] = []
    kind = items.dialect.name
    if kind == "mysql" and "FROM" not in shape:
        pytest.skip("MariaDB computes a derived table of one constant row while it plans")
    if kind == "sqlite":

        def register(connection: Any, _entry: object) -> None:
            connection.create_function("executed", 0, lambda: called.append(1))

        event.listen(items, "connect", register)
        items.dispose()
    if kind == "postgresql":
        raising = "CREATE FUNCTION executed() RETURNS INT LANGUAGE plpgsql VOLATILE AS "
        writer = create_engine(source_database_url)
        with writer.begin() as connection:
            connection.execute(text(f"{raising} $$ BEGIN RAISE 'executed'; END $$"))
        writer.dispose()
    sql = shape.format(call=EXECUTED[kind])
    began = time.monotonic()
    check_columns(items, query(sql))
    assert (called, time.monotonic() - began < 2) == ([], True)
    with pytest.raises(SelectError, match="does not yield the key column 'nothing'"):
        check_columns(items, query(sql, "nothing"))


NAMES = [
    'SELECT id, name AS k, name AS "K" FROM items ORDER BY id',
    'SELECT id, name AS k, name AS "j:1", name AS "j_1" FROM items ORDER BY id',
]


@pytest.mark.parametrize("sql", NAMES)
def test_wrapped_select_has_the_names_that_it_has_by_itself(items: Engine, mine: RunSpools, sql: str) -> None:
    if items.dialect.name == "mysql":
        pytest.skip("MariaDB refuses two names in brackets that differ by case alone, and has no quotes like these")
    check_columns(items, query(sql))
    first = next(spooled(items, mine, query(sql)).pages(1))[0]
    assert isinstance(first, Record)
    assert read_record(items, query(sql), first.key) == first
    with pytest.raises(SelectError, match="does not yield the key column 'j'"):
        check_columns(items, query(sql, "j"))


def test_two_columns_of_one_name_are_reported_before_the_run(items: Engine) -> None:
    refusal = "Duplicate column name" if items.dialect.name == "mysql" else "yields the column 'name' more than once"
    with pytest.raises(SelectError, match=refusal):
        check_columns(items, query("SELECT id, name, name FROM items"))


# The file


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Engine]:
    """A source on SQLite only, for tests that do not depend on the database."""
    url = f"sqlite:///{tmp_path / 'shop.sqlite'}"
    writer = create_engine(url)
    with writer.begin() as connection:
        connection.execute(text("CREATE TABLE items (id INT, name TEXT)"))
        connection.execute(text(f"INSERT INTO items SELECT i, 'some item' FROM ({FILL['sqlite'].format(last=1999)})"))
    writer.dispose()
    engine = open_source(url)
    yield engine
    engine.dispose()


ALL = query("SELECT id, name FROM items")


def test_file_is_for_its_user_alone_from_the_first_moment(shop: Engine, mine: RunSpools) -> None:
    seen: set[int] = set()

    def look(_count: int) -> None:
        seen.update(stat.S_IMODE(path.stat().st_mode) for path in files(mine))

    before = os.umask(0)
    try:
        spooled(shop, mine, ALL, tell=look)
    finally:
        os.umask(before)
    (file,) = files(mine)
    assert (seen, stat.S_IMODE(file.stat().st_mode)) == ({0o600}, 0o600)
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (file.parent, file.parent.parent)} == {0o700}


def test_run_that_resumes_finds_what_was_read_and_another_does_not(
    shop: Engine, tmp_path: Path, mine: RunSpools
) -> None:
    name = spool_name("a")
    select.spool(shop, ALL, lambda: mine.writing(name))
    mine.close()
    for later, resumed, found in (
        ("run-2", ["run-1"], True),
        ("run-3", ["run-2", "run-1"], True),
        ("run-4", [], False),
    ):
        spool = RunSpools(tmp_path / "spools", later, resumed)
        again = spool.find(name)
        assert (again is not None) == found
        assert again is None or again.count == 2000
        assert spool.find(spool_name("b")) is None
        spool.close()
    assert len(files(mine)) == 1


@pytest.mark.postgres
@pytest.mark.parametrize(("kind", "trimmed"), [("CHAR(5)", True), ("VARCHAR(5)", False)])
def test_spool_tells_whether_its_keys_were_trimmed(
    postgres_server: str, tmp_path: Path, mine: RunSpools, kind: str, trimmed: bool
) -> None:
    engine = open_source(postgres_server)
    select.spool(engine, query(f"SELECT CAST('a' AS {kind}) AS id"), lambda: mine.writing("a"))
    engine.dispose()
    later = RunSpools(tmp_path / "spools", "run-2", ["run-1"])
    again = later.find("a")
    assert (mine.open("a").trimmed, again and again.trimmed) == (trimmed, trimmed)
    later.close()


def test_completed_run_removes_its_own_and_those_that_it_resumed(shop: Engine, tmp_path: Path, mine: RunSpools) -> None:
    other = RunSpools(tmp_path / "spools", "run-2")
    for each in (mine, other):
        select.spool(shop, ALL, partial(each.writing, "a"))
    last = RunSpools(tmp_path / "spools", "run-3", ["run-1"])
    assert last.find("a") is not None
    last.remove()
    assert [path.parent.name for path in files(mine)] == ["run-2"]


def test_records_are_read_by_their_keys_those_that_there_are(shop: Engine, mine: RunSpools) -> None:
    found = spooled(shop, mine, query("SELECT id, name FROM items ORDER BY id DESC"))
    some = found.records_of(["7", "no such key", "1999", "42"])
    # Whole records, in the select's order.
    assert [record.key for record in some] == ["1999", "42", "7"]
    assert some == [record for page in found.pages(500) for record in page if record.key in {"7", "42", "1999"}]
    everything = [str(number) for number in range(3000)]
    assert len(found.records_of(everything)) == 2000
    assert found.records_of([]) == []


def test_keys_come_in_their_own_order_each_once(shop: Engine, mine: RunSpools) -> None:
    found = spooled(shop, mine, query("SELECT id, name FROM items UNION ALL SELECT '', 'without a name'"))
    pages = list(found.keys(300))
    assert [len(page) for page in pages] == [300] * 6 + [201]
    assert [key for page in pages for key in page] == sorted(keys(found))


def test_records_by_key_need_no_look_at_the_others(shop: Engine, mine: RunSpools) -> None:
    found = spooled(shop, mine, ALL)
    for statement in ("SELECT key FROM records WHERE key IN ('1')", spools._REPEATED.replace("?", "1")):
        plan = found._database.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
        assert any("by_key" in line[-1] for line in plan), plan


def test_two_processes_of_one_run_write_the_same_spool_without_meeting(shop: Engine, tmp_path: Path) -> None:
    # One only slept, or was killed and left an unfinished file; the other has resumed the run.
    slept, other = (RunSpools(tmp_path / "spools", "run-1", ["run-1"]) for _ in range(2))
    with slept.writing("a") as unfinished:
        select.spool(shop, ALL, partial(other.writing, "a"))
        assert other.open("a").count == 2000
        unfinished.add([])
    again = other.find("a")
    assert again is not None
    for each in (slept, other):
        each.close()


def test_folder_belongs_to_the_process_that_has_resumed_the_run(
    shop: Engine, tmp_path: Path, mine: RunSpools, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as crashed:
        gone = "/".join([*this_process().split("/")[:1], "1", "1", *this_process().split("/")[3:]])
        crashed.setattr(spools, "this_process", lambda: gone)
        spooled(shop, mine, ALL)
    with RunSpools(tmp_path / "spools", "run-1").writing("b"):
        assert sweep(tmp_path / "spools") == 0
        assert len(files(mine)) == 2


def test_damaged_spool_is_not_found(shop: Engine, tmp_path: Path, mine: RunSpools) -> None:
    spooled(shop, mine, ALL)
    (file,) = files(mine)
    file.write_bytes(b"not a database" * 1000)
    later = RunSpools(tmp_path / "spools", "run-2", ["run-1"])
    assert later.find(file.stem) is None


def test_folder_of_a_run_that_kept_nothing_goes_with_it(shop: Engine, tmp_path: Path, mine: RunSpools) -> None:
    with pytest.raises(KeyValueError):
        spooled(shop, mine, query("SELECT 1 AS id FROM items"))
    mine.close()
    assert list((tmp_path / "spools").iterdir()) == []


def test_full_disk_is_named_with_what_to_do_and_leaves_nothing(
    shop: Engine, mine: RunSpools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "_WRITING", (*spools._WRITING, "PRAGMA max_page_count = 3"))
    with pytest.raises(SpoolError, match=r"can't be stored in .*/spools: .*full.* Free space .* PRESSWORK_SPOOL_DIR"):
        spooled(shop, mine, ALL)
    assert files(mine) == []


def test_folder_that_can_not_be_made_is_named(shop: Engine, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file", encoding="utf-8")
    with pytest.raises(SpoolError, match=r"can't be stored in .*/state/spools: Not a directory"):
        spooled(shop, RunSpools(tmp_path / "state" / "spools", "run-1"), ALL)


@pytest.mark.postgres
def test_record_that_can_not_be_read_is_kept_as_a_fault_by_its_key(postgres_server: str, mine: RunSpools) -> None:
    engine = open_source(postgres_server)
    deep = "CASE WHEN n = 2 THEN (repeat('[', 500) || repeat(']', 500))::json END"
    found = spooled(engine, mine, query(f"SELECT n AS id, {deep} AS deep FROM generate_series(1, 3) AS n"))
    ((first, second, third),) = found.pages(10)
    assert (first.key, second.key, third.key) == ("1", "2", "3")
    assert isinstance(second, Unreadable)
    assert "can't be read" in second.fault
    assert isinstance(third, Record)
    engine.dispose()


# After a crash


WRITER = """
import os, signal, sys, time
from pathlib import Path
from db.sources import select
from db.sources.access import open_source
from db.sources.statements import Query
from db.sources.spool import RunSpools
mine = RunSpools(Path(sys.argv[2]), "crashed")
def tell(count):
    if sys.argv[3] == "half" and count >= 1000:
        print("now", flush=True)
        time.sleep(600)
asked = Query("x", "SELECT id, name FROM items", ("id",), {})
select.spool(open_source(sys.argv[1]), asked, lambda: mine.writing("a"), tell=tell)
print("now", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("when", ["half", "whole"])
def test_kill_leaves_a_whole_spool_or_one_that_is_swept(shop: Engine, tmp_path: Path, when: str) -> None:
    folder = tmp_path / "spools"
    command = [sys.executable, "-c", WRITER, shop.url.render_as_string(), str(folder), when]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        # While its process runs, no sweep removes it.
        assert sweep(folder) == 0
        process.send_signal(signal.SIGKILL)
    later = RunSpools(folder, "later", ["crashed"])
    swept = sweep(folder)
    found = later.find("a")
    if when == "half":
        assert (swept, found, list(folder.iterdir())) == (1, None, [])
    else:
        assert (swept, found.count if found else 0) == (0, 2000)
    later.close()


def test_finished_spool_is_kept_for_a_bounded_time(shop: Engine, tmp_path: Path, mine: RunSpools) -> None:
    spooled(shop, mine, ALL)
    (file,) = files(mine)
    old = time.time() - KEPT_S - 60
    owner = file.parent / spools._OWNER
    for path in (file, owner, file.parent):
        os.utime(path, (old, old))
    assert sweep(tmp_path / "spools") == 0  # its process, this one, lives
    # Of another boot of this machine.
    host, *_rest = this_process().split("/")
    owner.write_text(f"{host}/1/1/another-boot/1", encoding="utf-8")
    os.utime(file, None)
    os.utime(file.parent, (old, old))
    assert sweep(tmp_path / "spools") == 0
    os.utime(file, (old, old))
    os.utime(owner, (old, old))
    assert sweep(tmp_path / "spools") == 1
    assert list((tmp_path / "spools").iterdir()) == []


def test_half_written_spool_of_a_process_that_can_not_be_seen_waits_its_time(tmp_path: Path) -> None:
    folder = tmp_path / "spools" / "run-1"
    folder.mkdir(parents=True)
    (folder / spools._OWNER).write_text("another-host/1/1/another-boot/1", encoding="utf-8")
    (folder / "a.part").touch()
    assert sweep(tmp_path / "spools") == 0
    assert (folder / "a.part").exists()


def test_sweep_touches_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    old = time.time() - KEPT_S - 60
    for name, marked in (("photos", False), ("mixed", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keep.txt").touch()
        if marked:
            (tmp_path / name / spools._OWNER).touch()
            (tmp_path / name / "a.spool").touch()
        for path in (*(tmp_path / name).iterdir(), tmp_path / name):
            os.utime(path, (old, old))
    sweep(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "mixed/keep.txt",
        "photos/keep.txt",
    ]


def test_nothing_to_sweep_is_no_error(tmp_path: Path) -> None:
    assert sweep(tmp_path / "nowhere") == 0
    (tmp_path / "stray").touch()
    assert sweep(tmp_path) == 0


def test_two_runs_at_once_have_separate_files(shop: Engine, tmp_path: Path, mine: RunSpools) -> None:
    other = RunSpools(tmp_path / "spools", "run-2")
    with mine.writing("a") as first, other.writing("a") as second:
        first.add([Unreadable("1", "")])
        second.add([Unreadable("2", "")])
    assert (keys(mine.open("a")), keys(other.open("a"))) == (["1"], ["2"])
    other.close()


def test_first_page_may_be_smaller_and_no_record_is_lost(items: Engine, mine: RunSpools) -> None:
    found = spooled(items, mine, query("SELECT id, name FROM items"))
    pages = list(found.pages(3, first=2))

    assert [len(page) for page in pages][:2] == [2, 3]
    assert [record.key for page in pages for record in page] == keys(found)
