"""The statements that make new generations the current outcomes of their records, made once for each database.

A batch of a run is small, so making them for each would take longer than executing them.
"""

from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Executable, Insert, and_, case, literal, null, or_, select, true
from sqlalchemy.dialects import postgresql, sqlite

from db.tables.history_tables import Generation, StandingContent
from db.tables.prepared import among_those, prepared
from db.tables.tried_rows import is_of_trial
from db.words import SUCCEEDED

C = StandingContent
CONTENT_KEY = (C.flow, C.step, C.endpoint, C.record_key)
CONTENT = (C.generation_id, C.since, C.confirmed_run_id, C.confirmed_at, C.confirmed)
FAILURE = (C.failing_id, C.failing_run_id, C.failing_at)


class ContentStatements(NamedTuple):
    """The statements of each commit, which are made once; their parameter `ids` are those of the new generations.

    Generations of trials change nothing.
    """

    confirmed: tuple[Executable, Executable]
    content: Executable
    failing: Executable


@cache
def content_statements(dialect: str) -> ContentStatements:
    """Return the statements for a kind of database."""
    written = among_those(Generation.id, "ids", dialect) & ~is_of_trial(Generation.run_id)
    return ContentStatements(
        confirmed=(
            _confirmed(written, C.generation_id, C.confirmed, C.confirmed_at, Generation.status == SUCCEEDED),
            _confirmed(written, C.failing_id, C.failing, C.failing_at, true()),
        ),
        content=prepared(content_of(dialect, written), dialect),
        failing=prepared(failing_of(dialect, written), dialect),
    )


def _confirmed(
    written: ColumnElement[bool], current: Any, times: Any, last: Any, newer: ColumnElement[bool]
) -> Executable:
    """Select the counts of what these generations are about to replace, if it was confirmed."""
    same = and_(*(column == Generation.__table__.c[column.name] for column in CONTENT_KEY))
    confirmed = select(current, times, last).join(Generation, same).where(written, newer, times > 0)
    # Locked until the commit, because a confirmation after this read would be lost.
    return confirmed.where(current < Generation.id).with_for_update(of=C)


def content_of(dialect: str, written: ColumnElement[bool]) -> Insert:
    """Return the statement that makes the succeeded ones of these generations current; newer content stays."""
    g = Generation
    columns = [*CONTENT_KEY, *CONTENT, C.failing]
    found = select(*_key_of(), g.id, g.created_at, g.run_id, g.created_at, literal(0), literal(0))
    made = (
        dialect_of(dialect)
        .insert(C)
        .from_select(columns, found.where(written, g.status == SUCCEEDED).order_by(*_key_of()))
    )
    new = made.excluded
    keeps = C.failing_id > new.generation_id
    failure = {
        name: case((keeps, getattr(C, name)), else_=null()) for name in ("failing_id", "failing_run_id", "failing_at")
    }
    content = {name: new[name] for name in ("generation_id", "since", "confirmed_run_id", "confirmed_at", "confirmed")}
    newest: Insert = made.on_conflict_do_update(
        index_elements=[column.name for column in CONTENT_KEY],
        set_={**content, **failure, "failing": case((keeps, C.failing), else_=0)},
        where=or_(C.generation_id.is_(None), new.generation_id > C.generation_id),
    )
    return newest


def failing_of(dialect: str, written: ColumnElement[bool]) -> Insert:
    """Return the statement that makes the others of these generations current failures; newer outcomes stay."""
    g = Generation
    columns = [*CONTENT_KEY, *FAILURE, C.failing, C.confirmed]
    found = select(*_key_of(), g.id, g.run_id, g.created_at, literal(0), literal(0))
    made = (
        dialect_of(dialect)
        .insert(C)
        .from_select(columns, found.where(written, g.status != SUCCEEDED).order_by(*_key_of()))
    )
    new = made.excluded
    newest: Insert = made.on_conflict_do_update(
        index_elements=[column.name for column in CONTENT_KEY],
        set_={column.name: new[column.name] for column in (*FAILURE, C.failing)},
        where=and_(
            or_(C.generation_id.is_(None), new.failing_id > C.generation_id),
            or_(C.failing_id.is_(None), new.failing_id > C.failing_id),
        ),
    )
    return newest


def _key_of() -> list[Any]:
    return [Generation.__table__.c[column.name] for column in CONTENT_KEY]


def dialect_of(name: str) -> Any:
    """Return SQLAlchemy's module of a kind of database, with its own INSERT."""
    return postgresql if name == "postgresql" else sqlite
