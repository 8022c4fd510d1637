"""The ledger's migrations, run by db.ledger.migrating.upgrade; a released one is never edited."""
