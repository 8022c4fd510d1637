"""What was generated, by which requests, and the current content of each record.

Generations, their parents and attempts are history, which is append-only. `content` can be rebuilt from it.
"""

import sqlalchemy as sa

from db.columns import Base, Hash, Id, KeyText, Money, UtcDateTime, column, one_of, optional
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

    id = column(Id, primary_key=True)
    run_id = column(Id, sa.ForeignKey("runs.id"))
    flow = column(sa.String(200))
    step = column(sa.String(200))
    endpoint = column(sa.String(100))
    record_key = column(KeyText)
    record_hash = optional(Hash, sa.ForeignKey("records.hash"))
    template_hash = column(Hash)
    prompt_hash = optional(Hash)
    status = column(sa.String(20))
    origin = column(sa.String(20))
    source_generation_id = optional(Id, sa.ForeignKey("generations.id"))
    output = optional(sa.JSON(none_as_null=True))
    output_hash = optional(Hash)
    error_kind = optional(sa.Text)
    error_message = optional(sa.Text)
    created_at = column(UtcDateTime)
    replaced_by = column(Id, server_default="")
    lease_id = optional(Id)
    confirmed = optional(sa.Integer)
    confirmed_at = optional(UtcDateTime)


class GenerationParent(Base):
    """A parent of a later step's generation: an earlier generation from which it was made."""

    __tablename__ = "generation_parents"

    generation_id = column(Id, sa.ForeignKey("generations.id"), primary_key=True)
    parent_id = column(Id, sa.ForeignKey("generations.id"), primary_key=True, index=True)


class Attempt(Base):
    """One request: inserted before it is sent, and updated once when it has ended.

    `likely_cost_usd` is the estimated cost, written at the start because it can't be estimated after a crash. A row
    without `ended_at` is in flight, or was when its process crashed. `generation_id` has no foreign key, because it is
    allocated earlier and after a crash the generation may be missing. Texts from an endpoint have no maximum length, so
    that one over-long id does not keep a batch of answers out of the ledger.
    """

    __tablename__ = "attempts"
    __table_args__ = (one_of("kind", KINDS), sa.Index(None, "run_id", "ended_at"))

    id = column(Id, primary_key=True)
    run_id = column(Id, sa.ForeignKey("runs.id"))
    prompt_hash = column(Hash, sa.ForeignKey("prompts.hash"))
    generation_id = column(Id, index=True)
    ordinal = column(sa.Integer)
    kind = column(sa.String(20))
    request_changes = optional(sa.JSON(none_as_null=True))
    started_at = column(UtcDateTime)
    ended_at = optional(UtcDateTime)
    latency_ms = optional(sa.Integer)
    http_status = optional(sa.Integer)
    error_type = optional(sa.Text)
    request_id = optional(sa.Text)
    message_id = optional(sa.Text)
    model = optional(sa.Text)
    stop_reason = optional(sa.Text)
    output_text = optional(sa.Text)
    validation_errors = optional(sa.JSON(none_as_null=True))
    input_tokens = optional(sa.Integer)
    output_tokens = optional(sa.Integer)
    cache_creation_5m_tokens = optional(sa.Integer)
    cache_creation_1h_tokens = optional(sa.Integer)
    cache_read_tokens = optional(sa.Integer)
    thinking_tokens = optional(sa.Integer)
    service_tier = optional(sa.Text)
    cost_usd = optional(Money)
    likely_cost_usd = optional(Money)
    inference_geo = optional(sa.Text)
    speed = optional(sa.Text)
    price_version = optional(sa.String(50))
    lease_id = optional(Id)


class StandingContent(Base, sqlite_with_rowid=False):
    """A record's current content in a step: its newest succeeded generation, and the failure after it, if any.

    `confirmed` and `failing` count how often each was confirmed, last by `confirmed_run_id` and `failing_run_id`. The
    table can be rebuilt from history. It has no foreign keys, because each would cost an index.
    """

    __tablename__ = "content"

    flow = column(sa.String(200), primary_key=True)
    step = column(sa.String(200), primary_key=True)
    endpoint = column(sa.String(100), primary_key=True)
    record_key = column(KeyText, primary_key=True)
    generation_id = optional(Id)
    since = optional(UtcDateTime)
    confirmed_run_id = optional(Id)
    confirmed_at = optional(UtcDateTime)
    confirmed = column(sa.Integer, server_default="0")
    failing_id = optional(Id)
    failing_run_id = optional(Id)
    failing_at = optional(UtcDateTime)
    failing = column(sa.Integer, server_default="0")
