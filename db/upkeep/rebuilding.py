"""Make `content` again from history: compare what it says stands with what the generations say, and put it right.

How often something was confirmed is in no row of history: where what stands is right, that is left as it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, case, delete, func, select, union, update

from db.ledger.standing import write_content, write_failing
from db.ledger.tables import Generation, StandingContent
from db.session import among
from db.upkeep.alone import begin_alone
from db.upkeep.parts import Begin, Part, go_through
from db.words import SUCCEEDED

NAMED_AT_MOST = 10
"""Records that are named."""
_Outcome = tuple[str | None, str | None]
"""The ids of what stands, and of the failure that came after it."""
_Wrong = Mapping[str, tuple[_Outcome | None, _Outcome | None]]
"""By record key what history says and what content says; None where it does not know the record."""
_Told = Callable[[int], None]
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
    """How many records there are, and for how many `content` is wrong: why, each record counted once.

    `missing` are in history alone, `unknown` in content alone; another content stands (`standing`), or another failure
    came last (`failing`). `first` names the first few, by step and key.
    """

    records: int = 0
    missing: int = 0
    unknown: int = 0
    standing: int = 0
    failing: int = 0
    first: list[tuple[str, str]] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """All that differ."""
        return self.missing + self.unknown + self.standing + self.failing


def compare(engine: Engine, told: _Told = lambda _records: None) -> Differences:
    """Say where content is not what history says; nothing is changed."""
    return _go_through(engine.connect, told, dry=True)


def rebuild(engine: Engine, told: _Told = lambda _records: None) -> Differences:
    """Put content right, and say what was wrong; LedgerInUseError where a run is at work, or begins to be."""
    return _go_through(partial(begin_alone, engine), told, dry=False)


def _go_through(begin: Begin, told: _Told, *, dry: bool) -> Differences:
    found = Differences()

    def compare_part(connection: Connection, part: Part) -> int:
        before = found.records
        wrong = _compare(connection, part, found)
        if not dry:
            _put_right(connection, part, wrong)
        return found.records - before

    with begin() as connection:
        steps = [select(table.flow, table.step, table.endpoint).distinct() for table in (Generation, StandingContent)]
        parts = [Part(*row) for row in connection.execute(union(*steps))]
    go_through(begin, parts, compare_part, told)
    return found


def _compare(connection: Connection, part: Part, found: Differences) -> _Wrong:
    """Find the records of a part for which history and content differ, and count why."""
    g, c = Generation, StandingContent
    standing, newest = func.max(case((g.status == SUCCEEDED, g.id))), func.max(g.id)
    failing = case((newest > func.coalesce(standing, ""), newest))
    history = select(g.record_key, standing, failing).where(part.has(g)).group_by(g.record_key)
    content = select(c.record_key, c.generation_id, c.failing_id).where(part.has(c))
    said, stored = (
        {row[0]: (row[1], row[2]) for row in connection.execute(statement)} for statement in (history, content)
    )
    keys = said.keys() | stored.keys()
    found.records += len(keys)
    wrong = {key: (said.get(key), stored.get(key)) for key in keys if said.get(key) != stored.get(key)}
    for is_so, says in wrong.values():
        if says is None:
            found.missing += 1
        elif is_so is None:
            found.unknown += 1
        elif is_so[0] != says[0]:
            found.standing += 1
        else:
            found.failing += 1
    found.first += [(part.step, key) for key in sorted(wrong)[: NAMED_AT_MOST - len(found.first)]]
    return wrong


def _put_right(connection: Connection, part: Part, wrong: _Wrong) -> None:
    """Take out of content what is wrong, and write it as any batch of generations writes it: what is right stays."""
    dialect, c = connection.dialect.name, StandingContent
    unknown = [key for key, (is_so, _says) in wrong.items() if is_so is None]
    connection.execute(delete(c).where(part.has(c), among(c.record_key, unknown, dialect)))
    for which, nothing, write in ((0, _NO_CONTENT, write_content), (1, _NO_FAILURE, write_failing)):
        differ = {
            key: is_so[which]
            for key, (is_so, says) in wrong.items()
            if is_so is not None and is_so[which] != (says or (None, None))[which]
        }
        connection.execute(update(c).where(part.has(c), among(c.record_key, list(differ), dialect)).values(nothing))
        write(connection, among(Generation.id, [each for each in differ.values() if each is not None], dialect))
