"""The audit room: read-only pages over the ledger, served on this machine."""
