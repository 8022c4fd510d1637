"""Answer: one prompt is pursued to its outcome, through retries, repairs and escalations.

Each request is an attempt: told to the journal before it is sent, and settled when it ended, whatever the end.
Trouble that may pass is asked again by a retry library; an invalid answer is asked again with what was wrong, a
truncated one with more room. Who may send now (the gate) and where attempts are kept (the journal) is handed in.
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

from flows.errors import CallError, PassingCallError, StoppingCallError
from flows.steps.catalog import find_model, is_other_model, plain_model_name
from flows.steps.complete import Answer, RateLimits, WrongEndpointError
from flows.steps.prices import PRICE_VERSION, Usage, cost_of
from flows.steps.reading import cleaned
from flows.steps.render import Prompt, request_body
from flows.steps.validate import Content, Fault, Invalid, validate_answer

# Each retry is an attempt in the ledger; a log line for each would repeat it.
stamina.instrumentation.set_on_retry_hooks(())

Kind = Literal["call", "retry", "repair", "escalation"]
Status = Literal["succeeded", "invalid", "truncated", "refused", "failed", "skipped"]
ESCALATION = 2
"""How much more room a truncated answer gets each time it is asked again."""

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
    """How often what is asked again; `wait` bounds are seconds."""

    retries: int = 4
    repairs: int = 2
    escalations: int = 1
    wait_max_s: float = 20.0
    retry_after_cap_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A request that is about to be sent; `changes` are what differs from the prompt as it was rendered."""

    ordinal: int
    kind: Kind
    changes: Mapping[str, Any] | None


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

    def settle(self, attempt_id: str, settled: Settled) -> None:
        """Keep how it ended; durable together with what is recorded after it."""


class Pass(Protocol):
    """A place among the requests in flight."""

    def tell(self, usage: Usage | None, limits: RateLimits | None, error: CallError | None) -> None:
        """Say what the request used and what the endpoint said of its limits."""


class Gate(Protocol):
    """Decides when a request may be sent."""

    def enter(self, prompt: Prompt, max_tokens: int) -> AbstractAsyncContextManager[Pass]:
        """Wait for a place; leaving the context gives it back. Raises what stopped the run, if it was stopped."""


class Endpoint(Protocol):
    """Sends one request; flows.steps.complete.Client bound to an endpoint's name."""

    async def __call__(self, body: Mapping[str, Any]) -> Answer:
        """Return the answer or raise CallError."""


@dataclass
class _Pursuit:
    """The state of one prompt's pursuit: what the next request will say."""

    prompt: Prompt
    ordinal: int
    kind: Kind = "call"
    max_tokens: int = 0
    turns: tuple[dict[str, str], ...] = ()
    repairs: int = 0
    escalations: int = 0

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


async def answer_prompt(
    prompt: Prompt,
    *,
    ask: Endpoint,
    gate: Gate,
    journal: Journal,
    policy: Policy,
    attempts_before: int = 0,
) -> Outcome:
    """Pursue a prompt to its outcome.

    `attempts_before` is how many attempts it already has, from an earlier try of its chunk. Raises
    StoppingCallError where no request of the run can succeed; whatever else the endpoint says is an Outcome.
    """
    kind: Kind = "retry" if attempts_before else "call"
    pursuit = _Pursuit(prompt, ordinal=attempts_before, kind=kind, max_tokens=prompt.max_tokens)
    while True:
        try:
            answer, attempt_id, settled = await _ask_with_retries(pursuit, ask, gate, journal, policy)
        except StoppingCallError:
            raise
        except CallError as error:
            return Outcome("failed", None, error.kind, str(error), passing=isinstance(error, PassingCallError))
        faults: tuple[Fault, ...] = ()
        try:
            outcome, faults = _judge(pursuit, answer, policy)
        except Exception as error:  # noqa: BLE001 - the boundary of one record: the others go on
            outcome = _unjudged(prompt, error)
        finally:
            # It is paid for, whatever the judgement comes to.
            journal.settle(attempt_id, replace(settled, faults=faults))
        if outcome is not None:
            return outcome


async def _ask_with_retries(
    pursuit: _Pursuit, ask: Endpoint, gate: Gate, journal: Journal, policy: Policy
) -> tuple[Answer, str, Settled]:
    try:
        return await _ask_once(pursuit, ask, gate, journal)
    except PassingCallError as error:
        first = error
    # The library comes in where there is trouble: nearly all requests have none, and it costs them a tenth of theirs.
    async for attempt in stamina.retry_context(
        on=_pause(policy),
        attempts=policy.retries + 1,
        timeout=None,
        wait_initial=0.5,
        wait_max=policy.wait_max_s,
        wait_jitter=1.0,
    ):
        with attempt:
            if attempt.num == 1:
                raise first
            pursuit.kind = "retry"
            return await _ask_once(pursuit, ask, gate, journal)
    raise AssertionError("the retry loop ends by returning or raising")


