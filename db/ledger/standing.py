"""What stands for each record in a step: `content`, brought up to what a batch has written and confirmed.

Ids are UUIDv7 by the ledger's clock, so the greater id is the newer one, in whatever order batches arrive. Writing what
is there already changes nothing.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from db.columns import UtcDateTime
from db.ledger.replacing import by_step, of_step
from db.ledger.rows import ConfirmedRow, GenerationRow, values_of
from db.ledger.tables import Generation, StandingContent, StoredRun, StoredStep, WorkingRow
from db.session import among
from db.words import CRASHED, FAILED, OPEN, SKIPPED, SUCCEEDED

C = StandingContent
CONTENT_KEY = (C.flow, C.step, C.endpoint, C.record_key)
CONTENT = (C.generation_id, C.since, C.confirmed_run_id, C.confirmed_at, C.confirmed)
FAILURE = (C.failing_id, C.failing_run_id, C.failing_at)
COUNTED_IN = {SUCCEEDED: "unchanged", FAILED: "failed_again", SKIPPED: "skipped_again"}
"""The column of run_steps that counts what is confirmed, by its status."""
_WORKING = tuple(column.name for column in WorkingRow.__table__.c)


def stand(connection: Connection, generations: Sequence[GenerationRow]) -> None:
    """Let generations that were written stand for their records, where nothing newer does."""
    for run_id, step, its_rows in by_step(sorted(generations, key=lambda row: row.id)):
        for rows in _each_record_once(its_rows):
            written = among(Generation.id, [row.id for row in rows], connection.dialect.name)
            _stamp_replaced(connection, written)
            write_content(connection, written)
            write_failing(connection, written)
            _take_off_confirmed(connection, run_id, step, [row.record_key for row in rows])


def confirm(connection: Connection, rows: Sequence[ConfirmedRow]) -> None:
    """Book records for which nothing has changed, each once in its run, however often this is written.

    A record of which the run has a generation is counted by that.
    """
    for run_id, step, its_rows in by_step(rows):
        its_run = connection.execute(select(StoredRun.__table__).where(StoredRun.id == run_id)).one()
        is_open = its_run.ended_at is None or its_run.status == CRASHED
        place = (C.flow == its_run.flow, C.step == step, C.endpoint == its_run.endpoint)
        counts = {}
        for status, column in COUNTED_IN.items():
            alike = [row for row in its_rows if row.status == status]
            if alike:
                counts[column] = (_confirm_alike if is_open else _note)(connection, place, alike, status)
        if any(counts.values()):
            _count(connection, run_id, step, counts)


def _each_record_once(rows: Sequence[GenerationRow]) -> Iterator[list[GenerationRow]]:
    """Part the generations of a step so that no part has two of a record, the older first.

    PostgreSQL refuses an upsert that meets one row twice.
    """
    parts: list[list[GenerationRow]] = []
    times: Counter[str] = Counter()
    for row in rows:
        if times[row.record_key] == len(parts):
            parts.append([])
        parts[times[row.record_key]].append(row)
        times[row.record_key] += 1
    yield from parts


def _stamp_replaced(connection: Connection, written: ColumnElement[bool]) -> None:
    """Write on the generations that are about to be replaced how often they were confirmed."""
    same = and_(*(column == Generation.__table__.c[column.name] for column in CONTENT_KEY))
    replaced: list[Any] = []
    for stands, times, last, newer in (
        (C.generation_id, C.confirmed, C.confirmed_at, Generation.status == SUCCEEDED),
        (C.failing_id, C.failing, C.failing_at, true()),
    ):
        met = (
            select(stands, times, last).join(Generation, same).where(written, newer, times > 0, stands < Generation.id)
        )
        # Held until the commit: a confirmation in between would be counted nowhere.
        replaced += connection.execute(met.with_for_update(of=C)).all()
    if replaced:
        stamp = update(Generation).where(Generation.id == bindparam("replaced"))
        connection.execute(
            stamp.values(confirmed=bindparam("times"), confirmed_at=bindparam("last")),
            [{"replaced": row[0], "times": row[1], "last": row[2]} for row in replaced],
        )


def write_content(connection: Connection, written: ColumnElement[bool]) -> None:
    """Write the succeeded ones of some generations as what stands, where nothing newer does."""
    g = Generation
    columns = [*CONTENT_KEY, *CONTENT, C.failing]
    found = select(*_key_of(), g.id, g.created_at, g.run_id, g.created_at, literal(0), literal(0))
    made = (
        _dialect(connection)
        .insert(C)
        .from_select(columns, found.where(written, g.status == SUCCEEDED).order_by(*_key_of()))
    )
    new = made.excluded
    still = C.failing_id > new.generation_id
    failure = {
        name: case((still, getattr(C, name)), else_=null()) for name in ("failing_id", "failing_run_id", "failing_at")
    }
    content = {name: new[name] for name in ("generation_id", "since", "confirmed_run_id", "confirmed_at", "confirmed")}
    newest = made.on_conflict_do_update(
        index_elements=[column.name for column in CONTENT_KEY],
        set_={**content, **failure, "failing": case((still, C.failing), else_=0)},
        where=or_(C.generation_id.is_(None), new.generation_id > C.generation_id),
    )
    connection.execute(newest)


def write_failing(connection: Connection, written: ColumnElement[bool]) -> None:
    """Write the others of some generations as the failures that came last, where nothing newer has come."""
    g = Generation
    columns = [*CONTENT_KEY, *FAILURE, C.failing, C.confirmed]
    found = select(*_key_of(), g.id, g.run_id, g.created_at, literal(0), literal(0))
    made = (
        _dialect(connection)
        .insert(C)
        .from_select(columns, found.where(written, g.status != SUCCEEDED).order_by(*_key_of()))
    )
    new = made.excluded
    newest = made.on_conflict_do_update(
        index_elements=[column.name for column in CONTENT_KEY],
        set_={column.name: new[column.name] for column in (*FAILURE, C.failing)},
        where=and_(
            or_(C.generation_id.is_(None), new.failing_id > C.generation_id),
            or_(C.failing_id.is_(None), new.failing_id > C.failing_id),
        ),
    )
    connection.execute(newest)


def _take_off_confirmed(connection: Connection, run_id: str, step: str, keys: Sequence[str]) -> None:
    """Count a record no longer as confirmed for which the same run has written a row by now."""
    confirmed = of_step(connection, WorkingRow, run_id, step, keys)
    gone = delete(WorkingRow).where(*confirmed, WorkingRow.status.is_not(None)).returning(WorkingRow.status)
    statuses = [str(status) for status in connection.scalars(gone)]
    if statuses:
        _count(connection, run_id, step, {COUNTED_IN[status]: -statuses.count(status) for status in set(statuses)})


def _confirm_alike(
    connection: Connection, place: Sequence[ColumnElement[bool]], rows: Sequence[ConfirmedRow], status: str
) -> int:
    """Book records that were confirmed alike, and note that on what stands for them; how many were not booked yet."""
    first, dialect = rows[0], connection.dialect.name
    stands, *_columns = _told_of(status)
    own = (
        literal(first.run_id),
        C.step,
        C.record_key,
        literal(first.lease_id),
        literal(status),
        stands,
        literal(max(row.confirmed_at for row in rows), UtcDateTime()),
    )
    counts = (Generation.run_id == first.run_id, Generation.step == first.step, Generation.replaced_by == "")
    written = select(Generation.id).where(*counts, Generation.record_key == C.record_key).exists()
    found = select(*own).where(*place, *_still(rows, status, dialect), ~written)
    # What is to be written is in the ledger already: handing it over row by row takes twice the time.
    booked = set(connection.scalars(_booked(_dialect(connection).insert(WorkingRow).from_select(_WORKING, found))))
    if booked:
        _note(connection, place, [row for row in rows if row.record_key in booked], status)
    # Something else stands for these by now: they are counted all the same, but where the run has written that.
    rest = {row.record_key: values_of(row) for row in rows if row.record_key not in booked}
    if rest:
        of_rest = among(Generation.record_key, list(rest), dialect)
        for key in connection.scalars(select(Generation.record_key).where(*counts, of_rest)):
            del rest[key]
    if rest:
        booked |= set(connection.scalars(_booked(_dialect(connection).insert(WorkingRow)), list(rest.values())))
    return len(booked)


def _note(
    connection: Connection, place: Sequence[ColumnElement[bool]], rows: Sequence[ConfirmedRow], status: str
) -> int:
    """Note on what stands for records that their run has confirmed it, once; return of how many it was noted."""
    first, at = rows[0], max(row.confirmed_at for row in rows)
    _stands, run, moment, times = _told_of(status)
    later = or_(moment.is_(None), moment <= at)
    values: dict[Any, Any] = {
        run: case((later, first.run_id), else_=run),
        moment: case((later, at), else_=moment),
        times: times + 1,
    }
    new = or_(run.is_(None), run != first.run_id)
    still = _still(rows, status, connection.dialect.name)
    return connection.execute(update(C).where(*place, *still, new).values(values)).rowcount


def _told_of(status: str) -> tuple[Any, Any, Any, Any]:
    """Return the columns of what stands or fails: which generation, confirmed by which run, when, how often."""
    if status == SUCCEEDED:
        return C.generation_id, C.confirmed_run_id, C.confirmed_at, C.confirmed
    return C.failing_id, C.failing_run_id, C.failing_at, C.failing


def _still(rows: Sequence[ConfirmedRow], status: str, dialect: str) -> tuple[ColumnElement[bool], ...]:
    keys, ids = [row.record_key for row in rows], [row.generation_id for row in rows]
    return among(C.record_key, keys, dialect), among(_told_of(status)[0], ids, dialect)


def _booked(made: Any) -> Any:
    """Insert confirmed records, or confirm those that were to be done; return the keys of what is new."""
    names = ("status", "generation_id", "confirmed_at", "lease_id")
    new = {name: made.excluded[name] for name in names}
    place = ["run_id", "step", "record_key"]
    return made.on_conflict_do_update(index_elements=place, set_=new, where=WorkingRow.status.is_(None)).returning(
        WorkingRow.record_key
    )


def _count(connection: Connection, run_id: str, step: str, more: dict[str, int]) -> None:
    added = {name: StoredStep.__table__.c[name] + count for name, count in more.items()}
    of_step = (StoredStep.run_id == run_id, StoredStep.step == step)
    # Its row is there but where a spill file tells of a step: an upsert, of which nothing is kept compiled, takes long.
    if not connection.execute(update(StoredStep).where(*of_step).values(added)).rowcount:
        made = _dialect(connection).insert(StoredStep)
        place = select(func.coalesce(func.max(StoredStep.position), 0) + 1).where(StoredStep.run_id == run_id)
        row = made.values(run_id=run_id, step=step, position=place.scalar_subquery(), state=OPEN, **more)
        connection.execute(row.on_conflict_do_update(index_elements=["run_id", "step"], set_=added))


def _key_of() -> list[Any]:
    return [Generation.__table__.c[column.name] for column in CONTENT_KEY]


def _dialect(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite
