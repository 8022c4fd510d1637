"""The ledger and the sources: the only code that speaks SQL.

Read ledger/tables.py (what is kept), then ledger/writing.py (what happened goes in), readers/ (what is read back, by
question) and sources/select.py (records come in). session.py makes the engines, words.py holds the words that are
stored. Knows neither Prefect nor the SDK nor flows.
"""
