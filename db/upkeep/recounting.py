"""Compare the rollups with the rows of which they are the sums, and write those that differ again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, select

from db.ledger.leases import lock_run
from db.rollups.grouped import ROLLUPS, added_up
from db.rollups.marks import roll_up
from db.session import in_parts
from db.tables import RolledUp
from db.upkeep.alone import begin_exclusive
from db.upkeep.parts import Begin

RUNS_NAMED = 10
"""The most runs to name."""


@dataclass(slots=True)
class RollupDifferences:
    """The number of runs whose rollups count, and of those whose rollups are wrong; `first` names the first few."""

    runs: int = 0
    wrong: int = 0
    first: list[str] = field(default_factory=list)


def find_wrong_rollups(engine: Engine, report: Callable[[int], None] = lambda _runs: None) -> RollupDifferences:
    """Find the runs whose rollups differ from their attempts and generations; changes nothing."""
    return _compare_all(engine, engine.connect, report, dry=True)


def correct_rollups(engine: Engine, report: Callable[[int], None] = lambda _runs: None) -> RollupDifferences:
    """Write the wrong rollups again, and return what was wrong; LedgerInUseError if a run is active or begins."""
    return _compare_all(engine, partial(begin_exclusive, engine), report, dry=False)


def _compare_all(engine: Engine, begin: Begin, report: Callable[[int], None], *, dry: bool) -> RollupDifferences:
    found = RollupDifferences()
    with engine.connect() as connection:
        marked = list(connection.scalars(select(RolledUp.run_id).order_by(RolledUp.run_id)))
    for part in in_parts(marked):
        with begin() as connection:
            wrong = _differing(connection, part)
            for run_id in () if dry else wrong:
                # A spill import takes no lease, so the run's lock alone keeps it apart.
                lock_run(connection, run_id)
                roll_up(connection, run_id)
        found.runs += len(part)
        found.wrong += len(wrong)
        found.first += wrong[: RUNS_NAMED - len(found.first)]
        report(found.runs)
    return found


def _differing(connection: Connection, run_ids: Sequence[str]) -> list[str]:
    """Return the marked ones of these runs for which a rollup has other rows than the select that fills it."""
    marked = select(RolledUp.run_id).where(RolledUp.run_id.in_(run_ids))
    wrong: set[str] = set()
    for rollup in ROLLUPS:
        stored: Any = select(rollup.__table__).where(rollup.__table__.c.run_id.in_(marked))
        rows, expected = (
            {tuple(row) for row in connection.execute(each)} for each in (stored, added_up(rollup, marked))
        )
        wrong |= {row[0] for row in rows ^ expected}
    return sorted(wrong)
