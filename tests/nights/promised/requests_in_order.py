"""Each request is registered before it is sent, within its run, and no prompt gets more than its bound."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.nights.promised.evidence import PERHAPS_BILLED, UNSENT, Evidence, Violation
from tests.nights.promised.ledger_rows import KeptAttempt
from tests.nights.served.exchanges import Exchange

REGISTERED = "an attempt is committed before its request is sent"
NOTHING_SENT = "a bad template, key or source stops a run before its first request"
AFTER_THE_END = "nothing is sent after a run's end"
BOUND = "a run pays for at most max_paid_requests of a prompt"


def check_registered(evidence: Evidence) -> Iterator[Violation]:
    """Find requests for which no attempt was committed when they were sent: the n-th of a prompt needs n attempts."""
    opened = defaultdict[str, list[float]](list)
    for attempt in evidence.rows.attempts:
        if attempt.error_type not in UNSENT:
            opened[attempt.prompt_hash].append(evidence.committed(attempt.id))
    for times in opened.values():
        times.sort()
    sent = Counter[str]()
    for exchange in sorted(evidence.night.exchanges, key=lambda each: (each.at, each.number)):
        prompt = evidence.prompt_of(exchange)
        sent[prompt] += 1
        times = opened[prompt]
        if len(times) < sent[prompt] or times[sent[prompt] - 1] > exchange.at:
            known = sum(each <= exchange.at for each in times)
            yield Violation(
                REGISTERED,
                f"{exchange.process} sent exchange {exchange.number} at {exchange.at:.3f} s, the {sent[prompt]}. of "
                f"prompt {prompt[:12]}, when {known} attempts that were sent had been committed",
            )


def check_own_attempt(evidence: Evidence) -> Iterator[Violation]:
    """Find answers whose own attempt was not committed when their request was sent."""
    for exchange in evidence.night.exchanges:
        attempt = evidence.attempt_of(exchange)
        if attempt is not None and evidence.committed(attempt.id) > exchange.at:
            yield Violation(
                REGISTERED,
                f"exchange {exchange.number} was sent at {exchange.at:.3f} s, its attempt {attempt.id} was committed "
                f"at {evidence.committed(attempt.id):.3f} s",
            )


def check_within_runs(evidence: Evidence) -> Iterator[Violation]:
    """Find requests that a process sent outside its work on a run."""
    for exchange in evidence.night.exchanges:
        story = evidence.story_of(exchange)
        if story is None or (story.ended_at is not None and exchange.at > story.ended_at):
            yield Violation(AFTER_THE_END, f"{_sent(exchange)}, {_ended(story.ended_at if story else None)}")
        elif exchange.at > evidence.died(exchange.process):
            yield Violation(AFTER_THE_END, f"{_sent(exchange)}, after it was killed")


def check_nothing_sent(evidence: Evidence) -> Iterator[Violation]:
    """Find requests of a process whose templates were wrong, or that never had its records."""
    for exchange in evidence.night.exchanges:
        story = evidence.story_of(exchange)
        if story is not None and (story.error or "").partition(":")[0] in evidence.night.fails_before_all:
            yield Violation(NOTHING_SENT, f"{_sent(exchange)}, but its run failed by {story.error}")


def check_bound(evidence: Evidence) -> Iterator[Violation]:
    """Find prompts for which a run paid too often, as far as the process of the last request could know.

    Attempts whose generation a crash or a stop has lost do not count: they were not this prompt's fault.
    """
    most = {run.run_id: run.max_paid_requests for run in evidence.night.runs}
    paid = defaultdict[tuple[str, str], list[KeptAttempt]](list)
    for attempt in evidence.rows.attempts:
        if is_paid(attempt) and attempt.generation_id in evidence.generations:
            paid[attempt.run_id, attempt.prompt_hash].append(attempt)
    for (run_id, prompt), attempts in sorted(paid.items()):
        count = max(
            1 + sum(_is_known(evidence, earlier, later) for earlier in attempts[:number])
            for number, later in enumerate(attempts)
        )
        if count > most.get(run_id, count):
            yield Violation(BOUND, f"run {run_id} paid {count} times for prompt {prompt[:12]}, and may {most[run_id]}")


def _is_known(evidence: Evidence, earlier: KeptAttempt, later: KeptAttempt) -> bool:
    """Whether a process could know an earlier attempt at its own one.

    If it took over the work, or what an expired lease had held, it knows only what was written by then.
    """
    opened, written = evidence.committed(later.id), evidence.committed(earlier.generation_id)
    taken = max((at for at in evidence.night.taken_at.get(later.lease_id or "", ()) if at <= opened), default=-math.inf)
    if earlier.lease_id == later.lease_id and evidence.committed(earlier.id) >= taken:
        return True
    stories = {each.lease_id: each for each in evidence.stories_of(later.run_id)}
    first, own = stories.get(earlier.lease_id), stories.get(later.lease_id)
    if first is None or own is None:
        return True
    began = evidence.committed(earlier.id)
    took_over = first.worker == own.worker or evidence.lost_lease(first.process, began, opened)
    return written <= (taken if took_over else opened)


def is_paid(attempt: KeptAttempt) -> bool:
    """Whether a request was answered or perhaps billed."""
    return (
        attempt.error_type is None
        or attempt.error_type in PERHAPS_BILLED
        or attempt.output_text is not None
        or attempt.input_tokens is not None
    )


def _sent(exchange: Exchange) -> str:
    return f"{exchange.process} sent exchange {exchange.number} at {exchange.at:.3f} s"


def _ended(at: float | None) -> str:
    return "while it worked on no run" if at is None else f"after its run was left at {at:.3f} s"
