"""A step alone, without a run, Prefect, a database or an endpoint: the test gives it stand-ins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from db.ledger.rows import ConfirmedRow, GenerationRow, OpenedRow, PromptRow, RecordRow, SettledRow, TextRow
from db.readers.look_up import PromptHistory
from db.readers.what_stands import Failing, OwnOutcome, Standing
from db.sources.values import make_record
from presswork.answers.outcomes import Policy
from presswork.claude.answers import Answer
from presswork.engine.context import StepContext
from presswork.engine.materials.handles import Material
from presswork.engine.orchestration.chunks import Chunk, InterruptedChunkError
from presswork.engine.resources.stopping import Stopper
from presswork.engine.step import Step
from presswork.errors import CostCapError, PassingCallError, RecordError, StoppingCallError
from presswork.pacing.breaker import Breaker
from presswork.prices import Usage
from presswork.prompts.render import Brief, Prompt, make_brief, render_prompt
from presswork.prompts.templates import load_template
from presswork.report.progress import Progress
from presswork.settings import Settings
from tests.waiting import until

TEMPLATE = """---
output: SubjectLine
---
{% block user %}A line about {{ record.name }}.{% endblock %}
"""
LINE = '{"subject": "A line", "preheader": "The text after the subject line"}'
ENDED = Answer(LINE, "end_turn", Usage(input_tokens=10, output_tokens=20), None, "msg_1")
OTHER = "of another run"


@dataclass
class Ledger:
    """A stand-in for the run's ledger and its writer: keeps the rows that a step writes, and prompts and claims."""

    run_id = "run"
    flow = "flow"
    endpoint = "sandbox"
    lease_id = "lease"
    helper_id: str | None = None

    generations: dict[str, GenerationRow] = field(default_factory=dict)
    attempts: list[OpenedRow] = field(default_factory=list)
    settled: list[SettledRow] = field(default_factory=list)
    prompts: set[str] = field(default_factory=set)
    answered: dict[str, PromptHistory] = field(default_factory=dict)
    stands: dict[str, Standing] = field(default_factory=dict)
    own: dict[str, OwnOutcome] = field(default_factory=dict)
    confirmed: dict[str, ConfirmedRow] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)

    async def known(self, hashes: Iterable[str]) -> Mapping[str, PromptHistory]:
        return {found: self.answered[found] for found in hashes if found in self.answered}

    async def standing(self, _step: str, keys: Sequence[str], *, with_parents: bool) -> Mapping[str, Standing]:
        return {key: self.stands[key] for key in keys if key in self.stands}

    async def own_outcomes(self, _step: str, keys: Sequence[str], *, with_parents: bool) -> Mapping[str, OwnOutcome]:
        return {key: self.own[key] for key in keys if key in self.own}

    async def take(self, hashes: Sequence[str]) -> set[str]:
        for found in hashes:
            self.held.setdefault(found, "own")
        return {found for found in hashes if self.held[found] == "own"}

    async def ready(self, prompt_hash: str) -> None:
        assert self.held[prompt_hash] == "own"

    def release(self, prompt_hash: str) -> None:
        if self.held.get(prompt_hash) == "own":
            del self.held[prompt_hash]

    def has_prompt(self, prompt_hash: str) -> bool:
        return prompt_hash in self.prompts

    def add_prompt(self, row: PromptRow, texts: Iterable[TextRow]) -> None:
        self.prompts.add(row.hash)

    def add_record(self, row: RecordRow) -> None:
        pass

    def add_generation(self, row: GenerationRow, parents: Iterable[str]) -> None:
        assert row.id not in self.generations
        self.generations[row.id] = row
        if row.output is not None and row.prompt_hash is not None:
            self.answer(row.prompt_hash, row.output, row.id)

    def confirm(self, row: ConfirmedRow) -> None:
        assert row.record_key not in self.confirmed
        self.confirmed[row.record_key] = row

    def answer(self, prompt_hash: str, output: Any, generation_id: str = OTHER) -> None:
        """Add an answer for a prompt, as if another run had written it."""
        self.answered[prompt_hash] = PromptHistory(generation_id, orjson.dumps(output).decode())

    def open_attempt(self, row: OpenedRow) -> None:
        self.attempts.append(row)

    def settle_attempt(self, row: SettledRow) -> None:
        self.settled.append(row)

    async def committed(self) -> None:
        await asyncio.sleep(0)

    def has_attempt(self, attempt_id: str) -> bool:
        return True

    def failure_of(self, generation_id: str) -> str | None:
        return None

    @property
    def outcomes(self) -> dict[str, tuple[str, str]]:
        """Status and origin of the written generations by the record's key."""
        return {row.record_key: (row.status, row.origin) for row in self.generations.values()}


