"""Answer requests without HTTP, from bytes to an Exchange, and keep all accounts."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from sandbox.calls import MessageCall, count_tokens, read_call
from sandbox.counts import Counts, Tokens
from sandbox.draws import digest
from sandbox.error_shapes import Refusal, bad_request, drawn_refusal
from sandbox.faults import DrawnFault, draw_fate, misses_cache
from sandbox.limits import Limits
from sandbox.messages import message
from sandbox.prompt_cache import Account, PromptCache
from sandbox.replies import Reply, make_reply
from sandbox.switches import Switches

_SPOILT = frozenset({"invalid", "malformed"})


@dataclass(frozen=True, slots=True)
class Exchange:
    """An admitted request and its reply, which is None if the connection is dropped before it."""

    call: MessageCall
    fate: DrawnFault
    body: bytes
    account: Account
    reply: Reply | None
    tier: str = "standard"

    def message(self) -> dict[str, Any]:
        """The answer as a Message."""
        assert self.reply is not None
        return message(self.call, self.reply, self.account, f"msg_{self.fate.key.hex()[:24]}", self.tier)

    def tokens(self) -> Tokens:
        """The answer's tokens for the stats."""
        if self.reply is None:
            return Tokens()
        account = self.account
        return Tokens(
            1,
            account.input_tokens,
            self.reply.output_tokens,
            account.written_5m,
            account.written_1h,
            account.read,
        )


class Service:
    """Switches, limits, cache and counts of one sandbox."""

    def __init__(self, switches: Switches) -> None:
        """Start with empty accounts."""
        self.switches = switches
        self.reset()

    def reset(self) -> None:
        """Reset counts, cache and limits. The switches stay."""
        self.counts = Counts()
        self.cache = PromptCache()
        self.limits = Limits(self.switches)
        self.kept: deque[bytes] = deque(maxlen=self.switches.keep_bodies)

    def configure(self, changes: Mapping[str, object]) -> Switches:
        """Change switches. If one is wrong, raises ValueError and changes none.

        A changed limit keeps its remaining tokens, as in a real account. A new limit starts full.
        """
        before, self.switches = self.switches, self.switches.changed(dict(changes))
        self.limits.change(self.switches)
        if before.keep_bodies != self.switches.keep_bodies:
            self.kept = deque(self.kept, maxlen=self.switches.keep_bodies)
        return self.switches

    def rate_headers(self) -> dict[str, str]:
        """The headers that report the limits; empty if the switch rate_headers is off."""
        return self.limits.headers() if self.switches.rate_headers else {}

    def open(self, raw: bytes) -> Exchange:
        """Admit a body of POST /v1/messages and answer it; raises Refusal."""
        body = digest(raw)
        if self.switches.keep_bodies:
            self.kept.append(raw)
        call = read_call(_parsed(raw))
        seen = self.counts.bodies.seen(body)
        misses = misses_cache(self.switches, body, seen)
        account = self.cache.account(call.model, call.blocks, misses=misses)
        self.limits.admit(account.input_tokens + account.written)
        fate = self._draw(body, seen)
        if fate.fault == "dropped_before":
            return Exchange(call, fate, body, account, None)
        reply = make_reply(call, fate, seen)
        self.limits.charge(account.input_tokens + account.written, reply.output_tokens)
        return Exchange(call, fate, body, account, reply)

    def open_batched(self, raw: bytes) -> Exchange:
        """Admit a request of a batch and answer it; raises Refusal.

        The account's limits do not apply to batches, and no connection can stall or be dropped.
        """
        body = digest(raw)
        call = read_call(_parsed(raw))
        if call.stream:
            raise bad_request("stream: Streaming is not supported in a batch")
        seen = self.counts.bodies.seen(body)
        account = self.cache.account(call.model, call.blocks, misses=misses_cache(self.switches, body, seen))
        fate = self._draw(body, seen)
        return Exchange(call, fate, body, account, make_reply(call, fate, seen), "batch")

    def _draw(self, body: bytes, seen: int) -> DrawnFault:
        fate = draw_fate(self.switches, body, seen)
        self.counts.repeated_bodies += self.counts.bodies.see(body)
        if fate.fault:
            self.counts.by_fault[fate.fault] += 1
            if refusal := drawn_refusal(fate.fault):
                raise refusal
        return fate

    def begin(self, exchange: Exchange) -> None:
        """Start its answer, so that its cache entries can be read."""
        if exchange.reply is not None:
            self.cache.begin(exchange.account, self.switches.cache_delay_ms / 1000)

    def served(self, exchange: Exchange, counts: Counts) -> None:
        """Count an answer that was sent to its end."""
        assert exchange.reply is not None
        counts.served.add(exchange.tokens())
        counts.by_stop_reason[exchange.reply.stop_reason] += 1
        if exchange.reply.stop_reason == "end_turn" and exchange.fate.fault not in _SPOILT:
            counts.bodies.answered(exchange.body)

    def dropped(self, exchange: Exchange, counts: Counts) -> None:
        """Count an answer that was generated, if at all, but not received."""
        counts.dropped.add(exchange.tokens())

    def count_tokens(self, raw: bytes) -> int:
        """Answer a body of POST /v1/messages/count_tokens; raises Refusal."""
        return count_tokens(_parsed(raw))


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse a request without a credential or a version. Only known bad credentials are rejected."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
    if not key:
        raise Refusal(401, "authentication_error", "x-api-key header is required")
    if key == "invalid" or key.startswith("sk-invalid"):
        raise Refusal(401, "authentication_error", "invalid x-api-key", headers={"x-should-retry": "false"})
    if not headers.get("anthropic-version"):
        raise bad_request("anthropic-version: header is required")


def _parsed(raw: bytes) -> dict[str, Any]:
    # pydantic's JSON is twice as fast as the standard library's, and refuses lone surrogates (no UTF-8).
    try:
        body = from_json(raw)
    except ValueError as error:
        raise bad_request(f"The request body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise bad_request("Input should be a valid dictionary")
    return body
