"""Promise 1: no succeeded answer is paid for twice, except what a crash or a lost lease had not committed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tests.nights.promised.evidence import Evidence, Violation, covered
from tests.nights.promised.night_result import Interval, RunStory
from tests.nights.served.exchanges import Exchange

PAID_TWICE = "no succeeded answer is paid for twice"
LOST = "a kill loses at most what was in flight, and one commit window"
TOLD = "a run says which answers no disk took"
SAYS_SO = "Answers not saved before are lost"
"""What a run logs, or fails with, then (presswork/engine/resources/writer.py)."""
WINDOW = 3
"""Open prompts, as a multiple of the concurrency (presswork/engine/live.py)."""
PAUSE_S = 5.0
"""The longest pause between two tries to commit (presswork/engine/resources/writer.py)."""


def check_paid_once(evidence: Evidence) -> Iterator[Violation]:
    """Find requests that were billed although the ledger had, or should have had, a good answer to their prompt."""
    for prompt, served in evidence.exchanges_by_prompt.items():
        good = [each for each in served if each.good]
        for later in served:
            if later.cost_usd <= 0:
                continue
            for earlier in good:
                if (earlier.at, earlier.number) < (later.at, later.number) and not _is_excused(
                    evidence, earlier, later
                ):
                    yield Violation(PAID_TWICE, _said(evidence, prompt, earlier, later))
                    break


def check_lost_by_kills(evidence: Evidence) -> Iterator[Violation]:
    """Find answers that a killed process had read long enough before to commit them, or too many of them."""
    for process in evidence.night.processes:
        if process.died_at is None:
            continue
        lost = [each for each in evidence.night.exchanges if each.process == process.name and _is_lost(evidence, each)]
        for each in lost:
            if _waited(evidence, each, process.died_at) > _commit_window(evidence):
                yield Violation(
                    LOST,
                    f"{each.process} read request {each.request_id} (exchange {each.number}) at {each.ended_at:.3f} s, "
                    f"was killed at {process.died_at:.3f} s, and the answer was never committed",
                )
        most = WINDOW * max((run.concurrency for run in evidence.night.runs if run.process == process.name), default=0)
        if len(lost) > most:
            numbers = ", ".join(str(each.number) for each in lost)
            yield Violation(LOST, f"the kill of {process.name} lost {len(lost)} answers (exchanges {numbers})")


def check_told(evidence: Evidence) -> Iterator[Violation]:
    """Find processes that lost answers because no disk took them, and neither said so nor were killed at once."""
    lost: dict[str, float] = {}
    for request, at in evidence.night.unkept_at.items():
        exchange = evidence.exchanges_by_request.get(request)
        name = "" if exchange is None else exchange.process
        lost[name] = min(at, lost.get(name, at))
    for process, at in sorted(lost.items()):
        died = evidence.died(process)
        was_killed_at_once = died - at - evidence.unable(process, at, died) <= evidence.night.slack_s
        logged = any(f"{process} logs: " in line and SAYS_SO in line for line in evidence.night.logged)
        failed = any(run.process == process and SAYS_SO in (run.error or "") for run in evidence.night.runs)
        if not (logged or failed or was_killed_at_once):
            yield Violation(TOLD, f"{process} lost answers at {at:.3f} s, and did not say so")


def _is_lost(evidence: Evidence, exchange: Exchange) -> bool:
    """Whether a process had read an answer that was billed, and no attempt in the ledger has it."""
    was_read = exchange.delivered and exchange.ended_at is not None and exchange.request_id is not None
    unkept = exchange.request_id in evidence.night.unkept_at
    return was_read and exchange.cost_usd > 0 and not unkept and evidence.attempt_of(exchange) is None


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two requests for one prompt, the first of which was answered well."""

    evidence: Evidence
    earlier: Exchange
    later: Exchange


