"""Promise 9: a cap is the job's, so its runs, their helpers and the runs that resume one another spend no more.

The bound that is checked: at each reservation, all that is spent, and the likely prices of all requests in flight,
fit under the cap. So in the end only the requests that were in flight at the last reservation can have exceeded it,
each by what its price was more than its likely price. A process has at most `ahead` requests in flight.
"""

import math
from collections.abc import Collection, Iterator
from decimal import Decimal

from tests.nights.promised.evidence import PERHAPS_BILLED, Evidence, Violation
from tests.nights.promised.ledger_rows import KeptAttempt, units
from tests.nights.promised.night_result import RunStory

CAP = "a job spends no more than its cap"


def check_caps(evidence: Evidence) -> Iterator[Violation]:
    """Find jobs that spent more than their cap, and more than their last requests can explain."""
    for runs in jobs_of(evidence):
        stories = [each for each in evidence.night.runs if each.run_id in runs]
        caps = [each.max_cost for each in stories if each.max_cost is not None]
        if not caps or len(caps) < len(stories) or _forks(evidence, runs):
            continue
        attempts = [each for each in evidence.rows.attempts if each.run_id in runs]
        cap, spent = units(max(caps)) or 0, sum(spent_by(evidence, each) for each in attempts)
        over = sorted((_exceeded(each) for each in attempts), reverse=True)
        allowed = sum(over[: sum(ahead(each) for each in stories)])
        if spent > cap + allowed:
            yield Violation(
                CAP,
                f"runs {', '.join(sorted(runs))} spent ${Decimal(spent).scaleb(-10)} under a cap of "
                f"${Decimal(cap).scaleb(-10)}; misjudged prices explain ${Decimal(allowed).scaleb(-10)}",
            )


def jobs_of(evidence: Evidence) -> list[frozenset[str]]:
    """Return the runs that resume one another, together."""
    job = {run.id: {run.id} for run in evidence.rows.runs}
    for run in evidence.rows.runs:
        if run.resumes_run_id is not None:
            both = job[run.id] | job[run.resumes_run_id]
            job |= dict.fromkeys(sorted(both), both)
    return [frozenset(runs) for first, runs in job.items() if first == min(runs)]


def ahead(story: RunStory) -> int:
    """Return how many requests of a process may have reserved their price at a time, with one that probes."""
    return story.concurrency + max(2, story.concurrency // 4) + 1


def spent_by(evidence: Evidence, attempt: KeptAttempt) -> int:
    """Return what a request counts under the cap: its price, or its likely price if its answer was lost.

    If the answer was read and then lost in a kill, its process had counted its price, which may be less.
    """
    if attempt.cost_usd is not None:
        return attempt.cost_usd
    if attempt.error_type is not None and attempt.error_type not in PERHAPS_BILLED and attempt.input_tokens is None:
        return 0
    read = [
        units(each.cost_usd) or 0
        for each in evidence.exchanges_by_prompt.get(attempt.prompt_hash, ())
        if attempt.error_type == "crashed" and each.delivered and each.cost_usd > 0 and not evidence.attempt_of(each)
    ]
    return min([attempt.likely_cost_usd or 0, *read])


def _exceeded(attempt: KeptAttempt) -> int:
    if attempt.cost_usd is None or attempt.likely_cost_usd is None:
        return 0
    return max(0, attempt.cost_usd - attempt.likely_cost_usd)


def _forks(evidence: Evidence, runs: Collection[str]) -> bool:
    """Whether two runs of a job were at work at once: each counts what the other had spent when it began (docs)."""
    stories = sorted(
        (each for each in evidence.night.runs if each.run_id in runs and each.worker == "main"),
        key=lambda each: each.began_at,
    )
    ends = [min(evidence.died(each.process), _end(each)) for each in stories]
    return any(later.began_at < max(ends[:number]) for number, later in enumerate(stories) if number)


def _end(story: RunStory) -> float:
    return math.inf if story.ended_at is None else story.ended_at
