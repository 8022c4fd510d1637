"""A month of the word index in SQLite: a table of FTS5 without content, and a table of the generations' ids.

FTS5 finds rows by numbers, the greatest first. A number begins with an id's millisecond, so that the newest ids are
found first, whichever run was indexed first. Ids of one millisecond have numbers in any order; they are sorted later.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from db.search.tokens import WordQuery
from db.session import among

_EPOCH_MS = 946_684_800_000  # 2000-01-01: the numbers last until 2069
_BITS = 22
_LAST_MS = (1 << 63 - _BITS) - 1
_OTHERS = (1 << _BITS) - 1
"""The numbers of a millisecond after its first one."""


def create_month(connection: Connection, month: int) -> None:
    """Create the tables of a month."""
    # Words arrive divided and in lower case; the tokenizer `ascii` only divides them at blanks.
    options = "content = '', columnsize = 0, tokenize = 'ascii'"
    connection.exec_driver_sql(f"CREATE VIRTUAL TABLE IF NOT EXISTS words_{month} USING fts5(texts, {options})")
    connection.exec_driver_sql(
        f"CREATE TABLE IF NOT EXISTS texts_{month} (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE)"
    )


def known_in_month(connection: Connection, month: int, ids: Sequence[str]) -> set[str]:
    """Return those of the generations that the month has."""
    texts = _texts(month)
    return set(connection.scalars(sa.select(texts.c.id).where(among(texts.c.id, ids, "sqlite"))))


def add_to_month(connection: Connection, month: int, texts: Mapping[str, str]) -> None:
    """Add the texts of generations that the month does not have, as `spaced_words` returns them."""
    numbers = _free_numbers(connection, month, sorted(texts))
    if numbers:
        connection.execute(sa.insert(_texts(month)), [{"number": n, "id": each} for each, n in numbers.items()])
        # In the order of numbers: a lower number after a higher one makes FTS5 write what it has collected.
        rows = [{"rowid": number, "texts": texts[each]} for each, number in numbers.items()]
        connection.execute(sa.insert(_words(month)), sorted(rows, key=_rowid))


def newest_in_month(connection: Connection, month: int, query: WordQuery, before: str | None, limit: int) -> list[str]:
    """Return the newest `limit` generations that have the words, below the id `before`."""
    found: list[str] = []
    until = None
    if before is not None:
        first = number_of(before) & ~_OTHERS
        found = [each for _number, each in _hits(connection, month, query, first, first + _OTHERS) if each < before]
        until = first - 1
    if len(found) < limit:
        rows = _hits(connection, month, query, None, until, limit)
        if len(rows) == limit:
            # The others of the last millisecond may be newer than its last one.
            last = rows[-1][0]
            rows += _hits(connection, month, query, last & ~_OTHERS, last - 1)
        found += [each for _number, each in rows]
    return sorted(found, reverse=True)[:limit]


def _hits(
    connection: Connection, month: int, query: WordQuery, since: int | None, until: int | None, limit: int | None = None
) -> list[tuple[int, str]]:
    """Return the numbers and ids of the generations that have the words, the greatest numbers first."""
    words, texts = _words(month), _texts(month)
    numbers = sa.select(words.c.rowid).where(words.c[f"words_{month}"].op("MATCH")(_match(query)))
    if since is not None:
        numbers = numbers.where(words.c.rowid >= since)
    if until is not None:
        numbers = numbers.where(words.c.rowid <= until)
    numbers = numbers.order_by(words.c.rowid.desc()).limit(limit)
    found = sa.select(texts.c.number, texts.c.id).where(texts.c.number.in_(numbers))
    return [(row[0], row[1]) for row in connection.execute(found.order_by(texts.c.number.desc()))]


def finish_month(connection: Connection, month: int) -> None:
    """Merge the parts in which FTS5 has written the month."""
    words = _words(month)
    connection.execute(sa.insert(words), {f"words_{month}": "optimize"})


def number_of(generation_id: str) -> int:
    """Return the number for a UUIDv7: its millisecond, and its last bits, which are random."""
    digits = generation_id.replace("-", "")
    # An id that people enter, or the end of a period, may be later than the last number of SQLite.
    milliseconds = min(int(digits[:12], 16) - _EPOCH_MS, _LAST_MS)
    return milliseconds << _BITS | int(digits[-6:], 16) & _OTHERS


def _free_numbers(connection: Connection, month: int, ids: Sequence[str]) -> dict[str, int]:
    """Choose a number for each id; if another id has it, the next one of the same millisecond."""
    texts = _texts(month)
    wanted = {each: number_of(each) for each in ids}
    taken = set(connection.scalars(sa.select(texts.c.number).where(texts.c.number.in_(wanted.values()))))
    for each, number in wanted.items():
        free = number
        while free in taken or (free != number and _is_taken(connection, texts, free)):
            free = free & ~_OTHERS | (free + 1) & _OTHERS
        wanted[each] = free
        taken.add(free)
    return wanted


def _is_taken(connection: Connection, texts: sa.TableClause, number: int) -> bool:
    return connection.scalar(sa.select(texts.c.number).where(texts.c.number == number)) is not None


def _match(query: WordQuery) -> str:
    # A word has no quote in it.
    return " ".join(f'"{" ".join(phrase)}"' for phrase in query.phrases)


def _rowid(row: Mapping[str, Any]) -> int:
    return int(row["rowid"])


def _texts(month: int) -> sa.TableClause:
    return sa.table(f"texts_{month}", sa.column("number", sa.BigInteger), sa.column("id", sa.String))


def _words(month: int) -> sa.TableClause:
    name = f"words_{month}"
    return sa.table(name, sa.column("rowid", sa.BigInteger), sa.column("texts", sa.Text), sa.column(name, sa.Text))
