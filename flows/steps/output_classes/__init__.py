"""Output classes: found or made of a front matter, and turned into the schema that the API takes."""
