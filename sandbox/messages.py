"""Write an answer in the API's shapes: a Message with its usage, and the events of a stream."""

import json
from collections.abc import Iterator
from typing import Any

from sandbox.calls import MessageCall
from sandbox.prompt_cache import Account
from sandbox.replies import Reply

_WORDS_A_DELTA = 4


def message(call: MessageCall, reply: Reply, account: Account, message_id: str, tier: str) -> dict[str, Any]:
    """A Message, answered in a service tier: "standard", or "batch"."""
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": call.model.id,
        "content": reply.content,
        "stop_reason": reply.stop_reason,
        "stop_sequence": reply.stop_sequence,
        "stop_details": reply.stop_details,
        "container": None,
        "usage": usage(call, reply, account, tier),
    }


def usage(call: MessageCall, reply: Reply, account: Account, tier: str) -> dict[str, Any]:
    """A Usage; total input is input, cache creation and cache read together."""
    return {
        "input_tokens": account.input_tokens,
        "cache_creation_input_tokens": account.written,
        "cache_read_input_tokens": account.read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": account.written_5m,
            "ephemeral_1h_input_tokens": account.written_1h,
        },
        "output_tokens": reply.output_tokens,
        "output_tokens_details": {"thinking_tokens": reply.thinking_tokens},
        "server_tool_use": None,
        "service_tier": tier,
        "inference_geo": call.inference_geo,
        "speed": call.speed,
    }


def events(body: dict[str, Any]) -> Iterator[bytes]:
    """A Message as the server-sent events of a stream."""
    begun = {**body, "content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    begun["usage"] = {**body["usage"], "output_tokens": 1, "output_tokens_details": None}
    yield _event("message_start", message=begun)
    yield _event("ping")
    for index, block in enumerate(body["content"]):
        yield from _block_events(index, block)
    delta = {key: body[key] for key in ("stop_reason", "stop_sequence", "stop_details", "container")}
    counted = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    end = {key: body["usage"][key] for key in (*counted, "output_tokens", "output_tokens_details", "server_tool_use")}
    yield _event("message_delta", delta=delta, usage=end)
    yield _event("message_stop")


def _block_events(index: int, block: dict[str, Any]) -> Iterator[bytes]:
    match block["type"]:
        case "text":
            start, deltas = (
                {**block, "text": ""},
                [{"type": "text_delta", "text": t} for t in _pieces(block["text"])],
            )
        case "thinking":
            start = {**block, "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case _:
            text = json.dumps(block["input"], ensure_ascii=False)
            start, deltas = {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": text}]
    yield _event("content_block_start", index=index, content_block=start)
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    groups = [" ".join(words[i : i + _WORDS_A_DELTA]) for i in range(0, len(words), _WORDS_A_DELTA)]
    return [group + (" " if i + 1 < len(groups) else "") for i, group in enumerate(groups) if text]


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n".encode()
