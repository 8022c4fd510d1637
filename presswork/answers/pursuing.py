"""Pursue one prompt to its outcome, through retries, repairs and escalations.

Each request is an attempt: told to the journal before it is sent, and settled when it ended, whatever the end.
Trouble that may pass is asked again by a retry library; an invalid answer is asked again with what was wrong, a
truncated one with more room. One bound holds for all requests for a prompt that were paid for, or may have been. Who
may send now (the gate) and where attempts are kept (the journal) is handed in.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

import stamina
import stamina.instrumentation

from db.words import ABANDONED, CALL, FAILED, INVALID, NOT_SENT, PERHAPS_BILLED, RETRY, TRUNCATED, UNSENT, Kind
from presswork.answers.outcomes import Asking, Outcome, Policy, judge_answer
from presswork.claude.answers import Answer
from presswork.claude.client import WrongEndpointError
from presswork.claude.rate_limits import RateLimits
from presswork.errors import CallError, PassingCallError, StoppingCallError
from presswork.output_classes.validate import Fault
from presswork.prices import PRICE_VERSION, Usage, cost_of
from presswork.prompts.render import Prompt

# Each retry is an attempt in the ledger; a log line for each would repeat it.
stamina.instrumentation.set_on_retry_hooks(())


@dataclass(frozen=True, slots=True)
class Opened:
    """A request that is about to be sent; `changes` are what differs from the prompt as it was rendered.

    `likely_cost_usd` is None where no price is known.
    """

    ordinal: int
    kind: Kind
    changes: Mapping[str, Any] | None
    likely_cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """How a request ended: with an answer, or an error."""

    ended_at: datetime
    latency_ms: int
    answer: Answer | None = None
    error: CallError | None = None
    faults: tuple[Fault, ...] = ()
    cost_usd: Decimal | None = None
    price_version: str | None = None
    error_type: str | None = None


_Answered = tuple[Answer, str, Settled]
"""An answer, the id of its attempt, and how this ended."""


class Journal(Protocol):
    """Where attempts are kept."""

    async def open(self, opened: Opened) -> str:
        """Keep a request that is about to be sent, durably, and return its id."""

    async def ready(self) -> None:
        """Wait until it may be sent, as far as the keeper of attempts goes; CallError where it may not any more."""

    def settle(self, attempt_id: str, settled: Settled) -> None:
        """Keep how it ended; durable together with what is recorded after it."""


class Pass(Protocol):
    """A place among the requests in flight."""

    def tell(
        self, usage: Usage | None, limits: RateLimits | None, error: CallError | None, *, model: str | None = None
    ) -> None:
        """Say what the request used, what the endpoint said of its limits, and which model answered."""


class Gate(Protocol):
    """Decides when a request may be sent. Both raise what stopped the run, if it was stopped."""

    def reserve(self, prompt: Prompt, max_tokens: int) -> AbstractAsyncContextManager[Decimal | None]:
        """Wait until a request's likely cost fits under the cap, and keep it free; None: its price is not known."""

    def enter(self, prompt: Prompt, max_tokens: int, likely: Decimal | None) -> AbstractAsyncContextManager[Pass]:
        """Wait for a place; leaving the context gives it back."""


Ask = Callable[[Mapping[str, Any]], Awaitable[Answer]]
"""Sends one request and returns its answer, or raises CallError; a Client (presswork.claude) and its endpoint."""


