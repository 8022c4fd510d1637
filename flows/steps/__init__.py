"""The verbs between select and record, as plain functions that know neither Prefect nor SQL.

templates.py (a prompt file) -> render.py (template and record make a prompt) -> answer.py (one prompt is pursued to
its outcome: complete.py asks, validate.py judges). prices.py and catalog.py say what models cost and can take.
"""
