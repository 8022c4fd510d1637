"""Alembic's entry: runs migrations on the connection that db.ledger.connecting hands over, in one transaction."""

from alembic import context

from db.ledger.tables import StoredRun

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=StoredRun.metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
