"""The commands that people type, one file each; flows/cli.py puts them together.

What they share: screen.py (how anything is printed), endings.py (errors become one message and an exit status),
ledgers.py (which ledger is read), jobs.py (what `run` can run), quiet_prefect.py (a Prefect server, without its noise),
watching.py (a run while it goes on), closing.py (a run when it has ended). A rehearsal has more: terms.py (what it is
played with), staging.py (where it plays), forecast.py (what it tells of the real run), rehearsed.py (its last screen).

Modules that take time to load (Prefect, the SDK, SQLAlchemy) are imported inside the functions that need them, so
that help and mistakes appear at once.
"""
