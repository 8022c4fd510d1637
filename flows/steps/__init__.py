"""The verbs between select and record, as plain functions that know neither Prefect nor SQL.

prompts/ reads a template and makes a prompt of it and one record. answers/ pursues a prompt to its outcome. claude/
asks, and reads what comes back; it alone imports the SDK. output_classes/ has what an answer must be, its schema, and
the check of an answer. prices.py says what models cost, catalog.py what they can take (the tables are in
known_models.py), and model_rules.py what follows for a request. Who imports whom is a contract in pyproject.toml.
"""
