"""The verbs between select and record, as plain functions that know neither Prefect nor SQL.

templates.py (a prompt file: front_matter.py is its head, syntax.py what its text may do) -> render.py (template and
record make a prompt) -> answer.py (one prompt is pursued to its outcome: complete.py asks, validate.py judges).
classes.py finds the output class that a template names, fields.py makes it of the fields that front_yaml.py reads.
schemas.py says which output classes the API can take: bounds.py and references.py keep what would be lost on the way,
schema_checks.py counts what the API limits. prices.py and catalog.py say what models cost and can take. lint.py tells
all that is wrong with a template, by variables.py (what it reads) and selects.py (what it is given).
"""
