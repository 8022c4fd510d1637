"""A simulated process's client: its requests on their way, and their responses, read as the product reads them."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from db.words import CONNECT, SANDBOX, TIMEOUT
from presswork.catalog import ModelFacts, read_model_facts
from presswork.claude.answers import Answer, Identity, read_error
from presswork.claude.client import IDENTIFY_TIMEOUT_S, read_answer
from presswork.claude.refusals import error_of, refused_key
from presswork.errors import CallError, EndpointError, FinalCallError, PassingCallError
from sandbox.draws import Draw
from sandbox.error_shapes import Refusal
from sandbox.listing import model_info
from tests.nights.served.exchanges import Exchange
from tests.nights.served.spoilt_replies import GATEWAY_RULES, KEY, ServedReply

if TYPE_CHECKING:
    from tests.nights.served.endpoint import SimulatedEndpoint

CONNECT_TIMEOUT_S = 10.0
"""The real client's longest wait for a connection."""
_SENT = {"x-api-key": KEY}


class AskingProcess(Protocol):
    """What the endpoint needs of a simulated process."""

    @property
    def name(self) -> str: ...
    @property
    def alive(self) -> bool: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...


@dataclass(slots=True)
class SentRequest:
    """A request on its way: `drawn` is the key of its draws, `reply` is None while there is none, and if it is lost.

    `waiting` gets the response, or the error of a connection that was lost or not made.
    """

    process: AskingProcess
    body: Mapping[str, Any]
    raw: bytes
    digest: bytes
    drawn: bytes
    sent_at: float
    timeout_s: float
    waiting: asyncio.Future[ServedReply | CallError]
    exchange: Exchange | None = None
    reply: ServedReply | None = None

    def land(self, outcome: ServedReply | CallError) -> None:
        """Wake the task that waits, by its process's loop: a frozen process reads the response when it wakes."""
        if self.process.alive:
            self.process.loop.call_soon(self._give, outcome)

    def _give(self, outcome: ServedReply | CallError) -> None:
        if not self.waiting.done():
            self.waiting.set_result(outcome)


class SimulatedClient:
    """A process's client: what presswork.claude.client.Client offers, over a simulated endpoint."""

    def __init__(self, endpoint: "SimulatedEndpoint", process: AskingProcess, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._process = process
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        return

    async def ask(self, body: Mapping[str, Any], endpoint: str) -> Answer:
        """Send one request. Raises CallError, as the real client does."""
        request = self._endpoint.send(self._process, body, self._timeout_s)
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await request.waiting
        except TimeoutError:
            self._ended(request)
            self._endpoint.world.tell(f"{self._process.name}: a request times out")
            raise PassingCallError("the request timed out", kind=TIMEOUT) from None
        except asyncio.CancelledError:
            # Not for every exception: a killed process runs nothing more, but Python closes its coroutines.
            self._ended(request)
            raise
        self._ended(request, delivered=isinstance(found, ServedReply))
        if isinstance(found, CallError):
            raise found
        return read_reply(endpoint, found)

    def _ended(self, request: SentRequest, *, delivered: bool = False) -> None:
        if request.exchange is not None:
            request.exchange.delivered, request.exchange.ended_at = delivered, self._endpoint.world.now

    async def identify(self, *, gateway: bool = False) -> Identity:
        """Identify the endpoint. Raises StoppingCallError if it refuses the key, EndpointError if it is away."""
        await self._travel()
        if self._endpoint.is_away:
            await asyncio.sleep(min(IDENTIFY_TIMEOUT_S, CONNECT_TIMEOUT_S))
            raise EndpointError("The simulated endpoint can't be reached: no connection could be made.")
        if self._endpoint.drawn_fault("key_refused", b"identify"):
            raise refused_key(_error_in(GATEWAY_RULES["key_refused"](Draw(b"key"))), 401)
        return Identity(self._endpoint.name == SANDBOX, answered=self._endpoint.confirms)

    async def read_model(self, name: str) -> ModelFacts:
        """Read the endpoint's figures of a model. Raises CallError, as the real client does."""
        await self._travel()
        if self._endpoint.is_away:
            raise PassingCallError("no connection could be made", kind=CONNECT)
        if not self._endpoint.confirms:
            raise _error_in(ServedReply(404, {}, b'{"detail":"Not Found"}'))
        try:
            return read_model_facts(model_info(name))
        except Refusal as refusal:
            response = self._endpoint.service.refused(refusal)
            raise _error_in(ServedReply(response.status, response.headers, response.body)) from None

    async def _travel(self) -> None:
        await asyncio.sleep(2 * self._endpoint.travel_s)


def read_reply(endpoint: str, reply: ServedReply) -> Answer:
    """Read a response as the SDK and the product's client do. Raises CallError."""
    if 300 <= reply.status < 400 and "location" in reply.headers:
        message = "the endpoint redirects in a loop. Check ANTHROPIC_BASE_URL"
        raise FinalCallError(message, kind="redirect", alike="redirect")
    if not 200 <= reply.status < 300:
        raise _error_in(reply)
    return read_answer(endpoint, reply.status, reply.headers, reply.body, _SENT)


def _error_in(reply: ServedReply) -> CallError:
    try:
        body = json.loads(reply.body)
    except ValueError:
        body = None
    return error_of(reply.status, read_error(body), reply.headers, _SENT)
