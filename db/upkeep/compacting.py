"""Compact the ledger: remove the rows of history by which runs of earlier releases said that nothing had changed.

What the removed rows counted stays: in run_steps for their runs, in `confirmed` of the row that stands for them. What
was made from one of them is made from that row afterwards. It goes part by part, each a transaction of its own, so that
it can be stopped at any moment and goes on when it is called again.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Engine, and_, bindparam, delete, func, insert, select, text, true, update
from sqlalchemy.orm import aliased

from db.ledger.standing import COUNTED_IN
from db.ledger.tables import Attempt, Generation, GenerationParent, StandingContent, StoredRun, StoredStep, WorkingRow
from db.session import in_parts
from db.upkeep.alone import begin_alone, indexed
from db.upkeep.repeats import PastRow, Repeat, find_repeats
from db.upkeep.stand_ins import STAND_INS, insert_children, make_stand_ins
from db.words import CRASHED, RUNNING, SUSPENDED

ROWS_AT_ONCE = 20_000
"""Rows that are looked at in one transaction, and those of one more record."""
NOT_OVER = (RUNNING, SUSPENDED, CRASHED)
"""The stored statuses of runs that may be taken up, and then look for the rows that they have written."""
_PREPARE_STEPS = """
INSERT INTO run_steps (run_id, step, position, state, left_out, unchanged, failed_again, skipped_again)
SELECT g.run_id, g.step, ROW_NUMBER() OVER (PARTITION BY g.run_id ORDER BY MIN(g.id)),
       CASE WHEN r.status = 'completed' THEN 'done' ELSE 'open' END, 0, 0, 0, 0
