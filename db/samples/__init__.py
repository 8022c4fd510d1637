"""Sample records for the content flows: products, tickets and articles of a small shop that does not exist.

It stands alone so that trying Presswork needs no data of one's own. The tables are a user's tables, not the
ledger's: they have a MetaData of their own, no migration knows them, and no production run needs them.
"""

import json
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Date, Engine, MetaData, Numeric, Table, Text, func, insert, select

_METADATA = MetaData()

Table(
    "products",
    _METADATA,
    Column("sku", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("features", Text, nullable=False),
    # SQLite has no decimal type: prices that are only shown may be floats there.
    Column("price", Numeric(10, 2, asdecimal=False), nullable=False),
    Column("currency", Text, nullable=False),
    Column("origin", Text),
)
Table(
    "support_tickets",
    _METADATA,
    Column("ticket_id", Text, primary_key=True),
    Column("received_at", Text, nullable=False),
    Column("customer_name", Text, nullable=False),
    Column("customer_email", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("order_ref", Text),
    Column("language", Text, nullable=False),
)
Table(
    "articles",
    _METADATA,
    Column("article_id", Text, primary_key=True),
    Column("published_on", Date, nullable=False),
    Column("section", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("body", Text, nullable=False),
)


def load_samples(engine: Engine) -> dict[str, int]:
    """Create the sample tables where they are missing and add the rows that are missing, by key.

    Rows that are there stay as they are, so loading twice changes nothing and edits survive. Returns how many
    rows each table holds afterwards. All rows are one transaction: after an error none was added.
    """
    with engine.begin() as connection:
        _METADATA.create_all(connection)
        return {table.name: _fill(connection, table) for table in _METADATA.tables.values()}


def _fill(connection: Connection, table: Table) -> int:
    (key,) = table.primary_key.columns
    rows = _read(table)
    present = set(connection.scalars(select(key).where(key.in_([row[key.name] for row in rows]))))
    missing = [row for row in rows if row[key.name] not in present]
    if missing:
        connection.execute(insert(table), missing)
    return connection.scalars(select(func.count()).select_from(table)).one()


def _read(table: Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(Path(__file__).with_name(f"{table.name}.json").read_text("utf-8"))
    dates = [column.name for column in table.columns if isinstance(column.type, Date)]
    return [row | {name: date.fromisoformat(row[name]) for name in dates} for row in rows]
