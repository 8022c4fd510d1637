"""Say what takes the room of a ledger, table by table, and about how much of it upkeep could free."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, and_, func, inspect, select, text
from sqlalchemy.exc import DatabaseError as DriverError

from db.ledger.tables import Generation, StandingContent, StoredRun, WorkingRow
from db.words import CACHE, CRASHED, RUNNING, SUCCEEDED, SUSPENDED

HOLDS: Mapping[str, str] = {
    "generations": "history: what came of each record, where something changed",
    "generation_parents": "history: what generations of later steps were made from",
    "attempts": "history: requests, with the answers as they came",
    "runs": "history: runs",
    "run_steps": "history: the steps of runs, with their counts",
    "records": "records as they were read",
    "prompts": "requests as they were sent",
    "texts": "system texts and schemas that prompts share",
    "templates": "versions of templates",
    "content": "what stands for each record",
    "working_rows": "records of runs that are not over",
    "leases": "who works on which run now",
    "claims": "who asks for what now",
}


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table: how many rows it has, and how many bytes they take with their indexes."""

    table: str
    holds: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LedgerSize:
    """What a ledger takes: its tables, the largest first, and pages that are free for what comes next.

    `estimated`: the database does not tell what each table takes. `compactable` are at most so many rows of history
    that say nothing new, `leftovers` the working rows of runs that are over.
    """

    tables: list[TableSize]
    bytes: int
    free_bytes: int | None
    estimated: bool
    compactable: int
    compactable_bytes: int
    leftovers: int


def measure(engine: Engine) -> LedgerSize:
    """Measure the ledger; it reads all of a SQLite file."""
    with engine.connect() as connection:
        rows = {table: _count(connection, table) for table in Generation.metadata.tables}
        free: int | None = None
        estimated = False
        if connection.dialect.name == "postgresql":
            sizes = {name: _scalar(connection, f"SELECT pg_total_relation_size('{name}')") for name in rows}
            whole = _scalar(connection, "SELECT pg_database_size(current_database())")
        else:
            page, pages, unused = (
                _scalar(connection, f"PRAGMA {name}") for name in ("page_size", "page_count", "freelist_count")
            )
            whole, free = page * pages, page * unused
            try:
                sizes = _sqlite_sizes(connection)
            except DriverError:
                sizes, estimated = _estimated(connection, rows, whole - free), True
        tables = [TableSize(name, HOLDS[name], rows[name], sizes.get(name, 0)) for name in rows]
        compactable = _count_repeated(connection)
        each = sizes.get(Generation.__tablename__, 0) // max(rows[Generation.__tablename__], 1)
        return LedgerSize(
            tables=sorted(tables, key=lambda table: -table.bytes),
            bytes=whole,
            free_bytes=free,
            estimated=estimated,
            compactable=compactable,
            compactable_bytes=compactable * each,
            leftovers=_count_leftovers(connection),
        )


def _sqlite_sizes(connection: Connection) -> dict[str, int]:
    """Ask SQLite's dbstat, which not every build has."""
    statement = (
        "SELECT m.tbl_name, SUM(s.pgsize) FROM dbstat s JOIN sqlite_master m ON m.name = s.name "
        "WHERE s.aggregate = TRUE GROUP BY m.tbl_name"
    )
    return {name: int(size) for name, size in connection.execute(text(statement))}


def _estimated(connection: Connection, rows: Mapping[str, int], used: int) -> dict[str, int]:
    """Share out what is used by how long the values of each table's newest rows are."""
    lengths = {}
    for name, count in rows.items():
        columns = [column["name"] for column in inspect(connection).get_columns(name)]
        length = " + ".join(f"COALESCE(LENGTH({column}), 0)" for column in columns)
        newest = f"SELECT AVG({length}) FROM (SELECT * FROM {name} LIMIT 1000)"  # noqa: S608 - names of our tables
        lengths[name] = count * float(connection.execute(text(newest)).scalar() or 0)
    whole = sum(lengths.values()) or 1
    return {name: int(used * length / whole) for name, length in lengths.items()}


def _count_repeated(connection: Connection) -> int:
    """Count the cached rows that are not what stands: at most so many repeat others."""
    cached = (Generation.origin == CACHE, Generation.status == SUCCEEDED)
    standing = select(func.count()).select_from(StandingContent)
    standing = standing.join(Generation, Generation.id == StandingContent.generation_id).where(*cached)
    counts = [connection.scalar(each) or 0 for each in (select(func.count(Generation.id)).where(*cached), standing)]
    return max(counts[0] - counts[1], 0)


def _count_leftovers(connection: Connection) -> int:
    over = and_(StoredRun.id == WorkingRow.run_id, StoredRun.status.not_in((RUNNING, SUSPENDED, CRASHED)))
    return connection.scalar(select(func.count()).select_from(WorkingRow).join(StoredRun, over)) or 0


def _count(connection: Connection, table: str) -> int:
    return connection.scalar(select(func.count()).select_from(Generation.metadata.tables[table])) or 0


def _scalar(connection: Connection, statement: str) -> int:
    return int(connection.execute(text(statement)).scalar_one())
