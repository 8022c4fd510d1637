"""What an answer must be: its class, found or made of a front matter, the schema, and the check of an answer."""