FROM generations g JOIN runs r ON r.id = g.run_id
WHERE TRUE GROUP BY g.run_id, g.step, r.status
ON CONFLICT DO NOTHING
"""

Told = Callable[[int, int], None]
"""Is told how many rows have been looked at, of how many."""


@dataclass(frozen=True, slots=True)
class StepRepeats:
    """How many rows of history a step has on an endpoint, and how many of them say nothing new."""

    flow: str
    step: str
    endpoint: str
    rows: int
    repeats: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Place:
    """A step of a flow on an endpoint, and how many rows of history it has."""

    flow: str
    step: str
    endpoint: str
    rows: int

    def has(self, table: Any) -> Any:
        return and_(table.flow == self.flow, table.step == self.step, table.endpoint == self.endpoint)


def find_removable(engine: Engine, told: Told = lambda _done, _all: None) -> list[StepRepeats]:
    """Say what `compact` would remove; nothing is changed."""
    with engine.connect() as connection:
        make_stand_ins(connection, kept=True)
        return _go_through(connection, engine, told, really=False)


def compact(engine: Engine, told: Told = lambda _done, _all: None) -> list[StepRepeats]:
    """Remove what says nothing new, and say what that was; LedgerInUseError where a run is at work, or begins to be."""
    with indexed(engine, "generations", "source_generation_id"):
        with begin_alone(engine) as connection:
            connection.execute(text(_PREPARE_STEPS))
        with engine.connect() as connection:
            return _go_through(connection, engine, told, really=True)


def _go_through(connection: Connection, engine: Engine, told: Told, *, really: bool) -> list[StepRepeats]:
    places = _places(connection)
    if really:
        connection.rollback()
    whole = sum(place.rows for place in places)
    found: list[StepRepeats] = []
    for place in places:
        done, count, size = sum(each.rows for each in found), 0, 0
        after: str | None = None
        while True:
            with begin_alone(engine) if really else nullcontext(connection) as part:
                if really:
                    make_stand_ins(part, kept=False)
                until = _end_of_part(part, place, after)
                repeats = _repeats(part, place, after, until, indexed=really)
                (_remove if really else _remember)(part, repeats)
            count, size = count + len(repeats), size + sum(_bytes(each.row, place) for each in repeats)
            if until is None:
                break
            after, done = until, done + ROWS_AT_ONCE
            told(min(done, whole), whole)
        found.append(StepRepeats(place.flow, place.step, place.endpoint, place.rows, count, size))
        told(sum(each.rows for each in found), whole)
    return found


def _places(connection: Connection) -> list[_Place]:
    # What others are made from comes first: its rows are older.
    place = (Generation.flow, Generation.step, Generation.endpoint)
    statement = select(*place, func.count()).group_by(*place).order_by(func.min(Generation.id))
    return [_Place(*row) for row in connection.execute(statement)]


def _end_of_part(connection: Connection, place: _Place, after: str | None) -> str | None:
    keys = select(Generation.record_key).where(place.has(Generation)).order_by(Generation.record_key)
    if after is not None:
        keys = keys.where(Generation.record_key > after)
    return connection.scalar(keys.offset(ROWS_AT_ONCE).limit(1))


def _repeats(
    connection: Connection, place: _Place, after: str | None, until: str | None, *, indexed: bool
) -> list[Repeat]:
    rows = list(_read(connection, place, after, until, indexed=indexed))
    alike = list(find_repeats(rows, {}))
    parents = _parents(connection, sorted({row.id for each in alike for row in (each.row, each.before)}))
    return list(find_repeats(rows, parents)) if parents else alike


def _read(
    connection: Connection, place: _Place, after: str | None, until: str | None, *, indexed: bool
) -> Iterator[PastRow]:
    """Read the rows of a part, in the order of keys and ids."""
    named = [column for column in PastRow.__dataclass_fields__ if column != "is_kept"]
    content, reused = StandingContent, aliased(Generation)
    columns = [
        *(Generation.__table__.c[name] for name in named),
        StoredRun.status.in_(NOT_OVER).label("goes_on"),
        select(Attempt.id).where(Attempt.generation_id == Generation.id).exists().label("asked"),
        # It does not count in its run, so there is no count to take over.
        (Generation.replaced_by != "").label("replaced"),
        content.generation_id,
        content.failing_id,
    ]
    if indexed:
        # A cached row is no source of another. Should it be one all the same, it stays.
        columns.append(select(reused.id).where(reused.source_generation_id == Generation.id).exists().label("reused"))
    same_key = content.record_key == Generation.record_key
    statement = (
        select(*columns)
        .join(StoredRun, StoredRun.id == Generation.run_id)
        .outerjoin(content, and_(place.has(content), same_key))
        .where(place.has(Generation), _between(Generation.record_key, after, until))
        .order_by(Generation.record_key, Generation.id)
    )
    needed = _spread(connection) | _worked_on(connection, place, after, until)
    for row in connection.execute(statement):
        named_by = row.goes_on or row.asked or (indexed and row.reused) or row.id in {row.generation_id, row.failing_id}
        named_by = named_by or row.replaced
        yield PastRow(*[*row[: len(named)], bool(named_by or row.run_id in needed or row.id in needed)])


def _between(column: Any, after: str | None, until: str | None) -> Any:
    above = [column > after] if after is not None else []
    return and_(true(), *above, *([column <= until] if until is not None else []))


def _spread(connection: Connection) -> set[str]:
    """Return the shards that were runs of their own, and the runs that they worked for.

    A row that points at what a shard asked for counts as asked for: by the row itself, which no count can replace.
    """
    shard, parent, whole = aliased(StoredRun), aliased(StoredRun), aliased(StoredRun)
    pairs = (
        select(shard.id, parent.id, whole.id)
        .join(parent, parent.id == shard.parent_run_id)
        .outerjoin(whole, whole.prefect_flow_run_id == parent.prefect_flow_run_id)
    )
    return {run for row in connection.execute(pairs) for run in row if run is not None}


def _worked_on(connection: Connection, place: _Place, after: str | None, until: str | None) -> set[str]:
    """Return the generations that stand for records in runs that are left for a while."""
    left = select(StoredRun.id).where(StoredRun.status.in_(NOT_OVER))
    of_part = (WorkingRow.step == place.step, _between(WorkingRow.record_key, after, until))
    statement = select(WorkingRow.generation_id).where(WorkingRow.run_id.in_(left), *of_part)
    return set(connection.scalars(statement.where(WorkingRow.generation_id.is_not(None))))


def _parents(connection: Connection, generation_ids: Sequence[str]) -> dict[str, bytes]:
    """Digest what generations were made from: one may be made from all records of a run."""
    digests: dict[str, bytes] = {}
    for part in in_parts(generation_ids):
        parent = func.coalesce(STAND_INS.c.stands_for, GenerationParent.parent_id).label("parent")
        statement = (
            select(GenerationParent.generation_id, parent)
            .distinct()
            .outerjoin(STAND_INS, STAND_INS.c.id == GenerationParent.parent_id)
            .where(GenerationParent.generation_id.in_(part))
            .order_by(GenerationParent.generation_id, parent)
            .execution_options(yield_per=ROWS_AT_ONCE)
        )
        for generation_id, group in groupby(connection.execute(statement), key=lambda row: row.generation_id):
            digest = blake2b(digest_size=16)
            for row in group:
                digest.update(row.parent.encode())
            digests[generation_id] = digest.digest()
    return digests


def _remember(connection: Connection, repeats: Sequence[Repeat]) -> None:
    """Note which rows would stand for others that something was made from: what is made from them is compared later."""
    stand_ins = {each.row.id: each.kept.id for each in repeats}
    parents: set[str] = set()
    for part in in_parts(list(stand_ins)):
        named = select(GenerationParent.parent_id).where(GenerationParent.parent_id.in_(part)).distinct()
        parents |= set(connection.scalars(named))
    if parents:
        connection.execute(insert(STAND_INS), [{"id": each, "stands_for": stand_ins[each]} for each in sorted(parents)])


def _remove(connection: Connection, repeats: Sequence[Repeat]) -> None:
    """Remove rows that say nothing new, in a transaction that has begun, and count what they said where it stays."""
    if not repeats:
        return
    connection.execute(insert(STAND_INS), [{"id": each.row.id, "stands_for": each.kept.id} for each in repeats])
    if connection.dialect.name == "postgresql":
        connection.execute(text("ANALYZE stand_ins"))
    counted: Counter[tuple[str, str, str]] = Counter()
    seen: dict[str, dict[str, Any]] = {}
    for each in repeats:
        counted[each.row.run_id, each.row.step, COUNTED_IN[each.row.status]] += 1
        stamp = seen.setdefault(each.kept.id, {"kept": each.kept.id, "times": 0, "last": each.row.last_seen})
        stamp["times"] += 1 + (each.row.confirmed or 0)
        stamp["last"] = max(stamp["last"], each.row.last_seen)
    stamped = func.coalesce(Generation.confirmed, 0) + bindparam("times")
    connection.execute(
        update(Generation)
        .where(Generation.id == bindparam("kept"))
        .values(confirmed=stamped, confirmed_at=bindparam("last")),
        list(seen.values()),
    )
    for (run_id, step, column), count in sorted(counted.items()):
        its_row = update(StoredStep).where(StoredStep.run_id == run_id, StoredStep.step == step)
        connection.execute(its_row.values({column: StoredStep.__table__.c[column] + count}))
    insert_children(connection)
    gone = select(STAND_INS.c.id)
    for refers in (GenerationParent.parent_id, GenerationParent.generation_id):
        connection.execute(delete(GenerationParent).where(refers.in_(gone)))
    connection.execute(delete(Generation).where(Generation.id.in_(gone)))


def _bytes(row: PastRow, place: _Place) -> int:
    """Estimate what a row takes in its table and in the table's four indexes."""
    key, where = len(row.record_key.encode()), len(place.flow) + len(place.step) + len(place.endpoint)
    hashes = [row.record_hash, row.template_hash, row.prompt_hash, row.output_hash]
    own = 36 * 3 + where + key + 64 * sum(each is not None for each in hashes) + len(row.error_message or "") + 90
    return own + (36 + 12) + (36 + len(place.step) + key + 12) + (where + key + 36 + 24) + (64 + 24)


def vacuum(engine: Engine) -> None:
    """Give the free room of a SQLite file back to the disk; PostgreSQL has its own ways."""
    if engine.dialect.name == "sqlite":
        with begin_alone(engine):
            pass
        with closing(engine.raw_connection()) as connection:
            connection.cursor().execute("VACUUM")
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
