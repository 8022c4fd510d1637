"""The verbs between select and record, as plain functions that know neither Prefect nor SQL.

templates.py (a prompt file: front_matter.py is its head, whose YAML front_yaml.py reads; syntax.py says what its text
may do) -> render.py (template and
record make a prompt) -> answer.py (one prompt is pursued to its outcome: complete.py asks, validate.py judges).
classes.py finds the output class that a template names, fields.py makes it of the fields that a head lists.
schemas.py says which output classes the API can take: bounds.py and references.py keep what would be lost on the way,
schema_checks.py counts what the API limits. prices.py says what models cost, catalog.py what they can take (the tables
are in known_models.py), and model_rules.py what follows for a request. lint.py tells all that is wrong with a
template, by variables.py (what it reads) and selects.py (what it is given).
"""
