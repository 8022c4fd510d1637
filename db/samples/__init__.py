"""Sample records for the content flows: products, tickets and articles of an invented small shop.

With them, users can try Presswork without their own data. The tables are like a user's, not part of the ledger: they
have a separate MetaData, no migration changes them, and no production run needs them.
"""

import json
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Date, Engine, MetaData, Numeric, Table, Text, func, insert, select
from sqlalchemy.types import TypeEngine

_METADATA = MetaData()
# The first column is the key.
_COLUMNS = {
    "products": "sku name category features price currency origin",
    "support_tickets": "ticket_id received_at customer_name customer_email subject body order_ref language",
    "articles": "article_id published_on section title author body",
}
# SQLite has no decimal type: prices that are only shown may be floats there.
_TYPES: dict[str, TypeEngine[Any]] = {"price": Numeric(10, 2, asdecimal=False), "published_on": Date()}
_MAY_BE_MISSING = {"origin", "order_ref"}
for _name, _listed in _COLUMNS.items():
    _key, *_others = _listed.split()
    Table(
        _name,
        _METADATA,
        Column(_key, Text, primary_key=True),
        *(Column(other, _TYPES.get(other, Text()), nullable=other in _MAY_BE_MISSING) for other in _others),
    )


def load_samples(engine: Engine) -> dict[str, int]:
    """Create the missing sample tables and add the missing rows, by key; return the number of rows of each table.

    Existing rows stay unchanged, so loading twice changes nothing and keeps edits. After an error no row is added,
    because all rows are added in one transaction.
    """
    with engine.begin() as connection:
        _METADATA.create_all(connection)
        return {table.name: _fill(connection, table) for table in _METADATA.tables.values()}


def _fill(connection: Connection, table: Table) -> int:
    (key,) = table.primary_key.columns
    rows = _read(table)
    present = set(connection.scalars(select(key).where(key.in_([row[key.name] for row in rows]))))
    if missing := [row for row in rows if row[key.name] not in present]:
        connection.execute(insert(table), missing)
    return connection.scalars(select(func.count()).select_from(table)).one()


def _read(table: Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(Path(__file__).with_name(f"{table.name}.json").read_text("utf-8"))
    dates = [column.name for column in table.columns if isinstance(column.type, Date)]
    return [row | {name: date.fromisoformat(row[name]) for name in dates} for row in rows]
