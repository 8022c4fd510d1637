"""Runs, who works on them, and how far their steps are. Their rows are updated in place."""

import sqlalchemy as sa

from db.columns import Base, Hash, Id, KeyText, Money, UtcDateTime, column, one_of, optional
from db.words import RUN_STATUSES, STEP_STATES

_FREE = sa.text("status IS NULL AND lease_id IS NULL")


class StoredRun(Base):
    """One execution of a content flow, tied to its Prefect flow run: a retry of that continues the same row.

    A run that a person starts again or resumes is a new row. `status` says how it ended; the leases show whether it is
    active. `process` and `alive_until` are of the process that began it and are never renewed. Only earlier releases
    wrote `parent_run_id`, `epoch`, `lease_boot` and `lease_until_s`: their shards were runs, and a run had one lease.
    """

    __tablename__ = "runs"
    __table_args__ = (one_of("status", RUN_STATUSES), sa.Index(None, "flow", "started_at"))

    id = column(Id, primary_key=True)
    resumes_run_id = optional(Id, sa.ForeignKey("runs.id"))
    parent_run_id = optional(Id, sa.ForeignKey("runs.id"), index=True)
    flow = column(sa.String(200))
    deployment = optional(sa.String(200))
    prefect_flow_run_id = optional(Id, index=True)
    trigger = column(sa.String(50))
    parameters = column(sa.JSON)
    code_version = column(sa.String(100))
    endpoint = column(sa.String(100))
    mode = column(sa.String(20))
    started_at = column(UtcDateTime)
    ended_at = optional(UtcDateTime)
    status = column(sa.String(20))
    process = column(sa.String(300))
    alive_until = column(UtcDateTime)
    epoch = column(sa.Integer, server_default="1")
    lease_boot = optional(sa.String(100))
    lease_until_s = optional(sa.Float)
    suspended_for = optional(sa.Text)
    due_at = optional(UtcDateTime)


class StoredLease(Base):
    """A process that works on a run, and until when; deleted when it ends. A run has a `main` lease and its helpers'.

    A heartbeat renews it: on PostgreSQL `alive_until` by the database's clock, on SQLite `until_s`, in seconds since
    the boot `boot`. `epoch` counts how often it expired. Claims and attempts name their lease.
    """

    __tablename__ = "leases"
    __table_args__ = (sa.UniqueConstraint("run_id", "worker"),)

    id = column(Id, primary_key=True)
    run_id = column(Id, sa.ForeignKey("runs.id"))
    worker = column(sa.String(50))
    process = column(sa.String(300))
    epoch = column(sa.Integer)
    taken_at = column(UtcDateTime)
    alive_until = column(UtcDateTime)
    boot = optional(sa.String(100))
    until_s = optional(sa.Float)


class StoredStep(Base):
    """The progress of a step of a run. Its counts are of records without a generation, because nothing had changed.

    `unchanged` records keep their content; `failed_again` and `skipped_again` ones have none, as before. Together with
    the run's generations they add up to all records that the step has worked on. `saved_usd` is written when the step
    is done, or else when the run closes: an estimate of what the ledger's cache saved, the original cost of the answers
    that the step reused.
    """

    __tablename__ = "run_steps"
    __table_args__ = (one_of("state", STEP_STATES),)

    run_id = column(Id, sa.ForeignKey("runs.id"), primary_key=True)
    step = column(sa.String(200), primary_key=True)
    position = column(sa.Integer)
    state = column(sa.String(20))
    made_from = optional(sa.String(200))
    total = optional(sa.Integer)
    left_out = column(sa.Integer, server_default="0")
    unchanged = column(sa.Integer, server_default="0")
    failed_again = column(sa.Integer, server_default="0")
    skipped_again = column(sa.Integer, server_default="0")
    saved_usd = optional(Money)


class WorkingRow(Base, sqlite_with_rowid=False):
    """A record in a step of an open run: either still to be done, or confirmed as unchanged.

    Without `status` it is to be done, by the helper with its `lease_id` if it has one. With a `status` it is confirmed:
    its `generation_id` was current before and still is. The transaction that closes the run deletes the run's rows.
    """

    __tablename__ = "working_rows"
    __table_args__ = (
        # For the keys that a helper takes next.
        sa.Index("ix_working_rows_free", "run_id", "step", "record_key", sqlite_where=_FREE, postgresql_where=_FREE),
    )

    run_id = column(Id, primary_key=True)
    step = column(sa.String(200), primary_key=True)
    record_key = column(KeyText, primary_key=True)
    lease_id = optional(Id)
    status = optional(sa.String(20))
    generation_id = optional(Id)
    confirmed_at = optional(UtcDateTime)


class Claim(Base):
    """A prompt that its `owner`, a lease, is requesting now, so that no two processes pay for the same answer."""

    __tablename__ = "claims"

    prompt_hash = column(Hash, primary_key=True)
    owner = column(Id)
    expires_at = column(UtcDateTime)
