"""Index the words of closed runs: all of them when someone asks, and each run when it has closed.

The answers are read from the ledger in short transactions, and written to the index by another connection or
transaction, so that no run waits for it. Indexing can be stopped at any moment and continues where it was.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from db.machine import monotonic_s
from db.search.answer_index import AnswerIndex, month_of
from db.search.answer_texts import ids_of_run, stored_answers, texts_in
from db.search.index_places import create_index, opened_index
from db.search.tokens import spaced_words

PARTS_UNMERGED = 10
"""The number of parts written to a month after which they are merged."""


@dataclass(slots=True)
class Indexed:
    """The number of closed runs and answers that were indexed; `left` closed runs are not indexed yet.

    `forgotten` runs were in the index but are not in the ledger.
    """

    runs: int = 0
    answers: int = 0
    left: int = 0
    forgotten: int = 0


IndexReport = Callable[[int, int, int], None]
"""Called with the number of runs indexed so far, of all runs to index, and of answers indexed so far."""


def _say_nothing(_runs: int, _all: int, _answers: int) -> None:
    pass


def index_all(ledger: Engine, report: IndexReport = _say_nothing) -> Indexed:
    """Create the index if there is none, and index all closed runs, the newest first. Raises IndexUnusableError."""
    create_index(ledger)
    with opened_index(ledger, to_write=True) as index:
        if index is None:  # removed at this moment
            return Indexed()
        return replace(_index(index, report, until=None), forgotten=index.forget_strangers())


def index_closed(ledger: Engine, within_s: float) -> Indexed | None:
    """Index the closed runs that are not indexed, if there is an index; else return None.

    Stops after `within_s`, between two parts of a run. Raises IndexUnusableError.
    """
    with opened_index(ledger, to_write=True) as index:
        return None if index is None else _index(index, _say_nothing, until=monotonic_s() + within_s)


def _index(index: AnswerIndex, report: IndexReport, until: float | None) -> Indexed:
    waiting = [run for run in index.unindexed() if run.mark is not None]
    found = Indexed(left=len(waiting))
    parts: Counter[int] = Counter()
    for run in waiting:
        for ids in ids_of_run(index.ledger, run.run_id):
            if until is not None and monotonic_s() > until:
                return found
            added = _add(index, ids)
            parts.update({month_of(each) for each in added})
            found.answers += len(added)
            report(found.runs, len(waiting), found.answers)
        # The mark as it was before the run was read: a row that came meanwhile has taken it away.
        index.add({}, finished=run)
        found.runs, found.left = found.runs + 1, found.left - 1
    # Each part is written as a small index of its own, and too many of them slow a search down. To merge a month can
    # take minutes, so a run that has just closed leaves it to the database, which merges a little with many writes.
    if until is None:
        index.finish([month for month, number in parts.items() if number >= PARTS_UNMERGED])
    return found


def _add(index: AnswerIndex, ids: Sequence[str]) -> list[str]:
    """Index those of the generations that are not indexed yet and have an answer; return their ids."""
    answers = stored_answers(index.ledger, index.missing(ids))
    index.add({each: spaced_words(texts_in(answer)) for each, answer in answers.items()})
    return list(answers)
