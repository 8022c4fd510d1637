"""The ledger's migrations, run by db.session.upgrade; a released one is never edited."""
