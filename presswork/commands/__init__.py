"""The commands that people type, in folders by subject; presswork/cli.py is their table.

run/ (one job: checked, run, watched, rehearsed), ledger/ (what was generated), templates/, machine/ (services and
deployments). They share presswork/terminal/. The contract "commands" in pyproject.toml says which folder may import
which.

presswork/cli.py imports a command's module when the command is called, so that help and mistakes of typing appear at
once. Modules import what they need at their top. A command that can report mistakes before the SDK or Prefect is loaded
does so in a first function, and hands its result to a second one in another module.
"""
