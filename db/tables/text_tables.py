"""Tables whose text repeats: templates, shared texts, records and prompts, stored once and found by hash.

Text bodies are TEXT, not JSONB, so that records and requests are stored byte for byte, even a NUL as its JSON escape.
"""

import sqlalchemy as sa

from db.columns import Base, Hash, UtcDateTime, column


class StoredTemplate(Base):
    """A version of a prompt file: its source, and the sources of all files that it includes or imports."""

    __tablename__ = "templates"

    hash = column(Hash, primary_key=True)
    name = column(sa.String(200), primary_key=True)
    sources = column(sa.JSON)
    first_seen_at = column(UtcDateTime)


class SharedText(Base):
    """A text that many prompts share (a system text, an output schema), stored once."""

    __tablename__ = "texts"

    hash = column(Hash, primary_key=True)
    body = column(sa.Text)


class StoredRecord(Base):
    """A record as it was read: all selected columns as canonical JSON."""

    __tablename__ = "records"

    hash = column(Hash, primary_key=True)
    body = column(sa.Text)


class StoredPrompt(Base):
    """A request as it was sent, with {"$text": hash} for a shared text and {"$json": hash} for a schema."""

    __tablename__ = "prompts"

    hash = column(Hash, primary_key=True)
    model = column(sa.String(100))
    variant = column(sa.Integer)
    request = column(sa.Text)
    created_at = column(UtcDateTime)
