"""Say what a trial that was stopped has kept, what asking again pays for, and what it has cost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from db.readers.chains import Spent
from db.words import SUCCEEDED
from presswork.errors import StoppedError
from presswork.report.amounts import counted, dollars
from presswork.trying.sessions import TrySession
from presswork.trying.trials import TriedRecord


@contextmanager
def stopped_as_trial(session: TrySession, told: Sequence[TriedRecord]) -> Iterator[None]:
    """Raise the error of a stopped run in the words of a trial; `told` are its records that have ended."""
    try:
        yield
    except StoppedError:
        raise StoppedError(stopped_in_words(told, session.spent)) from None


def stopped_in_words(told: Sequence[TriedRecord], spent: Spent) -> str:
    """Say how many answers are kept, and what was spent."""
    return f"{kept_in_words(told)} Cost: {spent_in_words(spent)}."


def kept_in_words(told: Sequence[TriedRecord]) -> str:
    """Say how many answers of a stopped trial are kept."""
    kept = sum(record.status == SUCCEEDED for record in told)
    them = "it" if kept == 1 else "them"
    pays = f": asking again pays nothing for {them}" if kept else ""
    return f"Stopped. {counted(kept, 'answer')} kept{pays}."


def spent_in_words(spent: Spent) -> str:
    """Write what is known to be spent, and what was perhaps billed."""
    lost = f", and perhaps {dollars(spent.likely_usd)} for answers that were lost" if spent.likely_usd else ""
    return f"{dollars(spent.known_usd)}{lost}"
