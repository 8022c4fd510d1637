"""Keep the table `content`, the current outcome of each record in a step, up to date with each committed batch.

Ids are UUIDv7 by the ledger's clock, so the greater id is the newer one, and batches may arrive in any order. Writing a
batch again changes nothing. What a trial writes or confirms never changes `content`.
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
from db.session import among
from db.tables import Generation, StandingContent, StoredRun, StoredStep, WorkingRow
from db.words import CRASHED, FAILED, OPEN, SKIPPED, SUCCEEDED, TRY

C = StandingContent
CONTENT_KEY = (C.flow, C.step, C.endpoint, C.record_key)
CONTENT = (C.generation_id, C.since, C.confirmed_run_id, C.confirmed_at, C.confirmed)
FAILURE = (C.failing_id, C.failing_run_id, C.failing_at)
COUNTED_IN = {SUCCEEDED: "unchanged", FAILED: "failed_again", SKIPPED: "skipped_again"}
"""The column of run_steps that counts confirmed records, by their status."""
_WORKING = tuple(column.name for column in WorkingRow.__table__.c)


def update_content(connection: Connection, generations: Sequence[GenerationRow]) -> None:
    """Make written generations the current outcomes of their records, unless there are newer ones.

    Those of a trial only end the confirmations of their own run.
    """
    for run_id, step, its_rows in by_step(sorted(generations, key=lambda row: row.id)):
        is_trial = connection.scalar(select(StoredRun.trigger).where(StoredRun.id == run_id)) == TRY
        for rows in _each_record_once(its_rows):
            if not is_trial:
                written = among(Generation.id, [row.id for row in rows], connection.dialect.name)
                _stamp_replaced(connection, written)
                write_content(connection, written)
                write_failing(connection, written)
            _uncount_confirmed(connection, run_id, step, [row.record_key for row in rows])


def confirm(connection: Connection, rows: Sequence[ConfirmedRow]) -> None:
    """Count each unchanged record once as confirmed by its run, even if the same rows are written again.

    A record is not counted if the run has a generation of it. A trial that has closed counts none: only `content` would
    tell which of them it counted before.
    """
    for run_id, step, its_rows in by_step(rows):
        its_run = connection.execute(select(StoredRun.__table__).where(StoredRun.id == run_id)).one()
        is_open = its_run.ended_at is None or its_run.status == CRASHED
        place = (C.flow == its_run.flow, C.step == step, C.endpoint == its_run.endpoint)
        is_trial = its_run.trigger == TRY
        counts = {}
        for status, column in COUNTED_IN.items():
            alike = [row for row in its_rows if row.status == status]
            if alike and is_open:
                counts[column] = _confirm_alike(connection, place, alike, status, noted=not is_trial)
            elif alike and not is_trial:
                counts[column] = _note(connection, place, alike, status)
        if any(counts.values()):
            _count(connection, run_id, step, counts)


def _each_record_once(rows: Sequence[GenerationRow]) -> Iterator[list[GenerationRow]]:
    """Split the generations of a step into parts that have each record at most once, the older ones first.

    PostgreSQL refuses an upsert that changes one row twice.
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
    """Copy the confirmation counts of `content` to the generations that are about to be replaced in it."""
    same = and_(*(column == Generation.__table__.c[column.name] for column in CONTENT_KEY))
    replaced: list[Any] = []
    for current, times, last, newer in (
        (C.generation_id, C.confirmed, C.confirmed_at, Generation.status == SUCCEEDED),
        (C.failing_id, C.failing, C.failing_at, true()),
    ):
        confirmed = select(current, times, last).join(Generation, same).where(written, newer, times > 0)
        # Locked until the commit, because a confirmation after this read would be lost.
        replaced += connection.execute(confirmed.where(current < Generation.id).with_for_update(of=C)).all()
    if replaced:
        stamp = update(Generation).where(Generation.id == bindparam("replaced"))
        connection.execute(
            stamp.values(confirmed=bindparam("times"), confirmed_at=bindparam("last")),
            [{"replaced": row[0], "times": row[1], "last": row[2]} for row in replaced],
        )


def write_content(connection: Connection, written: ColumnElement[bool]) -> None:
    """Make the succeeded ones of these generations the current content, unless there is newer content."""
    g = Generation
    columns = [*CONTENT_KEY, *CONTENT, C.failing]
    found = select(*_key_of(), g.id, g.created_at, g.run_id, g.created_at, literal(0), literal(0))
    made = (
        _dialect(connection)
        .insert(C)
        .from_select(columns, found.where(written, g.status == SUCCEEDED).order_by(*_key_of()))
    )
    new = made.excluded
    keeps = C.failing_id > new.generation_id
    failure = {
        name: case((keeps, getattr(C, name)), else_=null()) for name in ("failing_id", "failing_run_id", "failing_at")
    }
    content = {name: new[name] for name in ("generation_id", "since", "confirmed_run_id", "confirmed_at", "confirmed")}
    newest = made.on_conflict_do_update(
        index_elements=[column.name for column in CONTENT_KEY],
        set_={**content, **failure, "failing": case((keeps, C.failing), else_=0)},
        where=or_(C.generation_id.is_(None), new.generation_id > C.generation_id),
    )
    connection.execute(newest)


