"""The engine: turns templates and records into generations under Prefect.

Read run.py (a run from opening to closing), generate.py (one step: render, look up, send, record), plan.py (what the
ledger already answers), chunks.py (the Prefect task), results.py (Prefect's cache, served by the ledger), pace.py (when
a request may go), journal.py and writer.py (how what happened reaches the ledger).
"""

from flows.engine.handles import Generated, Generations
from flows.engine.options import RunOptions, Selection
from flows.engine.run import Run, open_run
from flows.engine.summary import Summary

__all__ = ["Generated", "Generations", "Run", "RunOptions", "Selection", "Summary", "open_run"]
