"""A run on its host, from opening to closing. The host is Prefect or, for trials and tests, this process.

The root follows a record, top to bottom: flow_runs.py (open the run of a flow), opening.py (open and close a run),
run.py (what flows use), step.py (render, look up, record), live.py (send requests, in chunks), claiming.py (request no
prompt twice), plan.py (which prompts the ledger answers), attempts.py and generations.py (write attempts and outcomes),
context.py (what a run passes to its steps). The folders hold what these modules use.
"""
