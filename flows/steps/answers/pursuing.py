"""Answer: one prompt is pursued to its outcome, through retries, repairs and escalations.

Each request is an attempt: told to the journal before it is sent, and settled when it ended, whatever the end.
Trouble that may pass is asked again by a retry library; an invalid answer is asked again with what was wrong, a
truncated one with more room. One bound holds for all requests for a prompt that were paid for, or may have been. Who
may send now (the gate) and where attempts are kept (the journal) is handed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, Protocol

import stamina
import stamina.instrumentation

from db.words import PERHAPS_BILLED, UNSENT
from flows.errors import CallError, PassingCallError, StoppingCallError
from flows.steps.answers.validate import Content, Fault, Invalid, validate_answer
from flows.steps.catalog import find_model, is_other_model, plain_model_name
from flows.steps.claude.bodies import cleaned
from flows.steps.claude.client import Answer, RateLimits, WrongEndpointError
from flows.steps.prices import PRICE_VERSION, Usage, cost_of
from flows.steps.prompts.render import Prompt, request_body

# Each retry is an attempt in the ledger; a log line for each would repeat it.
stamina.instrumentation.set_on_retry_hooks(())

Kind = Literal["call", "retry", "repair", "escalation"]
Status = Literal["succeeded", "invalid", "truncated", "refused", "failed", "skipped"]
ESCALATION = 2
"""How much more room a truncated answer gets each time it is asked again."""

RATE_LIMITED = 429
SUCCEEDED = frozenset({"end_turn", "stop_sequence"})
TRUNCATED = frozenset({"max_tokens", "model_context_window_exceeded"})
UNFINISHED = frozenset({"tool_use", "pause_turn"})
MEANT = {
    "stop": "end_turn",
    "eos": "end_turn",
    "length": "max_tokens",
    "content_filter": "refusal",
    "safety": "refusal",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
}
"""Stop reasons as gateways to other APIs tell them, and what the Messages API calls the same."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How often what is asked again; `wait` bounds are seconds.

    `paid_requests` bounds the requests for one prompt in a run that were answered or perhaps billed.
    """

    retries: int = 4
    repairs: int = 2
    escalations: int = 1
    wait_max_s: float = 20.0
    retry_after_cap_s: float = 60.0
    paid_requests: int = 8

    @property
    def unpaid_s(self) -> float:
        """How long what costs nothing (429, no connection) is retried within a request, however often that is."""
        return self.retries * self.wait_max_s


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a prompt. `passing` says that a failure may not last, so that it is worth another try later."""

    status: Status
    content: Content | None = None
    error_kind: str | None = None
    error_message: str | None = None
    passing: bool = False


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


class Endpoint(Protocol):
    """Sends one request; flows.steps.claude.client.Client bound to an endpoint's name."""

    async def __call__(self, body: Mapping[str, Any]) -> Answer:
        """Return the answer or raise CallError."""


@dataclass(slots=True)
class Asking:
    """How far the asking for one prompt is in this run: what the next request will say, and what was asked so far.

    It outlives a try of the prompt's chunk, so that each bound holds for all tries together. `paid` counts requests
    that were answered or perhaps billed. `max_output` is the longest answer that the endpoint says its model gives.
    """

    prompt: Prompt
    ordinal: int = 0
    kind: Kind = "call"
    max_tokens: int = 0
    turns: tuple[dict[str, str], ...] = ()
    repairs: int = 0
    escalations: int = 0
    paid: int = 0
    max_output: int | None = None

    def __post_init__(self) -> None:
        self.max_tokens = self.max_tokens or self.prompt.max_tokens

    def next_body(self) -> dict[str, Any]:
        """Build the request as it now is."""
        body = request_body(self.prompt)
        body["max_tokens"] = self.max_tokens
        body["messages"] = [*self.prompt.messages, *self.turns]
        return body

    def changes(self) -> dict[str, Any] | None:
        """What differs from the prompt as it was rendered."""
        changed: dict[str, Any] = {}
        if self.max_tokens != self.prompt.max_tokens:
            changed["max_tokens"] = self.max_tokens
        if self.turns:
            changed["messages"] = list(self.turns)
        return changed or None