async def _ask_once(pursuit: _Pursuit, ask: Endpoint, gate: Gate, journal: Journal) -> tuple[Answer, str, Settled]:
    pursuit.ordinal += 1
    attempt_id = await journal.open(Opened(pursuit.ordinal, pursuit.kind, pursuit.changes()))
    sent: float | None = None
    answer: Answer | None = None
    try:
        async with gate.enter(pursuit.prompt, pursuit.max_tokens) as place:
            sent = time.perf_counter()
            try:
                answer = await ask(pursuit.next_body())
            except CallError as error:
                place.tell(_usage(error), error.limits, error)
                raise
            place.tell(answer.usage, answer.limits, None)
    except BaseException as error:
        # Also where it is cancelled, or the gate fails: an attempt that stays open would pass for a crash.
        journal.settle(attempt_id, _settled(pursuit.prompt, sent, answer, error))
        raise
    return answer, attempt_id, _settled(pursuit.prompt, sent, answer)


def _settled(prompt: Prompt, sent: float | None, answer: Answer | None, error: BaseException | None = None) -> Settled:
    ended = _now()
    if isinstance(error, WrongEndpointError):
        answer = error.answer
    settled = Settled(
        ended,
        _since(sent),
        answer,
        error=error if isinstance(error, CallError) else None,
        error_type=_error_type(sent, answer, error),
    )
    if answer is None or answer.usage is None:
        return settled
    # An answer that names no model is priced as the one that was asked.
    cost = cost_of(answer.model or prompt.model, answer.usage, ended.date())
    return replace(settled, cost_usd=cost, price_version=PRICE_VERSION)


def _error_type(sent: float | None, answer: Answer | None, error: BaseException | None) -> str | None:
    if error is not None and sent is None:
        # What stopped the run while this one still waited.
        return "not_sent"
    if isinstance(error, CallError):
        return error.kind
    return None if answer is not None else "abandoned"


def _usage(error: CallError) -> Usage | None:
    return error.answer.usage if isinstance(error, WrongEndpointError) and error.answer is not None else None


def _judge(pursuit: _Pursuit, answer: Answer, policy: Policy) -> tuple[Outcome | None, tuple[Fault, ...]]:
    """Decide what an answer is worth: an outcome, or None where the pursuit goes on with another request."""
    if _is_wrong_model(pursuit.prompt, answer.model):
        return _wrong_model(pursuit.prompt, answer.model), ()
    meant = MEANT.get(answer.stop_reason, answer.stop_reason) if answer.stop_reason else None
    if meant in TRUNCATED:
        return _truncated(pursuit, meant, policy), ()
    if meant == "refusal":
        kind = f"refusal:{answer.refusal}" if answer.refusal else "refusal"
        message = f"The model refused to answer (category: {answer.refusal or 'not given'})."
        return Outcome("refused", None, kind, message), ()
    judged = None if meant in UNFINISHED else validate_answer(pursuit.prompt.output_class, answer.text)
    if isinstance(judged, Content):
        # Whole and valid, also where the stop reason is none that is known here, or none is told.
        return Outcome("succeeded", judged), ()
    if judged is None or (meant is not None and meant not in SUCCEEDED):
        message = f"The answer stopped for {answer.stop_reason!r}, which a request without tools should not."
        return Outcome("failed", None, "unexpected_stop_reason", message), ()
    if pursuit.repairs >= policy.repairs:
        return Outcome("invalid", None, "validation", str(judged)), judged.faults
    pursuit.repairs += 1
    pursuit.kind = "repair"
    pursuit.turns = _repair_turns(answer, judged)
    return None, judged.faults


def _unjudged(prompt: Prompt, error: Exception) -> Outcome:
    message = (
        f"The answer could not be judged by {prompt.output_class.__name__}: {type(error).__name__}. It is kept in its "
        "attempt. Correct the output class, then run again."
    )
    return Outcome("invalid", None, "unjudged", message)


def _is_wrong_model(prompt: Prompt, answered: str | None) -> bool:
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


def _truncated(pursuit: _Pursuit, stop_reason: str, policy: Policy) -> Outcome | None:
    model = find_model(pursuit.prompt.model)
    most = model.max_output if model else pursuit.max_tokens * ESCALATION
    room = min(pursuit.max_tokens * ESCALATION, most)
    if stop_reason != "max_tokens":
        message = "Prompt and answer together are longer than the model's context; shorten the record or the prompt."
        return Outcome("truncated", None, stop_reason, message)
    if pursuit.escalations >= policy.escalations or room <= pursuit.max_tokens:
        message = f"The answer was cut off at {pursuit.max_tokens:,} tokens; raise max_tokens in the template."
        return Outcome("truncated", None, "max_tokens", message)
    pursuit.escalations += 1
    pursuit.kind = "escalation"
    pursuit.max_tokens = room
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


def _pause(policy: Policy) -> Callable[[Exception], bool | float]:
    def pause(error: Exception) -> bool | float:
        if not isinstance(error, PassingCallError):
            return False
        if error.retry_after_s is not None:
            return min(error.retry_after_s, policy.retry_after_cap_s)
        return True

    return pause


def _now() -> datetime:
    return datetime.now(UTC)


def _since(sent: float | None) -> int:
    return 0 if sent is None else round((time.perf_counter() - sent) * 1000)
