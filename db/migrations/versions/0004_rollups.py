"""Add up closed runs once, for figures over months.

Nothing of the history changes. `_fill` adds up the runs that have ended; all others count by live sums. Each table is
filled by one statement. With a million generations and 1.27 million attempts this takes about 20 seconds on SQLite and
50 on PostgreSQL, on two busy cores.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.machine import utc_now

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = {
    "usage_rollup": (
        ("day", sa.String(length=10)),
        ("step", sa.String(length=200)),
        ("template_hash", sa.String(length=64)),
        ("model", sa.Text()),
        ("service_tier", sa.Text()),
        ("kind", sa.String(length=20)),
        ("error_type", sa.Text()),
    ),
    "outcome_rollup": (
        ("day", sa.String(length=10)),
        ("step", sa.String(length=200)),
        ("template_hash", sa.String(length=64)),
        ("model", sa.String(length=100)),
        ("status", sa.String(length=20)),
        ("origin", sa.String(length=20)),
    ),
    "prompt_cache_rollup": (
        ("day", sa.String(length=10)),
        ("step", sa.String(length=200)),
        ("template_hash", sa.String(length=64)),
        ("model", sa.Text()),
        ("service_tier", sa.Text()),
        ("inference_geo", sa.Text()),
        ("speed", sa.Text()),
        ("prompt_tokens", sa.BigInteger()),
    ),
}
SUMS = {
    "usage_rollup": (
        "attempts",
        "requests",
        "input_tokens",
        "output_tokens",
        "cache_creation_5m_tokens",
        "cache_creation_1h_tokens",
        "cache_read_tokens",
        "cost_e10",
        "priced",
        "unpriced",
        "perhaps_billed",
        "likely_e10",
        "estimated",
        "rate_limited",
        "latency_ms",
        "timed",
    ),
    "outcome_rollup": ("generations", "replaced"),
    "prompt_cache_rollup": ("written_5m", "written_1h", "read", "writes", "reads"),
}

DAY = {"sqlite": "date({moment})", "postgresql": "to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"}
ENDED = """SELECT r.id FROM runs r WHERE r.status NOT IN ('running', 'suspended')
              AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.run_id = r.id)"""
PERHAPS = "('connection', 'timeout', 'abandoned', 'crashed', 'proxy')"
COST = "CAST(ROUND(a.cost_usd * 10000000000) AS BIGINT)"
LIKELY = f"CASE WHEN a.error_type IN {PERHAPS} THEN CAST(ROUND(a.likely_cost_usd * 10000000000) AS BIGINT) END"
# PostgreSQL would add small integers, and an endpoint may report the largest of these.
NO_TOKENS = "CAST(0 AS BIGINT)"
WRITTEN = f"COALESCE(a.cache_creation_5m_tokens, {NO_TOKENS}) + COALESCE(a.cache_creation_1h_tokens, {NO_TOKENS})"
READ = f"COALESCE(a.cache_read_tokens, {NO_TOKENS})"
LENGTH = f"(COALESCE(a.input_tokens, {NO_TOKENS}) + {WRITTEN} + {READ} + 999) / 1000 * 1000"
PARTS = {
    "ended": ENDED,
    "perhaps": PERHAPS,
    "cost": COST,
    "likely": LIKELY,
    "written": WRITTEN,
    "read": READ,
    "length": LENGTH,
}
MARKS = "INSERT INTO rolled_up (run_id, rolled_up_at) SELECT r.id, :moment FROM ({ended}) r"
USAGE = """
SELECT a.run_id, {day}, COALESCE(g.step, ''), COALESCE(g.template_hash, ''),
       COALESCE(substr(a.model, 1, 100), ''), COALESCE(substr(a.service_tier, 1, 100), ''), a.kind,
       COALESCE(substr(a.error_type, 1, 100), ''),
       COUNT(*), SUM(CASE WHEN a.error_type IN ('not_sent', 'connect') THEN 0 ELSE 1 END),
       SUM(COALESCE(a.input_tokens, 0)), SUM(COALESCE(a.output_tokens, 0)),
       SUM(COALESCE(a.cache_creation_5m_tokens, 0)), SUM(COALESCE(a.cache_creation_1h_tokens, 0)), SUM({read}),
       COALESCE(SUM({cost}), 0), COUNT(a.cost_usd),
       SUM(CASE WHEN (a.input_tokens IS NOT NULL OR a.output_text IS NOT NULL) AND a.cost_usd IS NULL
                THEN 1 ELSE 0 END),
       SUM(CASE WHEN a.error_type IN {perhaps} THEN 1 ELSE 0 END), COALESCE(SUM({likely}), 0), COUNT({likely}),
       SUM(CASE WHEN a.http_status = 429 THEN 1 ELSE 0 END), COALESCE(SUM(a.latency_ms), 0), COUNT(a.latency_ms)
FROM attempts a LEFT JOIN generations g ON g.id = a.generation_id
WHERE a.run_id IN ({ended})
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
"""
OUTCOMES = """
SELECT g.run_id, {day}, g.step, g.template_hash, COALESCE(p.model, ''), g.status, g.origin,
       SUM(CASE WHEN g.replaced_by = '' THEN 1 ELSE 0 END), SUM(CASE WHEN g.replaced_by = '' THEN 0 ELSE 1 END)
