"""The index of words, if the ledger has one: it has all runs that are rolled up, and each of their answers.

A search reads the answers of the others from the ledger itself.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tests.nights.promised.evidence import Evidence, Violation

INDEXED = "the index of words has the answers of all runs that are rolled up"
_ANSWERED = """
SELECT g.id FROM generations g JOIN rolled_up r ON r.run_id = g.run_id
WHERE g.source_generation_id IS NULL AND g.output IS NOT NULL AND g.run_id = ?
"""


def check_words(evidence: Evidence) -> Iterator[Violation]:
    """Find runs that are rolled up and not indexed, and answers of indexed ones that are not there."""
    index = Path(f"{evidence.night.ledger}.search.sqlite")
    if not evidence.night.indexed:
        return
    if not index.exists():
        yield Violation(INDEXED, "the index is missing")
        return
    with closing(sqlite3.connect(index)) as words, closing(sqlite3.connect(evidence.night.ledger)) as ledger:
        marks = dict(words.execute("SELECT run_id, mark FROM search_runs"))
        months = [month for (month,) in words.execute("SELECT month FROM search_months")]
        known = {each for month in months for (each,) in words.execute(f"SELECT id FROM texts_{month}")}
        for run_id, mark in ledger.execute("SELECT run_id, rolled_up_at FROM rolled_up"):
            if marks.get(run_id) != mark:
                yield Violation(INDEXED, f"run {run_id} is rolled up, and not indexed as it is")
            for (generation,) in ledger.execute(_ANSWERED, (run_id,)):
                if generation not in known:
                    yield Violation(INDEXED, f"generation {generation} of run {run_id} is not in the index")
