"""Define what an answer must be: find or make its output class, make the JSON schema, and validate the answer."""
