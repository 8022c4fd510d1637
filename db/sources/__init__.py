"""Read the user's databases: check a select, run it once into a spool, and give keys and values one form."""
