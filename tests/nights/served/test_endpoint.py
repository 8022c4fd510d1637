"""The simulated endpoint: what each fault does to the answer and the bill, and that a seed repeats it."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import selectors
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

import pytest

from db.machine import here, use
from db.words import ANTHROPIC, CONNECT, CONNECTION, SANDBOX, SUCCEEDED, TIMEOUT
from presswork.answers.outcomes import Asking, Policy, judge_answer
from presswork.claude.answers import Answer
from presswork.claude.endpoint_check import WrongEndpointError
from presswork.errors import CallError, EndpointError, FinalCallError, PassingCallError, StoppingCallError
from presswork.prompts.render import Prompt, request_body
from sandbox import Switches
from sandbox.draws import Draw, digest
from sandbox.switches import FAULTS
from tests.nights.served.endpoint import SimulatedEndpoint
from tests.nights.served.endpoint_client import SimulatedClient, read_reply
from tests.nights.served.endpoint_faults import (
    AWAY,
    LOST_BEFORE,
    OF_THE_RECORD,
    STOPPING,
    TOO_SLOW,
    EndpointFault,
    draw_faults,
)
from tests.nights.served.exchanges import Exchange, prompt_hash
from tests.nights.served.spoilt_replies import ANSWER_RULES, GATEWAY_RULES, KEY, ServedReply
from tests.nights.simulated.processes import SimulatedProcess
from tests.nights.simulated.world import World
from tests.pieces import Connect, Reply, Say, Scripted

T = TypeVar("T")
TIMES = range(12)
"""How often a fault with several forms is drawn."""


class SmallWorld:
    """The smallest world: one time, its events, and loops that jump to the next of either instead of waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        self.story: list[str] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = 0

    def tell(self, line: str) -> None:
        self.story.append(line)

    def call_at(self, when: float, work: Callable[[], None]) -> None:
        self._numbers += 1
        heapq.heappush(self._events, (when, self._numbers, work))

    def pass_time(self, until: float) -> None:
        """Let the next event happen, or the time pass if there is none before it."""
        if self._events and self._events[0][0] <= until:
            when, _number, work = heapq.heappop(self._events)
            self.now = max(self.now, when)
            work()
        elif until < math.inf:
            self.now = until

    def drain(self) -> None:
        """Let all events happen."""
        while self._events:
            self.pass_time(math.inf)


class JumpingSelector(selectors.SelectSelector):
    """Waits for nothing real: the world's time passes instead."""

    world: SmallWorld

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self.world.pass_time(math.inf if timeout is None else self.world.now + timeout)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop with the world's time."""

    def __init__(self, world: SmallWorld) -> None:
        selector = JumpingSelector()
        selector.world = self._world = world
        super().__init__(selector)

    def time(self) -> float:
        return self._world.now


@dataclass
class SmallProcess:
    """A process with a loop that runs only while `run` works."""

    world: SmallWorld = field(default_factory=SmallWorld)
    name: str = "worker 1"
    alive: bool = True

    def __post_init__(self) -> None:
        self.loop = JumpingLoop(self.world)

    def run(self, work: Awaitable[T]) -> T:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:

            async def wait() -> T:
                return await work

            found = runner.run(wait())
            self.world.drain()
            return found


@dataclass
class Asked:
    """What became of requests: the endpoint's exchanges, and for each request its answer or error."""

    exchanges: list[Exchange]
    ends: list[Answer | CallError]
    world: SmallWorld

    @property
    def one(self) -> tuple[Exchange, Answer | CallError]:
        (exchange,), (end,) = self.exchanges, self.ends
        return exchange, end


def ask_all(
    prompts: Sequence[Prompt],
    *faults: EndpointFault,
    every_s: float = 1.0,
    timeout_s: float = 60.0,
    name: str = SANDBOX,
    **switches: Any,
) -> Asked:
    """Ask an endpoint with faults for each prompt, one after the other."""
    process = SmallProcess()
    endpoint = SimulatedEndpoint(process.world, Switches(latency_ms=500, **switches), faults, name=name)
    ends: list[Answer | CallError] = []

    async def ask() -> None:
        client = endpoint.client(process, timeout_s)
        for prompt in prompts:
            ends.append(await end_of(client, prompt, name))
            await asyncio.sleep(every_s)

    process.run(ask())
    return Asked(endpoint.exchanges, ends, process.world)


async def end_of(client: SimulatedClient, prompt: Prompt, endpoint: str = SANDBOX) -> Answer | CallError:
    try:
        return await client.ask(request_body(prompt), endpoint)
    except CallError as error:
        return error


