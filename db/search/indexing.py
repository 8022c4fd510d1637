"""Index the words of closed runs: all of them when someone asks, and each run when it has closed.

The answers are read from the ledger in short transactions, and written to the index by another connection or
transaction, so that no run waits for it. Indexing can be stopped at any moment and continues where it was.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Engine

from db.search.answer_index import AnswerIndex, UnindexedRun, month_of
from db.search.answer_texts import ids_of_run, stored_answers, texts_in
from db.search.index_places import create_index, opened_index
from db.search.tokens import spaced_words

PARTS_UNMERGED = 10
"""The number of parts of a run after which its months are merged."""


@dataclass(slots=True)
class Indexed:
    """What was indexed: closed runs and answers. `left` closed runs are not indexed yet.

    `forgotten` runs were in the index but not in the ledger.
    """

    runs: int = 0
    answers: int = 0
    left: int = 0
    forgotten: int = 0
    _parts: dict[int, int] = field(default_factory=dict)


Report = Callable[[int, int, int], None]
"""Called with the number of runs indexed so far, of all runs to index, and of answers indexed so far."""


def index_all(ledger: Engine, report: Report = lambda _runs, _all, _answers: None) -> Indexed:
    """Create the index if there is none, and index all closed runs, the newest first. Raises IndexUnusableError."""
    create_index(ledger)
    with opened_index(ledger, to_write=True) as index:
        if index is None:
            return Indexed()
        found = Indexed(forgotten=index.strangers())
        if found.forgotten:
            index.forget_strangers()
        _index(index, found, report, until=None)
    return found


def index_closed(ledger: Engine, within_s: float) -> Indexed | None:
    """Index the closed runs that are not indexed, if there is an index; else return None.

    Stops after `within_s`, between two parts of a run. Raises IndexUnusableError.
    """
    with opened_index(ledger, to_write=True) as index:
        if index is None:
            return None
        found = Indexed()
        _index(index, found, lambda _runs, _all, _answers: None, until=time.monotonic() + within_s)
    return found


def _index(index: AnswerIndex, found: Indexed, report: Report, until: float | None) -> None:
    waiting = [run for run in index.unindexed() if run.mark is not None]
    for run in waiting:
        if not _index_run(index, run, found, until):
            break
        found.runs += 1
        report(found.runs, len(waiting), found.answers)
    found.left = len(waiting) - found.runs
    # Each part is written as a small index of its own. Too many of them slow every search down.
    index.finish([month for month, parts in found._parts.items() if parts >= PARTS_UNMERGED])


def _index_run(index: AnswerIndex, run: UnindexedRun, found: Indexed, until: float | None) -> bool:
    """Index a run; return whether it is indexed as a whole."""
    for ids in ids_of_run(index.ledger, run.run_id):
        missing = index.missing(ids)
        answers = stored_answers(index.ledger, missing)
        index.add({each: spaced_words(texts_in(answer)) for each, answer in answers.items()})
        found.answers += len(answers)
        for month in {month_of(each) for each in answers}:
            found._parts[month] = found._parts.get(month, 0) + 1
        if until is not None and time.monotonic() > until:
            return False
    # The mark of before it was read: a row that came meanwhile has taken the mark away.
    index.add({}, finished=run)
    return True