async def answer_prompt(asking: Asking, *, ask: Endpoint, gate: Gate, journal: Journal, policy: Policy) -> Outcome:
    """Ask for a prompt until there is an outcome; `asking` goes on where an earlier try of its chunk left it.

    Raises StoppingCallError where no request of the run can succeed; whatever else the endpoint says is an Outcome.
    """
    asking.kind = "retry" if asking.ordinal else "call"
    while True:
        try:
            answer, attempt_id, settled = await _ask_with_retries(asking, ask, gate, journal, policy)
        except StoppingCallError:
            raise
        except CallError as error:
            return _failed(asking, error, policy)
        faults: tuple[Fault, ...] = ()
        try:
            outcome, faults = _judge(asking, answer, policy)
        except Exception as error:  # noqa: BLE001 - the boundary of one record: the others go on
            outcome = _unjudged(asking.prompt, error)
        finally:
            # It is paid for, whatever the judgement comes to.
            journal.settle(attempt_id, replace(settled, faults=faults))
        if outcome is None and asking.paid >= policy.paid_requests:
            outcome = _unfinished(asking, faults, policy)
        if outcome is not None:
            return outcome


def _failed(asking: Asking, error: CallError, policy: Policy) -> Outcome:
    if not isinstance(error, PassingCallError):
        return Outcome("failed", None, error.kind, str(error))
    if asking.paid < policy.paid_requests:
        return Outcome("failed", None, error.kind, str(error), passing=True)
    return Outcome("failed", None, error.kind, f"{error}. {_bound(policy)}")


def _unfinished(asking: Asking, faults: tuple[Fault, ...], policy: Policy) -> Outcome:
    """The outcome of a prompt whose last answer would be asked again, if the bound allowed it."""
    if asking.kind == "repair":
        return Outcome("invalid", None, "validation", f"{Invalid(faults)}. {_bound(policy)}")
    return Outcome("truncated", None, "max_tokens", f"The answer was cut off. {_bound(policy)}")


def _bound(policy: Policy) -> str:
    return (
        f"It is not asked again: {policy.paid_requests} requests for this prompt were billed or may have been, as many "
        "as PRESSWORK_MAX_PAID_REQUESTS allows in one run."
    )


async def _ask_with_retries(
    asking: Asking, ask: Endpoint, gate: Gate, journal: Journal, policy: Policy
) -> tuple[Answer, str, Settled]:
    try:
        return await _ask_once(asking, ask, gate, journal)
    except PassingCallError as error:
        first = error
    # The library comes in where there is trouble: nearly all requests have none, and it costs them a tenth of theirs.
    async for attempt in stamina.retry_context(
        on=_pause(asking, policy),
        attempts=None,
        timeout=None,
        wait_initial=0.5,
        wait_max=policy.wait_max_s,
        wait_jitter=1.0,
    ):
        with attempt:
            if attempt.num == 1:
                raise first
            asking.kind = "retry"
            return await _ask_once(asking, ask, gate, journal)
    raise AssertionError("the retry loop ends by returning or raising")


async def _ask_once(asking: Asking, ask: Endpoint, gate: Gate, journal: Journal) -> tuple[Answer, str, Settled]:
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
    ended = _now()
    if isinstance(error, WrongEndpointError):
        answer = error.answer
    settled = Settled(
        ended,
        _since(sent),
        answer,
        # What a request that was never sent is told is the answer to another: its status and its id are not this one's.
        error=error if isinstance(error, CallError) and sent is not None else None,
        error_type=_error_type(sent, answer, error),
    )
    if answer is None or answer.usage is None:
        return settled
    # An answer that names no model is priced as the one that was asked.
    cost = cost_of(answer.model or prompt.model, answer.usage, ended.date())
    return replace(settled, cost_usd=cost, price_version=PRICE_VERSION)


def _error_type(sent: float | None, answer: Answer | None, error: BaseException | None) -> str | None:
    if error is not None and sent is None:
        # The run was stopped, or the prompt became another run's, while this one still waited.
        return "not_sent"
    if isinstance(error, CallError):
        return error.kind
    return None if answer is not None else "abandoned"


