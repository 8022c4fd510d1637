"""Make `content` again from history: compare what it says stands with what the generations say, and put it right.

How often something was confirmed is in no row of history: where what stands is right, that is left as it is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, and_, case, delete, func, insert, select, union, update

from db.ledger.tables import Generation, StandingContent
from db.session import in_parts
from db.upkeep.alone import begin_alone
from db.words import SUCCEEDED

ROWS_TO_COMPARE = 20_000
_Place = tuple[str, str, str]
_Outcome = tuple[str | None, str | None]
"""The ids of what stands, and of the failure that came after it."""


@dataclass(slots=True)
class Differences:
    """How many records there are, and for how many `content` is wrong: why, each record counted once.

    `missing` are in history alone, `unknown` in content alone; another content stands (`standing`), or another failure
    came last (`failing`).
    """

    records: int = 0
    missing: int = 0
    unknown: int = 0
    standing: int = 0
    failing: int = 0

    @property
    def wrong(self) -> int:
        """All that differ."""
        return self.missing + self.unknown + self.standing + self.failing


def compare(engine: Engine, told: Callable[[int], None] = lambda _records: None) -> Differences:
    """Say where content is not what history says; nothing is changed."""
    return _go_through(engine, told, really=False)


def rebuild(engine: Engine, told: Callable[[int], None] = lambda _records: None) -> Differences:
    """Put content right, and say what was wrong; LedgerInUseError where a run is at work, or begins to be."""
    return _go_through(engine, told, really=True)


def _go_through(engine: Engine, told: Callable[[int], None], *, really: bool) -> Differences:
    found = Differences()
    with engine.connect() as connection:
        places = _places(connection)
    for place in places:
        after: str | None = None
        while True:
            with begin_alone(engine) if really else engine.connect() as connection:
                until = _end_of_part(connection, place, after)
                wrong = _compare_part(connection, place, after, until, found)
                if really:
                    _put_right(connection, place, wrong)
            told(found.records)
            if until is None:
                break
            after = until
    return found


def _places(connection: Connection) -> list[_Place]:
    steps = (select(table.flow, table.step, table.endpoint).distinct() for table in (Generation, StandingContent))
    return sorted((row[0], row[1], row[2]) for row in connection.execute(union(*steps)))


def _of_part(table: Any, place: _Place, after: str | None, until: str | None) -> Any:
    flow, step, endpoint = place
    bounds = [table.record_key > after] if after is not None else []
    bounds += [table.record_key <= until] if until is not None else []
    return and_(table.flow == flow, table.step == step, table.endpoint == endpoint, *bounds)


def _end_of_part(connection: Connection, place: _Place, after: str | None) -> str | None:
    ends = [
        connection.scalar(
            select(table.record_key)
            .where(_of_part(table, place, after, None))
            .order_by(table.record_key)
            .offset(ROWS_TO_COMPARE)
            .limit(1)
        )
        for table in (Generation, StandingContent)
    ]
    return min((end for end in ends if end is not None), default=None)


def _compare_part(
    connection: Connection, place: _Place, after: str | None, until: str | None, found: Differences
) -> dict[str, tuple[_Outcome | None, _Outcome | None]]:
    """Return what history and content say of each record of a part for which they differ."""
    key, g, c = Generation.record_key, Generation, StandingContent
    standing, newest = func.max(case((g.status == SUCCEEDED, g.id))), func.max(g.id)
    failing = case((newest > func.coalesce(standing, ""), newest))
    history = select(key, standing, failing).where(_of_part(g, place, after, until)).group_by(key)
    content = select(c.record_key, c.generation_id, c.failing_id).where(_of_part(c, place, after, until))
    said, stored = (
        {row[0]: (row[1], row[2]) for row in connection.execute(statement)} for statement in (history, content)
    )
    found.records += len(said.keys() | stored.keys())
    wrong = {}
    for record_key in said.keys() | stored.keys():
        is_so, says = said.get(record_key), stored.get(record_key)
        if is_so == says:
            continue
        wrong[record_key] = (is_so, says)
        if says is None:
            found.missing += 1
        elif is_so is None:
            found.unknown += 1
        elif is_so[0] != says[0]:
            found.standing += 1
        else:
            found.failing += 1
    return wrong


def _put_right(
    connection: Connection, place: _Place, wrong: Mapping[str, tuple[_Outcome | None, _Outcome | None]]
) -> None:
    flow, step, endpoint = place
    keys = {"flow": flow, "step": step, "endpoint": endpoint}
    c = StandingContent
    ids = [each for is_so, _says in wrong.values() if is_so for each in is_so if each is not None]
    rows = {row.id: row for row in _rows(connection, ids)}
    for record_key, (is_so, says) in sorted(wrong.items()):
        its_row = and_(_of_part(c, place, None, None), c.record_key == record_key)
        if is_so is None:
            connection.execute(delete(c).where(its_row))
            continue
        values: dict[str, Any] = {}
        if says is None or says[0] != is_so[0]:
            g = rows.get(is_so[0] or "")
            values |= {"generation_id": is_so[0], "since": g and g.created_at, "confirmed": 0}
            values |= {"confirmed_run_id": g and g.run_id, "confirmed_at": g and g.created_at}
        if says is None or says[1] != is_so[1]:
            f = rows.get(is_so[1] or "")
            values |= {"failing_id": is_so[1], "failing": 0}
            values |= {"failing_run_id": f and f.run_id, "failing_at": f and f.created_at}
        if says is None:
            connection.execute(insert(c).values(**keys, record_key=record_key, **values))
        else:
            connection.execute(update(c).where(its_row).values(values))


def _rows(connection: Connection, ids: Sequence[str]) -> Iterator[Any]:
    for part in in_parts(ids):
        statement = select(Generation.id, Generation.run_id, Generation.created_at).where(Generation.id.in_(part))
        yield from connection.execute(statement)
