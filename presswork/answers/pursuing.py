"""Pursue one prompt to its outcome, through retries, repairs and escalations.

Each request is an attempt. The journal stores it before it is sent, and settles it when it ends in any way. A retry
library retries temporary errors. A repair sends an invalid answer back with its faults; an escalation requests a
truncated answer with more tokens. One bound holds for all requests of a prompt that were answered or perhaps billed.
The caller passes in the gate (when to send) and the journal (where attempts are kept).
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

import stamina
import stamina.instrumentation

from db.machine import here, monotonic_s
from db.words import ABANDONED, CALL, FAILED, INVALID, NOT_SENT, PERHAPS_BILLED, RETRY, TRUNCATED, UNSENT, Kind
from presswork.answers.outcomes import Asking, Outcome, Policy, judge_answer
from presswork.claude.answers import Answer
from presswork.claude.endpoint_check import WrongEndpointError
from presswork.claude.rate_limits import RateLimits
from presswork.errors import CallError, PassingCallError, StoppingCallError
from presswork.output_classes.validate import Fault
from presswork.prices import PRICE_VERSION, Usage, cost_of
from presswork.prompts.render import Prompt

# The ledger has an attempt for each retry, so a log line would only repeat it.
stamina.instrumentation.set_on_retry_hooks(())


@dataclass(frozen=True, slots=True)
class Opened:
    """A request that is about to be sent. `changes` are its differences from the rendered prompt.

    `likely_cost_usd` is None if no price is known.
    """

    ordinal: int
    kind: Kind
    changes: Mapping[str, Any] | None
    likely_cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """The end of a request: an answer or an error."""

    ended_at: datetime
    latency_ms: int
    answer: Answer | None = None
    error: CallError | None = None
    faults: tuple[Fault, ...] = ()
    cost_usd: Decimal | None = None
    price_version: str | None = None
    error_type: str | None = None


_Answered = tuple[Answer, str, Settled]
"""An answer, its attempt's id, and its attempt's end."""


class Journal(Protocol):
    """The place where attempts are kept."""

    async def open(self, opened: Opened) -> str:
        """Store durably that a request is about to be sent, and return the attempt's id."""

    async def ready(self) -> None:
        """Wait until the journal allows the request. Raises CallError if it may no longer be sent."""

    def settle(self, attempt_id: str, settled: Settled) -> None:
        """Store the end of an attempt. It becomes durable with the next rows that are recorded."""


class Pass(Protocol):
    """A place among the requests in flight."""

    def tell(
        self, usage: Usage | None, limits: RateLimits | None, error: CallError | None, *, model: str | None = None
    ) -> None:
        """Report the request's usage, the endpoint's rate limits, and the model that answered."""


class Gate(Protocol):
    """Decides when a request may be sent. If the run was stopped, both methods raise the error that stopped it."""

    def reserve(
        self, prompt: Prompt, max_tokens: int, added_tokens: int
    ) -> AbstractAsyncContextManager[Decimal | None]:
        """Wait until a request's likely cost fits under the cap, and reserve it. None if its price is not known.

        `added_tokens` are those that a repair sends in addition to the prompt.
        """

    def enter(self, prompt: Prompt, max_tokens: int, likely: Decimal | None) -> AbstractAsyncContextManager[Pass]:
        """Wait for a place among the requests in flight. Leaving the context releases it."""


Ask = Callable[[Mapping[str, Any]], Awaitable[Answer]]
"""Sends one request and returns its answer, or raises CallError: a Client (presswork.claude) with its endpoint."""


async def answer_prompt(asking: Asking, *, ask: Ask, gate: Gate, journal: Journal, policy: Policy) -> Outcome:
    """Send a prompt's requests until there is an outcome; `asking` has the state after earlier tries of its chunk.

    Raises StoppingCallError if no request of the run can succeed. Any other error becomes an Outcome.
    """
    asking.kind = RETRY if asking.ordinal else CALL
    while True:
        try:
            answer, attempt_id, settled = await _ask_with_retries(asking, ask, gate, journal, policy)
        except StoppingCallError:
            raise
        except CallError as error:
            passing = isinstance(error, PassingCallError)
            is_spent = passing and asking.paid >= policy.paid_requests
            message = f"{error}. {_bound(policy)}" if is_spent else str(error)
            return Outcome(FAILED, None, error.kind, message, passing=passing and not is_spent)
        faults: tuple[Fault, ...] = ()
        try:
            outcome = judge_answer(asking.prompt, answer, asking.max_tokens)
            faults = outcome.faults
        except Exception as error:  # noqa: BLE001 - the boundary of one record: the others continue
            # A user's validators may raise any error.
            message = (
                f"The output class {asking.prompt.output_class.__name__} could not validate the answer: "
                f"{type(error).__name__}. The answer is kept in its attempt. Correct the class, then run again."
            )
            outcome = Outcome(INVALID, None, "unjudged", message)
        finally:
            # The answer is billed, even if it can't be judged.
            journal.settle(attempt_id, replace(settled, faults=faults))
        if not asking.ask_for_better(answer, outcome, policy):
            return outcome
        if asking.paid >= policy.paid_requests:
            what = "The answer was cut off" if outcome.status == TRUNCATED else outcome.error_message
            return replace(outcome, error_message=f"{what}. {_bound(policy)}")


