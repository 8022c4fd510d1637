"""The commands that people type, in the folder of what they look into; presswork/cli.py puts them together.

run/ (one job: jobs.py says what can be run, checking.py checks it, running.py runs it, watching.py shows it meanwhile),
rehearsal/ (the same against the sandbox), ledger/ (what was generated), templates/, machine/ (services and
deployments). What they share is in terminal/: flags.py (what people type), endings.py (a command from its settings to
its exit status), screen.py (how anything is printed), summary_view.py, quiet_prefect.py,
environment.py. The contract "commands" in pyproject.toml says who may look into whom.

presswork/cli.py imports the module of a command when it is called, so that help and mistakes of typing appear at once. A
module that can find a mistake before Prefect or the SDK is loaded imports what loads them where it needs it.
"""