def fault(name: str, rate: float = 1.0, begins: float = 0.0, ends: float = math.inf) -> EndpointFault:
    return EndpointFault(name, rate, begins, ends)


Many = Callable[[int], list[Prompt]]


@pytest.fixture
def many(prompt: Say) -> Many:
    """Render prompts for different records."""
    return lambda count: [prompt(record={"name": f"Tea {number}"}) for number in range(count)]


# An ordinary request


def test_answer_is_billed_told_and_known_by_its_prompt(prompt: Say) -> None:
    exchange, answer = ask_all([prompt()]).one

    assert isinstance(answer, Answer)
    assert (exchange.request_id, exchange.message_id) == (answer.request_id, answer.message_id)
    assert (exchange.usage, exchange.text) == (answer.usage, answer.text)
    assert exchange.cost_usd > 0
    assert exchange.prompt == prompt().hash
    assert (exchange.good, exchange.delivered, exchange.fault, exchange.status) == (True, True, "", 200)
    assert exchange.answered_at is not None
    assert exchange.ended_at is not None
    assert exchange.at < exchange.arrived_at < exchange.answered_at < exchange.ended_at


@pytest.mark.parametrize(
    "front",
    [
        "",
        "thinking: adaptive\neffort: low\nmax_tokens: 4096\n",
        "examples:\n- {record: {name: Cup}, answer: {title: Cup, stars: 3}}\n",
    ],
)
def test_repair_and_escalation_belong_to_the_prompt_that_they_were_made_for(prompt: Say, front: str) -> None:
    made = prompt("{% block system %}Be short.{% endblock %}{% block user %}{{ record.name }}{% endblock %}", front)
    asking = Asking(made)
    bodies = [asking.next_body()]
    for text, reason in (("no JSON", "end_turn"), ('{"title":', "max_tokens")):
        answer = Answer(text, reason, None, None, None)
        assert asking.ask_for_better(answer, judge_answer(made, answer, 100), Policy())
        bodies.append(asking.next_body())

    assert [asking.kind, asking.repairs, asking.escalations] == ["escalation", 1, 1]
    assert {prompt_hash(body, SANDBOX) for body in bodies} == {made.hash}


def test_limit_of_the_account_refuses_without_a_fault_and_tells_when_to_return(many: Many) -> None:
    asked = ask_all(many(3), rpm=2)

    error = asked.ends[2]
    assert isinstance(error, PassingCallError)
    assert (error.kind, error.http_status) == ("rate_limit_error", 429)
    assert error.retry_after_s is not None
    assert 20 < error.retry_after_s <= 30
    assert error.limits.requests.limit == 2
    assert (asked.exchanges[2].fault, asked.exchanges[2].status, asked.exchanges[2].usage) == ("", 429, None)


def test_untold_limit_is_in_no_header(many: Many) -> None:
    asked = ask_all(many(3), rpm=2, rate_headers=False)

    assert [end.limits for end in asked.ends] == [None] * 3
    assert [exchange.status for exchange in asked.exchanges] == [200, 200, 429]


# Processes that end or wait


@pytest.fixture
def night() -> Iterator[World]:
    """The world of a night, which is over after the test."""
    before = here()
    world = World(1)
    yield world
    world.forget()
    use(before)


def ask_in(world: World, prompt: Prompt, happens: Callable[[SimulatedProcess], None]) -> Exchange:
    """Ask in a process to which something happens while its request is in flight."""
    endpoint = SimulatedEndpoint(world, Switches(latency_ms=500))

    async def ask() -> None:
        await endpoint.client(process).ask(request_body(prompt), SANDBOX)

    process = world.start("worker 1", world.host("machine A"), ask)
    world.call_at(0.1, lambda: happens(process))
    world.run(1000)
    (exchange,) = endpoint.exchanges
    return exchange


def test_request_of_a_killed_process_is_answered_and_billed_but_not_delivered(night: World, prompt: Say) -> None:
    exchange = ask_in(night, prompt(), night.kill)

    assert (exchange.status, exchange.good, exchange.delivered, exchange.ended_at) == (200, True, False, None)
    assert exchange.cost_usd > 0
    night.forget()
    assert (exchange.delivered, exchange.ended_at) == (False, None)


def test_frozen_process_reads_its_answer_when_it_wakes(night: World, prompt: Say) -> None:
    exchange = ask_in(night, prompt(), lambda process: night.freeze(process, 20))

    assert exchange.answered_at is not None
    assert exchange.answered_at < 1
    assert exchange.delivered
    assert exchange.ended_at == pytest.approx(20.1, abs=0.01)


