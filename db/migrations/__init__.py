"""The ledger's migrations, run by db.ledger.connecting.upgrade; a released one is never edited."""
