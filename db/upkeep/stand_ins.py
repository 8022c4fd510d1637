"""A temporary table of the rows to be removed, each with the kept row that stands in for it."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Connection, MetaData, String, Table, delete, insert, select, text

from db.tables import GenerationParent, insert_missing

STAND_INS = Table("stand_ins", MetaData(), Column("id", String(36), primary_key=True), Column("kept_id", String(36)))


def make_stand_ins(connection: Connection) -> None:
    """Create the table for this transaction, or empty it."""
    drop = " ON COMMIT DROP" if connection.dialect.name == "postgresql" else ""
    table = f"CREATE TEMPORARY TABLE IF NOT EXISTS stand_ins (id VARCHAR(36) PRIMARY KEY, kept_id VARCHAR(36)){drop}"
    connection.execute(text(table))
    connection.execute(delete(STAND_INS))


def add_stand_ins(connection: Connection, stand_ins: Mapping[str, str]) -> None:
    """Add rows to be removed, given the id of the kept row for each."""
    if stand_ins:
        rows = [{"id": row, "kept_id": kept} for row, kept in stand_ins.items()]
        connection.execute(insert(STAND_INS), rows)
    if connection.dialect.name == "postgresql":
        connection.execute(text("ANALYZE stand_ins"))


def insert_children(connection: Connection) -> None:
    """Give the children of removed rows the kept rows as parents."""
    pairs = select(GenerationParent.generation_id, STAND_INS.c.kept_id).join(
        STAND_INS, STAND_INS.c.id == GenerationParent.parent_id
    )
    # Removed children need no parents. DISTINCT: two parents of a child may have the same kept row.
    stays = GenerationParent.generation_id.not_in(select(STAND_INS.c.id))
    insert: Any = insert_missing(GenerationParent.__tablename__, connection.dialect.name)
    connection.execute(insert.from_select(["generation_id", "parent_id"], pairs.where(stays).distinct()))
