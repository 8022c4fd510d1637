"""Run migrations for Alembic, in one transaction on the connection from db.ledger.connecting."""

from alembic import context

from db.tables import StoredRun

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=StoredRun.metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
