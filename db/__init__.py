"""The ledger and the sources: the only code that speaks SQL.

Read models.py (what is kept), then session.py (how it is opened), select.py (records come in), record.py
(what happened goes out) and history.py (what happened is read back). Knows neither Prefect nor the SDK nor flows.
"""
