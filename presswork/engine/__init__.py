"""A run under Prefect, from opening to closing.

The root follows a record, top to bottom: opening.py (open and close a run), run.py (what flows use), step.py (render,
look up, record), live.py (send requests, in chunks), claiming.py (request no prompt twice), plan.py (which prompts the
ledger answers), attempts.py and generations.py (write attempts and outcomes), context.py (what a run passes to its
steps). The folders hold what these modules use.
"""
