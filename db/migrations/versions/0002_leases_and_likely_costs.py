"""Add leases with an epoch and a clock that includes a machine's sleep, and the likely cost of attempts.

No row changes: older rows have epoch 1, no lease of the new kind and no likely cost.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DAY = {"sqlite": "date(a.started_at)", "postgresql": "CAST(a.started_at AT TIME ZONE 'UTC' AS date)"}
SUM = {"sqlite": "ROUND(SUM({what}), 10)", "postgresql": "SUM({what})"}
USAGE_BY_DAY = """
{create} VIEW usage_by_day AS
SELECT {day} AS day, r.flow, r.endpoint, a.model,
       SUM(CASE WHEN a.error_type IN ('not_sent', 'connect') THEN 0 ELSE 1 END) AS requests,
       SUM(COALESCE(a.input_tokens, 0)) AS input_tokens, SUM(COALESCE(a.output_tokens, 0)) AS output_tokens,
       SUM(COALESCE(a.cache_creation_5m_tokens, 0) + COALESCE(a.cache_creation_1h_tokens, 0))
           AS cache_creation_tokens,
       SUM(COALESCE(a.cache_read_tokens, 0)) AS cache_read_tokens, {cost} AS cost_usd,
       SUM(CASE WHEN {answered} AND a.cost_usd IS NULL THEN 1 ELSE 0 END) AS unpriced,
       SUM(CASE WHEN a.error_type IN ({perhaps}) THEN 1 ELSE 0 END) AS perhaps_billed{more}
FROM attempts a JOIN runs r ON r.id = a.run_id
GROUP BY {day}, r.flow, r.endpoint, a.model
"""
BEFORE = "'connection', 'timeout', 'abandoned', 'crashed'"
# An answer counts even if the endpoint did not report its usage.
ANSWERED = "(a.input_tokens IS NOT NULL OR a.output_text IS NOT NULL)"
PERHAPS = f"{BEFORE}, 'proxy'"


def upgrade() -> None:
    op.add_column("runs", sa.Column("epoch", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("runs", sa.Column("lease_boot", sa.String(length=100), nullable=True))
    op.add_column("runs", sa.Column("lease_until_s", sa.Float(), nullable=True))
    op.add_column("attempts", sa.Column("likely_cost_usd", sa.Numeric(20, 10), nullable=True))
    op.add_column("attempts", sa.Column("inference_geo", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("speed", sa.Text(), nullable=True))
    dialect = op.get_bind().dialect.name
    likely = SUM[dialect].format(what=f"CASE WHEN a.error_type IN ({PERHAPS}) THEN a.likely_cost_usd END")
    _replace_view(dialect, PERHAPS, f",\n       {likely} AS likely_usd")


def downgrade() -> None:
    _replace_view(op.get_bind().dialect.name, BEFORE, "")
    for table, column in (
        ("attempts", "speed"),
        ("attempts", "inference_geo"),
        ("attempts", "likely_cost_usd"),
        ("runs", "lease_until_s"),
        ("runs", "lease_boot"),
        ("runs", "epoch"),
    ):
        op.drop_column(table, column)


def _replace_view(dialect: str, perhaps: str, more: str) -> None:
    # PostgreSQL can add a column to a view on which users have built their own views, but it can't drop one.
    create = "CREATE OR REPLACE" if dialect == "postgresql" and more else "CREATE"
    answered = ANSWERED if more else "a.input_tokens IS NOT NULL"
    if create == "CREATE":
        op.execute("DROP VIEW usage_by_day")
    cost = SUM[dialect].format(what="a.cost_usd")
    parts = {"create": create, "day": DAY[dialect], "answered": answered, "cost": cost, "perhaps": perhaps}
    op.execute(USAGE_BY_DAY.format(**parts, more=more))