class OpenGate:
    """Admits every request until it is stopped."""

    def __init__(self) -> None:
        self.stopped: StoppingCallError | None = None
        self._breaker = Breaker("note")

    @asynccontextmanager
    async def reserve(self, _prompt: Prompt, _max_tokens: int, _added_tokens: int) -> AsyncIterator[Decimal | None]:
        if self.stopped is not None:
            raise self.stopped
        yield None

    @asynccontextmanager
    async def enter(self, _prompt: Prompt, _max_tokens: int, _likely: Decimal | None) -> AsyncIterator[OpenGate]:
        yield self

    def tell(self, *_told: object, **_more: object) -> None:
        """Ignore how a request ended."""

    def breaker(self, _step: str) -> Breaker:
        return self._breaker

    def stop(self, reason: StoppingCallError) -> None:
        self.stopped = reason


@dataclass
class ScriptedEndpoint:
    """Answers by a function of the prompt's text."""

    say: Callable[[str], Answer] = lambda _text: ENDED
    asked: list[str] = field(default_factory=list)

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        (message,) = body["messages"]
        text = message["content"]
        words = text if isinstance(text, str) else text[0]["text"]
        name = words.removeprefix("A line about ").removesuffix(".")
        self.asked.append(name)
        await asyncio.sleep(0)
        return self.say(name)

    async def learn_model(self, _brief: Brief) -> int | None:
        return None


