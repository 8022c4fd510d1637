"""Compact the ledger: remove the rows of history in which runs of earlier releases repeated an unchanged outcome.

All counts are kept: in run_steps for the runs of removed rows, and in `confirmed` of the kept row that each of them
repeats. Their children get the kept row as parent. Each part is its own transaction, so compacting can be stopped at
any moment and continues when it is called again. Trials are left as they are, because no row of theirs may stand in for
one of a record's life.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, bindparam, delete, func, or_, select, text, update

from db.columns import aliased
from db.ledger.standing import COUNTED_IN
from db.rollups.marks import roll_up_ended, unmark
from db.session import in_parts
from db.tables import Attempt, Generation, GenerationParent, StandingContent, StoredRun, StoredStep, WorkingRow
from db.tables.tried_rows import is_of_trial
from db.upkeep.alone import begin_exclusive, temporary_index
from db.upkeep.parts import ROWS_AT_ONCE, Begin, Part, go_through
from db.upkeep.repeats import PastRow, Repeat, find_repeats
from db.upkeep.stand_ins import STAND_INS, add_stand_ins, insert_children, make_stand_ins
from db.words import CACHE, NOT_OVER, TRY

BYTES_A_ROW = 750
"""The approximate size of such a row, in its table and in the table's indexes."""
_PREPARE_STEPS = """
INSERT INTO run_steps (run_id, step, position, state, left_out, unchanged, failed_again, skipped_again)
SELECT g.run_id, g.step, ROW_NUMBER() OVER (PARTITION BY g.run_id ORDER BY MIN(g.id)),
       CASE WHEN r.status = 'completed' THEN 'done' ELSE 'open' END, 0, 0, 0, 0
FROM generations g JOIN runs r ON r.id = g.run_id
WHERE TRUE GROUP BY g.run_id, g.step, r.status
ON CONFLICT DO NOTHING
"""

Report = Callable[[int, int], None]
"""Called with the number of rows checked so far, and the number of all rows."""


@dataclass(frozen=True, slots=True)
class StepRepeats:
    """The number of a step's rows of history on an endpoint, and of those that repeat another row."""

    flow: str
    step: str
    endpoint: str
    rows: int
    repeats: int
    bytes: int


def find_removable(engine: Engine, report: Report = lambda _done, _all: None) -> list[StepRepeats]:
    """Count the rows that `compact` would remove; changes nothing."""
    with engine.connect() as connection:
        make_stand_ins(connection)
        return _go_through(lambda: nullcontext(connection), report, dry=True)


def compact(engine: Engine, report: Report = lambda _done, _all: None) -> list[StepRepeats]:
    """Remove the rows that repeat another, and return their counts; LedgerInUseError if a run is active or begins."""
    with temporary_index(engine, "generations", "source_generation_id"):
        with begin_exclusive(engine) as connection:
            connection.execute(text(_PREPARE_STEPS))
        found = _go_through(partial(_begin_part, engine), report, dry=False)
    roll_up_ended(engine)
    return found


@contextmanager
def _begin_part(engine: Engine) -> Iterator[Connection]:
    with begin_exclusive(engine) as connection:
        make_stand_ins(connection)
        yield connection


def _go_through(begin: Begin, report: Report, *, dry: bool) -> list[StepRepeats]:
    with begin() as connection:
        rows_of = _count_rows(connection)
        reused = _reused_copies(connection)
    repeats_of: Counter[tuple[str, str, str]] = Counter()

    def compact_part(connection: Connection, part: Part) -> int:
        rows = _read(connection, part, reused)
        repeats = _find_repeats(connection, rows)
        # Also in a dry run: the children of these rows are compared by their new parents.
        add_stand_ins(connection, {each.row.id: each.kept.id for each in repeats})
        if repeats and not dry:
            _remove(connection, repeats)
        repeats_of[part.flow, part.step, part.endpoint] += len(repeats)
        return len(rows)

    whole = sum(rows_of.values())
    go_through(begin, [Part(*step) for step in rows_of], compact_part, lambda done: report(done, whole))
    return [
        StepRepeats(*step, rows, repeats_of[step], repeats_of[step] * BYTES_A_ROW) for step, rows in rows_of.items()
    ]


def _count_rows(connection: Connection) -> dict[tuple[str, str, str], int]:
    """Count the rows of each step. Steps with older rows come first, because later steps are made from them."""
    step = (Generation.flow, Generation.step, Generation.endpoint)
    counted = select(*step, func.count()).where(~is_of_trial(Generation.run_id))
    statement = counted.group_by(*step).order_by(func.min(Generation.id))
    return {(row[0], row[1], row[2]): row[3] for row in connection.execute(statement)}


def _reused_copies(connection: Connection) -> set[str]:
    """Return the cached rows that are the source of another row, which are kept. There should be none."""
    source = aliased(Generation)
    of_others = select(source.id).join(Generation, Generation.source_generation_id == source.id)
    return set(connection.scalars(of_others.where(source.origin == CACHE)))


