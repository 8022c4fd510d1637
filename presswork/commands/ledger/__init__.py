"""`presswork history`, `show` and `db`: show what the ledger holds, and maintain it."""
