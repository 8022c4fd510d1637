"""What was generated, by which requests, and the current content of each record.

Generations, their parents and attempts are history, which is append-only. `content` can be rebuilt from it.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, Hash, Id, KeyText, Money, UtcDateTime, one_of
from db.words import KINDS, ORIGINS, STATUSES


class Generation(Base):
    """The outcome of one prompt for one record and step in one run, if something changed; else see WorkingRow.

    A row of origin `cache` copies no text: `source_generation_id` names the generation that has it. One row of a run
    counts for a record and step, and its `replaced_by` is empty; the others form a chain of `replaced_by` that ends at
    it. The count `confirmed` is written when another generation becomes current; until then it is in `content`.
    `lease_id` is the helper that wrote the row.
    """

    __tablename__ = "generations"
    __table_args__ = (
        sa.Index("ix_generations_of_run", "run_id", "step", "record_key", "replaced_by", unique=True),
        one_of("status", STATUSES),
        one_of("origin", ORIGINS),
        # For reading a record's history.
        sa.Index("ix_generations_current", "flow", "step", "endpoint", "record_key", "status", "id"),
        # For looking up a whole page of prompts at once.
        sa.Index("ix_generations_prompt", "prompt_hash", "origin", "status"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    run_id: Mapped[str] = mapped_column(sa.ForeignKey("runs.id"))
    flow: Mapped[str] = mapped_column(sa.String(200))
    step: Mapped[str] = mapped_column(sa.String(200))
    endpoint: Mapped[str] = mapped_column(sa.String(100))
    record_key: Mapped[str] = mapped_column(KeyText)
    record_hash: Mapped[str | None] = mapped_column(sa.ForeignKey("records.hash"))
    template_hash: Mapped[str] = mapped_column(Hash)
    prompt_hash: Mapped[str | None] = mapped_column(Hash)
    status: Mapped[str] = mapped_column(sa.String(20))
    origin: Mapped[str] = mapped_column(sa.String(20))
    source_generation_id: Mapped[str | None] = mapped_column(sa.ForeignKey("generations.id"))
    output: Mapped[Any | None] = mapped_column(sa.JSON(none_as_null=True))
    output_hash: Mapped[str | None] = mapped_column(Hash)
    error_kind: Mapped[str | None] = mapped_column(sa.Text)
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    replaced_by: Mapped[str] = mapped_column(Id, server_default="")
    lease_id: Mapped[str | None] = mapped_column(Id)
    confirmed: Mapped[int | None] = mapped_column(sa.Integer)
    confirmed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class GenerationParent(Base):
    """A parent of a later step's generation: an earlier generation from which it was made."""

    __tablename__ = "generation_parents"

    generation_id: Mapped[str] = mapped_column(sa.ForeignKey("generations.id"), primary_key=True)
    parent_id: Mapped[str] = mapped_column(sa.ForeignKey("generations.id"), primary_key=True, index=True)


class Attempt(Base):
    """One request: inserted before it is sent, and updated once when it has ended.

    `likely_cost_usd` is the estimated cost, written at the start because it can't be estimated after a crash. A row
    without `ended_at` is in flight, or was when its process crashed. `generation_id` has no foreign key, because it is
    allocated earlier and after a crash the generation may be missing. Texts from an endpoint have no maximum length, so
    that one over-long id does not keep a batch of answers out of the ledger.
    """

    __tablename__ = "attempts"
    __table_args__ = (one_of("kind", KINDS), sa.Index(None, "run_id", "ended_at"))

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    run_id: Mapped[str] = mapped_column(sa.ForeignKey("runs.id"))
    prompt_hash: Mapped[str] = mapped_column(sa.ForeignKey("prompts.hash"))
    generation_id: Mapped[str] = mapped_column(Id, index=True)
    ordinal: Mapped[int] = mapped_column(sa.Integer)
    kind: Mapped[str] = mapped_column(sa.String(20))
    request_changes: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    latency_ms: Mapped[int | None] = mapped_column(sa.Integer)
    http_status: Mapped[int | None] = mapped_column(sa.Integer)
    error_type: Mapped[str | None] = mapped_column(sa.Text)
    request_id: Mapped[str | None] = mapped_column(sa.Text)
    message_id: Mapped[str | None] = mapped_column(sa.Text)
    model: Mapped[str | None] = mapped_column(sa.Text)
    stop_reason: Mapped[str | None] = mapped_column(sa.Text)
    output_text: Mapped[str | None] = mapped_column(sa.Text)
    validation_errors: Mapped[Any | None] = mapped_column(sa.JSON(none_as_null=True))
    input_tokens: Mapped[int | None] = mapped_column(sa.Integer)
    output_tokens: Mapped[int | None] = mapped_column(sa.Integer)
    cache_creation_5m_tokens: Mapped[int | None] = mapped_column(sa.Integer)
    cache_creation_1h_tokens: Mapped[int | None] = mapped_column(sa.Integer)
    cache_read_tokens: Mapped[int | None] = mapped_column(sa.Integer)
    thinking_tokens: Mapped[int | None] = mapped_column(sa.Integer)
    service_tier: Mapped[str | None] = mapped_column(sa.Text)
    cost_usd: Mapped[Decimal | None] = mapped_column(Money)
    likely_cost_usd: Mapped[Decimal | None] = mapped_column(Money)
    inference_geo: Mapped[str | None] = mapped_column(sa.Text)
    speed: Mapped[str | None] = mapped_column(sa.Text)
    price_version: Mapped[str | None] = mapped_column(sa.String(50))
    lease_id: Mapped[str | None] = mapped_column(Id)


class StandingContent(Base):
    """A record's current content in a step: its newest succeeded generation, and the failure after it, if any.

    `confirmed` and `failing` count how often each was confirmed, last by `confirmed_run_id` and `failing_run_id`. The
    table can be rebuilt from history. It has no foreign keys, because each would cost an index.
    """

    __tablename__ = "content"
    __table_args__ = ({"sqlite_with_rowid": False},)

    flow: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    step: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    endpoint: Mapped[str] = mapped_column(sa.String(100), primary_key=True)
    record_key: Mapped[str] = mapped_column(KeyText, primary_key=True)
    generation_id: Mapped[str | None] = mapped_column(Id)
    since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    confirmed_run_id: Mapped[str | None] = mapped_column(Id)
    confirmed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    confirmed: Mapped[int] = mapped_column(sa.Integer, server_default="0")
    failing_id: Mapped[str | None] = mapped_column(Id)
    failing_run_id: Mapped[str | None] = mapped_column(Id)
    failing_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    failing: Mapped[int] = mapped_column(sa.Integer, server_default="0")
