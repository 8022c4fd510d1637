"""Create the first ledger: nine tables and the two views that people query."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# The views of the two dialects differ only in how they compute a day, an age and a sum. SQLite adds doubles, so its
# sums are rounded back to the ten decimals of money.
AGE = {
    "sqlite": "julianday('now') - julianday({moment})",
    "postgresql": "CAST(EXTRACT(EPOCH FROM now() - {moment}) / 86400.0 AS double precision)",
}
DAY = {"sqlite": "date(a.started_at)", "postgresql": "CAST(a.started_at AT TIME ZONE 'UTC' AS date)"}
COST = {"sqlite": "ROUND(SUM(a.cost_usd), 10)", "postgresql": "SUM(a.cost_usd)"}

# A cached row has no text; its source has it. One table without a join, because SQLite computes a whole view of several
# tables if the view is on the right of a LEFT JOIN.
WRITTEN = """CASE WHEN g.source_generation_id IS NULL THEN g.{column} ELSE
       (SELECT s.{column} FROM generations s WHERE s.id = g.source_generation_id) END"""
# Ids are UUIDv7, so the greatest id of a record is its newest generation: one probe of ix_generations_current. With NOT
# EXISTS, PostgreSQL would use a join, and a bad one before its first ANALYZE (minutes for 10,000 products).
CURRENT_CONTENT = """
CREATE VIEW current_content AS
SELECT g.flow, g.step, g.endpoint, g.record_key, g.id AS generation_id, g.run_id, g.origin,
       {output} AS output, g.output_hash, g.record_hash, g.template_hash, g.prompt_hash,
       COALESCE(g.source_generation_id, g.id) AS written_by_generation_id,
       {moment} AS written_at, g.created_at AS confirmed_at, {age} AS age_days
FROM generations g
WHERE g.status = 'succeeded' AND g.id = (
    SELECT n.id FROM generations n
    WHERE n.flow = g.flow AND n.step = g.step AND n.endpoint = g.endpoint AND n.record_key = g.record_key
      AND n.status = 'succeeded'
    ORDER BY n.id DESC LIMIT 1)
"""
USAGE_BY_DAY = """
CREATE VIEW usage_by_day AS
SELECT {day} AS day, r.flow, r.endpoint, a.model,
       SUM(CASE WHEN a.error_type IN ('not_sent', 'connect') THEN 0 ELSE 1 END) AS requests,
       SUM(COALESCE(a.input_tokens, 0)) AS input_tokens, SUM(COALESCE(a.output_tokens, 0)) AS output_tokens,
       SUM(COALESCE(a.cache_creation_5m_tokens, 0) + COALESCE(a.cache_creation_1h_tokens, 0))
           AS cache_creation_tokens,
       SUM(COALESCE(a.cache_read_tokens, 0)) AS cache_read_tokens, {cost} AS cost_usd,
       SUM(CASE WHEN a.input_tokens IS NOT NULL AND a.cost_usd IS NULL THEN 1 ELSE 0 END) AS unpriced,
       SUM(CASE WHEN a.error_type IN ('connection', 'timeout', 'abandoned', 'crashed') THEN 1 ELSE 0 END)
           AS perhaps_billed
