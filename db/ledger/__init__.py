"""The ledger as it is written: its tables, commits, leases, claims and what could not be committed."""