@dataclass
class Materials:
    """Records in pages, by key and name; a record with the name None can't be read."""

    pages_of: Sequence[Mapping[str, str | None]]

    async def pages(self, _needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        for page in self.pages_of:
            yield [self._material(key, name) for key, name in page.items()]

    def _material(self, key: str, name: str | None) -> Material:
        if name is None:
            return Material(key, None, {}, fault=RecordError("It can't be read.", kind="unreadable"))
        record = make_record(key, {"name": name})
        return Material(key, record, {"record": record.data})


@dataclass
class Bench:
    """A step with stand-ins for everything that it uses; `between` runs before each further try of a chunk."""

    brief: Brief
    ledger: Ledger = field(default_factory=Ledger)
    endpoint: ScriptedEndpoint = field(default_factory=ScriptedEndpoint)
    gate: OpenGate = field(default_factory=OpenGate)
    progress: Progress = field(default_factory=lambda: Progress("run", "flow", "sandbox"))
    between: Callable[[int], None] = lambda _number: None
    tries: int = 3
    states: list[str] = field(default_factory=list)

    async def run(self, *pages: Mapping[str, str | None], chunk_size: int = 1, variants: int = 1) -> None:
        settings = Settings(concurrency=2, chunk_size=chunk_size, chunk_retries=self.tries - 1, give_up_after=3)
        context = StepContext(
            settings=settings,
            policy=Policy(retries=0, wait_max_s=0),
            ledger=self.ledger,
            writer=self.ledger,
            pace=self.gate,
            endpoint=self.endpoint,
            run_chunk=self._run_chunk,
            progress=self.progress,
            stopper=Stopper(wait_s=1, close_gate=self.gate.stop),
        )
        async with asyncio.timeout(20):
            await Step(context, self.brief, variants).run(Materials(pages))

    async def _run_chunk(self, chunk: Chunk) -> bool:
        for number in range(self.tries):
            try:
                if number:
                    self.between(number)
                    if await chunk.find_hits():
                        return True
                await chunk.run()
            except InterruptedChunkError as error:
                self.states.append("continues" if error.will_continue else "failed")
                if not error.will_continue:
                    return False
            else:
                return False
        raise AssertionError("a chunk continues after its last try")

    def stands(self, key: str, name: str, **own: Any) -> Standing:
        """Make content the current one of a record, as if another run had written it."""
        self.ledger.answer(self.hash_of(name), {"subject": "A line", "preheader": "The text after the subject line"})
        record = make_record(key, {"name": name})
        standing = Standing("standing", OTHER, record.hash, self.brief.template.hash, frozenset(), None)
        self.ledger.stands[key] = replace(standing, **own)
        return self.ledger.stands[key]

    def fails(self, key: str, name: str | None, row: GenerationRow, **own: Any) -> None:
        """Make the failure of a row the newest outcome of a record."""
        record_hash = None if name is None else make_record(key, {"name": name}).hash
        told = (row.status, row.error_kind, row.error_message)
        failing = replace(Failing("failing", *told, record_hash, self.brief.template.hash), **own)
        self.ledger.stands[key] = Standing(None, None, None, None, frozenset(), failing)

    def forget(self) -> None:
        """Begin another run on the same ledger."""
        self.ledger.generations.clear()
        self.ledger.confirmed.clear()
        self.progress = Progress("run", "flow", "sandbox")

    def hash_of(self, name: str) -> str:
        return render_prompt(self.brief, {"record": {"name": name}}).hash


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("presswork.engine.claiming.ASK_AGAIN_S", (0.001, 0.002))
    (tmp_path / "note.md.j2").write_text(TEMPLATE, encoding="utf-8")
    return Bench(make_brief(load_template(tmp_path, "note"), "sandbox", {}))


def away(_text: str) -> Answer:
    raise PassingCallError(kind="connect")


async def test_misses_are_asked_and_hits_are_not(bench: Bench) -> None:
    bench.ledger.answer(bench.hash_of("tea"), {"subject": "A line", "preheader": "The text after the subject line"})
    await bench.run({"a": "tea", "b": "coffee"}, {"c": "milk"})

    live, cached = ("succeeded", "live"), ("succeeded", "cache")
    assert bench.ledger.outcomes == {"a": cached, "b": live, "c": live}
    assert bench.endpoint.asked == ["coffee", "milk"]
    assert [row.kind for row in bench.ledger.attempts] == ["call", "call"]
    assert (bench.progress.counts["cached"], bench.progress.counts["succeeded"], bench.ledger.held) == (1, 2, {})


async def test_attempt_that_is_cancelled_while_it_is_committed_ends_as_not_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.ledger, "committed", asyncio.Event().wait)
    run = asyncio.create_task(bench.run({"a": "tea"}))
    await until(lambda: bench.ledger.attempts)
    run.cancel()
    await asyncio.wait([run])
    (opened,), (settled,) = bench.ledger.attempts, bench.ledger.settled
    assert (settled.attempt_id, settled.error_type, bench.endpoint.asked) == (opened.id, "not_sent", [])


async def test_record_that_can_not_be_rendered_fails_alone(bench: Bench) -> None:
    await bench.run({"a": None, "b": "tea"})
    assert bench.ledger.outcomes == {"a": ("failed", "live"), "b": ("succeeded", "live")}


async def test_variants_are_requests_of_their_own(bench: Bench) -> None:
    await bench.run({"a": "tea"}, variants=3)
    assert set(bench.ledger.outcomes) == {"a/0", "a/1", "a/2"}
    assert bench.endpoint.asked == ["tea"] * 3