async def answer_prompt(asking: Asking, *, ask: Ask, gate: Gate, journal: Journal, policy: Policy) -> Outcome:
    """Ask for a prompt until there is an outcome; `asking` goes on where an earlier try of its chunk left it.

    Raises StoppingCallError where no request of the run can succeed; whatever else the endpoint says is an Outcome.
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
            told = f"{error}. {_bound(policy)}" if is_spent else str(error)
            return Outcome(FAILED, None, error.kind, told, passing=passing and not is_spent)
        faults: tuple[Fault, ...] = ()
        try:
            outcome = judge_answer(asking.prompt, answer, asking.max_tokens)
            faults = outcome.faults
        except Exception as error:  # noqa: BLE001 - the boundary of one record: the others go on
            # A user's validators may fail in any way.
            message = (
                f"The answer could not be judged by {asking.prompt.output_class.__name__}: {type(error).__name__}. It "
                "is kept in its attempt. Correct the output class, then run again."
            )
            outcome = Outcome(INVALID, None, "unjudged", message)
        finally:
            # It is paid for, whatever the judgement comes to.
            journal.settle(attempt_id, replace(settled, faults=faults))
        if not asking.ask_for_better(answer, outcome, policy):
            return outcome
        if asking.paid >= policy.paid_requests:
            what = "The answer was cut off" if outcome.status == TRUNCATED else outcome.error_message
            return replace(outcome, error_message=f"{what}. {_bound(policy)}")


def _bound(policy: Policy) -> str:
    return (
        f"It is not asked again: {policy.paid_requests} requests for this prompt were billed or may have been, as many "
        "as PRESSWORK_MAX_PAID_REQUESTS allows in one run."
    )


async def _ask_with_retries(asking: Asking, ask: Ask, gate: Gate, journal: Journal, policy: Policy) -> _Answered:
    try:
        return await _ask_once(asking, ask, gate, journal)
    except PassingCallError as error:
        first = error
    # The library comes in where there is trouble: nearly all requests have none, and it costs them a tenth of theirs.
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
    # Reserved before it is written ahead: after a crash all that was written counts under the cap, sent or not.
    async with gate.reserve(asking.prompt, asking.max_tokens) as likely:
        asking.ordinal += 1
        attempt_id = await journal.open(Opened(asking.ordinal, asking.kind, asking.changes(), likely))
        sent: float | None = None
        answer: Answer | None = None
        try:
            # Before it waits in the gate, for nothing if it may not be sent, and after: that can take long.
            await journal.ready()
            async with gate.enter(asking.prompt, asking.max_tokens, likely) as place:
                try:
                    await journal.ready()
                    sent = time.perf_counter()
                    answer = await ask(asking.next_body())
                except CallError as error:
                    found = error.answer if isinstance(error, WrongEndpointError) else None
                    usage, model = (None, None) if found is None else (found.usage, found.model)
                    place.tell(usage, error.limits, error, model=model)
                    raise
                place.tell(answer.usage, answer.limits, None, model=answer.model)
        except BaseException as error:
            # Also where it is cancelled, or the gate fails: an attempt that stays open would pass for a crash.
            settled = _settled(asking.prompt, sent, answer, error)
            asking.paid += settled.answer is not None or settled.error_type in PERHAPS_BILLED
            journal.settle(attempt_id, settled)
            raise
        asking.paid += 1
        return answer, attempt_id, _settled(asking.prompt, sent, answer)


def _settled(prompt: Prompt, sent: float | None, answer: Answer | None, error: BaseException | None = None) -> Settled:
    ended = datetime.now(UTC)
    if isinstance(error, WrongEndpointError) and sent is not None:
        answer = error.answer
    error_type = error.kind if isinstance(error, CallError) else ABANDONED if answer is None else None
    if error is not None and sent is None:
        # The run was stopped, or the prompt became another run's, while this one still waited.
        error_type = NOT_SENT
    settled = Settled(
        ended,
        0 if sent is None else round((time.perf_counter() - sent) * 1000),
        answer,
        # What a request that was never sent is told is the answer to another: its status and its id are not this one's.
        error=error if isinstance(error, CallError) and sent is not None else None,
        error_type=error_type,
    )
    if answer is None or answer.usage is None:
        return settled
    # An answer that names no model is priced as the one that was asked.
    cost = cost_of(answer.model or prompt.model, answer.usage, ended.date())
    return replace(settled, cost_usd=cost, price_version=PRICE_VERSION)


def _pause(asking: Asking, policy: Policy) -> Callable[[Exception], bool | float]:
    """Return what says whether a request is asked again after an error, and after how many seconds where it is told."""
    tries, began = 0, time.monotonic()

    def pause(error: Exception) -> bool | float:
        nonlocal tries
        tries += 1
        if not isinstance(error, PassingCallError) or asking.paid >= policy.paid_requests:
            return False
        # What costs nothing (429, no connection) is retried for a while, however often that is.
        costs_nothing = error.http_status == 429 or error.kind in UNSENT
        is_early = time.monotonic() - began < policy.retries * policy.wait_max_s
        if tries > policy.retries and not (costs_nothing and is_early):
            return False
        return True if error.retry_after_s is None else min(error.retry_after_s, policy.retry_after_cap_s)

    return pause
