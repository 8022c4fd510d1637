"""Let runs outlive their processes, and let history grow only by changes.

Nothing is removed and no row of history changes. Active runs keep their leases and claims, and the current content of
each record is collected from the generations.
"""

from __future__ import annotations

from importlib import import_module

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATUSES = ("running", "completed", "failed", "cancelled", "crashed", "capped")
AGE = {
    "sqlite": "julianday('now') - julianday({moment})",
    "postgresql": "CAST(EXTRACT(EPOCH FROM now() - {moment}) / 86400.0 AS double precision)",
}
# One table without a join, as before, because SQLite computes a whole view of several tables if the view is on the
# right of a LEFT JOIN. A column that is not selected costs no lookup.
COLUMN = "(SELECT {what} FROM generations g WHERE g.id = c.generation_id)"
# A cached row has no text; its source has it.
WRITTEN = """CASE WHEN g.source_generation_id IS NULL THEN g.{column} ELSE
       (SELECT s.{column} FROM generations s WHERE s.id = g.source_generation_id) END"""
CURRENT_CONTENT = """
{create} VIEW current_content AS
SELECT c.flow, c.step, c.endpoint, c.record_key, c.generation_id, c.confirmed_run_id AS run_id, {origin} AS origin,
       {output} AS output, {output_hash} AS output_hash, {record_hash} AS record_hash,
       {template_hash} AS template_hash, {prompt_hash} AS prompt_hash,
       {written_by} AS written_by_generation_id,
       {moment} AS written_at, c.confirmed_at, {age} AS age_days, c.confirmed
FROM content c
WHERE c.generation_id IS NOT NULL
"""
OF_GENERATION = ("origin", "output_hash", "record_hash", "template_hash", "prompt_hash")
LEASES = """
INSERT INTO leases (id, run_id, worker, process, epoch, taken_at, alive_until, boot, until_s)
SELECT id, id, 'main', process, epoch, started_at, alive_until, lease_boot, lease_until_s
FROM runs WHERE status = 'running'
"""
# Ids are UUIDv7: the greatest of a record is its newest.
CONTENT = """
INSERT INTO content (flow, step, endpoint, record_key, generation_id, since, confirmed_run_id, confirmed_at,
                     failing_id, failing_run_id, failing_at)
SELECT n.flow, n.step, n.endpoint, n.record_key, g.id, g.created_at, g.run_id, g.created_at,
       f.id, f.run_id, f.created_at
FROM (SELECT flow, step, endpoint, record_key,
             MAX(CASE WHEN status = 'succeeded' THEN id END) AS standing, MAX(id) AS newest
      FROM generations GROUP BY flow, step, endpoint, record_key) n
LEFT JOIN generations g ON g.id = n.standing
LEFT JOIN generations f ON f.id = n.newest AND f.status <> 'succeeded'
"""
DELETE_PARENTS = "DELETE FROM generation_parents WHERE {column} IN (SELECT id FROM generations WHERE replaced_by <> '')"


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    moment = sa.DateTime(timezone=True)
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.add_column("runs", sa.Column("suspended_for", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("due_at", moment, nullable=True))
    op.add_column("generations", sa.Column("replaced_by", sa.String(length=36), nullable=False, server_default=""))
    op.add_column("generations", sa.Column("lease_id", sa.String(length=36), nullable=True))
    op.add_column("generations", sa.Column("confirmed", sa.Integer(), nullable=True))
    op.add_column("generations", sa.Column("confirmed_at", moment, nullable=True))
    op.add_column("attempts", sa.Column("lease_id", sa.String(length=36), nullable=True))
    _allow_statuses(dialect, STATUSES, ("running", "suspended", *STATUSES[1:]))
    _allow_replaced_generations(dialect)
    op.create_table(
        "leases",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("worker", sa.String(length=50), nullable=False),
        sa.Column("process", sa.String(length=300), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("taken_at", moment, nullable=False),
        sa.Column("alive_until", moment, nullable=False),
        sa.Column("boot", sa.String(length=100), nullable=True),
        sa.Column("until_s", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_leases_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
        sa.UniqueConstraint("run_id", "worker", name=op.f("uq_leases_run_id_worker")),
    )
    op.create_table(
        "run_steps",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("step", sa.String(length=200), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("made_from", sa.String(length=200), nullable=True),
        sa.Column("total", sa.Integer(), nullable=True),
        *(
            sa.Column(name, sa.Integer(), nullable=False, server_default="0")
            for name in ("left_out", "unchanged", "failed_again", "skipped_again")
        ),
        sa.CheckConstraint("state IN ('open', 'done')", name=op.f("ck_run_steps_state")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_run_steps_run_id")),
        sa.PrimaryKeyConstraint("run_id", "step", name=op.f("pk_run_steps")),
    )
    op.create_table(
        "working_rows",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("step", sa.String(length=200), nullable=False),
        sa.Column("record_key", key, nullable=False),
        sa.Column("lease_id", sa.String(length=36), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=True),
        sa.Column("generation_id", sa.String(length=36), nullable=True),
        sa.Column("confirmed_at", moment, nullable=True),
        sa.PrimaryKeyConstraint("run_id", "step", "record_key", name=op.f("pk_working_rows")),
        sqlite_with_rowid=False,
    )
    free = sa.text("status IS NULL AND lease_id IS NULL")
    op.create_index(
        "ix_working_rows_free",
        "working_rows",
        ["run_id", "step", "record_key"],
        sqlite_where=free,
        postgresql_where=free,
    )
    op.create_table(
        "content",
        sa.Column("flow", sa.String(length=200), nullable=False),
        sa.Column("step", sa.String(length=200), nullable=False),
        sa.Column("endpoint", sa.String(length=100), nullable=False),
        sa.Column("record_key", key, nullable=False),
        sa.Column("generation_id", sa.String(length=36), nullable=True),
        sa.Column("since", moment, nullable=True),
        sa.Column("confirmed_run_id", sa.String(length=36), nullable=True),
        sa.Column("confirmed_at", moment, nullable=True),
        sa.Column("confirmed", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("failing_id", sa.String(length=36), nullable=True),
        sa.Column("failing_run_id", sa.String(length=36), nullable=True),
        sa.Column("failing_at", moment, nullable=True),
        sa.Column("failing", sa.Integer(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("flow", "step", "endpoint", "record_key", name=op.f("pk_content")),
        sqlite_with_rowid=False,
    )
    if dialect == "postgresql":
        # Leaves space on each page for new versions of its rows, so that a confirmation does not change any index.
        op.execute("ALTER TABLE content SET (fillfactor = 50)")
    op.execute(LEASES)
    # Claims and attempts in flight name their lease, which had the id of the run until now.
    op.execute("UPDATE attempts SET lease_id = run_id WHERE ended_at IS NULL")
    op.execute(CONTENT)
    output, written = (COLUMN.format(what=WRITTEN.format(column=name)) for name in ("output", "created_at"))
    if dialect == "sqlite":
        op.execute("DROP VIEW current_content")
    op.execute(
        CURRENT_CONTENT.format(
            create="CREATE" if dialect == "sqlite" else "CREATE OR REPLACE",
            output=output,
            written_by=COLUMN.format(what="COALESCE(g.source_generation_id, g.id)"),
            moment=written,
            age=AGE[dialect].format(moment=written),
            **{name: COLUMN.format(what=f"g.{name}") for name in OF_GENERATION},
        )
    )


def downgrade() -> None:
    """Restore the tables of earlier releases; the outcomes that a run has replaced by later ones are lost."""
    dialect = op.get_bind().dialect.name
    before = import_module("db.migrations.versions.0001_ledger")
    moment = before.WRITTEN.format(column="created_at")
    op.execute("DROP VIEW current_content")
    for column in ("generation_id", "parent_id"):
        op.execute(DELETE_PARENTS.format(column=column))
    op.execute("DELETE FROM generations WHERE replaced_by <> ''")
    op.drop_index("ix_generations_of_run", "generations")
    op.create_index(
        "uq_generations_run_id_step_record_key", "generations", ["run_id", "step", "record_key"], unique=True
    )
    op.execute("UPDATE runs SET status = 'crashed' WHERE status = 'suspended'")
    _allow_statuses(dialect, ("running", "suspended", *STATUSES[1:]), STATUSES)
    for table in ("content", "working_rows", "run_steps", "leases"):
        op.drop_table(table)
    for table, column in (
        ("attempts", "lease_id"),
        ("generations", "confirmed_at"),
        ("generations", "confirmed"),
        ("generations", "lease_id"),
        ("generations", "replaced_by"),
        ("runs", "due_at"),
        ("runs", "suspended_for"),
    ):
        op.drop_column(table, column)
    age = before.AGE[dialect].format(moment=moment)
    op.execute(before.CURRENT_CONTENT.format(output=before.WRITTEN.format(column="output"), moment=moment, age=age))


def _allow_statuses(dialect: str, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """Change the allowed statuses of a run."""
    was, will = (f"status IN ({', '.join(repr(word) for word in words)})" for words in (before, after))
    if dialect == "postgresql":
        op.drop_constraint(op.f("ck_runs_status"), "runs", type_="check")
        op.create_check_constraint(op.f("ck_runs_status"), "runs", will)
    else:
        _change_table("runs", was, will)


def _allow_replaced_generations(dialect: str) -> None:
    """Allow several generations of a record in a run: the one that counts, and the replaced ones."""
    key = ["run_id", "step", "record_key"]
    name = f"uq_generations_{'_'.join(key)}"
    if dialect == "postgresql":
        # A constraint, or only its index in a ledger that was at this revision before.
        op.execute(f"ALTER TABLE generations DROP CONSTRAINT IF EXISTS {name}")
        op.execute(f"DROP INDEX IF EXISTS {name}")
    else:
        indexes = op.get_bind().exec_driver_sql("PRAGMA index_list('generations')")
        for made in [row.name for row in indexes if row.origin == "u"]:
            # Turn the constraint's automatic index into one that can be dropped.
            index = f"CREATE UNIQUE INDEX {name} ON generations ({', '.join(key)})"
            constraint = f", \n\tCONSTRAINT {name} UNIQUE ({', '.join(key)})"
            _change_table("generations", constraint, "", (made, name, index))
        op.execute(f"DROP INDEX {name}")
    op.create_index("ix_generations_of_run", "generations", [*key, "replaced_by"], unique=True)


def _change_table(table: str, before: str, after: str, index: tuple[str, str, str] | None = None) -> None:
    """Change the text of a SQLite table's definition, and of an index, given as old name, new name and statement.

    SQLite has no statement for a change that affects no row. Its manual describes this way (lang_altertable, section
    7); any other way would copy the table and everything that refers to it.
    """
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    changed = connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = ? AND instr(sql, ?) > 0",
        (before, after, table, before),
    ).rowcount
    if index is not None:
        made, name, sql = index
        statement = "UPDATE sqlite_master SET name = ?, sql = ? WHERE type = 'index' AND name = ?"
        changed += connection.exec_driver_sql(statement, (name, sql, made)).rowcount - 1
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    # This reads the schema again and forbids further writes to it.
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")
    if changed != 1:
        raise RuntimeError(f"the definition of the table {table} is not what a release of Presswork has made")
