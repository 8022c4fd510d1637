"""What stands for each record in a step: `content`, brought up to what a batch has written and confirmed.

Ids are UUIDv7 by the ledger's clock, so the greater id is the newer one, in whatever order batches arrive. Writing what
is there already changes nothing.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from db.columns import UtcDateTime
from db.ledger.rows import ConfirmedRow, GenerationRow, values_of
from db.ledger.tables import Generation, StandingContent, StoredRun, StoredStep, WorkingRow
from db.session import among
from db.words import FAILED, OPEN, SKIPPED, SUCCEEDED

C = StandingContent
CONTENT_KEY = (C.flow, C.step, C.endpoint, C.record_key)
CONTENT = (C.generation_id, C.since, C.confirmed_run_id, C.confirmed_at, C.confirmed)
FAILURE = (C.failing_id, C.failing_run_id, C.failing_at)
RETRIABLE = (FAILED, SKIPPED)
"""How a generation ends that its own run may ask for again."""
COUNTED_IN = {SUCCEEDED: "unchanged", FAILED: "failed_again", SKIPPED: "skipped_again"}
"""The column of run_steps that counts what is confirmed, by its status."""
_WORKING = tuple(column.name for column in WorkingRow.__table__.c)
_OWN = ("id", "run_id", "step", "record_key")


def replace_unfinished(connection: Connection, generations: Sequence[GenerationRow]) -> None:
    """Bring the rows of records up to date that the same run has asked for before, in vain."""
    for run_id, step, rows in _by_step(generations):
        by_key = {row.record_key: row for row in rows}
        unfinished = (*_of_step(connection, Generation, run_id, step, list(by_key)), Generation.status.in_(RETRIABLE))
        for kept, key in connection.execute(select(Generation.id, Generation.record_key).where(*unfinished)).all():
            new = {name: value for name, value in values_of(by_key[key]).items() if name not in _OWN}
            connection.execute(update(Generation).where(Generation.id == kept).values(new))


def stand(connection: Connection, generations: Sequence[GenerationRow]) -> None:
    """Let generations that were written stand for their records, where nothing newer does."""
    for run_id, step, rows in _by_step(generations):
        keys = [row.record_key for row in rows]
        written = _of_step(connection, Generation, run_id, step, keys)
        _stamp_replaced(connection, written)
        connection.execute(_content(connection, written))
        connection.execute(_failing(connection, written))
        _take_off_confirmed(connection, run_id, step, keys)


def confirm(connection: Connection, rows: Sequence[ConfirmedRow]) -> None:
    """Book records for which nothing has changed, each once in its run, however often this is written."""
    for run_id, step, of_step in _by_step(rows):
        its_run = select(StoredRun.flow, StoredRun.endpoint).where(StoredRun.id == run_id)
        flow, endpoint = connection.execute(its_run).one()
        place = (C.flow == flow, C.step == step, C.endpoint == endpoint)
        counts = {}
        for status, column in COUNTED_IN.items():
            alike = [row for row in of_step if row.status == status]
            if alike:
                counts[column] = _confirm_alike(connection, place, alike, status)
        _count(connection, run_id, step, counts)


def _by_step(rows: Sequence[Any]) -> Iterator[tuple[str, str, list[Any]]]:
    # In one order everywhere: two runs that write the same records wait for each other, and hardly ever in a circle.
    ordered = sorted(rows, key=lambda row: (row.run_id, row.step, row.record_key))
    for (run_id, step), group in groupby(ordered, lambda row: (row.run_id, row.step)):
        yield run_id, step, list(group)


def _stamp_replaced(connection: Connection, written: Sequence[ColumnElement[bool]]) -> None:
    """Write on the generations that are about to be replaced how often they were confirmed."""
    same = and_(*(column == Generation.__table__.c[column.name] for column in CONTENT_KEY))
    newer = select(C.generation_id, C.confirmed, C.confirmed_at).join(Generation, same).where(*written)
    failed = select(C.failing_id, C.failing, C.failing_at).join(Generation, same).where(*written)
    replaced = [
        *connection.execute(
            newer.where(C.confirmed > 0, Generation.status == SUCCEEDED, C.generation_id < Generation.id)
        ).all(),
        *connection.execute(failed.where(C.failing > 0, C.failing_id < Generation.id)).all(),
    ]
    if replaced:
        stamp = update(Generation).where(Generation.id == bindparam("replaced"))
        connection.execute(
            stamp.values(confirmed=bindparam("times"), confirmed_at=bindparam("last")),
            [{"replaced": row[0], "times": row[1], "last": row[2]} for row in replaced],
        )


def _content(connection: Connection, written: Sequence[ColumnElement[bool]]) -> Executable:
    g = Generation
    columns = [*CONTENT_KEY, *CONTENT, C.failing]
    found = select(*_key_of(), g.id, g.created_at, g.run_id, g.created_at, literal(0), literal(0))
    made = (
        _dialect(connection)
        .insert(C)
        .from_select(columns, found.where(*written, g.status == SUCCEEDED).order_by(*_key_of()))
    )
    new = made.excluded
    still = C.failing_id > new.generation_id
    failure = {
        name: case((still, getattr(C, name)), else_=null()) for name in ("failing_id", "failing_run_id", "failing_at")
    }
    content = {name: new[name] for name in ("generation_id", "since", "confirmed_run_id", "confirmed_at", "confirmed")}
    newest: Executable = made.on_conflict_do_update(
        index_elements=[column.name for column in CONTENT_KEY],
        set_={**content, **failure, "failing": case((still, C.failing), else_=0)},
        where=or_(C.generation_id.is_(None), new.generation_id > C.generation_id),
    )
    return newest


def _failing(connection: Connection, written: Sequence[ColumnElement[bool]]) -> Executable:
    g = Generation
    columns = [*CONTENT_KEY, *FAILURE, C.failing, C.confirmed]
    found = select(*_key_of(), g.id, g.run_id, g.created_at, literal(0), literal(0))
    made = (
        _dialect(connection)
        .insert(C)
        .from_select(columns, found.where(*written, g.status != SUCCEEDED).order_by(*_key_of()))
    )
    new = made.excluded
    newest: Executable = made.on_conflict_do_update(
        index_elements=[column.name for column in CONTENT_KEY],
        set_={column.name: new[column.name] for column in (*FAILURE, C.failing)},
        where=and_(
            or_(C.generation_id.is_(None), new.failing_id > C.generation_id),
            or_(C.failing_id.is_(None), new.failing_id > C.failing_id),
        ),
    )
    return newest


def _take_off_confirmed(connection: Connection, run_id: str, step: str, keys: Sequence[str]) -> None:
    """Count a record no longer as confirmed for which the same run has written a row by now."""
    confirmed = _of_step(connection, WorkingRow, run_id, step, keys)
    gone = delete(WorkingRow).where(*confirmed, WorkingRow.status.is_not(None)).returning(WorkingRow.status)
    statuses = [str(status) for status in connection.scalars(gone)]
    if statuses:
        _count(connection, run_id, step, {COUNTED_IN[status]: -statuses.count(status) for status in set(statuses)})


def _confirm_alike(
    connection: Connection, place: Sequence[ColumnElement[bool]], rows: Sequence[ConfirmedRow], status: str
) -> int:
    """Book records that were confirmed alike, and note that on what stands for them; how many were not booked yet."""
    stands, run, moment, times = (
        (C.generation_id, C.confirmed_run_id, C.confirmed_at, C.confirmed)
        if status == SUCCEEDED
        else (C.failing_id, C.failing_run_id, C.failing_at, C.failing)
    )
    first, at, dialect = rows[0], max(row.confirmed_at for row in rows), connection.dialect.name
    still = (
        *place,
        among(C.record_key, [row.record_key for row in rows], dialect),
        among(stands, [row.generation_id for row in rows], dialect),
    )
    own = (
        literal(first.run_id),
        C.step,
        C.record_key,
        literal(first.lease_id),
        literal(status),
        stands,
        literal(at, UtcDateTime()),
    )
    # What is to be written is in the ledger already: handing it over row by row takes twice the time.
    standing = _dialect(connection).insert(WorkingRow).from_select(_WORKING, select(*own).where(*still))
    booked = set(connection.scalars(_booked(standing)).all())
    later = or_(moment.is_(None), moment <= at)
    values: dict[Any, Any] = {
        run: case((later, first.run_id), else_=run),
        moment: case((later, at), else_=moment),
        times: times + 1,
    }
    if booked:
        mine = still if len(booked) == len(rows) else (*still, among(C.record_key, list(booked), dialect))
        connection.execute(update(C).where(*mine).values(values))
    # Something else stands for these by now: they are counted all the same.
    rest = [values_of(row) for row in rows if row.record_key not in booked]
    if rest:
        booked |= set(connection.scalars(_booked(_dialect(connection).insert(WorkingRow)), rest))
    return len(booked)


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


def _of_step(
    connection: Connection, table: type[Generation] | type[WorkingRow], run_id: str, step: str, keys: Sequence[str]
) -> tuple[ColumnElement[bool], ...]:
    return table.run_id == run_id, table.step == step, among(table.record_key, keys, connection.dialect.name)


def _key_of() -> list[Any]:
    return [Generation.__table__.c[column.name] for column in CONTENT_KEY]


def _dialect(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite
