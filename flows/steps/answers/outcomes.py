"""Judge what an answer is worth, as if it were the last: the outcome of its prompt where nobody asks again."""

from __future__ import annotations

from dataclasses import dataclass

from db.words import FAILED, INVALID, REFUSED, SUCCEEDED, TRUNCATED, WRONG_MODEL, Status
from flows.steps.catalog import is_other_model, plain_model_name
from flows.steps.claude.answers import Answer
from flows.steps.output_classes.validate import Content, Fault, validate_answer
from flows.steps.prompts.render import Prompt

VALIDATION = "validation"
MAX_TOKENS = "max_tokens"
REFUSAL = "refusal"
WHOLE = frozenset({"end_turn", "stop_sequence"})
UNFINISHED = frozenset({"tool_use", "pause_turn"})
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

    status: Status
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
        return Outcome(FAILED, None, WRONG_MODEL, message)
    meant = MEANT.get(answer.stop_reason, answer.stop_reason) if answer.stop_reason else None
    match meant:
        case "max_tokens":
            message = f"The answer was cut off at {max_tokens:,} tokens; raise max_tokens in the template."
            return Outcome(TRUNCATED, None, meant, message)
        case "model_context_window_exceeded":
            message = (
                "Prompt and answer together are longer than the model's context; shorten the record or the prompt."
            )
            return Outcome(TRUNCATED, None, meant, message)
        case "refusal":
            kind = f"refusal:{answer.refusal}" if answer.refusal else meant
            message = f"The model refused to answer (category: {answer.refusal or 'not given'})."
            return Outcome(REFUSED, None, kind, message)
    judged = None if meant in UNFINISHED else validate_answer(prompt.output_class, answer.text)
    if isinstance(judged, Content):
        # Whole and valid, also where the stop reason is none that is known here, or none is told.
        return Outcome(SUCCEEDED, judged)
    if judged is None or (meant is not None and meant not in WHOLE):
        message = f"The answer stopped for {answer.stop_reason!r}, which a request without tools should not."
        return Outcome(FAILED, None, "unexpected_stop_reason", message)
    return Outcome(INVALID, None, VALIDATION, str(judged), faults=judged.faults)


def unjudged(prompt: Prompt, error: Exception) -> Outcome:
    """Return the outcome where judging an answer failed, as a user's validators may."""
    message = (
        f"The answer could not be judged by {prompt.output_class.__name__}: {type(error).__name__}. It is kept in its "
        "attempt. Correct the output class, then run again."
    )
    return Outcome(INVALID, None, "unjudged", message)


def is_wrong_model(prompt: Prompt, answered: str | None) -> bool:
    """Whether another model answered than was asked, and the template does not accept it."""
    if answered is None or not is_other_model(prompt.model, answered):
        return False
    accepted = prompt.brief.template.front.accept_models
    return plain_model_name(answered) not in map(plain_model_name, accepted)
