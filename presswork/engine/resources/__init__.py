"""What a run opens and closes: ledger, writer, lease, endpoint, sources, spools; its preflight, and how it stops."""
