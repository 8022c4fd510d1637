"""The rows that go, each with the one that stands for it: a table that a connection has for itself."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Connection, MetaData, String, Table, delete, insert, select, text

from db.ledger.tables import GenerationParent, insert_missing

STAND_INS = Table("stand_ins", MetaData(), Column("id", String(36), primary_key=True), Column("stands_for", String(36)))


def make_stand_ins(connection: Connection) -> None:
    """Have the table for this transaction, empty."""
    drop = " ON COMMIT DROP" if connection.dialect.name == "postgresql" else ""
    table = f"CREATE TEMPORARY TABLE IF NOT EXISTS stand_ins (id VARCHAR(36) PRIMARY KEY, stands_for VARCHAR(36)){drop}"
    connection.execute(text(table))
    connection.execute(delete(STAND_INS))


def add_stand_ins(connection: Connection, stand_ins: Mapping[str, str]) -> None:
    """Note of rows that go which ones stand for them."""
    if stand_ins:
        rows = [{"id": row, "stands_for": stands_for} for row, stands_for in stand_ins.items()]
        connection.execute(insert(STAND_INS), rows)
    if connection.dialect.name == "postgresql":
        connection.execute(text("ANALYZE stand_ins"))


def insert_children(connection: Connection) -> None:
    """Say of what was made from a row that goes that it was made from the one that stands for it."""
    pairs = select(GenerationParent.generation_id, STAND_INS.c.stands_for).join(
        STAND_INS, STAND_INS.c.id == GenerationParent.parent_id
    )
    # What goes itself needs no parents. DISTINCT: two of its parents may have had the same row stand for them.
    stays = GenerationParent.generation_id.not_in(select(STAND_INS.c.id))
    insert: Any = insert_missing(GenerationParent.__tablename__, connection.dialect.name)
    connection.execute(insert.from_select(["generation_id", "parent_id"], pairs.where(stays).distinct()))