def _judge(asking: Asking, answer: Answer, policy: Policy) -> tuple[Outcome | None, tuple[Fault, ...]]:
    """Decide what an answer is worth: an outcome, or None where the asking goes on with another request."""
    if is_wrong_model(asking.prompt, answer.model):
        return _wrong_model(asking.prompt, answer.model), ()
    meant = MEANT.get(answer.stop_reason, answer.stop_reason) if answer.stop_reason else None
    if meant in TRUNCATED:
        return _truncated(asking, meant, policy), ()
    if meant == "refusal":
        kind = f"refusal:{answer.refusal}" if answer.refusal else "refusal"
        message = f"The model refused to answer (category: {answer.refusal or 'not given'})."
        return Outcome("refused", None, kind, message), ()
    judged = None if meant in UNFINISHED else validate_answer(asking.prompt.output_class, answer.text)
    if isinstance(judged, Content):
        # Whole and valid, also where the stop reason is none that is known here, or none is told.
        return Outcome("succeeded", judged), ()
    if judged is None or (meant is not None and meant not in SUCCEEDED):
        message = f"The answer stopped for {answer.stop_reason!r}, which a request without tools should not."
        return Outcome("failed", None, "unexpected_stop_reason", message), ()
    if asking.repairs >= policy.repairs:
        return Outcome("invalid", None, "validation", str(judged)), judged.faults
    asking.repairs += 1
    asking.kind = "repair"
    asking.turns = _repair_turns(answer, judged)
    return None, judged.faults


def _unjudged(prompt: Prompt, error: Exception) -> Outcome:
    message = (
        f"The answer could not be judged by {prompt.output_class.__name__}: {type(error).__name__}. It is kept in its "
        "attempt. Correct the output class, then run again."
    )
    return Outcome("invalid", None, "unjudged", message)


def is_wrong_model(prompt: Prompt, answered: str | None) -> bool:
    """Whether another model answered than was asked, and the template does not accept it."""
    if answered is None or not is_other_model(prompt.model, answered):
        return False
    accepted = prompt.brief.template.front.accept_models
    return plain_model_name(answered) not in map(plain_model_name, accepted)


def _wrong_model(prompt: Prompt, answered: str | None) -> Outcome:
    message = (
        f"Another model answered than was asked: {answered!r}, not {prompt.model!r}. Correct the route in the gateway, "
        "or name the other model in the template's `accept_models`."
    )
    return Outcome("failed", None, "wrong_model", message)


def _truncated(asking: Asking, stop_reason: str, policy: Policy) -> Outcome | None:
    known = find_model(asking.prompt.model)
    more = asking.max_tokens * ESCALATION
    room = min(more, asking.max_output or (known.max_output if known else None) or more)
    if stop_reason != "max_tokens":
        message = "Prompt and answer together are longer than the model's context; shorten the record or the prompt."
        return Outcome("truncated", None, stop_reason, message)
    if asking.escalations >= policy.escalations or room <= asking.max_tokens:
        message = f"The answer was cut off at {asking.max_tokens:,} tokens; raise max_tokens in the template."
        return Outcome("truncated", None, "max_tokens", message)
    asking.escalations += 1
    asking.kind = "escalation"
    asking.max_tokens = room
    return None


def _repair_turns(answer: Answer, invalid: Invalid) -> tuple[dict[str, str], ...]:
    faults = "\n".join(f"- {fault.where or 'the whole answer'}: {fault.what}" for fault in invalid.faults)
    return (
        # The API takes no empty turn.
        {"role": "assistant", "content": cleaned(answer.text).strip() or "(no answer)"},
        {
            "role": "user",
            "content": f"That answer can't be used:\n{faults}\n\nAnswer again in full, with this put right and the "
            "rest as it was asked.",
        },
    )


def _pause(asking: Asking, policy: Policy) -> Callable[[Exception], bool | float]:
    """Return what says whether a request is asked again after an error, and after how many seconds where it is told."""
    tries, began = 0, time.monotonic()

    def pause(error: Exception) -> bool | float:
        nonlocal tries
        tries += 1
        if not isinstance(error, PassingCallError) or asking.paid >= policy.paid_requests:
            return False
        if tries > policy.retries and not (_costs_nothing(error) and time.monotonic() - began < policy.unpaid_s):
            return False
        if error.retry_after_s is not None:
            return min(error.retry_after_s, policy.retry_after_cap_s)
        return True

    return pause


def _costs_nothing(error: CallError) -> bool:
    return error.http_status == RATE_LIMITED or error.kind in UNSENT


def _now() -> datetime:
    return datetime.now(UTC)


def _since(sent: float | None) -> int:
    return 0 if sent is None else round((time.perf_counter() - sent) * 1000)
