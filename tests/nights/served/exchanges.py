"""What the simulated endpoint keeps of each request, so that a night's promises can be checked from it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from presswork.prices import Usage
from presswork.prompts.render import HASH_SCHEME

REPAIR = "That answer can't be used:\n"
"""The start of the turn that asks for a repair: the last of the two that a repair adds."""


@dataclass(slots=True)
class Exchange:
    """One POST as the endpoint saw it. Times are the world's seconds; None for what has not happened.

    - `at`, `arrived_at`, `answered_at`, `ended_at`: the process sent it, it arrived, the answer left the endpoint, and
      the process had the answer or stopped waiting.
    - `body`: the digest of the body. `prompt`: the hash of the prompt that it was made for, which its repairs and
      escalations share.
    - `status`, `request_id`: as the client reads them; None if no response was sent.
    - `fault`: the names of its faults, joined by "+"; empty without any.
    - `usage`, `cost_usd`: what is billed. `tells_usage`: the response reports it, so the ledger can know it.
    - `good`: the response is a whole answer and valid content. `text`: of the answer, as the ledger stores it.
    - `delivered`: the process read the response to its end.
    """

    number: int
    at: float
    arrived_at: float
    process: str
    body: bytes
    prompt: str
    model: str
    max_tokens: int
    request_id: str | None = None
    status: int | None = None
    fault: str = ""
    answered_model: str | None = None
    message_id: str | None = None
    usage: Usage | None = None
    cost_usd: Decimal = Decimal(0)
    tells_usage: bool = True
    good: bool = False
    text: str | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    delivered: bool = False

    def __str__(self) -> str:
        end = "no response" if self.status is None else str(self.status)
        return f"request {self.number} of {self.process}: {end}{f' ({self.fault})' if self.fault else ''}"


def prompt_hash(body: Mapping[str, Any], endpoint: str) -> str:
    """Return the hash of the prompt that a request was made for: prompts.render.hash_request, read from the body.

    It leaves out what a repair and an escalation change. Variants can't be told from each other.
    """
    messages = body["messages"]
    if len(messages) > 2 and messages[-1]["content"].startswith(REPAIR):
        messages = messages[:-2]
    output = body["output_config"]
    settings = {"thinking": body.get("thinking"), "effort": output.get("effort")}
    content = {
        "scheme": HASH_SCHEME,
        "endpoint": endpoint,
        "model": body["model"],
        "system": "".join(block["text"] for block in body.get("system", ())),
        "messages": messages,
        "schema": output["format"]["schema"],
        "settings": {name: value for name, value in settings.items() if value is not None},
        "variant": 0,
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
