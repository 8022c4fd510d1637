"""The ledger has what the endpoint billed: each answer once, with its tokens and price; the rest as perhaps billed."""

import math
from collections import Counter
from collections.abc import Iterator

from tests.nights.promised.evidence import PERHAPS_BILLED, Evidence, Violation
from tests.nights.promised.ledger_rows import KeptAttempt, units
from tests.nights.served.exchanges import Exchange

SETTLED = "each answer that arrived is in the ledger once, with its tokens and its price"
SERVED = "each answer in the ledger was served"
PERHAPS = "what was billed and did not arrive is perhaps billed, with its likely price"
_TOKENS = (
    *("input_tokens", "output_tokens", "cache_creation_5m_tokens", "cache_creation_1h_tokens", "cache_read_tokens"),
)


def check_settled(evidence: Evidence) -> Iterator[Violation]:
    """Find answers that arrived and are missing, there twice, or there with other figures."""
    for exchange in evidence.night.exchanges:
        if exchange.request_id is None or not exchange.delivered:
            continue
        attempts = evidence.attempts_by_request.get(exchange.request_id, ())
        if len(attempts) != 1 and not (not attempts and _may_be_missing(evidence, exchange)):
            ids = [each.id for each in attempts]
            yield Violation(SETTLED, f"{_named(exchange)}: its attempts are {ids}")
        for attempt in attempts[:1]:
            if wrong := _wrong_figures(exchange, attempt):
                yield Violation(SETTLED, f"{_named(exchange)}, attempt {attempt.id}: {wrong}")


def check_served(evidence: Evidence) -> Iterator[Violation]:
    """Find attempts with an answer or usage that no exchange of their prompt gave."""
    for attempt in evidence.rows.attempts:
        if attempt.input_tokens is None and attempt.output_text is None:
            continue
        exchange = evidence.exchanges_by_request.get(attempt.request_id or "")
        if exchange is None or exchange.usage is None:
            yield Violation(SERVED, f"attempt {attempt.id} has an answer of request {attempt.request_id}, served: none")
        elif exchange.text is not None and attempt.output_text != exchange.text:
            yield Violation(SERVED, f"attempt {attempt.id} has another text than {_named(exchange)}")


def check_perhaps_billed(evidence: Evidence) -> Iterator[Violation]:
    """Find billed requests that the ledger neither knows nor takes for perhaps billed."""
    lost = Counter(
        evidence.prompt_of(each)
        for each in evidence.night.exchanges
        if each.cost_usd > 0 and evidence.attempt_of(each) is None
    )
    perhaps = Counter(
        each.prompt_hash
        for each in evidence.rows.attempts
        if each.request_id is None and (each.error_type in PERHAPS_BILLED or each.ended_at is None)
    )
    for prompt, count in sorted(lost.items()):
        if perhaps[prompt] < count:
            yield Violation(
                PERHAPS, f"prompt {prompt[:12]}: {count} billed without an answer, {perhaps[prompt]} perhaps"
            )
    for exchange in evidence.night.exchanges:
        attempt = evidence.attempt_of(exchange)
        if exchange.cost_usd > 0 and attempt is not None and not _counts_it(attempt):
            yield Violation(PERHAPS, f"{_named(exchange)} was billed, and attempt {attempt.id} is {attempt.error_type}")
    for attempt in evidence.rows.attempts:
        if attempt.error_type in PERHAPS_BILLED and attempt.likely_cost_usd is None:
            yield Violation(PERHAPS, f"attempt {attempt.id} is perhaps billed, and its likely price is unknown")


def _may_be_missing(evidence: Evidence, exchange: Exchange) -> bool:
    """Its process was killed before the commit, which check_lost_by_kills judges; or the ledger refused the row.

    Or neither the ledger nor a disk took it, which the product says.
    """
    if evidence.died(exchange.process) < math.inf or exchange.request_id in evidence.night.unkept_at:
        return True
    of_prompt = {each.id for each in evidence.rows.attempts if each.prompt_hash == evidence.prompt_of(exchange)}
    return bool(of_prompt & evidence.night.refused_ids)


def _wrong_figures(exchange: Exchange, attempt: KeptAttempt) -> str:
    """Return what differs between an answer and its attempt; empty if nothing does."""
    if exchange.usage is None or exchange.text is None:
        # Nothing that could be read, or an error.
        return "" if attempt.input_tokens is None and attempt.error_type is not None else "it has no such answer"
    if not exchange.tells_usage:
        return ""
    wrong = [
        f"{name} {getattr(attempt, name)} instead of {getattr(exchange.usage, name)}"
        for name in _TOKENS
        if getattr(attempt, name) != getattr(exchange.usage, name)
    ]
    if attempt.cost_usd != units(exchange.cost_usd):
        wrong.append(f"cost {attempt.cost_usd} instead of {units(exchange.cost_usd)} (1e-10 USD)")
    return ", ".join(wrong)


def _counts_it(attempt: KeptAttempt) -> bool:
    """Whether an attempt is counted as answered or as perhaps billed."""
    return attempt.error_type is None or attempt.error_type in PERHAPS_BILLED or attempt.input_tokens is not None


def _named(exchange: Exchange) -> str:
    return f"exchange {exchange.number} of {exchange.process} (request {exchange.request_id})"
