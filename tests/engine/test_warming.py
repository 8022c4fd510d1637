"""Warm the prompt cache against the sandbox's cache, with the test's own clock; then in a whole run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest

from db.readers.figures import PromptCacheUse
from presswork.errors import CallError, PassingCallError, StoppedError
from presswork.pacing.limiter import Limiter
from presswork.pacing.pace import Pace
from presswork.pacing.warming import DOUBLE_AFTER_S
from presswork.prices import Usage
from presswork.prompts.render import Prompt, make_brief, render_prompt
from presswork.prompts.templates import load_template
from presswork.report.cache_savings import saved_by_reads
from presswork.report.summary import PromptCacheSummary
from sandbox.known import SERVED_MODELS
from sandbox.prompt_cache import CacheBlock, PromptCache
from tests.engine.workshop import Workshop
from tests.nights.simulated.loop import LoneLoop

T = TypeVar("T")
LONG = "Our shop sells tea from small gardens. " * 513  # 5,000 tokens
BEGAN = 1000.0


Make = Callable[..., list[Prompt]]


@pytest.fixture
def prompts(tmp_path: Path) -> Make:
    """Render prompts of a template with this system block."""

    def make(count: int = 40, system: str = LONG, cache: str = '"5m"', name: str = "note") -> list[Prompt]:
        (tmp_path / f"{name}.md.j2").write_text(
            f"---\noutput: SubjectLine\ncache: {cache}\n---\n"
            f"{{% block system %}}{system}{{% endblock %}}{{% block user %}}{{{{ record.n }}}}{{% endblock %}}",
            encoding="utf-8",
        )
        brief = make_brief(load_template(tmp_path, name), "sandbox", {})
        return [render_prompt(brief, {"record": {"n": number}}) for number in range(count)]

    return make


@dataclass
class Endpoint:
    """Answers through the sandbox's cache; `trouble` maps a request's number, from 0, to what happens to it."""

    loop: LoneLoop
    latency_s: float = 1.0
    delay_s: float = 0.0
    tells: bool = True
    usage_left_out: bool = False
    misses: Callable[[int], bool] = lambda _number: False
    trouble: dict[int, Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=dict)
    sent: list[float] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    writes: int = 0
    reads: int = 0
    in_flight: int = 0
    most: int = 0

    def __post_init__(self) -> None:
        self.cache = PromptCache(self.loop.time)

    async def ask(self, pace: Pace, prompt: Prompt) -> None:
        """Send one request; an error is reported to the gate, not raised."""
        async with pace.reserve(prompt, 100) as likely, pace.enter(prompt, 100, likely) as place:
            self.sent.append(self.loop.time() - BEGAN)
            self.asked.append(prompt.messages[-1]["content"])
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            try:
                place.tell(*await self._answer(prompt, len(self.sent) - 1))
            finally:
                self.in_flight -= 1

    async def ask_all(self, pace: Pace, prompts: list[Prompt]) -> float:
        """Send all requests at once, and return the seconds that they take."""
        began = self.loop.time()
        await asyncio.gather(*(self.ask(pace, prompt) for prompt in prompts))
        return self.loop.time() - began

    async def _answer(self, prompt: Prompt, number: int) -> tuple[Usage | None, None, CallError | None]:
        ttl = prompt.brief.template.front.cache
        blocks = [
            CacheBlock(prompt.brief.prefix.encode(), 5000, None if ttl == "off" else ttl),
            CacheBlock(b"user", 20),
        ]
        account = self.cache.account(SERVED_MODELS["claude-sonnet-4-6"], blocks, misses=self.misses(number))
        try:
            await self.trouble.get(number, self._latency)()
        except PassingCallError as error:
            return None, None, error
        self.cache.begin(account, self.delay_s)
        self.writes += account.written > 0
        self.reads += account.read > 0
        if self.usage_left_out:
            return None, None, None
        if not self.tells:
            return Usage(5020, output_tokens=50), None, None
        usage = Usage(account.input_tokens, account.written_5m, account.written_1h, account.read, 50)
        return usage, None, None

    async def _latency(self) -> None:
        await asyncio.sleep(self.latency_s)


async def verified() -> bool:
    return True


def pace_of(concurrency: int = 100, **own: Any) -> Pace:
    return Pace(concurrency=concurrency, limiter=Limiter(), verify=verified, **own)


def run(loop: LoneLoop, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return loop.run(work())


async def fails() -> None:
    await asyncio.sleep(0.2)
    raise PassingCallError(kind="overloaded_error", http_status=529)


async def hangs() -> None:
    await asyncio.sleep(600)
    raise PassingCallError(kind="timeout")


# First one request, then two, then all


def test_one_request_writes_a_prefix_and_all_others_read_it(loop: LoneLoop, prompts: Make) -> None:
    endpoint, pace = Endpoint(loop), pace_of()
    took = run(loop, lambda: endpoint.ask_all(pace, prompts()))

    assert (endpoint.writes, endpoint.reads) == (1, 39)
    # Two latencies longer than all at once.
    assert took == pytest.approx(3)
    assert [endpoint.sent.count(moment) for moment in (0, 1, 2)] == [1, 2, 37]
    assert pace.warming.report().late == pace.warming.report().missed == 0


def test_those_who_wait_go_in_their_order(loop: LoneLoop, prompts: Make) -> None:
    endpoint = Endpoint(loop)
    run(loop, lambda: endpoint.ask_all(pace_of(), prompts()))

    assert endpoint.asked == [str(number) for number in range(40)]


def test_what_another_process_has_warmed_is_read_at_once(loop: LoneLoop, prompts: Make) -> None:
    endpoint = Endpoint(loop)
    run(loop, lambda: endpoint.ask_all(pace_of(), prompts(1)))
    took = run(loop, lambda: endpoint.ask_all(pace_of(), prompts()))

    assert endpoint.writes == 1
    assert took == pytest.approx(2)


def test_a_warm_prefix_lets_retries_and_repairs_go_at_once(loop: LoneLoop, prompts: Make) -> None:
    endpoint, pace = Endpoint(loop), pace_of()
    run(loop, lambda: endpoint.ask_all(pace, prompts()))
    took = run(loop, lambda: endpoint.ask_all(pace, prompts()))

    assert endpoint.writes == 1
    assert took == pytest.approx(1)


@pytest.mark.parametrize(
    ("system", "cache"), [(LONG, '"off"'), ("You write.", '"5m"'), ("Our shop sells tea. " * 100, '"5m"')]
)
def test_what_is_not_cached_or_probably_too_short_waits_for_nothing(
    loop: LoneLoop, prompts: Make, system: str, cache: str
) -> None:
    endpoint = Endpoint(loop)
    took = run(loop, lambda: endpoint.ask_all(pace_of(), prompts(30, system, cache)))

    assert took == pytest.approx(1)
    assert endpoint.most == 30


def test_one_place_in_flight_warms_by_itself(loop: LoneLoop, prompts: Make) -> None:
    endpoint = Endpoint(loop)
    took = run(loop, lambda: endpoint.ask_all(pace_of(1), prompts(5)))

    assert endpoint.writes == 1
    assert took == pytest.approx(5)


def test_each_prefix_is_warmed_and_equal_ones_together(loop: LoneLoop, prompts: Make) -> None:
    endpoint = Endpoint(loop)
    mixed = [*prompts(10), *prompts(10, cache='"1h"'), *prompts(10, LONG + "!"), *prompts(10, name="twin")]
    took = run(loop, lambda: endpoint.ask_all(pace_of(), mixed))

    assert (endpoint.writes, endpoint.reads) == (3, 37)
    assert took == pytest.approx(3)


# A cache that is not ideal


def test_late_entries_double_what_is_in_flight_until_one_is_read(loop: LoneLoop, prompts: Make) -> None:
    endpoint, pace = Endpoint(loop, delay_s=1.5), pace_of()
    took = run(loop, lambda: endpoint.ask_all(pace, prompts()))

    assert endpoint.writes == 1 + 2 + 4
    assert took == pytest.approx(5)
    assert [endpoint.sent.count(moment) for moment in (0, 1, 2, 3, 4)] == [1, 2, 4, 8, 25]
    assert (pace.warming.report().late, pace.warming.report().missed) == (6, 0)


def test_reads_that_miss_by_chance_hold_nothing_up_once_one_has_read(loop: LoneLoop, prompts: Make) -> None:
    endpoint, pace = Endpoint(loop, misses=lambda number: number % 2 == 1), pace_of()
    took = run(loop, lambda: endpoint.ask_all(pace, prompts()))

    assert (endpoint.writes, endpoint.reads) == (21, 19)
    assert took == pytest.approx(3)
    assert (pace.warming.report().late, pace.warming.report().missed) == (0, 20)


def test_entries_that_never_appear_end_the_warm_up_at_the_concurrency(loop: LoneLoop, prompts: Make) -> None:
    endpoint, pace = Endpoint(loop, delay_s=1e9), pace_of(20)
    took = run(loop, lambda: endpoint.ask_all(pace, prompts(200)))

    # First 1, 2, 4, 8 and 16 in flight, then twenty at a time.
    assert took == pytest.approx(5 + (200 - 31) / 20, abs=1)
    assert (endpoint.writes, pace.warming.report().late) == (200, 199)


@pytest.mark.parametrize("way", [{"tells": False}, {"usage_left_out": True}])
def test_an_answer_that_tells_nothing_of_the_cache_lets_all_go(
    loop: LoneLoop, prompts: Make, way: dict[str, bool]
) -> None:
    endpoint, pace = Endpoint(loop, **way), pace_of()  # type: ignore[arg-type]  # both fields take a bool
    took = run(loop, lambda: endpoint.ask_all(pace, prompts()))

    assert took == pytest.approx(2)
    assert pace.warming.report().silent == 40


# Events that must not block a run


@pytest.mark.parametrize("failing", [1, 3])
def test_when_the_first_fails_the_next_goes_alone(loop: LoneLoop, prompts: Make, failing: int) -> None:
    endpoint = Endpoint(loop, trouble=dict.fromkeys(range(failing), fails))
    took = run(loop, lambda: endpoint.ask_all(pace_of(), prompts()))

    assert endpoint.writes == 1
    assert took == pytest.approx(3 + failing * 0.2)


def test_when_the_first_hangs_the_others_go_after_a_while(loop: LoneLoop, prompts: Make) -> None:
    endpoint, pace = Endpoint(loop, trouble={0: hangs}), pace_of()
    run(loop, lambda: endpoint.ask_all(pace, prompts()))

    assert endpoint.writes == 1
    assert max(endpoint.sent) == pytest.approx(DOUBLE_AFTER_S + 1 + 1)


def test_when_all_hang_more_and_more_go(loop: LoneLoop, prompts: Make) -> None:
    endpoint = Endpoint(loop, trouble=dict.fromkeys(range(40), hangs))
    run(loop, lambda: endpoint.ask_all(pace_of(), prompts()))

    assert [endpoint.sent.count(number * DOUBLE_AFTER_S) for number in range(6)] == [1, 1, 2, 4, 8, 16]
    assert len(endpoint.sent) == 40


def test_after_a_pause_longer_than_the_entry_lasts_the_warm_up_starts_over(loop: LoneLoop, prompts: Make) -> None:
    endpoint, pace = Endpoint(loop), pace_of()

    async def twice(pause_s: float) -> float:
        await endpoint.ask_all(pace, prompts())
        await asyncio.sleep(pause_s)
        return await endpoint.ask_all(pace, prompts())

    assert run(loop, lambda: twice(290)) == pytest.approx(1)
    assert endpoint.writes == 1
    assert run(loop, lambda: twice(310)) == pytest.approx(3)
    assert endpoint.writes == 2


def test_those_who_wait_hold_no_place_and_no_money(loop: LoneLoop, prompts: Make) -> None:
    endpoint, pace = Endpoint(loop, latency_s=5), pace_of(2, max_cost=Decimal(1))

    async def work() -> tuple[Decimal, list[float]]:
        waiting = [asyncio.create_task(endpoint.ask(pace, prompt)) for prompt in prompts(10)]
        await asyncio.sleep(1)
        reserved = pace.spending.reserved_usd
        await endpoint.ask_all(pace, prompts(1, "You write.", name="short"))
        sent = list(endpoint.sent)
        await asyncio.gather(*waiting)
        return reserved, sent

    reserved, sent = run(loop, work)
    assert sent[:2] == [0, 1]
    assert Decimal(0) < reserved < Decimal("0.03")


def test_a_stop_releases_those_who_wait_and_sends_none(loop: LoneLoop, prompts: Make) -> None:
    endpoint, pace = Endpoint(loop, latency_s=30), pace_of()

    async def work() -> tuple[int, float]:
        waiting = [asyncio.create_task(endpoint.ask(pace, prompt)) for prompt in prompts()]
        await asyncio.sleep(1)
        pace.stop(StoppedError("Ctrl-C"))
        ended, _going = await asyncio.wait(waiting, timeout=1)
        stopped = sum(isinstance(task.exception(), StoppedError) for task in ended)
        await asyncio.gather(*waiting, return_exceptions=True)
        return stopped, len(endpoint.sent)

    assert run(loop, work) == (39, 1)


def test_one_that_is_cut_off_while_it_waits_costs_no_turn(loop: LoneLoop, prompts: Make) -> None:
    endpoint, pace = Endpoint(loop), pace_of()

    async def work() -> None:
        waiting = [asyncio.create_task(endpoint.ask(pace, prompt)) for prompt in prompts(10)]
        await asyncio.sleep(0.5)
        waiting[1].cancel()
        # Also cancel one whose turn has just come.
        loop.call_at(BEGAN + 1, lambda: loop.call_soon(waiting[2].cancel))
        for task in waiting:
            with suppress(asyncio.CancelledError):
                await task

    run(loop, work)
    assert endpoint.writes == 1
    assert len(endpoint.sent) in {8, 9}
    assert loop.time() - BEGAN == pytest.approx(3)


# The summary


def test_the_summary_says_why_the_cache_was_not_read() -> None:
    assert PromptCacheSummary(reads=9, writes=1).why_not() == []
    assert "too short" in PromptCacheSummary(too_short=["note"]).why_not()[0]
    assert "gateway" in PromptCacheSummary(silent=3).why_not()[0]
    assert PromptCacheSummary(silent=3, reads=1).why_not() == []
    late, missed = PromptCacheSummary(writes=4, reads=9, late=2, missed=1).why_not()
    assert late.startswith("2 requests")
    assert "late" in late
    assert missed.startswith("1 request ")
    assert "missed" in missed


async def test_a_run_writes_its_system_block_once_and_says_what_that_saved(workshop: Workshop) -> None:
    workshop.numbered(40)
    note = workshop.templates / "note.md.j2"
    note.write_text(note.read_text(encoding="utf-8").replace("You write subject lines.", LONG), encoding="utf-8")
    workshop.sandbox.configure(latency_ms=50)
    summary = await workshop.run(refresh=True)
    written = workshop.sandbox.stats()["served"]
    note.write_text(note.read_text(encoding="utf-8").replace("key: id", 'key: id\ncache: "off"'), encoding="utf-8")
    without = await workshop.run(refresh=True)

    assert (summary.succeeded, without.succeeded) == (40, 40)
    assert (summary.prompt_cache.writes, summary.prompt_cache.reads) == (1, 39)
    assert written["cache_read_tokens"] == 39 * written["cache_creation_5m_tokens"]
    assert summary.prompt_cache.why_not() == without.prompt_cache.why_not() == []
    assert summary.cost_usd is not None
    assert without.cost_usd is not None
    assert summary.saved_by_prompt_cache_usd is not None
    assert float(summary.cost_usd / without.cost_usd) <= 0.6
    assert without.cost_usd - summary.cost_usd == pytest.approx(summary.saved_by_prompt_cache_usd, rel=Decimal("0.01"))


async def test_a_run_says_that_a_block_is_too_short_and_that_entries_came_late(workshop: Workshop) -> None:
    workshop.numbered(5)
    assert (await workshop.run(refresh=True)).prompt_cache.too_short == ["note"]

    note = workshop.templates / "note.md.j2"
    note.write_text(note.read_text(encoding="utf-8").replace("You write subject lines.", LONG), encoding="utf-8")
    workshop.sandbox.configure(latency_ms=20, cache_delay_ms=600_000)
    summary = await workshop.run(refresh=True)
    assert (summary.prompt_cache.writes, summary.prompt_cache.late) == (5, 4)
    assert summary.saved_by_prompt_cache_usd is not None
    assert summary.saved_by_prompt_cache_usd < 0


def test_what_caching_saved_is_by_place_speed_and_prompt_length() -> None:
    day = date(2026, 11, 22)
    haiku = PromptCacheUse("claude-haiku-5-5", None, None, None, day, 100_000, 0, 0, 1_000_000, writes=0, reads=10)
    long = replace(haiku, prompt_tokens=101_000)
    in_us = PromptCacheUse("claude-sonnet-4-6", None, "us", None, day, 6000, 0, 0, 1_000_000, writes=0, reads=200)

    assert saved_by_reads([haiku, long, in_us]) == Decimal("0.09") + Decimal("0.45") + Decimal("2.97")
    assert saved_by_reads([haiku, replace(in_us, inference_geo="moon")]) is None
    assert saved_by_reads([]) == 0
