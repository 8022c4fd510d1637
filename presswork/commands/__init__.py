"""The commands that people type, in the folder of what they look into; presswork/cli.py puts them together.

run/ (one job: checked, run, watched, rehearsed), ledger/ (what was generated), templates/, machine/ (services and
deployments). What they share is in presswork/terminal/. The contract "commands" in pyproject.toml says who may
look into whom.

presswork/cli.py imports the module of a command when it is called, so that help and mistakes of typing appear at once.
A module that can find a mistake before Prefect or the SDK is loaded imports what loads them where it needs it.
"""