def _is_excused(evidence: Evidence, earlier: Exchange, later: Exchange) -> bool:
    pair = _Pair(evidence, earlier, later)
    if _is_other_variant(pair) or _refreshes(pair) or _is_refused(evidence, earlier) or _was_in_flight(pair):
        return True
    if evidence.night.unkept_at.get(earlier.request_id or "", math.inf) <= later.at:
        return True
    took_over = _lost_its_lease(pair) or _spilled(pair) or _was_superseded(pair) or _sent_unaware(evidence, earlier)
    if _committed(evidence, earlier) > later.at:
        return took_over or _never_came(pair) or _died_with_it(pair)
    # It was in the ledger. Only a process that looked before, because it had taken the prompt over, could not know.
    own = evidence.story_of(later)
    return took_over and own is not None and _committed(evidence, earlier) >= own.began_at


def _is_other_variant(pair: _Pair) -> bool:
    """Variants make the same request, and each wants its own answer."""
    first, second = pair.evidence.attempt_of(pair.earlier), pair.evidence.attempt_of(pair.later)
    return first is not None and second is not None and first.prompt_hash != second.prompt_hash


def _refreshes(pair: _Pair) -> bool:
    """A refresh requests again what was answered before it began; the runs that it resumes are part of it."""
    run = pair.evidence.story_of(pair.later)
    if run is None or not run.refresh:
        return False
    linked, following = set[str | None](), run.run_id
    while following is not None and following not in linked:
        linked.add(following)
        row = pair.evidence.runs.get(following)
        following = None if row is None else row.resumes_run_id
    began = [_began(pair.evidence, each) for each in pair.evidence.night.runs if each.run_id in linked and each.refresh]
    return pair.earlier.at < min(began) + pair.evidence.night.slack_s


def _began(evidence: Evidence, run: RunStory) -> float:
    """Return when a run began for the ledger: a process may freeze before it takes its lease."""
    return min(evidence.night.taken_at.get(run.lease_id or "", ()), default=run.began_at)


def _never_came(pair: _Pair) -> bool:
    """The answer did not reach its process, and that was clear before the later request."""
    earlier, evidence = pair.earlier, pair.evidence
    if earlier.delivered:
        return False
    # Claims are released shortly before a run is left.
    left = evidence.left(earlier) - evidence.night.slack_s
    over = min(_ended(earlier), earlier.at + evidence.night.request_timeout_s, left)
    return over <= pair.later.at


def _died_with_it(pair: _Pair) -> bool:
    return pair.evidence.died(pair.earlier.process) <= pair.later.at


def _lost_its_lease(pair: _Pair) -> bool:
    """The process could not renew its lease for so long that others could take over its claims."""
    return pair.evidence.lost_lease(pair.earlier.process, pair.earlier.at, pair.later.at)


def _spilled(pair: _Pair) -> bool:
    """Its process ended while it could not commit: the answer was in a spill file, and is imported by the next run."""
    evidence, earlier = pair.evidence, pair.earlier
    left = evidence.left(earlier)
    return left <= pair.later.at and evidence.without_ledger(earlier.process, earlier.at, left) > 0


def _was_superseded(pair: _Pair) -> bool:
    """Another process was started in its place, or its run was closed by the main process without it."""
    evidence, earlier = pair.evidence, pair.earlier
    own = evidence.story_of(earlier)
    if own is None:
        return False
    others = [each for each in evidence.night.runs if each.run_id == own.run_id and each.process != own.process]
    # A process that froze before it took its lease takes the place of one that began after it.
    began = any(each.worker == own.worker and own.began_at <= each.began_at <= pair.later.at for each in others)
    # Its lease tells it too: a process that is killed as soon as it has taken the place leaves nothing else.
    left = math.inf if own.ended_at is None else own.ended_at - evidence.night.slack_s
    let_go = [at for at in evidence.night.let_go_at.get(own.lease_id or "", ()) if at < left]
    replaced = began or any(earlier.at <= at <= pair.later.at for at in (*_superseding(evidence, own), *let_go))
    closed = own.worker != "main" and any(
        each.worker == "main" and each.ended_at is not None and each.ended_at <= pair.later.at for each in others
    )
    return replaced or closed


