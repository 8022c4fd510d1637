"""The index of the words in answers: which runs it has, and where their words are.

On SQLite it is a file of its own next to the ledger, on PostgreSQL it is tables in the ledger's schema. No migration
makes it: it exists once someone has asked for it. Each month of answers has its own tables, so that a common word is
found month by month, the newest first. A run counts as indexed while its mark in `rolled_up` is the one that it had
then: whatever writes to a closed run takes that mark away.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from types import ModuleType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError

from db.database_errors import LedgerError
from db.search import fts5_months, tsvector_months
from db.search.tokens import WordQuery
from db.session import begin_write, in_parts, readable_url, reason_of
from db.tables import RolledUp, StoredRun
from db.timed_reads import was_stopped

FORMAT = 1
"""Changes when the tables or the rule of words change; an index of another format has to be made again."""
_LOCK = 0x776F7264  # "word": any number, as long as all indexing processes use the same
_END_OF_CALENDAR_MS = 253_402_300_799_999
"""The last millisecond of the year 9999. An id that people enter may be of a later one."""
_AS_STORED = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
_META = sa.MetaData()
_FORMATS = sa.Table("search_format", _META, sa.Column("format", sa.Integer, primary_key=True))
_RUNS = sa.Table(
    "search_runs", _META, sa.Column("run_id", sa.String(36), primary_key=True), sa.Column("mark", _AS_STORED)
)
_MONTHS = sa.Table("search_months", _META, sa.Column("month", sa.Integer, primary_key=True, autoincrement=False))


class IndexUnusableError(LedgerError):
    """The index of words can't be used as it is; searches read the answers themselves."""


@dataclass(frozen=True, slots=True)
class UnindexedRun:
    """A run that is open, or closed but not indexed as it is now. `mark` is None if the run is open."""

    run_id: str
    mark: Any


@dataclass(frozen=True, slots=True)
class AnswerIndex:
    """An index that exists, and its ledger. Every method raises IndexUnusableError if the index can't be used."""

    ledger: Engine
    engine: Engine

    @property
    def _months_module(self) -> ModuleType:
        return tsvector_months if self.engine.dialect.name == "postgresql" else fts5_months

    def unindexed(self) -> list[UnindexedRun]:
        """List the runs of the ledger that are not indexed as they are now, the newest first."""
        mark = sa.type_coerce(RolledUp.rolled_up_at, _AS_STORED)
        runs = select(StoredRun.id, mark).outerjoin(RolledUp, RolledUp.run_id == StoredRun.id)
        with self.ledger.connect() as connection:
            of_ledger = connection.execute(runs.order_by(StoredRun.id.desc())).all()
        indexed = self._indexed()
        return [UnindexedRun(row[0], row[1]) for row in of_ledger if row[1] is None or indexed.get(row[0]) != row[1]]

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Return those of the generations that are not in the index."""
        with self._reading() as connection:
            months = _months_of(connection)
            known: set[str] = set()
            for month, part in _by_month(ids):
                if month in months:
                    known |= self._months_module.known_in_month(connection, month, part)
        return [each for each in ids if each not in known]

    def add(self, texts: Mapping[str, str], finished: UnindexedRun | None = None) -> None:
        """Add generations with their words, and record that a run is indexed, in one transaction."""
        with self._writing() as connection:
            months = _months_of(connection)
            for month, ids in _by_month(texts):
                if month not in months:
                    self._months_module.create_month(connection, month)
                    connection.execute(sa.insert(_MONTHS).values(month=month))
                # Another process may have added some of them meanwhile.
                known = self._months_module.known_in_month(connection, month, ids)
                new = {each: texts[each] for each in ids if each not in known}
                self._months_module.add_to_month(connection, month, new)
            if finished is not None:
                connection.execute(sa.delete(_RUNS).where(_RUNS.c.run_id == finished.run_id))
                connection.execute(sa.insert(_RUNS).values(run_id=finished.run_id, mark=finished.mark))

    def newest(self, query: WordQuery, before: str | None, since: str | None, limit: int) -> list[str]:
        """Return the newest `limit` generations that may have the words, from the id `since` up to, without, `before`.

        If they are fewer, there are no more.
        """
        found: list[str] = []
        with self._reading() as connection:
            for month in sorted(_months_of(connection), reverse=True):
                if before is not None and month > month_of(before):
                    continue
                if (since is not None and month < month_of(since)) or len(found) >= limit:
                    break
                found += self._months_module.newest_in_month(connection, month, query, before, limit - len(found))
        return [each for each in found if since is None or each >= since]

    def finish(self, months: Sequence[int]) -> None:
        """Merge the parts in which these months were written."""
        for month in months:
            with self._writing() as connection:
                self._months_module.finish_month(connection, month)

    def strangers(self) -> list[str]:
        """List the indexed runs that the ledger does not have: it was restored, or the index is of another ledger."""
        with self.ledger.connect() as connection:
            known = set(connection.scalars(select(StoredRun.id)))
        return sorted(self._indexed().keys() - known)

    def forget_strangers(self) -> int:
        """Forget these runs, and return their number. Their words stay, and find no answer of the ledger."""
        strange = self.strangers()
        for part in in_parts(strange):
            with self._writing() as connection:
                connection.execute(sa.delete(_RUNS).where(_RUNS.c.run_id.in_(part)))
        return len(strange)

    def _indexed(self) -> dict[str, Any]:
        with self._reading() as connection:
            return {row[0]: row[1] for row in connection.execute(select(_RUNS.c.run_id, _RUNS.c.mark))}

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with index_errors(self.engine), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with index_errors(self.engine), begin_write(self.engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            yield connection


@contextmanager
def index_errors(engine: Engine) -> Iterator[None]:
    """Turn a database's errors into IndexUnusableError, except that of a statement that its time limit stopped."""
    try:
        yield
    except DBAPIError as error:
        if was_stopped(error):
            raise
        raise IndexUnusableError(
            f"The index of words in {readable_url(engine.url)} can't be used: {reason_of(error, engine.url)}. "
            "If it is damaged, run `presswork audit index --remove`, then `presswork audit index`."
        ) from None


