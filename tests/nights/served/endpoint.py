"""The simulated endpoint: the sandbox's rules called directly, with no HTTP, no sockets and no SDK client.

A request travels to the endpoint, is answered there, and its answer travels back, all by the world's events: a killed
process's request is answered and billed as well. Every draw depends on the seed, the body, and how often it was sent.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import orjson

from db.words import CONNECT, CONNECTION, SANDBOX
from presswork.errors import CallError, PassingCallError
from presswork.prices import Usage, cost_of
from sandbox import SANDBOX_HEADER, Switches
from sandbox.clocks import Clocks
from sandbox.draws import Draw, digest
from sandbox.error_shapes import Refusal
from sandbox.faults import draw_fate
from sandbox.service import Exchange as Admitted
from sandbox.service import Service
from sandbox.switches import FAULTS
from tests.nights.served.endpoint_client import CONNECT_TIMEOUT_S, AskingProcess, SentRequest, SimulatedClient
from tests.nights.served.endpoint_faults import AWAY, LOST_BEFORE, OF_THE_RECORD, TOO_SLOW, EndpointFault
from tests.nights.served.exchanges import Exchange, prompt_hash
from tests.nights.served.spoilt_replies import ANSWER_RULES, GATEWAY_RULES, ServedReply
from tests.nights.simulated.machines import EPOCH

_SPOILT = frozenset({"invalid", "malformed"})


class TrueTime(Protocol):
    """What the endpoint needs of the world."""

    @property
    def now(self) -> float: ...
    def call_at(self, when: float, work: Callable[[], None], /) -> object: ...
    def tell(self, line: str, /) -> None: ...


class SimulatedEndpoint:
    """An endpoint with its faults; `exchanges` are all POSTs, in the order of arrival.

    - `name`: as the ledger stores it. With any other than "sandbox", the answers do not say that they are a sandbox's.
    - `travel_s`: how long a request and its answer take on the way, on average.
    - `confirms`: whether it serves GET /v1/models, which a gateway may not.
    """

    def __init__(
        self,
        world: TrueTime,
        switches: Switches,
        faults: Sequence[EndpointFault] = (),
        *,
        name: str = SANDBOX,
        travel_s: float = 0.02,
        confirms: bool = True,
    ) -> None:
        self.world = world
        self.name = name
        self.travel_s = travel_s
        self.confirms = confirms
        self.exchanges: list[Exchange] = []
        self.is_away = False
        self.faults: tuple[EndpointFault, ...] = tuple(faults)
        self.service = Service(switches, Clocks(self.wall_s, self.wall_s))
        self._switches = switches
        self._sent: Counter[bytes] = Counter()
        self._apply()
        for fault in self.faults:
            self._turn(fault.begins, f"{fault} begins")
            self._turn(fault.ends, f"{fault} ends")

    def client(self, process: AskingProcess, timeout_s: float = 600.0) -> "SimulatedClient":
        """Return a process's client, with the timeout of a request."""
        return SimulatedClient(self, process, timeout_s)

    def end_faults(self) -> None:
        """End all faults now, also those that would begin later."""
        self.faults, self.is_away = (), False
        self._switches = self._switches.changed(dict.fromkeys(FAULTS, 0.0))
        self._apply()
        self.world.tell("endpoint: all faults end")

    def wall_s(self) -> float:
        """Return the true time in seconds since the epoch."""
        return EPOCH + self.world.now

    # Faults

    def _turn(self, at: float, line: str) -> None:
        def turn() -> None:
            if self.faults:
                self._apply()
                self.world.tell(f"endpoint: {line}")

        if self.world.now < at < math.inf:
            self.world.call_at(at, turn)

    def _apply(self) -> None:
        """Set what depends on the time: whether it is away, and the rates of the sandbox's faults."""
        lasting = [fault for fault in self.faults if fault.lasts(self.world.now)]
        self.is_away = any(fault.name == AWAY for fault in lasting)
        rates = {name: float(getattr(self._switches, name)) for name in FAULTS}
        for fault in lasting:
            if fault.name in rates:
                rates[fault.name] += fault.rate
        total = max(1.0, sum(rates.values()))
        self.service.configure({name: rate / total for name, rate in rates.items()})
        self._lasting = tuple(fault for fault in lasting if fault.name not in rates and fault.name != AWAY)

    def drawn_fault(self, name: str, key: bytes) -> bool:
        """Draw whether a fault that lasts now happens to something with this key."""
        return any(
            fault.name == name and Draw(digest(name.encode(), key)).fraction() < fault.rate for fault in self._lasting
        )

    def _fault_of(self, request: SentRequest) -> tuple[str, Draw]:
        for fault in self._lasting:
            key = request.digest if fault.name in OF_THE_RECORD else request.drawn
            draw = Draw(digest(fault.name.encode(), key))
            if draw.fraction() < fault.rate:
                return fault.name, draw
        return "", Draw(request.drawn)

    # A request's way

    def send(self, process: AskingProcess, body: Mapping[str, Any], timeout_s: float) -> SentRequest:
        """Send a request. It is answered and billed even if its process is killed or stops waiting."""
        raw = orjson.dumps(body)
        key = digest(raw)
        drawn = digest(b"%d" % self._switches.seed, key, b"%d" % self._sent[key])
        self._sent[key] += 1
        waiting: asyncio.Future[ServedReply | CallError] = process.loop.create_future()
        request = SentRequest(process, body, raw, key, drawn, self.world.now, timeout_s, waiting)
        self._after(self._travel(drawn, b"there"), partial(self._arrive, request))
        return request

    def _after(self, seconds: float, work: Callable[[], None]) -> None:
        self.world.call_at(self.world.now + seconds, work)

    def _travel(self, drawn: bytes, way: bytes) -> float:
        return self.travel_s * (0.5 + Draw(digest(way, drawn)).fraction())

    def _arrive(self, request: SentRequest) -> None:
        if self.is_away:
            # Refused at once, or packets that nobody answers.
            waits = Draw(digest(b"connect", request.drawn)).below(2) * min(request.timeout_s, CONNECT_TIMEOUT_S)
            error = PassingCallError("no connection could be made", kind=CONNECT)
            self.world.call_at(max(self.world.now, request.sent_at + 0.99 * waits), partial(request.land, error))
            return
        fault, draw = self._fault_of(request)
        if fault == LOST_BEFORE:
            self._after(self.travel_s, partial(request.land, _lost()))
            return
        exchange = request.exchange = self._enter(request, fault)
        if fault in GATEWAY_RULES:
            request.reply = GATEWAY_RULES[fault](draw)
            self._answer(request, exchange)
        else:
            self._serve(request, exchange, fault, draw)

    def _serve(self, request: SentRequest, exchange: Exchange, fault: str, draw: Draw) -> None:
        bodies = self.service.counts.bodies
        seen = bodies.seen(request.digest)
        fate = draw_fate(self.service.switches, request.digest, seen)
        try:
            admitted = self.service.open(request.raw)
        except Refusal as refusal:
            # A limit refuses before the fault is drawn.
            exchange.fault = fate.fault if bodies.seen(request.digest) > seen else ""
            response = self.service.refused(refusal)
            request.reply = ServedReply(response.status, response.headers, response.body)
            self._answer(request, exchange)
            return
        exchange.fault = "+".join(name for name in (fate.fault, fault) if name)
        late = request.timeout_s * (1 + 2 * draw.fraction()) if fault == TOO_SLOW else 0.0
        self._after(fate.latency + late, partial(self._generate, request, exchange, admitted, fault, draw))

    def _enter(self, request: SentRequest, fault: str) -> Exchange:
        exchange = Exchange(
            number=len(self.exchanges) + 1,
            at=request.sent_at,
            arrived_at=self.world.now,
            process=request.process.name,
            body=request.digest,
            prompt=prompt_hash(request.body, self.name),
            model=request.body["model"],
            max_tokens=request.body["max_tokens"],
            fault=fault,
        )
        self.exchanges.append(exchange)
        return exchange

    def _generate(self, request: SentRequest, exchange: Exchange, admitted: Admitted, fault: str, draw: Draw) -> None:
        """Finish an answer and bill it, even if nobody waits for it."""
        self.service.begin(admitted)
        if admitted.reply is not None:
            reply = self._served(admitted)
            if fault in ANSWER_RULES:
                ANSWER_RULES[fault](reply, draw)
            self._bill(exchange, reply)
            request.reply = None if admitted.is_dropped else reply
        self._answer(request, exchange)

    def _served(self, admitted: Admitted) -> ServedReply:
        response = self.service.response(admitted)
        reply, account, call = admitted.reply, admitted.account, admitted.call
        assert reply is not None
        if self.name != SANDBOX:
            del response.headers[SANDBOX_HEADER]
        usage = Usage(
            account.input_tokens,
            account.written_5m,
            account.written_1h,
            account.read,
            reply.output_tokens,
            reply.thinking_tokens,
            admitted.tier,
            call.inference_geo,
            call.speed,
        )
        return ServedReply(
            response.status,
            response.headers,
            response.body,
            admitted.message(),
            usage,
            call.model.id,
            "".join(block["text"] for block in reply.content if block["type"] == "text"),
            good=reply.stop_reason == "end_turn" and admitted.fate.fault not in _SPOILT,
        )

    def _bill(self, exchange: Exchange, reply: ServedReply) -> None:
        exchange.usage, exchange.answered_model, exchange.tells_usage = reply.usage, reply.model, reply.tells_usage
        exchange.message_id = None if reply.message is None else reply.message["id"]
        if reply.usage is not None:
            day = datetime.fromtimestamp(self.wall_s(), UTC).date()
            cost = cost_of(reply.model, reply.usage, day)
            assert cost is not None, f"{reply.model} has no price"
            exchange.cost_usd = cost

    def _answer(self, request: SentRequest, exchange: Exchange) -> None:
        """Let the response leave; it is lost if its fault drops the connection, or the endpoint is away by now."""
        exchange.answered_at = self.world.now
        reply = None if self.is_away else request.reply
        if reply is not None:
            exchange.status, exchange.good, exchange.text = reply.status, reply.good, reply.text
            exchange.request_id = reply.headers.get("request-id")
        else:
            exchange.tells_usage = False
        if exchange.fault or exchange.status != 200:
            self.world.tell(f"endpoint: {exchange}")
        self._after(self._travel(request.drawn, b"back"), partial(request.land, reply or _lost()))


def _lost() -> PassingCallError:
    return PassingCallError("the connection was lost before an answer came", kind=CONNECTION)
