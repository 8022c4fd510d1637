"""The ledger and the sources: the only code that speaks SQL.

Start with tables/ (what is stored). Then read ledger/writing.py (how rows are committed), readers/ (a module
for each question) and sources/select.py (how records are selected). session.py makes the engines; words.py defines the
stored words. Nothing here imports Prefect, the SDK or flows.
"""
