"""Add up closed runs once, for figures over months.

Nothing of the history changes. `fill` adds up the runs that have ended; all others count by live sums.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

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


def downgrade() -> None:
    for table in (*TABLES, "rolled_up"):
        op.drop_table(table)
    op.drop_column("run_steps", "saved_usd")
