"""Judge what an answer is worth, and keep how far the asking for one prompt is: what may bring a better answer.

An answer is judged as if it were the last: its outcome is the prompt's where nobody asks again. What the next request
says, and how often one may be sent, stands in `Asking`.
"""

from dataclasses import dataclass
from typing import Any

from db import words
from presswork.catalog import find_model, is_other_model, plain_model_name
from presswork.claude.answers import Answer, cleaned
from presswork.output_classes.validate import Content, Fault, validate_answer
from presswork.prompts.render import Prompt, request_body

VALIDATION = "validation"
MAX_TOKENS = "max_tokens"
REFUSAL = "refusal"
MORE_ROOM = 2
"""How many times the room a truncated answer gets each time it is asked again."""
WHOLE = frozenset({"end_turn", "stop_sequence"})
UNFINISHED_REASONS = frozenset({"tool_use", "pause_turn"})
MEANT = {
    "stop": "end_turn",
    "eos": "end_turn",
    "length": MAX_TOKENS,
    "content_filter": REFUSAL,
    "safety": REFUSAL,
    "tool_calls": "tool_use",
    "function_call": "tool_use",
}
"""Stop reasons as gateways to other APIs tell them, and what the Messages API calls the same."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a prompt. `passing` says that a failure may not last, so that it is worth another try later.

    `faults` are what is wrong with an invalid answer.
    """

    status: words.Status
    content: Content | None = None
    error_kind: str | None = None
    error_message: str | None = None
    passing: bool = False
    faults: tuple[Fault, ...] = ()


def judge_answer(prompt: Prompt, answer: Answer, max_tokens: int) -> Outcome:
    """Return the outcome that an answer is; `max_tokens` is the room that it had."""
    if is_wrong_model(prompt, answer.model):
        message = (
            f"Another model answered than was asked: {answer.model!r}, not {prompt.model!r}. Correct the route in the "
            "gateway, or name the other model in the template's `accept_models`."
        )
        return Outcome(words.FAILED, None, words.WRONG_MODEL, message)
    meant = MEANT.get(answer.stop_reason, answer.stop_reason) if answer.stop_reason else None
    match meant:
        case "max_tokens":
            message = f"The answer was cut off at {max_tokens:,} tokens; raise max_tokens in the template."
            return Outcome(words.TRUNCATED, None, meant, message)
        case "model_context_window_exceeded":
            what = "Prompt and answer together are longer than the model's context"
            return Outcome(words.TRUNCATED, None, meant, f"{what}; shorten the record or the prompt.")
        case "refusal":
            kind = f"refusal:{answer.refusal}" if answer.refusal else meant
            message = f"The model refused to answer (category: {answer.refusal or 'not given'})."
            return Outcome(words.REFUSED, None, kind, message)
    judged = None if meant in UNFINISHED_REASONS else validate_answer(prompt.output_class, answer.text)
    if isinstance(judged, Content):
        # Whole and valid, also where the stop reason is none that is known here, or none is told.
        return Outcome(words.SUCCEEDED, judged)
    if judged is None or (meant is not None and meant not in WHOLE):
        message = f"The answer stopped for {answer.stop_reason!r}, which a request without tools should not."
        return Outcome(words.FAILED, None, "unexpected_stop_reason", message)
    return Outcome(words.INVALID, None, VALIDATION, str(judged), faults=judged.faults)


def is_wrong_model(prompt: Prompt, answered: str | None) -> bool:
    """Whether another model answered than was asked, and the template does not accept it."""
    if answered is None or not is_other_model(prompt.model, answered):
        return False
    accepted = prompt.brief.template.front.accept_models
    return plain_model_name(answered) not in map(plain_model_name, accepted)


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


@dataclass(slots=True)
class Asking:
    """How far the asking for one prompt is in this run: what the next request will say, and what was asked so far.

    It outlives a try of the prompt's chunk, so that each bound holds for all tries together. `paid` counts requests
    that were answered or perhaps billed. `max_output` is the longest answer that the endpoint says its model gives.
    """

    prompt: Prompt
    ordinal: int = 0
    kind: words.Kind = words.CALL
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
        changed = {"max_tokens": self.max_tokens, "messages": [*self.prompt.messages, *self.turns]}
        return request_body(self.prompt) | changed

    def changes(self) -> dict[str, Any] | None:
        """What differs from the prompt as it was rendered."""
        changed: dict[str, Any] = {}
        if self.max_tokens != self.prompt.max_tokens:
            changed["max_tokens"] = self.max_tokens
        if self.turns:
            changed["messages"] = list(self.turns)
        return changed or None

    def ask_for_better(self, answer: Answer, outcome: Outcome, policy: Policy) -> bool:
        """Change the next request so that it may bring a better answer; False where no more is to be tried."""
        if outcome.error_kind == VALIDATION and self.repairs < policy.repairs:
            self.repairs += 1
            self.kind = words.REPAIR
            self.turns = _repair_turns(answer, outcome.faults)
            return True
        known = find_model(self.prompt.model)
        more = self.max_tokens * MORE_ROOM
        room = min(more, self.max_output or (known.max_output if known else None) or more)
        if outcome.error_kind == MAX_TOKENS and self.escalations < policy.escalations and room > self.max_tokens:
            self.escalations += 1
            self.kind = words.ESCALATION
            self.max_tokens = room
            return True
        return False


def _repair_turns(answer: Answer, faults: tuple[Fault, ...]) -> tuple[dict[str, str], ...]:
    wrong = "\n".join(f"- {fault.where or 'the whole answer'}: {fault.what}" for fault in faults)
    return (
        # The API takes no empty turn.
        {"role": "assistant", "content": cleaned(answer.text).strip() or "(no answer)"},
        {
            "role": "user",
            "content": f"That answer can't be used:\n{wrong}\n\nAnswer again in full, with this put right and the "
            "rest as it was asked.",
        },
    )
