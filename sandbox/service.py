"""Answer requests without HTTP, from bytes to an Exchange, and keep all accounts."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from pydantic_core import from_json, to_json

from sandbox.calls import MessageCall, count_tokens, read_call
from sandbox.clocks import REAL_CLOCKS, Clocks
from sandbox.counts import Counts, Tokens
from sandbox.draws import digest
from sandbox.error_shapes import Refusal, bad_request, drawn_refusal
from sandbox.faults import DrawnFault, draw_fate, misses_cache
from sandbox.limits import Limits
from sandbox.messages import message
from sandbox.prompt_cache import Account, PromptCache
from sandbox.replies import Reply, make_reply
from sandbox.switches import Switches

SANDBOX_HEADER = "x-presswork-sandbox"
_COMMON = {SANDBOX_HEADER: "1", "anthropic-organization-id": "00000000-0000-4000-8000-000000000000"}
_JSON = {"content-type": "application/json"}
_SPOILT = frozenset({"invalid", "malformed"})
_DROPPED = frozenset({"dropped_before", "dropped_after"})


@dataclass(frozen=True, slots=True)
class WholeResponse:
    """A response to be sent in one piece."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """An admitted request and its reply, which is None if the connection is dropped before it."""

    call: MessageCall
    fate: DrawnFault
    body: bytes
    account: Account
    reply: Reply | None
    tier: str = "standard"

    @property
    def is_dropped(self) -> bool:
        """Whether its fault drops the connection instead of sending the answer."""
        return self.fate.fault in _DROPPED

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
    """Switches, limits, cache and counts of one sandbox.

    For one POST /v1/messages: check_headers, `open`, a pause of `exchange.fate.latency`, `begin`, then `response`, or
    nothing if `exchange.is_dropped`; at the end `served` or `dropped`. A Refusal's response is `refused`.
    `counts.enter` and `counts.leave` enclose all of it.
    """

    def __init__(self, switches: Switches, clocks: Clocks = REAL_CLOCKS, *, ids: str = "000000000000") -> None:
        """Start with empty accounts; all request ids begin with `ids`."""
        self.switches = switches
        self.clocks = clocks
        self._ids = (f"req_{ids}{n:012x}" for n in count(1))
        self.reset()

    def reset(self) -> None:
        """Reset counts, cache and limits. The switches stay."""
        self.counts = Counts(self.clocks.monotonic_s)
        self.cache = PromptCache(self.clocks.monotonic_s)
        self.limits = Limits(self.switches, self.clocks.wall_s)
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

    def own_headers(self) -> dict[str, str]:
        """The headers of every response; each call makes a request id."""
        return {"request-id": next(self._ids), **_COMMON}

    def headers(self) -> dict[str, str]:
        """The headers of a response to POST /v1/messages: they report the limits if the switch rate_headers is on."""
        return self.own_headers() | (self.limits.headers() if self.switches.rate_headers else {})

    def response(self, exchange: Exchange) -> WholeResponse:
        """The response with an exchange's answer, for a request that does not stream."""
        return WholeResponse(200, self.headers() | _JSON, to_json(exchange.message()))

    def refused(self, refusal: Refusal) -> WholeResponse:
        """The response to a request that was refused."""
        headers = self.headers() | refusal.headers | _JSON
        return WholeResponse(refusal.status, headers, to_json(refusal.body(headers["request-id"])))

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
