"""The user's databases: one select is checked, run once and spooled; keys and values take one form."""
