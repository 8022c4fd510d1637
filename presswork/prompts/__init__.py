"""Read a template file, check it, and render it to prompts."""
