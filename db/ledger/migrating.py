"""Make the ledger's tables, or migrate them, with Alembic. A module of its own: only then is Alembic loaded."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, column, func, inspect, select, table, text

from db.clock import database_time, is_shared
from db.database_errors import LedgerInUseError
from db.session import readable_url
from db.tables.revisions import MIGRATIONS, known_revisions
from db.words import RUNNING

_LOCK = 0x70726573  # "pres": any number, as long as all migrating processes use the same


def migrate(connection: Connection, found: str | None) -> None:
    """Migrate a ledger that is at the revision `found`, in the transaction of this connection; others wait for it.

    Raises LedgerInUseError if a run is active on it.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    if found not in {None, known_revisions()[-1]}:
        _refuse_while_in_use(connection)
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def alembic_config() -> Config:
    """Return the configuration by which Alembic finds the migrations; no settings file is read."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _refuse_while_in_use(connection: Connection) -> None:
    # By the one column that all releases write: an older process continues to write as before, even after a migration.
    runs = table("runs", column("id"), column("flow"), column("status"), column("alive_until"))
    leases = table("leases", column("run_id"), column("alive_until"))
    moment = database_time() if is_shared(connection) else func.strftime("%Y-%m-%d %H:%M:%f", "now")
    running = select(runs.c.id, runs.c.flow).where(runs.c.status == RUNNING).order_by(runs.c.id)
    if inspect(connection).has_table("leases"):
        running = running.join(leases, leases.c.run_id == runs.c.id).where(leases.c.alive_until > moment)
    else:
        running = running.where(runs.c.alive_until > moment)
    active = connection.execute(running).first()
    if active is not None:
        raise LedgerInUseError(
            f"The ledger {readable_url(connection.engine.url)} can't be migrated now: the run {active.id} of "
            f"{active.flow} is active. Stop it or wait until it ends, then run `presswork db upgrade` again. "
            "(A crashed run counts as active for two minutes.)"
        )
