"""Answer a call: content, stop reason and usage, as plain data."""

from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from sandbox.blocks import text_tokens
from sandbox.calls import MessageCall
from sandbox.draws import Draw, digest
from sandbox.faults import DrawnFault
from sandbox.filling import Filling
from sandbox.spoiling import broken, cut, not_json
from sandbox.topics import Topic, topic_of

_CATEGORIES = ("general_harms", "cyber", "bio")
_CUT_SHORT = {
    "truncated": "max_tokens",
    "context_exceeded": "model_context_window_exceeded",
    "paused": "pause_turn",
}
_REFUSAL_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before it is counted against the cache."""

    content: list[dict[str, Any]]
    stop_reason: str
    output_tokens: int
    thinking_tokens: int = 0
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None


def make_reply(call: MessageCall, fate: DrawnFault, again: int = 0) -> Reply:
    """Answer a call, with its fate's fault. `again` is how often it was sent before; it varies the wording."""
    if call.max_tokens == 0:  # warms the cache
        return Reply([], "max_tokens", 0)
    if fate.fault == "refused":
        return _refusal(fate)
    topic = topic_of(call.prompt)
    # Not the whole body: streaming or a larger max_tokens does not change the answer.
    key = digest(call.prompt.encode("utf-8", "surrogatepass"), call.schema.key if call.schema else b"")
    text = _text(call, fate, Filling(topic, Draw(key), again))
    if fate.fault == "tool_use":
        return _tool_use(call, text, fate)
    return _ended(call, fate, _thinking_block(call, topic, key), text)


def _text(call: MessageCall, fate: DrawnFault, answer: Filling) -> str:
    if call.schema is None:
        return "" if fate.fault in ("invalid", "malformed") else answer.paragraph()
    value = answer.fill(call.schema.shape)
    if fate.fault == "invalid":
        value = broken(call.schema.shape, value, Draw(fate.key))
    text = to_json(value).decode()
    return not_json(text) if fate.fault == "malformed" else text


def _ended(call: MessageCall, fate: DrawnFault, thinking: list[dict[str, Any]], text: str) -> Reply:
    """End the text: by itself, at a stop sequence, at max_tokens or where its fault cuts it."""
    thought = min(call.thinking.tokens, call.max_tokens) if thinking else 0
    room = call.max_tokens - thought
    found = [(text.find(stop), stop) for stop in call.stops if stop in text]
    sequence = min(found)[1] if found else None
    if found:
        text = text[: min(found)[0]]
    reason = "stop_sequence" if found else "end_turn"
    tokens = call.model.tokens(text_tokens(text))
    if fate.fault in _CUT_SHORT:
        reason, room = _CUT_SHORT[fate.fault], min(room, max(1, tokens // 2))
    elif tokens > room:
        reason = "max_tokens"
    if tokens > room:
        text, tokens, sequence = cut(text, room * 100 // call.model.rules.token_percent), room, None
    content = [*thinking, {"type": "text", "text": text, "citations": None}] if text else thinking
    return Reply(content, reason, tokens + thought or 1, thought, sequence)


def _thinking_block(call: MessageCall, topic: Topic, key: bytes) -> list[dict[str, Any]]:
    if not call.thinking.tokens:
        return []
    thought = f"The request is about this: {topic.subject}." if call.thinking.shown else ""
    return [{"type": "thinking", "thinking": thought, "signature": digest(key, b"signature").hex()}]


def _refusal(fate: DrawnFault) -> Reply:
    category = Draw(fate.key).choice(_CATEGORIES)
    explanation = "The sandbox was switched to refuse this request."
    details = {"type": "refusal", "category": category, "explanation": explanation}
    return Reply([], "refusal", _REFUSAL_TOKENS, stop_details=details)


def _tool_use(call: MessageCall, text: str, fate: DrawnFault) -> Reply:
    block = {
        "type": "tool_use",
        "id": f"toolu_{fate.key.hex()[:24]}",
        "name": "answer",
        "input": {"text": text},
    }
    return Reply([block], "tool_use", call.model.tokens(text_tokens(text) + 8))