def test_answer_after_the_timeout_is_billed_and_not_delivered(prompt: Say) -> None:
    asked = ask_all([prompt()], fault(TOO_SLOW), timeout_s=30)

    exchange, error = asked.one
    assert isinstance(error, PassingCallError)
    assert error.kind == TIMEOUT
    assert (exchange.good, exchange.delivered, exchange.ended_at) == (True, False, 30)
    assert exchange.answered_at is not None
    assert exchange.answered_at > 30
    assert exchange.cost_usd > 0


def test_cancelled_request_is_billed_and_not_delivered(prompt: Say) -> None:
    process = SmallProcess()
    endpoint = SimulatedEndpoint(process.world, Switches(latency_ms=500))

    async def ask() -> None:
        task = asyncio.create_task(endpoint.client(process).ask(request_body(prompt()), SANDBOX))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    process.run(ask())
    (exchange,) = endpoint.exchanges
    assert (exchange.good, exchange.delivered, exchange.ended_at) == (True, False, 0.1)
    assert exchange.cost_usd > 0


# Faults


@pytest.mark.parametrize("name", [*FAULTS, *ANSWER_RULES])
def test_bill_and_goodness_are_those_that_the_product_reads(many: Many, name: str) -> None:
    prompts = many(len(TIMES))
    asked = ask_all(prompts, fault(name))

    assert {exchange.fault for exchange in asked.exchanges} == {name}
    for prompt, exchange, end in zip(prompts, asked.exchanges, asked.ends, strict=True):
        answer = end.answer if isinstance(end, WrongEndpointError) else end
        if not isinstance(answer, Answer):
            assert not exchange.good
            assert exchange.text is None
            assert (exchange.cost_usd > 0) == (exchange.usage is not None)
            continue
        assert answer.usage == (exchange.usage if exchange.tells_usage else None)
        assert exchange.cost_usd > 0
        assert (exchange.request_id, exchange.message_id) == (answer.request_id, answer.message_id)
        counts = not isinstance(end, WrongEndpointError) and judge_answer(prompt, answer, 512).status == SUCCEEDED
        assert exchange.good == counts
        assert exchange.text is None or exchange.text == answer.text.replace("\ud83d", "\ufffd")


@pytest.mark.parametrize("name", ["dropped_after", "proxy_after", "empty_body", "half_json", "half_stream"])
def test_answer_that_was_generated_and_lost_is_billed(many: Many, name: str) -> None:
    asked = ask_all(many(len(TIMES)), fault(name))

    assert all(exchange.cost_usd > 0 for exchange in asked.exchanges)
    assert not any(exchange.good or exchange.tells_usage for exchange in asked.exchanges)
    assert {type(end) for end in asked.ends} == {PassingCallError}
    kinds = {end.kind for end in asked.ends if isinstance(end, CallError)}
    assert kinds == {"proxy" if name == "proxy_after" else CONNECTION}


@pytest.mark.parametrize("name", [*GATEWAY_RULES, "rate_limited", "overloaded", "server_error", "dropped_before"])
def test_refused_request_is_not_billed(many: Many, name: str) -> None:
    asked = ask_all(many(len(TIMES)), fault(name))

    assert [exchange.cost_usd for exchange in asked.exchanges] == [Decimal(0)] * len(TIMES)
    assert not any(exchange.good or exchange.usage for exchange in asked.exchanges)
    assert all(isinstance(end, CallError) for end in asked.ends)


@pytest.mark.parametrize("name", [*FAULTS, *GATEWAY_RULES, *ANSWER_RULES])
def test_only_the_faults_that_are_named_so_stop_a_run(many: Many, name: str) -> None:
    asked = ask_all(many(len(TIMES)), fault(name))

    stops = [isinstance(end, StoppingCallError) for end in asked.ends]
    assert stops == [name in STOPPING] * len(TIMES)


@pytest.mark.parametrize("endpoint", [SANDBOX, ANTHROPIC])
def test_answer_of_another_endpoint_is_recognized_under_any_name(prompt: Say, endpoint: str) -> None:
    asked = prompt(endpoint=endpoint)

    exchange, answer = ask_all([asked], name=endpoint).one
    assert isinstance(answer, Answer)
    assert exchange.prompt == asked.hash
    _exchange, error = ask_all([asked], fault("other_endpoint"), name=endpoint).one
    assert isinstance(error, WrongEndpointError)


