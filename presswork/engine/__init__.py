"""A run under Prefect: from opening to closing, as a record goes through it."""