def create_tables(engine: Engine) -> None:
    """Create the tables of an index, unless they are there."""
    with index_errors(engine), begin_write(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        _META.create_all(connection)
        if connection.scalar(select(_FORMATS.c.format)) is None:
            connection.execute(sa.insert(_FORMATS).values(format=FORMAT))


def drop_tables(engine: Engine) -> None:
    """Drop all tables of an index on PostgreSQL."""
    with index_errors(engine), begin_write(engine) as connection:
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        for month in _months_of(connection):
            tsvector_months.drop_month(connection, month)
        _META.drop_all(connection)


def has_tables(engine: Engine) -> bool:
    """Whether a database has an index. Raises IndexUnusableError if it is of another format, or can't be read."""
    with index_errors(engine), engine.connect() as connection:
        if not _has_table(connection, _FORMATS.name):
            return False
        found = connection.scalar(select(_FORMATS.c.format))
    if found != FORMAT:
        raise IndexUnusableError(
            f"The index of words in {readable_url(engine.url)} was made by another release. "
            "Run `presswork audit index --remove`, then `presswork audit index`."
        )
    return True


def size_of_tables(engine: Engine) -> int:
    """Return the bytes of an index in PostgreSQL, or 0."""
    if not has_tables(engine):
        return 0
    with index_errors(engine), engine.connect() as connection:
        names = [*_META.tables, *(tsvector_months.name_of(month) for month in _months_of(connection))]
        size = func.pg_total_relation_size(sa.func.to_regclass(sa.bindparam("name")))
        return sum(int(connection.scalar(select(size), {"name": name}) or 0) for name in names)


def month_of(generation_id: str) -> int:
    """Return the UTC month in which a UUIDv7 was made, such as 202611."""
    milliseconds = min(int(generation_id.replace("-", "")[:12], 16), _END_OF_CALENDAR_MS)
    made = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return made.year * 100 + made.month


def _has_table(connection: Connection, name: str) -> bool:
    if connection.dialect.name == "postgresql":
        return connection.scalar(select(func.to_regclass(name).is_not(None))) or False
    return sa.inspect(connection).has_table(name)


def _by_month(ids: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    for month, group in groupby(sorted(ids), key=month_of):
        yield month, list(group)


def _months_of(connection: Connection) -> set[int]:
    return set(connection.scalars(select(_MONTHS.c.month)))
