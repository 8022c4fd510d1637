"""Resources that a run opens and closes (ledger, writer, lease, endpoint, sources), its preflight and its stop."""
