"""A month of the word index in SQLite: a table of FTS5 without content, and a table of the generations' ids.

FTS5 finds rows by numbers. A number is made from the beginning of an id, so that the order of numbers is the order of
ids, whichever run was indexed first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from db.search.tokens import Query
from db.session import among

_EPOCH_MS = 946_684_800_000  # 2000-01-01: the numbers last until 2069
_RANDOM_BITS = 22


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


def newest_in_month(connection: Connection, month: int, query: Query, before: str | None, limit: int) -> list[str]:
    """Return the newest `limit` generations that have the words, below the id `before`."""
    words, texts = _words(month), _texts(month)
    numbers = sa.select(words.c.rowid).where(words.c[f"words_{month}"].op("MATCH")(_match(query)))
    if before is not None:
        # One more: an id may have the number after its own.
        numbers = numbers.where(words.c.rowid <= number_of(before) + 1)
    numbers = numbers.order_by(words.c.rowid.desc()).limit(limit + 2)
    found = sa.select(texts.c.id).where(texts.c.number.in_(numbers)).order_by(texts.c.number.desc())
    return [each for each in connection.scalars(found) if before is None or each < before][:limit]


def finish_month(connection: Connection, month: int) -> None:
    """Merge the parts in which FTS5 has written the month."""
    words = _words(month)
    connection.execute(sa.insert(words), {f"words_{month}": "optimize"})


def number_of(generation_id: str) -> int:
    """Return the number for a UUIDv7: its milliseconds, then 22 bits of the rest. Later ids have greater numbers."""
    digits = generation_id.replace("-", "")
    milliseconds = int(digits[:12], 16) - _EPOCH_MS
    # Without the bits of UUID's version and variant, which are always the same.
    rest = int(digits[13:16], 16) << 14 | int(digits[16:20], 16) & 0x3FFF
    return milliseconds << _RANDOM_BITS | rest >> 4


def _free_numbers(connection: Connection, month: int, ids: Sequence[str]) -> dict[str, int]:
    """Choose a number for each id, which must be sorted. Two ids that begin alike get numbers next to each other."""
    texts = _texts(month)
    wanted = {each: number_of(each) for each in ids}
    given = sa.select(texts.c.number, texts.c.id).where(texts.c.number.in_(wanted.values()))
    taken: dict[int, str | None] = {row.number: row.id for row in connection.execute(given)}

    def holder(number: int) -> str | None:
        if number not in taken:
            taken[number] = connection.scalar(sa.select(texts.c.id).where(texts.c.number == number))
        return taken[number]

    free: dict[str, int] = {}
    for each, number in wanted.items():
        other = taken.get(number)
        step = 0 if other is None else 1 if each > other else -1
        place = number
        while step and holder(place) is not None:
            place += step
        free[each], taken[place] = place, each
    return free


def _match(query: Query) -> str:
    # A word has no quote in it.
    return " ".join(f'"{" ".join(phrase)}"' for phrase in query.phrases)


def _rowid(row: Mapping[str, Any]) -> int:
    return int(row["rowid"])


def _texts(month: int) -> sa.TableClause:
    return sa.table(f"texts_{month}", sa.column("number", sa.BigInteger), sa.column("id", sa.String))


def _words(month: int) -> sa.TableClause:
    name = f"words_{month}"
    return sa.table(name, sa.column("rowid", sa.BigInteger), sa.column("texts", sa.Text), sa.column(name, sa.Text))
