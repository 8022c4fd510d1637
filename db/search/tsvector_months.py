"""A month of the word index in PostgreSQL: a table of vectors with a GIN index, in the ledger's schema.

The vectors are written as text, because the words were divided before: no dictionary of the server changes them.
"""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, func
from sqlalchemy.dialects.postgresql import TSQUERY, TSVECTOR, insert

from db.search.tokens import BOUNDARY, WordQuery
from db.session import among

FEW_HITS = 5_000
"""With fewer hits in a month, all are found by the index and sorted. With more, the newest rows are read one by one."""
# What a vector can hold: places up to 16,383, 256 of them a word, a megabyte of words.
_LAST_PLACE = 16_383
_MOST_PLACES = 255
_MOST_BYTES = 900_000


def name_of(month: int) -> str:
    """Return the name of a month's table."""
    return f"search_words_{month}"


def create_month(connection: Connection, month: int) -> None:
    """Create the table of a month."""
    connection.exec_driver_sql(
        f'CREATE TABLE IF NOT EXISTS {name_of(month)} (id VARCHAR(36) COLLATE "C" PRIMARY KEY, '
        "words TSVECTOR NOT NULL, loose BOOLEAN NOT NULL)"
    )
    connection.exec_driver_sql(f"CREATE INDEX IF NOT EXISTS ix_{name_of(month)} ON {name_of(month)} USING GIN (words)")


def known_in_month(connection: Connection, month: int, ids: Sequence[str]) -> set[str]:
    """Return those of the generations that the month has."""
    table = _table(month)
    return set(connection.scalars(sa.select(table.c.id).where(among(table.c.id, ids, "postgresql"))))


def add_to_month(connection: Connection, month: int, texts: Mapping[str, str]) -> None:
    """Add the texts of generations that the month does not have, as `spaced_words` returns them."""
    rows = []
    for each, spaced in sorted(texts.items()):
        vector, is_loose = vector_of(spaced)
        rows.append({"id": each, "words": vector, "loose": is_loose})
    if rows:
        connection.execute(insert(_table(month)).on_conflict_do_nothing(), rows)


def newest_in_month(connection: Connection, month: int, query: WordQuery, before: str | None, limit: int) -> list[str]:
    """Return the newest `limit` generations that may have the words, below the id `before`."""
    table = _table(month)
    below = [] if before is None else [table.c.id < before]
    hits = (
        sa.select(table.c.id)
        .where(_matching(table, query), *below)
        .limit(FEW_HITS)
        .cte("hits")
        .prefix_with("MATERIALIZED")
    )
    # Not ORDER BY id LIMIT on the table itself: the plan for a rare word would then read all rows, the newest first.
    few = list(connection.scalars(sa.select(hits.c.id).order_by(hits.c.id.desc())))
    if len(few) < FEW_HITS:
        return few[:limit]
    one_by_one = sa.select(table.c.id).where(_matching(table, query, by_index=False), *below)
    return list(connection.scalars(one_by_one.order_by(table.c.id.desc()).limit(limit)))


def finish_month(connection: Connection, month: int) -> None:
    """Merge the words that wait to be indexed, and update the statistics of the month."""
    connection.execute(sa.select(func.gin_clean_pending_list(f"ix_{name_of(month)}")))
    connection.exec_driver_sql(f"ANALYZE {name_of(month)}")


def drop_month(connection: Connection, month: int) -> None:
    """Drop the table of a month, with its index."""
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name_of(month)}")


def vector_of(spaced: str) -> tuple[str, bool]:
    """Write words as a tsvector, and say whether it is loose: without places, because a vector can't hold them all."""
    places: dict[str, list[int]] = {}
    last = 0
    for last, word in enumerate(spaced.split(), 1):
        places.setdefault(word, []).append(last)
    places.pop(BOUNDARY, None)
    if last <= _LAST_PLACE and all(len(each) <= _MOST_PLACES for each in places.values()):
        return " ".join(f"'{word}':{','.join(map(str, each))}" for word, each in places.items()), False
    words, room = [], _MOST_BYTES
    for word in places:
        room -= len(word.encode()) + 4
        if room < 0:
            break
        words.append(f"'{word}'")
    return " ".join(words), True


def _matching(table: sa.TableClause, query: WordQuery, *, by_index: bool = True) -> ColumnElement[bool]:
    phrases = " & ".join(" <-> ".join(f"'{word}'" for word in phrase) for phrase in query.phrases)
    words = " & ".join(f"'{word}'" for word in query.words)
    matching = _has(table, phrases, by_index=by_index)
    return matching if words == phrases else matching | (table.c.loose & _has(table, words, by_index=by_index))


def _has(table: sa.TableClause, query: str, *, by_index: bool) -> ColumnElement[bool]:
    asked = sa.cast(sa.literal(query, sa.Text), TSQUERY)
    if by_index:
        return table.c.words.op("@@", is_comparison=True)(asked)
    # The function behind the operator, which no index serves.
    return func.ts_match_vq(table.c.words, asked, type_=sa.Boolean)


def _table(month: int) -> sa.TableClause:
    columns = (sa.column("id", sa.String), sa.column("words", TSVECTOR), sa.column("loose", sa.Boolean))
    return sa.table(name_of(month), *columns)