async def test_same_prompt_twice_is_asked_once(bench: Bench) -> None:
    await bench.run({"a": "tea", "b": "tea"}, {"c": "tea"})
    assert bench.endpoint.asked == ["tea"]
    assert sorted(bench.ledger.outcomes.values()) == [("succeeded", "cache")] * 2 + [("succeeded", "live")]


async def test_answer_that_stands_for_a_record_is_not_looked_up(bench: Bench) -> None:
    bench.stands("a", "tea")
    answer = bench.ledger.answered.pop(bench.hash_of("tea"))
    bench.ledger.stands["a"] = replace(bench.ledger.stands["a"], prompt_hash=bench.hash_of("tea"), answer=answer)
    bench.ledger.stands["b"] = replace(bench.ledger.stands["a"], prompt_hash=bench.hash_of("another tea"))
    await bench.run({"a": "tea", "b": "milk"})
    assert (bench.endpoint.asked, list(bench.ledger.confirmed)) == (["milk"], ["a"])


async def test_content_that_is_no_more_is_asked_again(bench: Bench) -> None:
    bench.ledger.answer(bench.hash_of("tea"), {"subject": "?"})
    await bench.run({"a": "tea"})
    assert bench.ledger.outcomes == {"a": ("succeeded", "live")}


async def test_prompt_with_too_many_bad_outcomes_is_skipped(bench: Bench) -> None:
    bench.ledger.answered[bench.hash_of("tea")] = PromptHistory(bad_outcomes=3, last_bad="refused (refusal)")
    await bench.run({"a": "tea"})
    assert (bench.ledger.outcomes, bench.endpoint.asked) == ({"a": ("skipped", "live")}, [])


async def test_content_that_stands_is_confirmed_and_writes_no_row(bench: Bench) -> None:
    bench.stands("a", "tea")
    await bench.run({"a": "tea", "b": "milk"})
    assert bench.ledger.outcomes == {"b": ("succeeded", "live")}
    (row,) = bench.ledger.confirmed.values()
    assert (row.record_key, row.status, row.generation_id, row.lease_id) == ("a", "succeeded", "standing", None)
    assert +bench.progress.counts == {"cached": 1, "succeeded": 1}


FAILED_SINCE = Failing("failing", "refused", "refusal", "No.", None, "")


@pytest.mark.parametrize(
    "changed",
    [
        {"written_by": "one that is older"},
        {"record_hash": "of a record with another column"},
        {"template_hash": "of a template with another comment"},
        {"parents": frozenset({"parent"})},
        {"failing": FAILED_SINCE},
    ],
)
async def test_answer_that_is_not_what_stands_is_a_row_of_history(bench: Bench, changed: dict[str, Any]) -> None:
    bench.stands("a", "tea", **changed)
    await bench.run({"a": "tea"})
    assert (bench.ledger.outcomes, bench.ledger.confirmed) == ({"a": ("succeeded", "cache")}, {})


async def test_failure_without_a_request_is_confirmed_where_it_is_the_same_as_before(bench: Bench) -> None:
    bench.ledger.answered[bench.hash_of("tea")] = PromptHistory(bad_outcomes=3, last_bad="refused (refusal)")
    page = {"a": "tea", "b": None}
    await bench.run(page)
    rows = {row.record_key: row for row in bench.ledger.generations.values()}
    bench.forget()
    bench.fails("a", "tea", rows["a"])
    bench.fails("b", None, rows["b"])
    await bench.run(page)
    assert bench.ledger.generations == {}
    assert {key: row.status for key, row in bench.ledger.confirmed.items()} == {"a": "skipped", "b": "failed"}
    assert +bench.progress.counts == {"skipped": 1, "failed": 1}

    bench.forget()
    bench.fails("a", "tea", rows["a"], error_message="It is another.")
    bench.fails("b", None, rows["b"], template_hash="of another template")
    await bench.run(page)
    assert bench.ledger.outcomes == {"a": ("skipped", "live"), "b": ("failed", "live")}


