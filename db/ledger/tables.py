"""The ledger's tables: what was generated, from what, by which prompt, at what price.

Tables whose text repeats are content-addressed (templates, texts, records, prompts). History is append-only (runs,
generations, generation_parents, attempts). Tables of the current state are updated in place (run_steps, leases, claims,
working_rows, and content, which can be rebuilt from history). Ids are UUIDv7 and sort by time, times are UTC, money is
Decimal. Text bodies are TEXT, not JSONB, so that records and requests are stored byte for byte, even a NUL as its JSON
escape.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, Hash, Id, KeyText, Money, UtcDateTime, one_of
from db.words import KINDS, ORIGINS, RUN_STATUSES, STATUSES, STEP_STATES

_FREE = sa.text("status IS NULL AND lease_id IS NULL")


class StoredRun(Base):
    """One execution of a content flow, tied to its Prefect flow run: a retry of that continues the same row.

    A run that a person starts again or resumes is a new row. `status` says how it ended; the leases show whether it is
    active. `process` and `alive_until` are of the process that began it and are never renewed. Only earlier releases
    wrote `parent_run_id`, `epoch`, `lease_boot` and `lease_until_s`: their shards were runs, and a run had one lease.
    """

    __tablename__ = "runs"
    __table_args__ = (one_of("status", RUN_STATUSES), sa.Index(None, "flow", "started_at"))

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    resumes_run_id: Mapped[str | None] = mapped_column(sa.ForeignKey("runs.id"))
    parent_run_id: Mapped[str | None] = mapped_column(sa.ForeignKey("runs.id"), index=True)
    flow: Mapped[str] = mapped_column(sa.String(200))
    deployment: Mapped[str | None] = mapped_column(sa.String(200))
    prefect_flow_run_id: Mapped[str | None] = mapped_column(Id, index=True)
    trigger: Mapped[str] = mapped_column(sa.String(50))
    parameters: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    code_version: Mapped[str] = mapped_column(sa.String(100))
    endpoint: Mapped[str] = mapped_column(sa.String(100))
    mode: Mapped[str] = mapped_column(sa.String(20))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    status: Mapped[str] = mapped_column(sa.String(20))
    process: Mapped[str] = mapped_column(sa.String(300))
    alive_until: Mapped[datetime] = mapped_column(UtcDateTime)
    epoch: Mapped[int] = mapped_column(sa.Integer, server_default="1")
    lease_boot: Mapped[str | None] = mapped_column(sa.String(100))
    lease_until_s: Mapped[float | None] = mapped_column(sa.Float)
    suspended_for: Mapped[str | None] = mapped_column(sa.Text)
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class StoredLease(Base):
    """A process that works on a run, and until when; deleted when it ends. A run has a `main` lease and its helpers'.

    A heartbeat renews it: on PostgreSQL `alive_until` by the database's clock, on SQLite `until_s`, in seconds since
    the boot `boot`. `epoch` counts how often it expired. Claims and attempts name their lease.
    """

    __tablename__ = "leases"
    __table_args__ = (sa.UniqueConstraint("run_id", "worker"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    run_id: Mapped[str] = mapped_column(sa.ForeignKey("runs.id"))
    worker: Mapped[str] = mapped_column(sa.String(50))
    process: Mapped[str] = mapped_column(sa.String(300))
    epoch: Mapped[int] = mapped_column(sa.Integer)
    taken_at: Mapped[datetime] = mapped_column(UtcDateTime)
    alive_until: Mapped[datetime] = mapped_column(UtcDateTime)
    boot: Mapped[str | None] = mapped_column(sa.String(100))
    until_s: Mapped[float | None] = mapped_column(sa.Float)


class StoredStep(Base):
    """The progress of a step of a run. Its counts are of records without a generation, because nothing had changed.

    `unchanged` records keep their content; `failed_again` and `skipped_again` ones have none, as before. Together with
    the run's generations they add up to all records that the step has worked on.
    """

    __tablename__ = "run_steps"
    __table_args__ = (one_of("state", STEP_STATES),)

    run_id: Mapped[str] = mapped_column(sa.ForeignKey("runs.id"), primary_key=True)
    step: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    position: Mapped[int] = mapped_column(sa.Integer)
    state: Mapped[str] = mapped_column(sa.String(20))
    made_from: Mapped[str | None] = mapped_column(sa.String(200))
    total: Mapped[int | None] = mapped_column(sa.Integer)
    left_out: Mapped[int] = mapped_column(sa.Integer, server_default="0")
    unchanged: Mapped[int] = mapped_column(sa.Integer, server_default="0")
    failed_again: Mapped[int] = mapped_column(sa.Integer, server_default="0")
    skipped_again: Mapped[int] = mapped_column(sa.Integer, server_default="0")


class WorkingRow(Base):
    """A record in a step of an open run: either still to be done, or confirmed as unchanged.

    Without `status` it is to be done, by the helper with its `lease_id` if it has one. With a `status` it is confirmed:
    its `generation_id` was current before and still is. The transaction that closes the run deletes the run's rows.
    """

    __tablename__ = "working_rows"
    __table_args__ = (
        # For the keys that a helper takes next.
        sa.Index("ix_working_rows_free", "run_id", "step", "record_key", sqlite_where=_FREE, postgresql_where=_FREE),
        {"sqlite_with_rowid": False},
    )

    run_id: Mapped[str] = mapped_column(Id, primary_key=True)
    step: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    record_key: Mapped[str] = mapped_column(KeyText, primary_key=True)
    lease_id: Mapped[str | None] = mapped_column(Id)
    status: Mapped[str | None] = mapped_column(sa.String(20))
    generation_id: Mapped[str | None] = mapped_column(Id)
    confirmed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


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


class StoredTemplate(Base):
    """A version of a prompt file: its source, and the sources of all files that it includes or imports."""

    __tablename__ = "templates"

    hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    sources: Mapped[dict[str, str]] = mapped_column(sa.JSON)
    first_seen_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SharedText(Base):
    """A text that many prompts share (a system text, an output schema), stored once."""

    __tablename__ = "texts"

    hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    body: Mapped[str] = mapped_column(sa.Text)


class StoredRecord(Base):
    """A record as it was read: all selected columns as canonical JSON."""

    __tablename__ = "records"

    hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    body: Mapped[str] = mapped_column(sa.Text)


class StoredPrompt(Base):
    """A request as it was sent, with {"$text": hash} for a shared text and {"$json": hash} for a schema."""

    __tablename__ = "prompts"

    hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    model: Mapped[str] = mapped_column(sa.String(100))
    variant: Mapped[int] = mapped_column(sa.Integer)
    request: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


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


class Claim(Base):
    """A prompt that its `owner`, a lease, is requesting now, so that no two processes pay for the same answer."""

    __tablename__ = "claims"

    prompt_hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    owner: Mapped[str] = mapped_column(Id)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


def insert_missing(table: str, dialect: str) -> sa.Executable:
    """Return a statement that inserts only missing rows, so that a commit whose reply was lost can be repeated."""
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(Base.metadata.tables[table]).on_conflict_do_nothing()