def _read(connection: Connection, part: Part, reused: set[str]) -> list[PastRow]:
    """Read the rows of a part, in the order of keys and ids."""
    names = [name for name in PastRow.__dataclass_fields__ if name != "is_needed"]
    columns: list[Any] = [*(Generation.__table__.c[name] for name in names), _is_needed(part)]
    standing = and_(part.has(StandingContent), StandingContent.record_key == Generation.record_key)
    statement = (
        select(*columns)
        .join(StoredRun, StoredRun.id == Generation.run_id)
        .outerjoin(StandingContent, standing)
        .where(part.has(Generation), StoredRun.trigger != TRY)
        .order_by(Generation.record_key, Generation.id)
    )
    rows = connection.execute(statement)
    return [PastRow(*[*own, bool(is_needed or own[0] in reused)]) for *own, is_needed in rows]


def _is_needed(part: Part) -> ColumnElement[bool]:
    """Select the rows of a part that are referred to, or that belong to a run that may still be resumed."""
    shard, whole, outcome = aliased(StoredRun), aliased(StoredRun), aliased(Generation)
    of_part = (WorkingRow.step == part.step, part.has_key(WorkingRow.record_key), WorkingRow.generation_id.is_not(None))
    open_runs = select(StoredRun.id).where(StoredRun.status.in_(NOT_OVER))
    same_record = (outcome.step == Generation.step, outcome.record_key == Generation.record_key)
    spread = select(shard.parent_run_id).where(shard.parent_run_id.is_not(None))
    flow_run = select(whole.prefect_flow_run_id).where(whole.id.in_(spread), whole.prefect_flow_run_id.is_not(None))
    return or_(
        StoredRun.status.in_(NOT_OVER),
        select(Attempt.id).where(Attempt.generation_id == Generation.id).exists(),
        Generation.id == StandingContent.generation_id,
        Generation.id == StandingContent.failing_id,
        Generation.id.in_(select(WorkingRow.generation_id).where(WorkingRow.run_id.in_(open_runs), *of_part)),
        # Its run has several outcomes of the record, which refer to each other.
        select(outcome.id).where(outcome.run_id == Generation.run_id, *same_record, outcome.replaced_by != "").exists(),
        # Runs with shards, and the shards: a row whose source a shard requested counts as a live row of its run.
        StoredRun.parent_run_id.is_not(None),
        StoredRun.id.in_(spread),
        StoredRun.prefect_flow_run_id.in_(flow_run),
    )


def _find_repeats(connection: Connection, rows: Sequence[PastRow]) -> list[Repeat]:
    alike = find_repeats(rows, {})
    parents = _parents(connection, sorted({row.id for each in alike for row in (each.row, each.kept)}))
    return list(find_repeats(rows, parents))


def _parents(connection: Connection, generation_ids: Sequence[str]) -> dict[str, bytes]:
    """Return a digest of each generation's parents, because one may have all records of a run as parents."""
    digests: dict[str, bytes] = {}
    for ids in in_parts(generation_ids):
        parent = func.coalesce(STAND_INS.c.kept_id, GenerationParent.parent_id).label("parent")
        statement = (
            select(GenerationParent.generation_id, parent)
            .distinct()
            .outerjoin(STAND_INS, STAND_INS.c.id == GenerationParent.parent_id)
            .where(GenerationParent.generation_id.in_(ids))
            .order_by(GenerationParent.generation_id, parent)
            .execution_options(yield_per=ROWS_AT_ONCE)
        )
        for generation_id, group in groupby(connection.execute(statement), key=lambda row: row.generation_id):
            digest = blake2b(digest_size=16)
            for row in group:
                digest.update(row.parent.encode())
            digests[generation_id] = digest.digest()
    return digests


def _remove(connection: Connection, repeats: Sequence[Repeat]) -> None:
    """Remove rows that repeat others, and add their counts to their runs' steps and to the kept rows."""
    counted: Counter[tuple[str, str, str]] = Counter()
    seen: dict[str, dict[str, Any]] = {}
    for each in repeats:
        counted[each.row.run_id, each.row.step, COUNTED_IN[each.row.status]] += 1
        last = each.kept.confirmed_at or each.row.last_seen
        stamp = seen.setdefault(each.kept.id, {"kept": each.kept.id, "times": 0, "last": last})
        stamp["times"] += 1 + (each.row.confirmed or 0)
        stamp["last"] = max(stamp["last"], each.row.last_seen)
    stamped = func.coalesce(Generation.confirmed, 0) + bindparam("times")
    connection.execute(
        update(Generation)
        .where(Generation.id == bindparam("kept"))
        .values(confirmed=stamped, confirmed_at=bindparam("last")),
        list(seen.values()),
    )
    unmark(connection, {run_id for run_id, _step, _column in counted})
    for (run_id, step, column), count in sorted(counted.items()):
        its_row = update(StoredStep).where(StoredStep.run_id == run_id, StoredStep.step == step)
        connection.execute(its_row.values({column: StoredStep.__table__.c[column] + count}))
    insert_children(connection)
    removed = select(STAND_INS.c.id)
    for refers in (GenerationParent.parent_id, GenerationParent.generation_id):
        connection.execute(delete(GenerationParent).where(refers.in_(removed)))
    connection.execute(delete(Generation).where(Generation.id.in_(removed)))


def vacuum(engine: Engine) -> None:
    """Shrink a SQLite file by its free pages; PostgreSQL's autovacuum reuses free space itself."""
    if engine.dialect.name == "sqlite":
        with begin_exclusive(engine):
            pass
        with closing(engine.raw_connection()) as connection:
            connection.cursor().execute("VACUUM")
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