async def test_cap_that_is_met_again_is_confirmed_whatever_was_spent_and_twins_with_it(bench: Bench) -> None:
    page = {"a": "tea", "b": "milk", "c": "tea"}
    bench.gate.stop(CostCapError("$1 is spent."))
    await bench.run(page)
    rows = {row.record_key: row for row in bench.ledger.generations.values()}
    assert {row.status for row in rows.values()} == {"skipped"}
    # A duplicate without a request points at no other generation, which may not exist.
    assert {row.source_generation_id for row in rows.values()} == {None}
    bench.forget()
    for key, name in page.items():
        bench.fails(key, name, rows[key])
    bench.gate.stop(CostCapError("$2 is spent."))
    await bench.run(page)
    assert (bench.ledger.generations, sorted(bench.ledger.confirmed)) == ({}, ["a", "b", "c"])


async def test_what_was_asked_for_is_always_a_row_though_it_fails_as_before(bench: Bench) -> None:
    bench.endpoint.say = away
    await bench.run({"a": "tea"})
    (row,) = bench.ledger.generations.values()
    bench.forget()
    bench.fails("a", "tea", row)
    await bench.run({"a": "tea"})
    assert (bench.ledger.outcomes, bench.ledger.confirmed) == ({"a": ("failed", "live")}, {})


def own(bench: Bench, status: Any, kind: str | None = None, *, confirmed: bool = False, **more: Any) -> OwnOutcome:
    """Make a run's outcome of a record from an earlier pass with the current template."""
    record = make_record("a", {"name": "tea"})
    return OwnOutcome("own", status, kind, record.hash, bench.brief.template.hash, confirmed, **more)


DONE: dict[str, dict[str, Any]] = {
    "succeeded": {"status": "succeeded"},
    "cached": {"status": "succeeded", "cached": True},
    "confirmed": {"status": "succeeded", "confirmed": True, "cached": True},
    "refused": {"status": "refused", "kind": "refusal"},
    "invalid": {"status": "invalid", "kind": "validation"},
    "truncated": {"status": "truncated", "kind": "max_tokens"},
    "skipped": {"status": "skipped", "kind": "given_up"},
    "failed": {"status": "failed", "kind": "timeout", "paid": 8},
}


@pytest.mark.parametrize("name", DONE)
async def test_what_a_run_is_done_with_is_counted_as_it_was_and_not_even_rendered(bench: Bench, name: str) -> None:
    bench.ledger.own["a"] = own(bench, **DONE[name])
    await bench.run({"a": None})
    assert (bench.ledger.generations, bench.ledger.confirmed, bench.endpoint.asked) == ({}, {}, [])
    assert +bench.progress.counts == {"cached" if name == "confirmed" else name: 1}


@pytest.mark.parametrize("changed", [{"template_hash": "of before"}, {"parents": frozenset({"of before"})}])
@pytest.mark.parametrize("name", ["succeeded", "confirmed", "invalid"])
async def test_run_is_not_done_with_what_another_template_or_other_parents_brought(
    bench: Bench, name: str, changed: dict[str, Any]
) -> None:
    bench.ledger.own["a"] = replace(own(bench, **DONE[name]), **changed)
    await bench.run({"a": "tea"})
    assert (bench.ledger.outcomes, bench.endpoint.asked) == ({"a": ("succeeded", "live")}, ["tea"])
    assert list(bench.ledger.generations) != ["own"]


@pytest.mark.parametrize("ended", [("failed", "overloaded_error"), ("skipped", "cost_cap")])
async def test_own_failure_is_asked_again_and_what_was_paid_for_it_counts(bench: Bench, ended: tuple[Any, str]) -> None:
    bench.ledger.own["a"] = own(bench, *ended, paid=2)
    await bench.run({"a": "tea"})
    assert bench.ledger.outcomes == {"a": ("succeeded", "live")}
    (attempt,) = bench.ledger.attempts
    assert (attempt.ordinal, attempt.kind, attempt.lease_id) == (1, "call", "lease")
    assert list(bench.ledger.generations) == [attempt.generation_id] != ["own"]


