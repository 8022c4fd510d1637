"""The ledger's migrations, which db.ledger.connecting.upgrade runs. Released migrations are never edited."""
