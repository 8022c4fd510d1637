"""Split a prompt into blocks, in the order in which the API caches them: tools, schema, system, messages.

Only this module counts tokens, so count_tokens and usage agree. A token is 4 bytes of UTF-8, which is the average in
English. Each message adds a few.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sandbox.error_shapes import bad_request
from sandbox.known import ServedModel
from sandbox.prompt_cache import TTL_SECONDS, CacheBlock
from sandbox.request_schemas import Schema

_PER_MESSAGE = 4
_MOST_BREAKPOINTS = 4
_TEXT_FIELDS = frozenset({"type", "text", "cache_control", "citations"})
_CONTROL_FIELDS = frozenset({"type", "ttl"})
# Other blocks that a message may contain. Each is counted by its JSON.
_OTHER_KINDS = frozenset(
    "image document search_result thinking redacted_thinking tool_use tool_result server_tool_use"
    " web_search_tool_result web_fetch_tool_result code_execution_tool_result bash_code_execution_tool_result"
    " text_editor_code_execution_tool_result tool_search_tool_result container_upload browser_state".split()
)
_OF_AN_ANSWER = re.compile(
    r"\s*(that|this|the|your)(\s+(last|previous|first))?\s+(answer|reply|response|output|json)\b", re.IGNORECASE
)


def text_tokens(text: str) -> int:
    """The tokens of a text; 0 only for an empty one."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return (size + 3) // 4


def prompt_blocks(body: Mapping[str, Any], schema: Schema | None, model: ServedModel) -> tuple[CacheBlock, ...]:
    """Check system and messages, and make blocks of them, the tools and the schema; raises Refusal."""
    tools = body.get("tools")
    blocks = [_opaque(tool, f"tools.{i}.") for i, tool in enumerate(tools)] if tools else []
    if schema is not None:
        blocks.append(CacheBlock(schema.key, schema.tokens))
    blocks += _system(body.get("system"))
    blocks += _messages(body["messages"])
    top = _ttl(body, "")
    if top and not blocks[-1].ttl:  # top-level: the API sets a breakpoint on the last block
        blocks[-1] = CacheBlock(blocks[-1].content, blocks[-1].tokens, top)
    _check_breakpoints([block.ttl for block in blocks if block.ttl])
    if model.rules.token_percent != 100:
        return tuple(CacheBlock(block.content, model.tokens(block.tokens), block.ttl) for block in blocks)
    return tuple(blocks)


def prompt_text(messages: Sequence[Mapping[str, Any]], *, answered: bool) -> str:
    """The text of the last user message, which the answer is about.

    If the request has a schema and that message complains about an answer, it is the user message before it. The first
    messages may be examples.
    """
    users = [_words(message) for message in messages if message["role"] == "user"]
    while answered and len(users) > 1 and _OF_AN_ANSWER.match(users[-1]):
        users.pop()
    return users[-1]


def _words(message: Mapping[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "\n".join(str(block.get("text", "")) for block in content)


def _system(system: object) -> list[CacheBlock]:
    if system is None or system == "":
        return []
    if isinstance(system, str):
        return [CacheBlock(system.encode("utf-8", "surrogatepass"), text_tokens(system) + _PER_MESSAGE)]
    if not isinstance(system, list):
        raise bad_request("system: Input should be a valid string or list of text blocks")
    blocks = [_block(block, f"system.{i}.", "text") for i, block in enumerate(system)]
    return _with_overhead(blocks, b"system") if blocks else []


def _messages(messages: object) -> list[CacheBlock]:
    if not isinstance(messages, list):
        raise bad_request("messages: Input should be a valid list")
    if not messages:
        raise bad_request("messages: at least one message is required")
    blocks: list[CacheBlock] = []
    for i, message in enumerate(messages):
        blocks += _message(message, i)
    if messages[0]["role"] != "user":
        raise bad_request('messages: first message must use the "user" role')
    return blocks


def _message(message: object, i: int) -> list[CacheBlock]:
    if not isinstance(message, dict):
        raise bad_request(f"messages.{i}: Input should be a valid dictionary")
    for name in ("role", "content"):
        if name not in message:
            raise bad_request(f"messages.{i}.{name}: Field required")
    if extra := sorted(message.keys() - {"role", "content"}):
        raise bad_request(f"messages.{i}.{extra[0]}: Extra inputs are not permitted")
    role, content = message["role"], message["content"]
    if role not in ("user", "assistant"):
        raise bad_request(f"messages.{i}.role: Input should be 'user' or 'assistant'")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        raise bad_request(f"messages.{i}.content: Input should be a valid string or list of blocks")
    if not content:
        raise bad_request(f"messages.{i}: {role} messages must have non-empty content")
    blocks = [_block(block, f"messages.{i}.content.{j}.", None) for j, block in enumerate(content)]
    return _with_overhead(blocks, role.encode())


def _block(block: object, where: str, only: str | None) -> CacheBlock:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(block, dict) or not isinstance(kind, str) or (only and kind != only):
        raise bad_request(f"{where}type: Input should be {only!r}" if only else f"{where}type: Field required")
    if kind != "text":
        if kind not in _OTHER_KINDS:
            raise bad_request(f"{where}type: Input tag {kind!r} does not match any of the expected tags")
        return _opaque(block, where)
    if not _TEXT_FIELDS.issuperset(block):
        extra = min(block.keys() - _TEXT_FIELDS)
        raise bad_request(f"{where}text.{extra}: Extra inputs are not permitted")
    text = block.get("text")
    if not isinstance(text, str):
        raise bad_request(f"{where}text: Field required" if text is None else f"{where}text: Input should be a string")
    if not text.strip():
        raise bad_request(f"{where.split('.', maxsplit=1)[0]}: text content blocks must be non-empty")
    return CacheBlock(text.encode("utf-8", "surrogatepass"), text_tokens(text), _ttl(block, where))


def _opaque(block: Mapping[str, Any], where: str) -> CacheBlock:
    """A tool, an image or a tool's result. It is counted by its JSON and not read."""
    text = json.dumps({key: value for key, value in block.items() if key != "cache_control"}, sort_keys=True)
    return CacheBlock(text.encode(), text_tokens(text), _ttl(block, where))


def _with_overhead(blocks: list[CacheBlock], role: bytes) -> list[CacheBlock]:
    first = blocks[0]
    return [CacheBlock(role + b"\0" + first.content, first.tokens + _PER_MESSAGE, first.ttl), *blocks[1:]]


def _ttl(holder: Mapping[str, Any], where: str) -> str | None:
    control = holder.get("cache_control")
    if control is None:
        return None
    if not isinstance(control, dict) or control.get("type") != "ephemeral":
        raise bad_request(f"{where}cache_control.type: Input should be 'ephemeral'")
    if not _CONTROL_FIELDS.issuperset(control):
        extra = min(control.keys() - _CONTROL_FIELDS)
        raise bad_request(f"{where}cache_control.ephemeral.{extra}: Extra inputs are not permitted")
    ttl = control.get("ttl", "5m")
    if ttl not in TTL_SECONDS:
        raise bad_request(f"{where}cache_control.ttl: Input should be '5m' or '1h'")
    return str(ttl)


def _check_breakpoints(ttls: list[str | None]) -> None:
    if len(ttls) > _MOST_BREAKPOINTS:
        raise bad_request(
            f"A maximum of {_MOST_BREAKPOINTS} blocks with cache_control may be provided. Found {len(ttls)}."
        )
    if "1h" in ttls and "5m" in ttls[: len(ttls) - ttls[::-1].index("1h")]:
        raise bad_request("a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block")
