"""`presswork history`, `show` and `db`: what the ledger has."""