def _bound(policy: Policy) -> str:
    return (
        f"It is not retried: {policy.paid_requests} requests for this prompt were answered or perhaps billed, the most "
        "that PRESSWORK_MAX_PAID_REQUESTS allows in one run."
    )


async def _ask_with_retries(asking: Asking, ask: Ask, gate: Gate, journal: Journal, policy: Policy) -> _Answered:
    try:
        return await _ask_once(asking, ask, gate, journal)
    except PassingCallError as error:
        first = error
    # The retry library starts only after an error: it would slow each request by a tenth, and nearly all succeed.
    async for attempt in stamina.retry_context(
        on=_pause(asking, policy), attempts=None, timeout=None, wait_initial=0.5, wait_max=policy.wait_max_s
    ):
        with attempt:
            if attempt.num == 1:
                raise first
            asking.kind = RETRY
            return await _ask_once(asking, ask, gate, journal)
    raise AssertionError("the retry loop ends by returning or raising")


async def _ask_once(asking: Asking, ask: Ask, gate: Gate, journal: Journal) -> _Answered:
    # Reserved before the attempt is stored: after a crash, every stored attempt counts under the cap, sent or not.
    async with gate.reserve(asking.prompt, asking.max_tokens, asking.added_tokens) as likely:
        asking.ordinal += 1
        attempt_id = await journal.open(Opened(asking.ordinal, asking.kind, asking.changes(), likely))
        sent: float | None = None
        answer: Answer | None = None
        try:
            # Checked before the gate, so that nothing waits that may not be sent, and again after the wait.
            await journal.ready()
            async with gate.enter(asking.prompt, asking.max_tokens, likely) as place:
                try:
                    await journal.ready()
                    sent = monotonic_s()
                    answer = await ask(asking.next_body())
                except CallError as error:
                    found = error.answer if isinstance(error, WrongEndpointError) else None
                    usage, model = (None, None) if found is None else (found.usage, found.model)
                    place.tell(usage, error.limits, error, model=model)
                    raise
                place.tell(answer.usage, answer.limits, None, model=answer.model)
        except BaseException as error:
            # Also if it is cancelled or the gate fails: an attempt that stays open would look like a crash.
            settled = _settled(asking.prompt, sent, answer, error)
            asking.paid += settled.answer is not None or settled.error_type in PERHAPS_BILLED
            journal.settle(attempt_id, settled)
            raise
        asking.paid += 1
        return answer, attempt_id, _settled(asking.prompt, sent, answer)


def _settled(prompt: Prompt, sent: float | None, answer: Answer | None, error: BaseException | None = None) -> Settled:
    # By the ledger's clock, as all rows: the price must be that of the day which the attempt's row shows.
    ended = here().ledger_clock.now()
    if isinstance(error, WrongEndpointError) and sent is not None:
        answer = error.answer
    error_type = error.kind if isinstance(error, CallError) else ABANDONED if answer is None else None
    if error is not None and sent is None:
        # While it waited, the run was stopped, or another run took over the prompt.
        error_type = NOT_SENT
    settled = Settled(
        ended,
        0 if sent is None else round((monotonic_s() - sent) * 1000),
        answer,
        # If this request was not sent, the error belongs to another request: its status and id are not this one's.
        error=error if isinstance(error, CallError) and sent is not None else None,
        error_type=error_type,
    )
    if answer is None or answer.usage is None:
        return settled
    # An answer that names no model is priced as the requested one.
    cost = cost_of(answer.model or prompt.model, answer.usage, ended.date())
    return replace(settled, cost_usd=cost, price_version=PRICE_VERSION)


def _pause(asking: Asking, policy: Policy) -> Callable[[Exception], bool | float]:
    """Return a function that decides whether an error is retried; it returns the seconds to wait if they are known."""
    tries, began = 0, monotonic_s()

    def pause(error: Exception) -> bool | float:
        nonlocal tries
        tries += 1
        if not isinstance(error, PassingCallError) or asking.paid >= policy.paid_requests:
            return False
        # Errors that cost nothing (429, no connection) are retried for a fixed time, with no limit on their number.
        costs_nothing = error.http_status == 429 or error.kind in UNSENT
        is_early = monotonic_s() - began < policy.retries * policy.wait_max_s
        if tries > policy.retries and not (costs_nothing and is_early):
            return False
        return True if error.retry_after_s is None else min(error.retry_after_s, policy.retry_after_cap_s)

    return pause