async def test_own_failures_count_towards_what_a_run_pays_for_a_prompt(bench: Bench) -> None:
    def lost(_text: str) -> Answer:
        raise PassingCallError(kind="connection")

    bench.endpoint.say, bench.tries = lost, 9
    bench.ledger.own["a"] = own(bench, "failed", "connection", paid=6)
    await bench.run({"a": "tea"})
    assert len(bench.ledger.attempts) == 2


async def test_own_failure_that_no_request_led_to_is_written_again(bench: Bench) -> None:
    await bench.run({"a": None})
    (row,) = bench.ledger.generations.values()
    bench.forget()
    bench.ledger.own["a"] = own(bench, "failed", "unreadable")
    bench.fails("a", None, row)
    await bench.run({"a": None})
    assert (len(bench.ledger.generations), bench.ledger.confirmed) == (1, {})


async def test_own_failure_stays_where_its_prompt_is_given_up_by_now(bench: Bench) -> None:
    bench.ledger.answered[bench.hash_of("tea")] = PromptHistory(bad_outcomes=3, last_bad="failed (timeout)")
    bench.ledger.own["a"] = own(bench, "failed", "timeout", paid=1)
    await bench.run({"a": "tea"})
    assert (bench.ledger.generations, bench.endpoint.asked, +bench.progress.counts) == ({}, [], {"failed": 1})


async def test_helper_marks_what_it_does(bench: Bench) -> None:
    bench.ledger.helper_id = "helper"
    bench.stands("a", "tea")
    await bench.run({"a": "tea", "b": "milk"})
    assert [row.lease_id for row in bench.ledger.generations.values()] == ["helper"]
    assert [row.lease_id for row in bench.ledger.confirmed.values()] == ["helper"]


async def test_what_another_run_asks_for_is_waited_for(bench: Bench) -> None:
    tea = bench.hash_of("tea")
    bench.ledger.held[tea] = OTHER
    running = asyncio.create_task(bench.run({"a": "tea", "b": "milk", "c": "tea"}))
    await until(lambda: bench.ledger.outcomes, pause_s=0.001)
    bench.ledger.answered[tea] = bench.ledger.answered[bench.hash_of("milk")]
    await running
    assert bench.endpoint.asked == ["milk"]
    assert bench.ledger.outcomes["a"] == bench.ledger.outcomes["c"] == ("succeeded", "cache")


async def test_full_wait_for_others_holds_up_no_page_that_has_none_of_theirs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presswork.engine.claiming.MOST_WAITING", 1)
    bench.ledger.held[bench.hash_of("tea")] = OTHER
    running = asyncio.create_task(bench.run({"a": "tea"}, {"b": "milk"}))
    while not bench.endpoint.asked:
        assert not running.done()
        await asyncio.sleep(0.001)
    assert bench.endpoint.asked == ["milk"]
    bench.ledger.held.clear()
    await running
    assert bench.endpoint.asked == ["milk", "tea"]


async def test_what_another_run_gives_up_is_taken_over(bench: Bench) -> None:
    bench.ledger.held[bench.hash_of("tea")] = OTHER
    running = asyncio.create_task(bench.run({"a": "tea"}))
    await asyncio.sleep(0.01)
    assert bench.endpoint.asked == []
    bench.ledger.held.clear()
    await running
    assert bench.ledger.outcomes == {"a": ("succeeded", "live")}


