"""The commands that people type, in the folder of what they look into; flows/cli.py puts them together.

run/ (one job: jobs.py says what can be run, running.py runs it, watching.py shows it meanwhile), rehearsal/ (the same
against the sandbox), ledger/ (what was generated), templates/, machine/ (services and deployments). What they share is
in terminal/: endings.py (a command from its settings to its exit status), screen.py (how anything is printed),
summary_view.py and prompt_view.py, flags.py, quiet_prefect.py, environment.py. The contract "commands" in
pyproject.toml says who may look into whom.

Modules that take time to load (Prefect, the SDK, SQLAlchemy) are imported inside the functions that need them, so
that help and mistakes appear at once.
"""