FROM attempts a JOIN runs r ON r.id = a.run_id
GROUP BY {day}, r.flow, r.endpoint, a.model
"""


def upgrade() -> None:
    op.create_table(
        "claims",
        sa.Column("prompt_hash", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=36), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("prompt_hash", name=op.f("pk_claims")),
    )
    op.create_table(
        "prompts",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("variant", sa.Integer(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_prompts")),
    )
    op.create_table(
        "records",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_records")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("resumes_run_id", sa.String(length=36), nullable=True),
        sa.Column("parent_run_id", sa.String(length=36), nullable=True),
        sa.Column("flow", sa.String(length=200), nullable=False),
        sa.Column("deployment", sa.String(length=200), nullable=True),
        sa.Column("prefect_flow_run_id", sa.String(length=36), nullable=True),
        sa.Column("trigger", sa.String(length=50), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("code_version", sa.String(length=100), nullable=False),
        sa.Column("endpoint", sa.String(length=100), nullable=False),
        sa.Column("mode", sa.String(length=20), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("process", sa.String(length=300), nullable=False),
        sa.Column("alive_until", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "status IN ('running', 'completed', 'failed', 'cancelled', 'crashed', 'capped')",
            name=op.f("ck_runs_status"),
        ),
        sa.ForeignKeyConstraint(["parent_run_id"], ["runs.id"], name=op.f("fk_runs_parent_run_id")),
        sa.ForeignKeyConstraint(["resumes_run_id"], ["runs.id"], name=op.f("fk_runs_resumes_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_flow_started_at"), "runs", ["flow", "started_at"], unique=False)
    op.create_index(op.f("ix_runs_parent_run_id"), "runs", ["parent_run_id"], unique=False)
    op.create_index(op.f("ix_runs_prefect_flow_run_id"), "runs", ["prefect_flow_run_id"], unique=False)
    op.create_table(
        "templates",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("sources", sa.JSON(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hash", "name", name=op.f("pk_templates")),
    )
    op.create_table(
        "texts",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_texts")),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("prompt_hash", sa.String(length=64), nullable=False),
        sa.Column("generation_id", sa.String(length=36), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("request_changes", sa.JSON(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("stop_reason", sa.Text(), nullable=True),
        sa.Column("output_text", sa.Text(), nullable=True),
        sa.Column("validation_errors", sa.JSON(), nullable=True),
        sa.Column("input_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=True),
        sa.Column("cache_creation_5m_tokens", sa.Integer(), nullable=True),
        sa.Column("cache_creation_1h_tokens", sa.Integer(), nullable=True),
        sa.Column("cache_read_tokens", sa.Integer(), nullable=True),
        sa.Column("thinking_tokens", sa.Integer(), nullable=True),
        sa.Column("service_tier", sa.Text(), nullable=True),
        sa.Column("cost_usd", sa.Numeric(20, 10), nullable=True),
        sa.Column("price_version", sa.String(length=50), nullable=True),
        sa.CheckConstraint(
            "kind IN ('call', 'retry', 'repair', 'escalation', 'batch', 'warm_up')",
            name=op.f("ck_attempts_kind"),
        ),
        sa.ForeignKeyConstraint(["prompt_hash"], ["prompts.hash"], name=op.f("fk_attempts_prompt_hash")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_attempts_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
    )
    op.create_index(op.f("ix_attempts_generation_id"), "attempts", ["generation_id"], unique=False)
    op.create_index(op.f("ix_attempts_run_id_ended_at"), "attempts", ["run_id", "ended_at"], unique=False)
    op.create_table(
        "generations",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("flow", sa.String(length=200), nullable=False),
        sa.Column("step", sa.String(length=200), nullable=False),
        sa.Column("endpoint", sa.String(length=100), nullable=False),
        sa.Column("record_key", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("record_hash", sa.String(length=64), nullable=True),
        sa.Column("template_hash", sa.String(length=64), nullable=False),
        sa.Column("prompt_hash", sa.String(length=64), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("origin", sa.String(length=20), nullable=False),
        sa.Column("source_generation_id", sa.String(length=36), nullable=True),
        sa.Column("output", sa.JSON(), nullable=True),
        sa.Column("output_hash", sa.String(length=64), nullable=True),
        sa.Column("error_kind", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("origin IN ('live', 'batch', 'cache')", name=op.f("ck_generations_origin")),
        sa.CheckConstraint(
            "status IN ('succeeded', 'invalid', 'truncated', 'refused', 'failed', 'skipped')",
            name=op.f("ck_generations_status"),
        ),
        sa.ForeignKeyConstraint(["record_hash"], ["records.hash"], name=op.f("fk_generations_record_hash")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_generations_run_id")),
        sa.ForeignKeyConstraint(
            ["source_generation_id"], ["generations.id"], name=op.f("fk_generations_source_generation_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
        sa.UniqueConstraint("run_id", "step", "record_key", name=op.f("uq_generations_run_id_step_record_key")),
    )
    op.create_index(
        "ix_generations_current",
        "generations",
        ["flow", "step", "endpoint", "record_key", "status", "id"],
        unique=False,
    )
    op.create_index("ix_generations_prompt", "generations", ["prompt_hash", "origin", "status"], unique=False)
    op.create_table(
        "generation_parents",
        sa.Column("generation_id", sa.String(length=36), nullable=False),
        sa.Column("parent_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(
            ["generation_id"], ["generations.id"], name=op.f("fk_generation_parents_generation_id")
        ),
        sa.ForeignKeyConstraint(["parent_id"], ["generations.id"], name=op.f("fk_generation_parents_parent_id")),
        sa.PrimaryKeyConstraint("generation_id", "parent_id", name=op.f("pk_generation_parents")),
    )
    op.create_index(op.f("ix_generation_parents_parent_id"), "generation_parents", ["parent_id"], unique=False)

    dialect = op.get_bind().dialect.name
    moment = WRITTEN.format(column="created_at")
    age = AGE[dialect].format(moment=moment)
    op.execute(CURRENT_CONTENT.format(output=WRITTEN.format(column="output"), moment=moment, age=age))
    op.execute(USAGE_BY_DAY.format(day=DAY[dialect], cost=COST[dialect]))


def downgrade() -> None:
    for view in ("usage_by_day", "current_content"):
        op.execute(f"DROP VIEW {view}")
    for table in (
        "generation_parents",
        "generations",
        "attempts",
        "claims",
        "texts",
        "templates",
        "records",
        "prompts",
        "runs",
    ):
        op.drop_table(table)
