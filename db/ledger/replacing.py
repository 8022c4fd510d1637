"""Decide which of a run's several outcomes of a record counts: the newest. The others are kept, marked as replaced.

A run has several outcomes of a record if a later pass requests it again, if a helper lost its lease, or if a process
returns after another has taken its place.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, Executable, bindparam, case, func, select, update

from db.ledger.rows import GenerationRow
from db.session import among
from db.tables import Generation, StandingContent, StoredRun, StoredStep, WorkingRow
from db.tables.prepared import among_those, one_value
from db.words import CRASHED, DONE


@dataclass
class _Outcomes:
    """A run's generations of a record in a step: the one that counts, and the last of the chain of replaced ones."""

    counts: Any
    last: str
    ids: set[str]


def mark_replaced(connection: Connection, generations: Sequence[GenerationRow]) -> list[GenerationRow]:
    """Make the newest generation of each record the one that counts in its run; call it before these are written.

    Returns the generations with `replaced_by` set, and updates the stored one that counted before. A generation does
    not replace its own source in the same run, because that was requested. A batch may have several generations of a
    record, because a helper that lost its lease may take its own range again. The replaced ones form a chain that ends
    at the one that counts: no two have the same `replaced_by`.
    """
    replaced: dict[str, str] = {}
    for run_id, step, rows in by_step(sorted(generations, key=lambda row: row.id)):
        outcomes = _outcomes(connection, run_id, step, [row.record_key for row in rows])
        counting = {there.counts.id for there in outcomes.values()}
        for row in rows:
            there = outcomes.setdefault(row.record_key, _Outcomes(row, row.id, {row.id}))
            if row.id in there.ids:
                continue
            is_older = row.id < max(there.ids)
            there.ids.add(row.id)
            if is_older or _repeats(row, there.counts):
                # An older row comes from a spill file, from a superseded process, or from a late look-up. It may be
                # newer than the row that counts, if one that repeats that is newer still: so `content` has it too.
                replaced[row.id], there.last = there.last, row.id
            else:
                replaced[there.counts.id], there.counts = row.id, row
        _replace(connection, {older: newer for older, newer in replaced.items() if older in counting})
    return [replace(row, replaced_by=replaced[row.id]) if row.id in replaced else row for row in generations]


def replaced_by_counted(connection: Connection, generations: Sequence[GenerationRow]) -> dict[str, str]:
    """Return which generations come after their run has closed and had counted the record: by id, what stands for it.

    They come from a process whose run another process has ended, so they don't count. A step that is done has counted
    all its records, and those without a generation were confirmed. In a step that is not done only `content` tells: if
    a later run has confirmed the record since, nothing does any more, and the generation counts too. Several of a
    record form a chain that ends at what stands for it.
    """
    found: dict[str, str] = {}
    for run_id, step, rows in by_step(generations):
        run = connection.execute(select(StoredRun.__table__).where(StoredRun.id == run_id)).one_or_none()
        if run is None or run.ended_at is None or run.status == CRASHED:
            continue
        c = StandingContent
        its_step = select(StoredStep.state).where(StoredStep.run_id == run_id, StoredStep.step == step)
        confirmed = ((c.failing_run_id == run_id, c.failing_id), (c.confirmed_run_id == run_id, c.generation_id))
        newest = func.coalesce(c.failing_id, c.generation_id)
        outcome = case(*confirmed, else_=newest if connection.scalar(its_step) == DONE else None)
        place = (c.flow == run.flow, c.step == step, c.endpoint == run.endpoint)
        keys = among(c.record_key, [row.record_key for row in rows], connection.dialect.name)
        standing = {
            row.record_key: row.outcome
            for row in connection.execute(select(c.record_key, outcome.label("outcome")).where(*place, keys))
            if row.outcome
        }
        own = _outcomes(connection, run_id, step, sorted(standing))
        for row in sorted((row for row in rows if row.record_key in standing), key=lambda row: row.id):
            there = own.setdefault(row.record_key, _Outcomes(None, standing[row.record_key], set()))
            if there.counts is None or there.counts.replaced_by:
                # As in mark_replaced, no two have the same `replaced_by`.
                found[row.id] = there.last
                if row.id not in there.ids:
                    there.ids.add(row.id)
                    there.last = row.id
    return found


def _outcomes(connection: Connection, run_id: str, step: str, keys: Sequence[str]) -> dict[str, _Outcomes]:
    found: defaultdict[str, list[Any]] = defaultdict(list)
    dialect = connection.dialect.name
    for row in connection.execute(_outcomes_of(dialect), step_parameters(run_id, step, keys, dialect)):
        found[row.record_key].append(row)
    outcomes = {}
    for key, rows in found.items():
        ids = {row.id for row in rows}
        counts = max(rows, key=lambda row: (not row.replaced_by, row.id))
        last = ids - {row.replaced_by for row in rows}
        outcomes[key] = _Outcomes(counts, min(last), ids)
    return outcomes


def _repeats(row: GenerationRow, there: Any) -> bool:
    made_from = (row.source_generation_id, row.record_hash, row.template_hash)
    return made_from == (there.id, there.record_hash, there.template_hash)


def _replace(connection: Connection, replaced: dict[str, str]) -> None:
    if replaced:
        newer = update(Generation).where(Generation.id == bindparam("older")).values(replaced_by=bindparam("newer"))
        connection.execute(newer, [{"older": older, "newer": replaced[older]} for older in sorted(replaced)])


def by_step(rows: Sequence[Any]) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield rows grouped by run and step, sorted by record key."""
    # Always in the same order, so that two runs that write the same records hardly ever deadlock.
    ordered = sorted(rows, key=lambda row: (row.run_id, row.step, row.record_key))
    for (run_id, step), group in groupby(ordered, lambda row: (row.run_id, row.step)):
        yield run_id, step, list(group)


def of_step(table: type[Generation] | type[WorkingRow], dialect: str) -> tuple[ColumnElement[bool], ...]:
    """Select the rows of records in a step of a run, which are the parameters that `step_parameters` returns."""
    place = (table.run_id == bindparam("of_run"), table.step == bindparam("of_step"))
    return *place, among_those(table.record_key, "of_keys", dialect)


def step_parameters(run_id: str, step: str, keys: Sequence[str], dialect: str) -> dict[str, Any]:
    """Return the parameters of a statement with `of_step`."""
    return {"of_run": run_id, "of_step": step, "of_keys": one_value(keys, dialect)}


@cache
def _outcomes_of(dialect: str) -> Executable:
    g = Generation
    columns = (g.id, g.record_key, g.record_hash, g.template_hash, g.replaced_by)
    return select(*columns).where(*of_step(g, dialect))
