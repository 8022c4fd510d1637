"""Judge an answer, and decide whether another request may produce a better one.

Each answer is judged as if it were the last: without another request, its outcome is the prompt's. `Asking` holds the
state of one prompt: its next request, and the counts that bound further ones.
"""

from dataclasses import dataclass
from typing import Any

from db import words
from presswork.catalog import estimate_tokens, find_model, is_other_model, plain_model_name
from presswork.claude.answers import Answer, cleaned
from presswork.output_classes.validate import Content, Fault, validate_answer
from presswork.prompts.render import Prompt, request_body

VALIDATION = "validation"
MAX_TOKENS = "max_tokens"
REFUSAL = "refusal"
ESCALATION_FACTOR = 2
"""The factor of `max_tokens` each time a truncated answer is requested again."""
COMPLETE_REASONS = frozenset({"end_turn", "stop_sequence"})
UNFINISHED_REASONS = frozenset({"tool_use", "pause_turn"})
FOREIGN_STOP_REASONS = {
    "stop": "end_turn",
    "eos": "end_turn",
    "length": MAX_TOKENS,
    "content_filter": REFUSAL,
    "safety": REFUSAL,
    "tool_calls": "tool_use",
    "function_call": "tool_use",
}
"""Stop reasons of other APIs, which gateways pass on, and their names in the Messages API."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a prompt. `passing` means that a failure is temporary, so a later retry may succeed.

    `faults` lists what is wrong with an invalid answer.
    """

    status: words.Status
    content: Content | None = None
    error_kind: str | None = None
    error_message: str | None = None
    passing: bool = False
    faults: tuple[Fault, ...] = ()


def judge_answer(prompt: Prompt, answer: Answer, max_tokens: int) -> Outcome:
    """Return the outcome of an answer; `max_tokens` is the limit of its request."""
    if is_wrong_model(prompt, answer.model):
        message = (
            f"The wrong model answered: {answer.model!r}, not {prompt.model!r}. Correct the route in the gateway, or "
            "add the model to the template's `accept_models`."
        )
        return Outcome(words.FAILED, None, words.WRONG_MODEL, message)
    meant = FOREIGN_STOP_REASONS.get(answer.stop_reason, answer.stop_reason) if answer.stop_reason else None
    match meant:
        case "max_tokens":
            message = f"The answer was cut off at {max_tokens:,} tokens. Raise max_tokens in the template."
            return Outcome(words.TRUNCATED, None, meant, message)
        case "model_context_window_exceeded":
            what = "The prompt and the answer together are longer than the model's context"
            return Outcome(words.TRUNCATED, None, meant, f"{what}. Shorten the record or the prompt.")
        case "refusal":
            kind = f"refusal:{answer.refusal}" if answer.refusal else meant
            message = f"The model refused to answer (category: {answer.refusal or 'not given'})."
            return Outcome(words.REFUSED, None, kind, message)
    judged = None if meant in UNFINISHED_REASONS else validate_answer(prompt.output_class, answer.text)
    if isinstance(judged, Content):
        # Complete and valid, even if the stop reason is missing or not known here.
        return Outcome(words.SUCCEEDED, judged)
    if judged is None or (meant is not None and meant not in COMPLETE_REASONS):
        message = f"The answer stopped with {answer.stop_reason!r}, which is unexpected for a request without tools."
        return Outcome(words.FAILED, None, "unexpected_stop_reason", message)
    return Outcome(words.INVALID, None, VALIDATION, str(judged), faults=judged.faults)


def is_wrong_model(prompt: Prompt, answered: str | None) -> bool:
    """Whether another model answered, and the template does not accept it."""
    if answered is None or not is_other_model(prompt.model, answered):
        return False
    accepted = prompt.brief.template.front.accept_models
    return plain_model_name(answered) not in map(plain_model_name, accepted)


@dataclass(frozen=True, slots=True)
class Policy:
    """The bounds on further requests for a prompt. Times are in seconds.

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
    """The state of one prompt in this run: its next request, and the counts of its requests so far.

    It is kept between the tries of the prompt's chunk, so that each bound holds for all tries together. `paid` counts
    requests that were answered or perhaps billed. `max_output` is the model's longest answer, as its endpoint says.
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
        """Build the next request's body."""
        changed = {"max_tokens": self.max_tokens, "messages": [*self.prompt.messages, *self.turns]}
        return request_body(self.prompt) | changed

    @property
    def added_tokens(self) -> int:
        """The approximate tokens of the turns that the next request has more than the rendered prompt."""
        characters = sum(len(turn["content"]) for turn in self.turns)
        return estimate_tokens(characters, find_model(self.prompt.model)) if characters else 0

    def changes(self) -> dict[str, Any] | None:
        """Return how the next request differs from the rendered prompt, or None."""
        changed: dict[str, Any] = {}
        if self.max_tokens != self.prompt.max_tokens:
            changed["max_tokens"] = self.max_tokens
        if self.turns:
            changed["messages"] = list(self.turns)
        return changed or None

    def ask_for_better(self, answer: Answer, outcome: Outcome, policy: Policy) -> bool:
        """Change the next request so that it may produce a better answer. False if there is nothing left to try."""
        if outcome.error_kind == VALIDATION and self.repairs < policy.repairs:
            self.repairs += 1
            self.kind = words.REPAIR
            self.turns = _repair_turns(answer, outcome.faults)
            return True
        known = find_model(self.prompt.model)
        more = self.max_tokens * ESCALATION_FACTOR
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
        # The API rejects an empty turn.
        {"role": "assistant", "content": cleaned(answer.text).strip() or "(no answer)"},
        {
            "role": "user",
            "content": f"That answer can't be used:\n{wrong}\n\nAnswer again in full, with this put right and the "
            "rest as it was asked.",
        },
    )
