"""A template file: read, checked and rendered to prompts."""