def test_fault_of_a_record_hits_the_same_body_each_time(many: Many) -> None:
    prompts = many(20)
    for name in OF_THE_RECORD:
        ends = ask_all(prompts * 2, fault(name, 0.3)).ends
        refused = [isinstance(end, FinalCallError) for end in ends]
        assert refused[:20] == refused[20:]
        assert 0 < sum(refused[:20]) < 20


def test_key_that_a_gateway_quotes_is_in_the_response_only(prompt: Say) -> None:
    exchange, error = ask_all([prompt()], fault("quotes_key")).one

    assert exchange.status == 400
    assert KEY not in str(error)
    assert "[key]" in str(error)


def test_two_faults_of_one_answer_are_both_named(prompt: Say) -> None:
    exchange, answer = ask_all([prompt()], fault("dated_model"), invalid=1).one

    assert isinstance(answer, Answer)
    assert (exchange.fault, exchange.good) == ("invalid+dated_model", False)
    assert exchange.answered_model == answer.model != "claude-sonnet-4-6"


@pytest.mark.parametrize("name", ["overloaded", "blocked"])
def test_fault_happens_in_its_time_only(many: Many, name: str) -> None:
    asked = ask_all(many(9), fault(name, begins=3.2, ends=6.2), every_s=0.5)

    hit = [3.2 <= exchange.arrived_at < 6.2 for exchange in asked.exchanges]
    assert [exchange.fault == name for exchange in asked.exchanges] == hit
    assert sum(hit) > 2
    assert any(f"{name} at 1 from 3.2 s to 6.2 s begins" in line for line in asked.world.story)
    assert any(f"{name} at 1 from 3.2 s to 6.2 s ends" in line for line in asked.world.story)


def test_rates_that_add_up_to_more_than_one_are_scaled(many: Many) -> None:
    asked = ask_all(many(20), fault("overloaded"), fault("invalid"), refused=0.5)

    assert {exchange.fault for exchange in asked.exchanges} == {"overloaded", "invalid", "refused"}


def test_unknown_fault_is_rejected() -> None:
    with pytest.raises(ValueError, match="no such fault: tea"):
        fault("tea")


# An endpoint that is away


@pytest.mark.parametrize("timeout_s", [2, 60])
def test_no_request_reaches_an_endpoint_that_is_away(many: Many, timeout_s: float) -> None:
    asked = ask_all(many(6), fault(AWAY), timeout_s=timeout_s)

    assert asked.exchanges == []
    assert {end.kind for end in asked.ends if isinstance(end, CallError)} == {CONNECT}


def test_answers_that_are_on_the_way_are_lost_and_billed_when_the_endpoint_goes(prompt: Say) -> None:
    exchange, error = ask_all([prompt()], fault(AWAY, begins=0.3)).one

    assert isinstance(error, PassingCallError)
    assert error.kind == CONNECTION
    assert (exchange.good, exchange.status, exchange.delivered) == (False, None, False)
    assert exchange.cost_usd > 0


def test_request_that_is_lost_on_the_way_is_never_seen(prompt: Say) -> None:
    asked = ask_all([prompt()], fault(LOST_BEFORE))

    assert asked.exchanges == []
    assert [end.kind for end in asked.ends if isinstance(end, CallError)] == [CONNECTION]


def test_all_faults_end_when_told_so(many: Many) -> None:
    process = SmallProcess()
    faults = (fault(AWAY, begins=1), fault("blocked"), fault("overloaded", 0.5))
    endpoint = SimulatedEndpoint(process.world, Switches(refused=0.3), faults)
    endpoint.end_faults()

    async def ask() -> list[Answer | CallError]:
        await asyncio.sleep(5)
        client = endpoint.client(process)
        return [await end_of(client, prompt) for prompt in many(10)]

    assert all(isinstance(end, Answer) for end in process.run(ask()))
    assert [exchange.fault for exchange in endpoint.exchanges] == [""] * 10


# The endpoint's other paths


def opened(*faults: EndpointFault, **options: Any) -> tuple[SmallProcess, SimulatedClient]:
    process = SmallProcess()
    return process, SimulatedEndpoint(process.world, Switches(), faults, **options).client(process)


@pytest.mark.parametrize(("name", "confirms"), [(SANDBOX, True), (ANTHROPIC, True), ("gateway", False)])
def test_endpoint_says_who_it_is(name: str, confirms: bool) -> None:
    process, client = opened(name=name, confirms=confirms)
    identity = process.run(client.identify())
    assert (identity.is_sandbox, identity.answered) == (name == SANDBOX, confirms)


