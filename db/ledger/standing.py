"""Keep the table `content`, the current outcome of each record in a step, up to date with each committed batch.

Ids are UUIDv7 by the ledger's clock, so the greater id is the newer one, and batches may arrive in any order. Writing a
batch again changes nothing. What a trial writes or confirms never changes `content`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    update,
)

from db.ledger.replacing import by_step, of_step, step_parameters
from db.ledger.rows import ConfirmedRow, GenerationRow, values_of
from db.session import among
from db.tables import Generation, StandingContent, StoredRun, StoredStep, WorkingRow
from db.tables.content_upserts import content_statements, dialect_of
from db.tables.prepared import among_those, one_value, prepared
from db.words import CRASHED, FAILED, OPEN, SKIPPED, SUCCEEDED, TRY

C = StandingContent
COUNTED_IN = {SUCCEEDED: "unchanged", FAILED: "failed_again", SKIPPED: "skipped_again"}
"""The column of run_steps that counts confirmed records, by their status."""
_WORKING = tuple(column.name for column in WorkingRow.__table__.c)
_RUN: Any = bindparam("of_run", type_=WorkingRow.run_id.type)
_ITS_RUN = select(StoredRun.__table__).where(StoredRun.id == _RUN)
_AT: Any = bindparam("at", type_=WorkingRow.confirmed_at.type)
_COUNTS = (Generation.run_id == _RUN, Generation.step == bindparam("of_step"), Generation.replaced_by == "")
"""Selects the generations that count in a step of a run."""


def update_content(connection: Connection, generations: Sequence[GenerationRow]) -> None:
    """Make written generations the current outcomes of their records, unless there are newer ones.

    Those of a trial only end the confirmations of their own run.
    """
    for run_id, step, its_rows in by_step(sorted(generations, key=lambda row: row.id)):
        for rows in _each_record_once(its_rows):
            _make_current(connection, [row.id for row in rows])
            _uncount_confirmed(connection, run_id, step, [row.record_key for row in rows])


def confirm(connection: Connection, rows: Sequence[ConfirmedRow]) -> None:
    """Count each unchanged record once as confirmed by its run, even if the same rows are written again.

    A record is not counted if the run has a generation of it. A trial that has closed counts none: only `content` would
    tell which of them it counted before.
    """
    for run_id, step, its_rows in by_step(rows):
        its_run = connection.execute(_ITS_RUN, {"of_run": run_id}).one()
        is_open = its_run.ended_at is None or its_run.status == CRASHED
        place = {"of_flow": its_run.flow, "of_step": step, "of_endpoint": its_run.endpoint, "of_run": run_id}
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


def _make_current(connection: Connection, ids: Sequence[str]) -> None:
    statements, of_ids = content_statements(connection.dialect.name), {"ids": one_value(ids, connection.dialect.name)}
    for confirmed in statements.confirmed:
        _stamp_replaced(connection, connection.execute(confirmed, of_ids).all())
    connection.execute(statements.content, of_ids)
    connection.execute(statements.failing, of_ids)


def _stamp_replaced(connection: Connection, replaced: Sequence[Any]) -> None:
    """Copy the confirmation counts of `content` to the generations that are about to be replaced in it."""
    if replaced:
        stamp = update(Generation).where(Generation.id == bindparam("replaced"))
        connection.execute(
            stamp.values(confirmed=bindparam("times"), confirmed_at=bindparam("last")),
            [{"replaced": row[0], "times": row[1], "last": row[2]} for row in replaced],
        )


def _uncount_confirmed(connection: Connection, run_id: str, step: str, keys: Sequence[str]) -> None:
    """Stop counting records as confirmed for which the same run has now written a generation."""
    dialect = connection.dialect.name
    gone = connection.scalars(_uncounted(dialect), step_parameters(run_id, step, keys, dialect))
    statuses = [str(status) for status in gone]
    if statuses:
        _count(connection, run_id, step, {COUNTED_IN[status]: -count for status, count in Counter(statuses).items()})


@cache
def _uncounted(dialect: str) -> Executable:
    confirmed = (*of_step(WorkingRow, dialect), WorkingRow.status.is_not(None))
    return delete(WorkingRow).where(*confirmed).returning(WorkingRow.status)


def _confirm_alike(
    connection: Connection, place: Mapping[str, str], rows: Sequence[ConfirmedRow], status: str, *, noted: bool
) -> int:
    """Confirm records of one status, if `noted` also in `content`; return how many the run had not confirmed before."""
    dialect = connection.dialect.name
    values = {**place, "of_status": status, "by_lease": rows[0].lease_id}
    new = set(connection.scalars(_confirming(status, dialect), {**values, **_confirmed(rows, dialect)}))
    if new and noted:
        _note(connection, place, [row for row in rows if row.record_key in new], status)
    # The others have another current outcome by now. They count too, unless the run itself has written a generation.
    rest = {row.record_key: values_of(row) for row in rows if row.record_key not in new}
    if rest:
        of_rest = among(Generation.record_key, list(rest), dialect)
        for key in connection.scalars(select(Generation.record_key).where(*_COUNTS, of_rest), place):
            del rest[key]
    if rest:
        new |= set(
            connection.scalars(
                _insert_confirmed(dialect_of(connection.dialect.name).insert(WorkingRow)), list(rest.values())
            )
        )
    return len(new)


@cache
def _confirming(status: str, dialect: str) -> Executable:
    current, *_columns = _current_columns(status)
    lease = bindparam("by_lease", type_=WorkingRow.lease_id.type)
    stands = bindparam("of_status", type_=WorkingRow.status.type)
    written = select(Generation.id).where(*_COUNTS, Generation.record_key == C.record_key).exists()
    # The values are in the ledger already, and passing them row by row would take twice the time.
    found = select(_RUN, C.step, C.record_key, lease, stands, current, _AT)
    found = found.where(*_still_current(status, dialect), ~written)
    return prepared(_insert_confirmed(dialect_of(dialect).insert(WorkingRow).from_select(_WORKING, found)), dialect)


def _note(connection: Connection, place: Mapping[str, str], rows: Sequence[ConfirmedRow], status: str) -> int:
    """Count the confirmation in `content`, once per run and record; return the number of records."""
    dialect = connection.dialect.name
    return connection.execute(_noting(status, dialect), {**place, **_confirmed(rows, dialect)}).rowcount


@cache
def _noting(status: str, dialect: str) -> Executable:
    _current, run, moment, times = _current_columns(status)
    later = or_(moment.is_(None), moment <= _AT)
    values: dict[Any, Any] = {
        run: case((later, _RUN), else_=run),
        moment: case((later, _AT), else_=moment),
        times: times + 1,
    }
    return update(C).where(*_still_current(status, dialect), or_(run.is_(None), run != _RUN)).values(values)


def _current_columns(status: str) -> tuple[Any, Any, Any, Any]:
    """Return the columns of the current content or failure: generation, and the confirming run, time and count."""
    if status == SUCCEEDED:
        return C.generation_id, C.confirmed_run_id, C.confirmed_at, C.confirmed
    return C.failing_id, C.failing_run_id, C.failing_at, C.failing


def _still_current(status: str, dialect: str) -> tuple[ColumnElement[bool], ...]:
    places = ((C.flow, "of_flow"), (C.step, "of_step"), (C.endpoint, "of_endpoint"))
    place = (column == bindparam(name) for column, name in places)
    current = among_those(_current_columns(status)[0], "of_ids", dialect)
    return *place, among_those(C.record_key, "of_keys", dialect), current


def _confirmed(rows: Sequence[ConfirmedRow], dialect: str) -> dict[str, Any]:
    keys, ids = [row.record_key for row in rows], [row.generation_id for row in rows]
    at = max(row.confirmed_at for row in rows)
    return {"of_keys": one_value(keys, dialect), "of_ids": one_value(ids, dialect), "at": at}


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
        made = dialect_of(connection.dialect.name).insert(StoredStep)
        place = select(func.coalesce(func.max(StoredStep.position), 0) + 1).where(StoredStep.run_id == run_id)
        row = made.values(run_id=run_id, step=step, position=place.scalar_subquery(), state=OPEN, **more)
        connection.execute(row.on_conflict_do_update(index_elements=["run_id", "step"], set_=added))
