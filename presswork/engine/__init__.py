"""A run under Prefect, from opening to closing.

The root is the way of a record, top to bottom: opening.py (a run from opening to closing), run.py (what flows use),
step.py (render, look up, record), live.py (ask, in chunks), claiming.py (ask for no prompt twice), plan.py (what the
ledger already answers), attempts.py and generations.py (how what happened reaches the ledger), context.py (what a run
hands to its steps). What these stand on is in the folders.
"""