FROM generations g LEFT JOIN prompts p ON p.hash = g.prompt_hash
WHERE g.run_id IN ({ended})
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
PROMPT_CACHE = """
SELECT a.run_id, {day}, COALESCE(g.step, ''), COALESCE(g.template_hash, ''), substr(a.model, 1, 100),
       COALESCE(substr(a.service_tier, 1, 100), ''), COALESCE(substr(a.inference_geo, 1, 100), ''),
       COALESCE(substr(a.speed, 1, 100), ''), {length},
       SUM(COALESCE(a.cache_creation_5m_tokens, 0)), SUM(COALESCE(a.cache_creation_1h_tokens, 0)), SUM({read}),
       SUM(CASE WHEN {written} > 0 THEN 1 ELSE 0 END), SUM(CASE WHEN {read} > 0 THEN 1 ELSE 0 END)
FROM attempts a LEFT JOIN generations g ON g.id = a.generation_id
WHERE a.run_id IN ({ended}) AND a.model IS NOT NULL AND a.ended_at IS NOT NULL AND {written} + {read} > 0
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
"""
# Runs of before revision 0003 have no steps, so their savings would have no place.
STEPS = """
INSERT INTO run_steps (run_id, step, position, state)
SELECT g.run_id, g.step, ROW_NUMBER() OVER (PARTITION BY g.run_id ORDER BY MIN(g.id)),
       CASE WHEN r.status = 'completed' THEN 'done' ELSE 'open' END
FROM generations g JOIN runs r ON r.id = g.run_id
WHERE r.status NOT IN ('running', 'suspended', 'crashed')
  AND NOT EXISTS (SELECT 1 FROM run_steps s WHERE s.run_id = g.run_id)
GROUP BY g.run_id, g.step, r.status
"""
# Of a run that has closed, unchanged records are known only if no later run has confirmed them since.
SAVED = """
UPDATE run_steps SET saved_usd = saved.units / 10000000000.0
FROM (SELECT reused.run_id, reused.step, SUM({cost}) AS units
      FROM (SELECT run_id, step, source_generation_id AS written_by FROM generations
            WHERE origin = 'cache' AND status = 'succeeded' AND replaced_by = '' AND run_id IN ({ended})
            UNION ALL
            SELECT w.run_id, w.step, COALESCE(g.source_generation_id, g.id)
            FROM working_rows w JOIN generations g ON g.id = w.generation_id
            WHERE w.status = 'succeeded' AND w.run_id IN ({ended})
            UNION ALL
            SELECT r.id, c.step, COALESCE(g.source_generation_id, g.id)
            FROM content c
            JOIN generations g ON g.id = c.generation_id
            JOIN runs r ON r.id = c.confirmed_run_id AND r.flow = c.flow AND r.endpoint = c.endpoint
            JOIN run_steps s ON s.run_id = r.id AND s.step = c.step
            WHERE s.unchanged > 0 AND g.run_id <> r.id AND r.status NOT IN ('running', 'suspended', 'crashed')) reused
      JOIN attempts a ON a.generation_id = reused.written_by
      WHERE NOT EXISTS (SELECT 1 FROM runs shard
                        JOIN runs parent ON parent.id = shard.parent_run_id
                        JOIN runs whole ON whole.id = reused.run_id
                        WHERE shard.id = a.run_id
                          AND (parent.id = whole.id OR parent.prefect_flow_run_id = whole.prefect_flow_run_id)
                          AND (shard.ended_at IS NULL OR shard.ended_at >= whole.started_at)
                          AND (whole.ended_at IS NULL OR shard.started_at <= whole.ended_at))
      GROUP BY reused.run_id, reused.step) saved
WHERE saved.run_id = run_steps.run_id AND saved.step = run_steps.step
"""
SELECTS = {
    "usage_rollup": (USAGE, "a.started_at"),
    "outcome_rollup": (OUTCOMES, "g.created_at"),
    "prompt_cache_rollup": (PROMPT_CACHE, "a.ended_at"),
}


def upgrade() -> None:
    op.add_column("run_steps", sa.Column("saved_usd", sa.Numeric(20, 10), nullable=True))
    op.create_table(
        "rolled_up",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("rolled_up_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_rolled_up")),
    )
    for table, alike in TABLES.items():
        op.create_table(
            table,
            sa.Column("run_id", sa.String(length=36), nullable=False),
            *(sa.Column(name, kind, nullable=False) for name, kind in alike),
            *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS[table]),
            sa.PrimaryKeyConstraint("run_id", *(name for name, _kind in alike), name=op.f(f"pk_{table}")),
            sqlite_with_rowid=False,
        )
    _fill()


def _fill() -> None:
    connection = op.get_bind()
    for table, (select, moment) in SELECTS.items():
        columns = ", ".join(["run_id", *(name for name, _kind in TABLES[table]), *SUMS[table]])
        day = DAY[connection.dialect.name].format(moment=moment)
        connection.exec_driver_sql(f"INSERT INTO {table} ({columns}) {select.format(day=day, **PARTS)}")
    connection.exec_driver_sql(STEPS)
    connection.exec_driver_sql(SAVED.format(**PARTS))
    now = sa.bindparam("moment", utc_now(), type_=sa.DateTime(timezone=True))
    connection.execute(sa.text(MARKS.format(**PARTS)).bindparams(now))
    if connection.dialect.name == "postgresql":
        # Without statistics the planner would take most runs for open ones, and read all attempts for their sums.
        op.execute(f"ANALYZE {', '.join(['rolled_up', *TABLES])}")


def downgrade() -> None:
    for table in (*TABLES, "rolled_up"):
        op.drop_table(table)
    op.drop_column("run_steps", "saved_usd")