def write_failing(connection: Connection, written: ColumnElement[bool]) -> None:
    """Make those of these generations that did not succeed the current failures, unless there are newer outcomes."""
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


def _uncount_confirmed(connection: Connection, run_id: str, step: str, keys: Sequence[str]) -> None:
    """Stop counting records as confirmed for which the same run has now written a generation."""
    confirmed = of_step(connection, WorkingRow, run_id, step, keys)
    gone = delete(WorkingRow).where(*confirmed, WorkingRow.status.is_not(None)).returning(WorkingRow.status)
    statuses = [str(status) for status in connection.scalars(gone)]
    if statuses:
        _count(connection, run_id, step, {COUNTED_IN[status]: -statuses.count(status) for status in set(statuses)})


def _confirm_alike(
    connection: Connection,
    place: Sequence[ColumnElement[bool]],
    rows: Sequence[ConfirmedRow],
    status: str,
    *,
    noted: bool,
) -> int:
    """Confirm records of one status, if `noted` also in `content`; return how many the run had not confirmed before."""
    first, dialect = rows[0], connection.dialect.name
    current, *_columns = _current_columns(status)
    own = (
        literal(first.run_id),
        C.step,
        C.record_key,
        literal(first.lease_id),
        literal(status),
        current,
        literal(max(row.confirmed_at for row in rows), UtcDateTime()),
    )
    counts = (Generation.run_id == first.run_id, Generation.step == first.step, Generation.replaced_by == "")
    written = select(Generation.id).where(*counts, Generation.record_key == C.record_key).exists()
    found = select(*own).where(*place, *_still_current(rows, status, dialect), ~written)
    # The values are in the ledger already, and passing them row by row would take twice the time.
    new = set(
        connection.scalars(_insert_confirmed(_dialect(connection).insert(WorkingRow).from_select(_WORKING, found)))
    )
    if new and noted:
        _note(connection, place, [row for row in rows if row.record_key in new], status)
    # The others have another current outcome by now. They count too, unless the run itself has written a generation.
    rest = {row.record_key: values_of(row) for row in rows if row.record_key not in new}
    if rest:
        of_rest = among(Generation.record_key, list(rest), dialect)
        for key in connection.scalars(select(Generation.record_key).where(*counts, of_rest)):
            del rest[key]
    if rest:
        new |= set(connection.scalars(_insert_confirmed(_dialect(connection).insert(WorkingRow)), list(rest.values())))
    return len(new)


def _note(
    connection: Connection, place: Sequence[ColumnElement[bool]], rows: Sequence[ConfirmedRow], status: str
) -> int:
    """Count the confirmation in `content`, once per run and record; return the number of records."""
    first, at = rows[0], max(row.confirmed_at for row in rows)
    _current, run, moment, times = _current_columns(status)
    later = or_(moment.is_(None), moment <= at)
    values: dict[Any, Any] = {
        run: case((later, first.run_id), else_=run),
        moment: case((later, at), else_=moment),
        times: times + 1,
    }
    new = or_(run.is_(None), run != first.run_id)
    still_current = _still_current(rows, status, connection.dialect.name)
    return connection.execute(update(C).where(*place, *still_current, new).values(values)).rowcount


def _current_columns(status: str) -> tuple[Any, Any, Any, Any]:
    """Return the columns of the current content or failure: generation, and the confirming run, time and count."""
    if status == SUCCEEDED:
        return C.generation_id, C.confirmed_run_id, C.confirmed_at, C.confirmed
    return C.failing_id, C.failing_run_id, C.failing_at, C.failing


def _still_current(rows: Sequence[ConfirmedRow], status: str, dialect: str) -> tuple[ColumnElement[bool], ...]:
    keys, ids = [row.record_key for row in rows], [row.generation_id for row in rows]
    return among(C.record_key, keys, dialect), among(_current_columns(status)[0], ids, dialect)


def _insert_confirmed(made: Any) -> Any:
    """Insert confirmed records, or confirm those still to be done; returns the keys of the newly confirmed ones."""
    names = ("status", "generation_id", "confirmed_at", "lease_id")
    new = {name: made.excluded[name] for name in names}
    place = ["run_id", "step", "record_key"]
    return made.on_conflict_do_update(index_elements=place, set_=new, where=WorkingRow.status.is_(None)).returning(
        WorkingRow.record_key
    )


def _count(connection: Connection, run_id: str, step: str, more: dict[str, int]) -> None:
    added = {name: StoredStep.__table__.c[name] + count for name, count in more.items()}
    of_step = (StoredStep.run_id == run_id, StoredStep.step == step)
    # Only a spill file may name a step without a row. An upsert each time would be slow: its statement is never cached.
    if not connection.execute(update(StoredStep).where(*of_step).values(added)).rowcount:
        made = _dialect(connection).insert(StoredStep)
        place = select(func.coalesce(func.max(StoredStep.position), 0) + 1).where(StoredStep.run_id == run_id)
        row = made.values(run_id=run_id, step=step, position=place.scalar_subquery(), state=OPEN, **more)
        connection.execute(row.on_conflict_do_update(index_elements=["run_id", "step"], set_=added))


def _key_of() -> list[Any]:
    return [Generation.__table__.c[column.name] for column in CONTENT_KEY]


def _dialect(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite
