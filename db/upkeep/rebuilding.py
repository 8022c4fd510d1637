"""Rebuild `content` from history: compare it with the generations and correct the rows that differ.

History does not have the counts of current confirmations, so correct rows are left unchanged. Trials are no part of it:
what only a trial wrote is in no row of content.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, case, delete, func, select, union, update

from db.session import among
from db.tables import Generation, StandingContent
from db.tables.content_upserts import content_of, failing_of
from db.tables.tried_rows import is_of_trial
from db.upkeep.alone import begin_exclusive
from db.upkeep.parts import Begin, Part, go_through
from db.words import SUCCEEDED

NAMED_AT_MOST = 10
"""The maximum number of records to name."""
_Outcome = tuple[str | None, str | None]
"""The ids of the current content and of the failure after it."""
_Wrong = Mapping[str, tuple[_Outcome | None, _Outcome | None]]
"""By record key, the outcomes according to history and to content; None if the record is not in there."""
_Report = Callable[[int], None]
_NO_CONTENT: dict[str, Any] = {
    "generation_id": None,
    "since": None,
    "confirmed_run_id": None,
    "confirmed_at": None,
    "confirmed": 0,
}
_NO_FAILURE: dict[str, Any] = {"failing_id": None, "failing_run_id": None, "failing_at": None, "failing": 0}


@dataclass(slots=True)
class Differences:
    """The number of records, and of those for which `content` is wrong, each counted for one reason.

    `missing` records are only in history, `unknown` ones only in content. The others have a wrong current content
    (`standing`) or a wrong last failure (`failing`). `first` names the first few, by step and key.
    """

    records: int = 0
    missing: int = 0
    unknown: int = 0
    standing: int = 0
    failing: int = 0
    first: list[tuple[str, str]] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """The number of all records that differ."""
        return self.missing + self.unknown + self.standing + self.failing


def compare(engine: Engine, report: _Report = lambda _records: None) -> Differences:
    """Find the records for which content differs from history; changes nothing."""
    return _go_through(engine.connect, report, dry=True)


def rebuild(engine: Engine, report: _Report = lambda _records: None) -> Differences:
    """Correct content, and return what was wrong; LedgerInUseError if a run is active or begins."""
    return _go_through(partial(begin_exclusive, engine), report, dry=False)


def _go_through(begin: Begin, report: _Report, *, dry: bool) -> Differences:
    found = Differences()

    def compare_part(connection: Connection, part: Part) -> int:
        before = found.records
        wrong = _compare(connection, part, found)
        if not dry:
            _correct(connection, part, wrong)
        return found.records - before

    with begin() as connection:
        steps = [select(table.flow, table.step, table.endpoint).distinct() for table in (Generation, StandingContent)]
        parts = [Part(*row) for row in connection.execute(union(*steps))]
    go_through(begin, parts, compare_part, report)
    return found


def _compare(connection: Connection, part: Part, found: Differences) -> _Wrong:
    """Find the records of a part for which history and content differ, and count the reasons."""
    g, c = Generation, StandingContent
    succeeded, newest = func.max(case((g.status == SUCCEEDED, g.id))), func.max(g.id)
    failing = case((newest > func.coalesce(succeeded, ""), newest))
    counting = (part.has(g), ~is_of_trial(g.run_id))
    history = select(g.record_key, succeeded, failing).where(*counting).group_by(g.record_key)
    content = select(c.record_key, c.generation_id, c.failing_id).where(part.has(c))
    expected, stored = (
        {row[0]: (row[1], row[2]) for row in connection.execute(statement)} for statement in (history, content)
    )
    keys = expected.keys() | stored.keys()
    found.records += len(keys)
    wrong = {key: (expected.get(key), stored.get(key)) for key in keys if expected.get(key) != stored.get(key)}
    for in_history, in_content in wrong.values():
        if in_content is None:
            found.missing += 1
        elif in_history is None:
            found.unknown += 1
        elif in_history[0] != in_content[0]:
            found.standing += 1
        else:
            found.failing += 1
    found.first += [(part.step, key) for key in sorted(wrong)[: NAMED_AT_MOST - len(found.first)]]
    return wrong


def _correct(connection: Connection, part: Part, wrong: _Wrong) -> None:
    """Clear the wrong half of each row, content or failure, and write it again as a batch of generations does."""
    dialect, c = connection.dialect.name, StandingContent
    unknown = [key for key, (in_history, _in_content) in wrong.items() if in_history is None]
    connection.execute(delete(c).where(part.has(c), among(c.record_key, unknown, dialect)))
    for which, nothing, made_of in ((0, _NO_CONTENT, content_of), (1, _NO_FAILURE, failing_of)):
        differ = {
            key: in_history[which]
            for key, (in_history, in_content) in wrong.items()
            if in_history is not None and in_history[which] != (in_content or (None, None))[which]
        }
        connection.execute(update(c).where(part.has(c), among(c.record_key, list(differ), dialect)).values(nothing))
        written = among(Generation.id, [each for each in differ.values() if each is not None], dialect)
        connection.execute(made_of(dialect, written))
