"""The ledger's tables: what was generated, from what, by which prompt, at what price.

Content-addressed where text repeats (templates, texts, records, prompts), append-only where history is made
(runs, generations, generation_parents, attempts), updated in place where it says what is the case now (content, which
can be rebuilt from history, run_steps, leases, claims, working_rows). Ids are UUIDv7 and sort by time, times are UTC,
money is Decimal. Text bodies are TEXT, not JSONB: what was read and sent is kept to the byte, a NUL written as its
JSON escape included.
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
    """One execution of a content flow, tied to its Prefect flow run: a retry goes on with the same row.

    A run that is typed again or resumed by a person is a new row. `status` is how it ended; what a run is doing now,
    its leases say. `parent_run_id`, `epoch`, `lease_boot` and `lease_until_s` are of releases in which a shard was a
    run of its own and a run had one lease; `process` and `alive_until` say who began it, and are never renewed.
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
    """Who works on a run now, and until when; gone when that ends. A run has one `main` lease, and one for each helper.

    A heartbeat renews it: on PostgreSQL `alive_until` by the database's clock, on SQLite `until_s` on the clock of the
    boot `boot`. `epoch` counts how often it ran out. Claims and attempts name their lease.
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
    """How far a step of a run is. Its counts are of records that wrote no row of history, as nothing had changed.

    `unchanged` have the content that stood before, the others brought none as before. With the run's generations they
    add up to all that the step has worked on.
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
    """A record in a step of a run that is open: which helper is to do it, or what stands for it unchanged.

    Without `status` it is to be done, by whoever has its `lease_id`; with one it is confirmed: `generation_id` stood
    before and still does. The transaction that closes the run deletes them.
    """

    __tablename__ = "working_rows"
    __table_args__ = (
        # What a helper takes next.
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
    """What stands for a record in a step: its newest succeeded generation, and the failure that came after it, if any.

    `confirmed` and `failing` count how often each was met again, last by the run that is named. It can be made again
    from history. No foreign keys: each would cost an index.
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
    """A prompt file as it was: its source and that of every file it includes or imports."""

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
    """A record as it was read: all selected columns, as canonical JSON."""

    __tablename__ = "records"

    hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    body: Mapped[str] = mapped_column(sa.Text)


class StoredPrompt(Base):
    """A request as it was sent; a shared text stands in it as {"$text": hash}, a schema as {"$json": hash}."""

    __tablename__ = "prompts"

    hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    model: Mapped[str] = mapped_column(sa.String(100))
    variant: Mapped[int] = mapped_column(sa.Integer)
    request: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Generation(Base):
    """What one prompt brought for one record and step in one run, where something changed: see WorkingRow.

    A row of origin `cache` copies no text: `source_generation_id` points at the generation that has it. One row of a
    run counts for a record and step: `replaced_by` is empty there, and of others names the next on the way to it.
    How often it was `confirmed` is written when something else takes its place; until then `content` has that.
    `lease_id` is the helper that wrote it.
    """

    __tablename__ = "generations"
    __table_args__ = (
        sa.Index("ix_generations_of_run", "run_id", "step", "record_key", "replaced_by", unique=True),
        one_of("status", STATUSES),
        one_of("origin", ORIGINS),
        # What a record's life is read by.
        sa.Index("ix_generations_current", "flow", "step", "endpoint", "record_key", "status", "id"),
        # What the look-up probes for a whole page of prompts at once.
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
    """What a generation of a later step was made from."""

    __tablename__ = "generation_parents"

    generation_id: Mapped[str] = mapped_column(sa.ForeignKey("generations.id"), primary_key=True)
    parent_id: Mapped[str] = mapped_column(sa.ForeignKey("generations.id"), primary_key=True, index=True)


class Attempt(Base):
    """One request: written before it is sent, settled by its one update when it ended.

    `likely_cost_usd` is what it will probably cost, written when it is opened: nobody knows it after a crash.
    A row without `ended_at` is in flight, or was when its process died. `generation_id` is allocated before and so
    has no foreign key: after a crash an attempt can stand without its generation. What an endpoint says has no longest
    length here: one over-long id must not keep a batch of answers out of the ledger.
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
    """Who is asking for what just now, so that no two buy the same answer; its `owner`, a lease, holds it."""

    __tablename__ = "claims"

    prompt_hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    owner: Mapped[str] = mapped_column(Id)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


def insert_missing(table: str, dialect: str) -> sa.Executable:
    """Insert rows of a table where they are missing: a commit whose answer was lost is simply written again."""
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(Base.metadata.tables[table]).on_conflict_do_nothing()