def _was_in_flight(pair: _Pair) -> bool:
    """The later request was sent by a process that did not know yet that another had taken its place, and asks now."""
    own = pair.evidence.story_of(pair.later)
    if own is None or not _sent_unaware(pair.evidence, pair.later):
        return False
    return min(_superseding(pair.evidence, own)) < pair.earlier.at


def _sent_unaware(evidence: Evidence, exchange: Exchange) -> bool:
    """Whether a request was sent after another process had taken its place, of which no heartbeat had told it.

    Its attempt was committed before. No request is sent if the heartbeat was not confirmed for half a lease.
    """
    night, own = evidence.night, evidence.story_of(exchange)
    if own is None:
        return False
    attempt = evidence.attempt_of(exchange)
    opened = [
        evidence.committed(each.id)
        for each in evidence.rows.attempts
        # An attempt that was cut off does not name its request.
        if each is attempt or (attempt is None and each.request_id is None)
        if each.prompt_hash == evidence.prompt_of(exchange) and evidence.committed(each.id) <= exchange.at
    ]
    taken = min(_superseding(evidence, own), default=math.inf)
    hindered = evidence.unable(exchange.process, taken, exchange.at)
    unaware = min(night.heartbeat_s + hindered, night.lease_s / 2) + night.slack_s
    return min(opened, default=math.inf) <= taken <= exchange.at <= taken + unaware


def _superseding(evidence: Evidence, own: RunStory) -> Iterator[float]:
    """Yield when other processes took a process's place in its run."""
    for other in evidence.night.runs:
        if (other.run_id, other.worker) == (own.run_id, own.worker) and other.process != own.process:
            taken = evidence.night.taken_at.get(other.lease_id or "", ())
            yield from (at for at in taken if at >= max(own.began_at, other.began_at))


def _is_refused(evidence: Evidence, exchange: Exchange) -> bool:
    """The ledger refused the row with the answer."""
    attempt = evidence.attempt_of(exchange)
    if attempt is None:
        return False
    row = evidence.generations.get(attempt.generation_id)
    refused = {attempt.id, attempt.generation_id} & evidence.night.refused_ids
    return bool(refused) or (row is not None and row.error_kind == "refused_by_ledger")


def _committed(evidence: Evidence, exchange: Exchange) -> float:
    """Return when the answer became visible as content; infinity if never."""
    attempt = evidence.attempt_of(exchange)
    if attempt is None:
        return math.inf
    row = evidence.generations.get(attempt.generation_id)
    return math.inf if row is None else evidence.committed(row.id)


def _ended(exchange: Exchange) -> float:
    return math.inf if exchange.ended_at is None else exchange.ended_at


def _waited(evidence: Evidence, exchange: Exchange, until: float) -> float:
    """Return for how long an answer could have been committed, without the time in which nothing could."""
    since = _ended(exchange)
    story = evidence.processes[exchange.process]
    hindered: list[Interval] = [
        *story.frozen,
        *story.held_up,
        *((begin, end + PAUSE_S) for begin, end in story.partitioned),
    ]
    return until - since - covered(hindered, since, until)


def _commit_window(evidence: Evidence) -> float:
    """Return how long an answer waits for its commit: for the open batch, and for the one that is being committed."""
    return 2 * evidence.night.commit_interval_s + evidence.night.slack_s


def _said(evidence: Evidence, prompt: str, earlier: Exchange, later: Exchange) -> str:
    committed = _committed(evidence, earlier)
    known = "never committed" if committed == math.inf else f"committed at {committed:.3f} s"
    return (
        f"prompt {prompt[:12]}: {later.process} sent exchange {later.number} at {later.at:.3f} s "
        f"(${later.cost_usd}), but {earlier.process} had a good answer by exchange {earlier.number}, "
        f"sent at {earlier.at:.3f} s, {known}"
    )
