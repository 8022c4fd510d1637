"""Which outcome of a record counts in its run, where the run has several: the newest, and none is lost.

A run has a second outcome of a record where a later pass asks again, a helper has lost its lease, or a process comes
back whose place another has taken.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, select, update

from db.ledger.rows import GenerationRow
from db.ledger.tables import Generation, WorkingRow
from db.session import among


@dataclass
class _Outcomes:
    """What a run has written for a record of a step: what counts, and the one that no other is replaced by."""

    counts: Any
    last: str
    ids: set[str]


def placed(connection: Connection, generations: Sequence[GenerationRow]) -> list[GenerationRow]:
    """Let the newest generation of a record be the one that counts in its run: before these are written.

    One that only points at what the run itself has written for the record does not: that was asked for. One batch can
    hold several of a record: a helper that lost its lease may take its own range again. Each is replaced by another,
    and so in turn up to the one that counts: the ledger has no two that are replaced by the same.
    """
    replaced: dict[str, str] = {}
    for run_id, step, rows in by_step(sorted(generations, key=lambda row: row.id)):
        outcomes = _outcomes(connection, run_id, step, [row.record_key for row in rows])
        counting = {there.counts.id for there in outcomes.values()}
        for row in rows:
            there = outcomes.setdefault(row.record_key, _Outcomes(row, row.id, {row.id}))
            if row.id in there.ids:
                continue
            there.ids.add(row.id)
            if there.counts.id > row.id or _repeats(row, there.counts):
                # It comes from a spill file, from a process whose place another has taken, or from a late look-up.
                replaced[row.id], there.last = there.last, row.id
            else:
                replaced[there.counts.id], there.counts = row.id, row
        _replace(connection, {older: newer for older, newer in replaced.items() if older in counting})
    return [replace(row, replaced_by=replaced[row.id]) if row.id in replaced else row for row in generations]


def _outcomes(connection: Connection, run_id: str, step: str, keys: Sequence[str]) -> dict[str, _Outcomes]:
    g = Generation
    columns = (g.id, g.record_key, g.record_hash, g.template_hash, g.replaced_by)
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(select(*columns).where(*of_step(connection, g, run_id, step, keys))):
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
    """Yield rows by run and step, those of a record side by side."""
    # In one order everywhere: two runs that write the same records wait for each other, and hardly ever in a circle.
    ordered = sorted(rows, key=lambda row: (row.run_id, row.step, row.record_key))
    for (run_id, step), group in groupby(ordered, lambda row: (row.run_id, row.step)):
        yield run_id, step, list(group)


def of_step(
    connection: Connection, table: type[Generation] | type[WorkingRow], run_id: str, step: str, keys: Sequence[str]
) -> tuple[ColumnElement[bool], ...]:
    """Select the rows of these records in a step of a run."""
    return table.run_id == run_id, table.step == step, among(table.record_key, keys, connection.dialect.name)
