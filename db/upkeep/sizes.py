"""Measure the size of a ledger, table by table, and estimate how much space upkeep could free."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import DatabaseError as DriverError

from db.tables import Generation, StandingContent
from db.tables.tried_rows import is_of_trial
from db.upkeep.pruning import count_leftovers
from db.words import CACHE, SUCCEEDED

HOLDS: Mapping[str, str] = {
    "generations": "history: outcomes of records, one for each change",
    "generation_parents": "history: sources of the generations of later steps",
    "attempts": "history: requests, with their answers as received",
    "runs": "history: runs",
    "run_steps": "history: the steps of runs, with their counts",
    "records": "records as they were read",
    "prompts": "requests as they were sent",
    "texts": "system texts and schemas that prompts share",
    "templates": "versions of templates",
    "content": "the current content of each record",
    "working_rows": "records of unfinished runs",
    "leases": "processes that work on runs now",
    "claims": "prompts that are being requested now",
    "rolled_up": "closed runs whose sums count",
    "usage_rollup": "sums: tokens and cost of closed runs",
    "outcome_rollup": "sums: outcomes of closed runs",
    "prompt_cache_rollup": "sums: use of the prompt cache by closed runs",
}


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table's rows, and their bytes including indexes; None if the database does not report them."""

    table: str
    holds: str
    rows: int
    bytes: int | None


@dataclass(frozen=True, slots=True)
class LedgerSize:
    """The size of a ledger: its tables, the largest first, and the free pages that new rows will fill.

    `compactable` is an upper bound for the rows that `compact` would remove; they take about `compactable_bytes`.
    `leftovers` are working rows that no run needs.
    """

    tables: list[TableSize]
    bytes: int
    free_bytes: int | None
    compactable: int
    compactable_bytes: int | None
    leftovers: int


def measure(engine: Engine) -> LedgerSize:
    """Measure the ledger; this reads the whole SQLite file."""
    with engine.connect() as connection:
        rows = {table: _count(connection, table) for table in Generation.metadata.tables}
        free: int | None = None
        if connection.dialect.name == "postgresql":
            sizes = {name: _scalar(connection, f"SELECT pg_total_relation_size('{name}')") for name in rows}
            whole = _scalar(connection, "SELECT pg_database_size(current_database())")
        else:
            page, pages, unused = (
                _scalar(connection, f"PRAGMA {name}") for name in ("page_size", "page_count", "freelist_count")
            )
            whole, free = page * pages, page * unused
            sizes = _sqlite_sizes(connection)
        tables = [TableSize(name, HOLDS[name], rows[name], sizes.get(name)) for name in rows]
        compactable, history = _count_repeated(connection), sizes.get(Generation.__tablename__)
        return LedgerSize(
            tables=sorted(tables, key=lambda table: (-(table.bytes or 0), -table.rows)),
            bytes=whole,
            free_bytes=free,
            compactable=compactable,
            compactable_bytes=None if history is None else compactable * history // max(rows["generations"], 1),
            leftovers=count_leftovers(connection),
        )


def _sqlite_sizes(connection: Connection) -> dict[str, int]:
    """Return the bytes of each table from SQLite's dbstat; empty if this build of SQLite has no dbstat."""
    statement = (
        "SELECT m.tbl_name, SUM(s.pgsize) FROM dbstat s JOIN sqlite_master m ON m.name = s.name "
        "WHERE s.aggregate = TRUE GROUP BY m.tbl_name"
    )
    try:
        return {name: int(size) for name, size in connection.execute(text(statement))}
    except DriverError:
        return {}


def _count_repeated(connection: Connection) -> int:
    """Count the cached rows that are not current content: an upper bound for the rows that repeat others."""
    cached = (Generation.origin == CACHE, Generation.status == SUCCEEDED, ~is_of_trial(Generation.run_id))
    current = select(func.count()).select_from(StandingContent)
    current = current.join(Generation, Generation.id == StandingContent.generation_id).where(*cached)
    counts = [connection.scalar(each) or 0 for each in (select(func.count(Generation.id)).where(*cached), current)]
    return max(counts[0] - counts[1], 0)


def _count(connection: Connection, table: str) -> int:
    return connection.scalar(select(func.count()).select_from(Generation.metadata.tables[table])) or 0


def _scalar(connection: Connection, statement: str) -> int:
    return int(connection.execute(text(statement)).scalar_one())
