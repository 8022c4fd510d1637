"""The ledger's tables: what was generated, from what, by which prompt, at what price.

Ids are UUIDv7 and sort by time, times are UTC, money is Decimal.
"""

from db.tables.history_tables import Attempt, Generation, GenerationParent, StandingContent
from db.tables.inserts import insert_missing, missing_rows
from db.tables.rollup_tables import OutcomeRollup, PromptCacheRollup, RolledUp, UsageRollup
from db.tables.run_tables import Claim, StoredLease, StoredRun, StoredStep, WorkingRow
from db.tables.text_tables import SharedText, StoredPrompt, StoredRecord, StoredTemplate

__all__ = [
    "Attempt",
    "Claim",
    "Generation",
    "GenerationParent",
    "OutcomeRollup",
    "PromptCacheRollup",
    "RolledUp",
    "SharedText",
    "StandingContent",
    "StoredLease",
    "StoredPrompt",
    "StoredRecord",
    "StoredRun",
    "StoredStep",
    "StoredTemplate",
    "UsageRollup",
    "WorkingRow",
    "insert_missing",
    "missing_rows",
]