async def test_chunk_that_waits_for_its_next_try_claims_nothing(bench: Bench) -> None:
    held: list[dict[str, str]] = []
    bench.endpoint.say = away
    bench.between = lambda _number: held.append(dict(bench.ledger.held))
    await bench.run({"a": "tea", "b": "milk"}, chunk_size=2)

    assert held == [{}, {}]
    assert bench.states == ["continues", "continues", "failed"]
    assert bench.ledger.outcomes == {"a": ("failed", "live"), "b": ("failed", "live")}
    assert len(bench.endpoint.asked) == 2 * bench.tries


async def test_chunk_that_others_answered_meanwhile_asks_nothing(bench: Bench) -> None:
    def answered(_number: int) -> None:
        for name in ("tea", "milk"):
            bench.ledger.answer(bench.hash_of(name), {"subject": "A line", "preheader": "After the subject line"})

    bench.endpoint.say, bench.between = away, answered
    await bench.run({"a": "tea", "b": "milk", "c": "tea"}, chunk_size=2)
    assert len(bench.endpoint.asked) == 2
    assert set(bench.ledger.outcomes.values()) == {("succeeded", "cache")}
    assert bench.progress.counts["cached"] == 3


async def test_next_try_asks_for_what_nobody_else_has_answered_or_asks_for(bench: Bench) -> None:
    tea, milk = bench.hash_of("tea"), bench.hash_of("milk")

    def others(_number: int) -> None:
        bench.endpoint.say = lambda _text: ENDED
        bench.ledger.answer(tea, {"subject": "A line", "preheader": "After the subject line"})
        bench.ledger.held[milk] = OTHER

    bench.endpoint.say, bench.between = away, others
    running = asyncio.create_task(bench.run({"a": "tea", "b": "milk", "c": "juice"}, chunk_size=3))
    await until(lambda: len(bench.ledger.outcomes) >= 2, pause_s=0.001)
    assert bench.endpoint.asked == ["tea", "milk", "juice", "juice"]
    del bench.ledger.held[milk]
    await running
    assert bench.ledger.outcomes == {
        "a": ("succeeded", "cache"),
        "b": ("succeeded", "live"),
        "c": ("succeeded", "live"),
    }


async def test_prompt_that_goes_from_run_to_run_is_tried_no_more_often_than_one_that_stays(bench: Bench) -> None:
    # At each next try another run has claimed the prompt and then releases it, so it returns in a new chunk.
    tea = bench.hash_of("tea")
    loop = asyncio.get_running_loop()

    def handed_on(_number: int) -> None:
        bench.ledger.held[tea] = OTHER
        loop.call_later(0.005, bench.ledger.held.pop, tea)

    bench.endpoint.say, bench.between = away, handed_on
    await bench.run({"a": "tea"})
    assert len(bench.endpoint.asked) == bench.tries
    assert bench.ledger.outcomes == {"a": ("failed", "live")}
    assert bench.states[-1] == "failed"


async def test_cost_cap_skips_what_is_not_asked_yet(bench: Bench) -> None:
    def last(_text: str) -> Answer:
        bench.gate.stop(CostCapError())
        return ENDED

    bench.endpoint.say = last
    await bench.run({str(number): f"tea {number}" for number in range(20)})
    statuses = [status for status, _origin in bench.ledger.outcomes.values()]
    assert len(statuses) == 20
    assert statuses.count("succeeded") == len(bench.endpoint.asked) < 20
    assert set(statuses) == {"succeeded", "skipped"}


async def test_what_stops_the_run_is_raised_when_all_in_flight_is_recorded(bench: Bench) -> None:
    def refuse(text: str) -> Answer:
        if text == "tea":
            raise StoppingCallError("The key is refused.", kind="authentication_error")
        return ENDED

    bench.endpoint.say = refuse
    with pytest.raises(StoppingCallError, match="refused"):
        await bench.run({"a": "milk", "b": "tea", "c": "juice"}, chunk_size=3)
    assert set(bench.ledger.outcomes) == {"a", "c"}
    assert len(bench.ledger.settled) == 3
