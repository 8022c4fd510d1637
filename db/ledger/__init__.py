"""Write the ledger: its tables, commits, leases, claims, and the batches that could not be committed."""