def test_identification_fails_if_the_key_is_refused_or_the_endpoint_away() -> None:
    process, client = opened(fault("key_refused"))
    with pytest.raises(StoppingCallError, match="ANTHROPIC_API_KEY"):
        process.run(client.identify())
    process, client = opened(fault(AWAY))
    with pytest.raises(EndpointError):
        process.run(client.identify())


def test_model_is_described_if_it_is_known_and_the_path_is_served() -> None:
    process, client = opened()
    assert process.run(client.read_model("claude-sonnet-4-6")).max_output == 128_000
    for kept, options in ((fault("blocked"), {"confirms": False}), (fault(AWAY), {})):
        process, client = opened(kept, **options)
        with pytest.raises(CallError) as raised:
            process.run(client.read_model("claude-sonnet-4-6"))
        assert raised.value.http_status == (404 if options else None)
    process, client = opened()
    with pytest.raises(CallError) as raised:
        process.run(client.read_model("no-model"))
    assert raised.value.http_status == 404


# The same as the real client


@pytest.mark.parametrize("name", [*GATEWAY_RULES, *ANSWER_RULES])
async def test_response_is_read_as_by_the_real_client(
    scripted: Scripted, connect: Connect, prompt: Say, name: str
) -> None:
    client = connect(scripted.url)
    for number in TIMES:
        reply = spoilt(name, prompt(), number)
        reply.headers["request-id"] = "req_1"
        scripted.plan(Reply(reply.body, reply.status, reply.headers))
        theirs: Answer | CallError
        try:
            theirs = await client.ask(request_body(prompt()), SANDBOX)
        except CallError as error:
            theirs = error
        assert described(theirs) == described(read(reply))


def spoilt(name: str, prompt: Prompt, number: int) -> ServedReply:
    """Return a response with a fault, in one of its forms."""
    draw = Draw(digest(b"%d" % number))
    if name in GATEWAY_RULES:
        return GATEWAY_RULES[name](draw)
    process = SmallProcess()
    endpoint = SimulatedEndpoint(process.world, Switches())
    request = endpoint.send(process, request_body(prompt), 60)
    process.world.drain()
    process.loop.close()
    assert request.reply is not None
    ANSWER_RULES[name](request.reply, draw)
    return request.reply


def read(reply: ServedReply) -> Answer | CallError:
    try:
        return read_reply(SANDBOX, reply)
    except CallError as error:
        return error


def described(end: Answer | CallError) -> object:
    if isinstance(end, Answer):
        return end
    told = vars(end).copy()
    # A date is turned into seconds by the clock of this moment.
    pause = told.pop("retry_after_s")
    return type(end), str(end), told, pause is None, pause is not None and min(pause, 1e6)


# The same again


def night_of(seed: int, prompts: list[Prompt], faults: Sequence[EndpointFault]) -> list[str]:
    asked = ask_all(prompts, *faults, seed=seed, every_s=0.2, latency_spread=0.5)
    return [*map(repr, asked.exchanges), *asked.world.story]


def test_same_seed_gives_the_same_night_to_the_byte(many: Many) -> None:
    faults = draw_faults(random.Random(5), 30)
    assert night_of(1, many(30), faults) == night_of(1, many(30), faults)
    assert night_of(1, many(30), faults) != night_of(2, many(30), faults)


def test_fault_that_is_left_out_changes_nothing_else(many: Many) -> None:
    faults = [fault("blocked", 0.2), fault("event_stream", 0.3), fault("no_usage", 0.2)]
    names = [exchange.fault for exchange in ask_all(many(40), *faults).exchanges]
    fewer = [exchange.fault for exchange in ask_all(many(40), *faults[1:]).exchanges]

    assert set(names) == {"", "blocked", "event_stream", "no_usage"}
    assert [name for name in names if name != "blocked"] == [
        left for name, left in zip(names, fewer, strict=True) if name != "blocked"
    ]


def test_drawn_faults_end_in_time_and_are_many_kinds() -> None:
    nights = [draw_faults(random.Random(seed), 600) for seed in range(300)]

    assert nights == [draw_faults(random.Random(seed), 600) for seed in range(300)]
    assert all(0 <= one.begins <= one.ends <= 600 for faults in nights for one in faults)
    assert {one.name for faults in nights for one in faults} > {
        AWAY,
        TOO_SLOW,
        *STOPPING,
        *GATEWAY_RULES,
        *ANSWER_RULES,
    }
    assert sum(not faults for faults in nights) > 10
