"""Keep how far the asking for one prompt is: what its next request says, and how often it may be asked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from db.words import CALL, ESCALATION, REPAIR, Kind
from flows.steps.answers.outcomes import MAX_TOKENS, VALIDATION, Outcome
from flows.steps.catalog import find_model
from flows.steps.claude.answers import Answer, cleaned
from flows.steps.output_classes.validate import Fault
from flows.steps.prompts.render import Prompt, request_body

MORE_ROOM = 2
"""How many times the room a truncated answer gets each time it is asked again."""


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
    kind: Kind = CALL
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
            self.kind = REPAIR
            self.turns = _repair_turns(answer, outcome.faults)
            return True
        known = find_model(self.prompt.model)
        more = self.max_tokens * MORE_ROOM
        room = min(more, self.max_output or (known.max_output if known else None) or more)
        if outcome.error_kind == MAX_TOKENS and self.escalations < policy.escalations and room > self.max_tokens:
            self.escalations += 1
            self.kind = ESCALATION
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
