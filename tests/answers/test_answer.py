"""Pursue a prompt to its outcome: which requests are retried, how often, and that each attempt ends exactly once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
import stamina.instrumentation

from db.clock import now
from db.machine import boot_time_s, utc_now
from db.words import ANTHROPIC
from presswork.answers.outcomes import Asking, Policy
from presswork.answers.pursuing import answer_prompt
from presswork.claude.answers import Answer
from presswork.claude.endpoint_check import WrongEndpointError
from presswork.engine.attempts import _settled_row
from presswork.errors import EndpointError, FinalCallError, PassingCallError, StoppingCallError
from presswork.prices import PRICE_VERSION, Usage, cost_of
from sandbox import Sandbox
from tests.machines import SetMachine
from tests.pieces import (
    GOOD,
    PATIENT,
    MemoryJournal,
    OpenGate,
    Pursue,
    Reply,
    Say,
    Scripted,
    error_body,
    message,
    used,
)

BAD = '{"title":"Fine","stars":9}'
BUSY = Reply(error_body("overloaded_error"), 529)

# What stops an answer


@pytest.mark.parametrize("stop_reason", ["end_turn", "stop_sequence"])
async def test_answer_that_ended_by_itself_is_content(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal, stop_reason: str
) -> None:
    scripted.plan(Reply(message(stop_reason=stop_reason)))

    outcome = await pursue(scripted.url, endpoint=ANTHROPIC)

    assert outcome.status == "succeeded"
    assert outcome.content.output == {"title": "Fine", "stars": 4}
    assert journal.kinds == ["call"]
    assert journal.error_types == [None]


async def test_truncated_answer_gets_more_room_and_is_then_truncated(
    sandbox: Sandbox, pursue: Pursue, journal: MemoryJournal, gate: OpenGate
) -> None:
    sandbox.configure(truncated=1)

    outcome = await pursue(sandbox.url, front="max_tokens: 500\n")

    assert (outcome.status, outcome.error_kind, outcome.passing) == ("truncated", "max_tokens", False)
    assert outcome.content is None
    assert "1,000" in outcome.error_message
    assert journal.kinds == ["call", "escalation"]
    assert [opened.changes for opened in journal.opened] == [None, {"max_tokens": 1000}]
    assert gate.asked_for == [500, 1000]
    assert all(settled.cost_usd for settled in journal.settled)


async def test_truncated_answer_that_fits_with_more_room_is_content(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal
) -> None:
    scripted.plan(Reply(message('{"title":', "max_tokens")), Reply(message()))

    outcome = await pursue(scripted.url, endpoint=ANTHROPIC)

    assert outcome.status == "succeeded"
    assert [body["max_tokens"] for body in scripted.bodies] == [1024, 2048]


@pytest.mark.parametrize(("escalations", "asked"), [(0, [100]), (3, [100, 200, 400, 800])])
async def test_policy_bounds_the_escalations_of_a_truncated_answer(
    scripted: Scripted, pursue: Pursue, escalations: int, asked: list[int]
) -> None:
    scripted.plan(Reply(message("{", "max_tokens")))

    outcome = await pursue(scripted.url, Policy(escalations=escalations), endpoint=ANTHROPIC, front="max_tokens: 100\n")

    assert outcome.status == "truncated"
    assert [body["max_tokens"] for body in scripted.bodies] == asked


@pytest.mark.parametrize(("start", "asked"), [(100_000, [100_000, 128_000]), (128_000, [128_000])])
async def test_escalation_stops_at_the_models_limit(
    scripted: Scripted, pursue: Pursue, start: int, asked: list[int]
) -> None:
    scripted.plan(Reply(message("{", "max_tokens")))

    await pursue(scripted.url, Policy(escalations=5), endpoint=ANTHROPIC, front=f"max_tokens: {start}\n")

    assert [body["max_tokens"] for body in scripted.bodies] == asked


@pytest.mark.parametrize(
    ("model", "told", "asked"),
    [
        ("claude-sonnet-4-6", 150, [100, 150]),
        ("claude-sonnet-4-6", 300_000, [100, 200, 400]),
        ("claude-mythos-preview", None, [100, 200, 400]),
        ("a-gateways-own", 250, [100, 200, 250]),
    ],
)
async def test_escalation_stops_at_the_endpoints_limit(
    scripted: Scripted, pursue: Pursue, prompt: Say, model: str, told: int | None, asked: list[int]
) -> None:
    scripted.plan(Reply(message("{", "max_tokens") | {"model": model}))
    asking = Asking(prompt(front=f"model: {model}\nmax_tokens: 100\n", endpoint=ANTHROPIC), max_output=told)

    await pursue(scripted.url, Policy(escalations=2), endpoint=ANTHROPIC, asking=asking)

    assert [body["max_tokens"] for body in scripted.bodies] == asked


async def test_context_overflow_is_final(sandbox: Sandbox, pursue: Pursue, journal: MemoryJournal) -> None:
    sandbox.configure(context_exceeded=1)

    outcome = await pursue(sandbox.url)

    assert (outcome.status, outcome.error_kind) == ("truncated", "model_context_window_exceeded")
    assert journal.kinds == ["call"]


async def test_refusal_is_final_and_has_its_category(sandbox: Sandbox, pursue: Pursue, journal: MemoryJournal) -> None:
    sandbox.configure(refused=1)

    outcome = await pursue(sandbox.url)

    category = journal.settled[0].answer.refusal  # type: ignore[union-attr]
    assert category
    assert (outcome.status, outcome.error_kind) == ("refused", f"refusal:{category}")
    assert category in outcome.error_message
    assert journal.kinds == ["call"]
    assert journal.settled[0].cost_usd


async def test_refusal_without_a_category_is_a_refusal(scripted: Scripted, pursue: Pursue) -> None:
    scripted.plan(Reply(message("", "refusal")))

    outcome = await pursue(scripted.url, endpoint=ANTHROPIC)

    assert (outcome.status, outcome.error_kind) == ("refused", "refusal")


@pytest.mark.parametrize("fault", ["paused", "tool_use"])
async def test_stop_that_needs_tools_fails(
    sandbox: Sandbox, pursue: Pursue, journal: MemoryJournal, fault: str
) -> None:
    sandbox.configure(**{fault: 1})

    outcome = await pursue(sandbox.url)

    assert (outcome.status, outcome.error_kind, outcome.passing) == ("failed", "unexpected_stop_reason", False)
    assert journal.kinds == ["call"]


@pytest.mark.parametrize(
    ("stop_reason", "status", "kind"),
    [
        ("stop", "succeeded", None),
        ("eos", "succeeded", None),
        (None, "succeeded", None),
        ("a_reason_of_next_year", "succeeded", None),
        ("length", "truncated", "max_tokens"),
        ("content_filter", "refused", "refusal"),
        ("safety", "refused", "refusal"),
        ("tool_calls", "failed", "unexpected_stop_reason"),
        ("tool_use", "failed", "unexpected_stop_reason"),
        ("pause_turn", "failed", "unexpected_stop_reason"),
    ],
)
async def test_stop_reason_of_another_api_is_translated(
    scripted: Scripted, pursue: Pursue, stop_reason: str | None, status: str, kind: str | None
) -> None:
    scripted.plan(Reply(message(stop_reason=stop_reason)))

    outcome = await pursue(scripted.url, Policy(escalations=0), endpoint=ANTHROPIC)

    assert (outcome.status, outcome.error_kind) == (status, kind)


@pytest.mark.parametrize(
    ("stop_reason", "status", "kind"),
    [(None, "invalid", "validation"), ("a_reason_of_next_year", "failed", "unexpected_stop_reason")],
)
async def test_incomplete_answer_without_a_known_stop_reason_is_not_content(
    scripted: Scripted, pursue: Pursue, stop_reason: str | None, status: str, kind: str
) -> None:
    scripted.plan(Reply(message(GOOD[:-1], stop_reason)))

    outcome = await pursue(scripted.url, endpoint=ANTHROPIC)

    assert (outcome.status, outcome.error_kind) == (status, kind)
    assert (stop_reason or "") in outcome.error_message


async def test_foreign_truncation_gets_more_room(scripted: Scripted, pursue: Pursue, journal: MemoryJournal) -> None:
    scripted.plan(Reply(message("{", "length")), Reply(message(stop_reason="stop")))

    assert (await pursue(scripted.url, endpoint=ANTHROPIC)).status == "succeeded"
    assert journal.kinds == ["call", "escalation"]


# Which model answered


@pytest.mark.parametrize(
    "answered",
    [
        "claude-sonnet-4-6",
        "claude-sonnet-4-6-20260217",
        "us.anthropic.claude-sonnet-4-6-v1:0",
        "vertex_ai/claude-sonnet-4-6@20260101",
        "anthropic/claude-4.6-sonnet-20260217",
        None,
    ],
)
async def test_requested_model_is_recognized_in_any_spelling_of_a_gateway(
    scripted: Scripted, pursue: Pursue, answered: str | None
) -> None:
    scripted.plan(Reply({**message(), "model": answered}))

    assert (await pursue(scripted.url, endpoint=ANTHROPIC)).status == "succeeded"


@pytest.mark.parametrize("stop_reason", ["end_turn", "refusal", "max_tokens", "tool_use"])
async def test_answer_of_another_model_is_not_content_but_keeps_its_cost(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal, gate: OpenGate, stop_reason: str
) -> None:
    scripted.plan(Reply({**message(stop_reason=stop_reason), "model": "claude-haiku-4-5"}))

    outcome = await pursue(scripted.url, endpoint=ANTHROPIC)

    assert (outcome.status, outcome.error_kind, outcome.passing) == ("failed", "wrong_model", False)
    assert "'claude-haiku-4-5', not 'claude-sonnet-4-6'" in outcome.error_message
    assert "accept_models" in outcome.error_message
    (settled,) = journal.settled
    assert settled.answer is not None
    assert (settled.answer.text, settled.error_type) == (GOOD, None)
    assert settled.cost_usd == cost_of("claude-haiku-4-5", used(settled.answer), settled.ended_at.date())
    assert gate.models == ["claude-haiku-4-5"]


async def test_answer_of_an_accepted_model_is_content(scripted: Scripted, pursue: Pursue) -> None:
    scripted.plan(Reply({**message(), "model": "openrouter/anthropic/claude-haiku-4.5"}))
    accepts = "accept_models: [claude-opus-4-6, claude-haiku-4-5]\n"

    assert (await pursue(scripted.url, endpoint=ANTHROPIC, front=accepts)).status == "succeeded"


@pytest.mark.parametrize("asked", ["sonnet-for-us", "gpt-6", "claude-of-next-year"])
async def test_unknown_model_is_not_compared_with_the_answers(scripted: Scripted, pursue: Pursue, asked: str) -> None:
    scripted.plan(Reply({**message(), "model": "whatever-answered"}))

    assert (await pursue(scripted.url, endpoint=ANTHROPIC, front=f"model: {asked}\n")).status == "succeeded"


# Missing fields


async def test_answer_without_usage_is_content_of_unknown_cost(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal, gate: OpenGate
) -> None:
    scripted.plan(Reply({**message(), "usage": None}))

    assert (await pursue(scripted.url, endpoint=ANTHROPIC)).status == "succeeded"
    (settled,) = journal.settled
    assert settled.answer is not None
    assert (settled.cost_usd, settled.price_version, settled.error_type) == (None, None, None)
    assert gate.told == [(None, None, None)]


async def test_answer_that_names_no_model_is_priced_as_the_requested_one(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal
) -> None:
    scripted.plan(Reply({**message(), "model": None}))

    await pursue(scripted.url, endpoint=ANTHROPIC)

    (settled,) = journal.settled
    assert settled.cost_usd == cost_of("claude-sonnet-4-6", used(settled.answer), settled.ended_at.date())


async def test_half_of_a_surrogate_pair_is_repaired(scripted: Scripted, pursue: Pursue, journal: MemoryJournal) -> None:
    broken = orjson.dumps(message(GOOD.replace("Fine", "Fine@"))).replace(b"@", b"\\ud83d")
    scripted.plan(Reply(broken), Reply(message()))

    assert (await pursue(scripted.url, endpoint=ANTHROPIC)).status == "succeeded"
    assert journal.kinds == ["call", "repair"]
    assert "Fine\ufffd" in scripted.bodies[1]["messages"][1]["content"]


# Invalid answers


@pytest.mark.parametrize("fault", ["invalid", "malformed"])
async def test_policy_bounds_the_repairs_of_an_invalid_answer(
    sandbox: Sandbox, pursue: Pursue, journal: MemoryJournal, fault: str
) -> None:
    sandbox.configure(**{fault: 1})

    outcome = await pursue(sandbox.url)

    assert (outcome.status, outcome.error_kind, outcome.content) == ("invalid", "validation", None)
    assert journal.kinds == ["call", "repair", "repair"]
    assert journal.ordinals == [1, 2, 3]
    assert all(settled.faults and settled.answer and settled.cost_usd for settled in journal.settled)


async def test_repair_lists_the_faults_and_may_succeed(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal
) -> None:
    scripted.plan(Reply(message(BAD)), Reply(message("")), Reply(message()))

    outcome = await pursue(scripted.url, endpoint=ANTHROPIC)

    assert outcome.status == "succeeded"
    first, second, third = (body["messages"] for body in scripted.bodies)
    assert [turn["role"] for turn in second] == ["user", "assistant", "user"]
    assert second[:1] == first
    assert second[1]["content"] == BAD
    assert "- stars: Input should be less than or equal to 5" in second[2]["content"]
    # The newest answer alone is repaired; the API takes no empty turn.
    assert third[1]["content"] == "(no answer)"
    assert "- the whole answer: The answer has no text" in third[2]["content"]
    assert journal.opened[1].changes == {"messages": second[1:]}
    assert [fault.where for fault in journal.settled[0].faults] == ["stars"]
    assert journal.settled[2].faults == ()


async def test_policy_without_repairs_makes_none(scripted: Scripted, pursue: Pursue) -> None:
    scripted.plan(Reply(message(BAD)))

    outcome = await pursue(scripted.url, Policy(repairs=0), endpoint=ANTHROPIC)

    assert outcome.status == "invalid"
    assert len(scripted.bodies) == 1


async def test_repair_that_is_cut_off_keeps_what_was_wrong_and_gets_more_room(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal
) -> None:
    scripted.plan(Reply(message(BAD)), Reply(message("{", "max_tokens")), BUSY, Reply(message()))

    outcome = await pursue(scripted.url, endpoint=ANTHROPIC)

    assert outcome.status == "succeeded"
    assert journal.kinds == ["call", "repair", "escalation", "retry"]
    assert [len(body["messages"]) for body in scripted.bodies] == [1, 3, 3, 3]
    assert [body["max_tokens"] for body in scripted.bodies] == [1024, 1024, 2048, 2048]


# Errors


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
async def test_temporary_error_is_retried(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal, status: int
) -> None:
    scripted.plan(Reply(error_body("some_error"), status), Reply(error_body("some_error"), status), Reply(message()))

    outcome = await pursue(scripted.url, endpoint=ANTHROPIC)

    assert outcome.status == "succeeded"
    assert journal.kinds == ["call", "retry", "retry"]
    assert journal.error_types == ["some_error", "some_error", None]
    assert [settled.answer is None for settled in journal.settled] == [True, True, False]


@pytest.mark.parametrize(
    ("reply", "kind"), [(Reply(drops=True), "connection"), (Reply(b"<html>"), "connection"), (BUSY, "overloaded_error")]
)
@pytest.mark.parametrize("retries", [0, 2])
async def test_temporary_error_that_lasts_may_succeed_in_a_later_try(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal, reply: Reply, kind: str, retries: int
) -> None:
    scripted.plan(reply)

    outcome = await pursue(scripted.url, Policy(retries=retries, wait_max_s=0.01), endpoint=ANTHROPIC)

    assert (outcome.status, outcome.error_kind, outcome.passing) == ("failed", kind, True)
    assert journal.error_types == [kind] * (retries + 1)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_error_of_one_request_is_not_retried(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal, status: int
) -> None:
    scripted.plan(Reply(error_body("some_error", "why"), status))

    outcome = await pursue(scripted.url, endpoint=ANTHROPIC)

    assert (outcome.status, outcome.error_kind, outcome.passing) == ("failed", "some_error", False)
    assert "why" in outcome.error_message
    assert len(scripted.bodies) == 1
    assert journal.settled[0].error.http_status == status  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [401, 402, 403, 404])
async def test_error_of_all_requests_stops_the_run(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal, gate: OpenGate, status: int
) -> None:
    scripted.plan(Reply(error_body("some_error"), status))

    with pytest.raises(StoppingCallError) as raised:
        await pursue(scripted.url, endpoint=ANTHROPIC)

    assert len(scripted.bodies) == 1
    assert journal.error_types == ["some_error"]
    assert gate.told[0][2] is raised.value


async def test_spend_limit_is_not_retried(sandbox: Sandbox, pursue: Pursue, journal: MemoryJournal) -> None:
    sandbox.configure(spend_limit=1)

    with pytest.raises(StoppingCallError):
        await pursue(sandbox.url)

    assert journal.error_types == ["enforced_spend_limit_reached"]


async def test_answer_of_the_wrong_endpoint_is_paid_for_and_stops_the_run(
    sandbox: Sandbox, pursue: Pursue, journal: MemoryJournal, gate: OpenGate
) -> None:
    with pytest.raises(StoppingCallError):
        await pursue(sandbox.url, endpoint=ANTHROPIC)

    (settled,) = journal.settled
    assert settled.error_type == "wrong_endpoint"
    assert settled.answer is not None
    assert settled.cost_usd == cost_of("claude-sonnet-4-6", used(settled.answer), settled.ended_at.date())
    assert gate.told[0][0] == settled.answer.usage


# Pauses


@pytest.fixture
def pauses() -> Iterator[list[float]]:
    """The seconds between requests, as they are decided: what passes depends on the machine."""
    heard: list[float] = []
    stamina.instrumentation.set_on_retry_hooks([lambda retry: heard.append(retry.wait_for)])
    yield heard
    stamina.instrumentation.set_on_retry_hooks(())


async def refused_once(scripted: Scripted, pursue: Pursue, policy: Policy, **headers: str) -> float:
    """Return how long a prompt took whose first request is refused."""
    scripted.plan(
        Reply(error_body("rate_limit_error"), 429, {k.replace("_", "-"): v for k, v in headers.items()}),
        Reply(message()),
    )
    began = time.perf_counter()
    await pursue(scripted.url, policy, endpoint=ANTHROPIC)
    return time.perf_counter() - began


async def test_retry_waits_for_retry_after(scripted: Scripted, pursue: Pursue, pauses: list[float]) -> None:
    assert await refused_once(scripted, pursue, Policy(wait_max_s=0.001), retry_after="0.3") >= 0.3
    assert pauses == [0.3]


async def test_retry_after_is_capped(scripted: Scripted, pursue: Pursue, pauses: list[float]) -> None:
    await refused_once(scripted, pursue, Policy(retry_after_cap_s=0.05), retry_after="3600")
    assert pauses == [0.05]


async def test_retry_after_of_zero_is_no_pause(scripted: Scripted, pursue: Pursue, pauses: list[float]) -> None:
    await refused_once(scripted, pursue, Policy(wait_max_s=60), retry_after="0")
    assert pauses == [0]


async def test_own_pause_is_capped(scripted: Scripted, pursue: Pursue, pauses: list[float]) -> None:
    await refused_once(scripted, pursue, Policy(wait_max_s=0.01))
    (pause,) = pauses
    assert 0 <= pause <= 0.01


# Attempts


async def test_later_try_of_a_chunk_continues_where_the_first_ended(
    scripted: Scripted, pursue: Pursue, prompt: Say, journal: MemoryJournal
) -> None:
    asking = Asking(prompt(endpoint=ANTHROPIC))
    once = Policy(retries=0)
    scripted.plan(Reply(message(BAD)), BUSY, Reply(message(BAD)), Reply(message(BAD)))

    interrupted = await pursue(scripted.url, once, endpoint=ANTHROPIC, asking=asking)
    ended = await pursue(scripted.url, once, endpoint=ANTHROPIC, asking=asking)

    assert (interrupted.status, interrupted.passing, ended.status) == ("failed", True, "invalid")
    assert journal.ordinals == [1, 2, 3, 4]
    # The repair that failed is sent again unchanged, and there are at most two repairs.
    assert journal.kinds == ["call", "repair", "retry", "repair"]
    assert journal.opened[2].changes == journal.opened[1].changes


# The bound on paid requests

HTML = Reply(b"<html>502 Bad Gateway</html>", 502)
TIMED_OUT_AT_THE_API = Reply(error_body("timeout_error"), 504)
LIMITED = Reply(error_body("rate_limit_error"), 429, {"retry-after": "0"})


@pytest.mark.parametrize(
    ("reply", "status", "kind"),
    [
        (Reply(drops=True), "failed", "connection"),
        (Reply(b"<html>"), "failed", "connection"),
        (HTML, "failed", "proxy"),
        (Reply(message(BAD)), "invalid", "validation"),
        (Reply(message("{", "max_tokens")), "truncated", "max_tokens"),
    ],
)
@pytest.mark.parametrize("tries", [1, 6])
async def test_no_more_is_paid_for_a_prompt_than_the_bound_allows(
    scripted: Scripted,
    pursue: Pursue,
    prompt: Say,
    journal: MemoryJournal,
    reply: Reply,
    status: str,
    kind: str,
    tries: int,
) -> None:
    scripted.plan(reply)
    # More than all owners of retries together allow: one try with many retries, or six tries of two requests.
    policy = Policy(retries=20 if tries == 1 else 1, repairs=20, escalations=20, wait_max_s=0.001, paid_requests=5)
    asking = Asking(prompt(endpoint=ANTHROPIC, front="max_tokens: 10\n"))

    for _try in range(tries):
        outcome = await pursue(scripted.url, policy, endpoint=ANTHROPIC, asking=asking)
        if not outcome.passing:
            break

    assert len(scripted.bodies) == 5
    assert (outcome.status, outcome.error_kind, outcome.passing) == (status, kind, False)
    assert "PRESSWORK_MAX_PAID_REQUESTS" in outcome.error_message
    assert "5 requests" in outcome.error_message


@pytest.mark.parametrize("reply", [LIMITED, BUSY, TIMED_OUT_AT_THE_API, Reply(error_body("api_error"), 500)])
async def test_request_that_generated_nothing_does_not_count_for_the_bound(
    scripted: Scripted, pursue: Pursue, reply: Reply
) -> None:
    scripted.plan(*[reply] * 6, Reply(message()))

    outcome = await pursue(scripted.url, Policy(retries=6, wait_max_s=0.001, paid_requests=1), endpoint=ANTHROPIC)

    assert outcome.status == "succeeded"
    assert len(scripted.bodies) == 7


async def test_bound_counts_answers_and_lost_ones_together(scripted: Scripted, pursue: Pursue) -> None:
    scripted.plan(Reply(message(BAD)), BUSY, Reply(drops=True), Reply(message("{", "max_tokens")), Reply(message()))

    outcome = await pursue(scripted.url, Policy(paid_requests=3, wait_max_s=0.001), endpoint=ANTHROPIC)

    assert (outcome.status, len(scripted.bodies)) == ("truncated", 4)


async def test_answer_at_the_bound_is_content(scripted: Scripted, pursue: Pursue) -> None:
    scripted.plan(Reply(drops=True), Reply(message()))

    assert (await pursue(scripted.url, Policy(paid_requests=2, wait_max_s=0.001), endpoint=ANTHROPIC)).content


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (PassingCallError(kind="rate_limit_error", http_status=429, retry_after_s=0), 30),
        (PassingCallError(kind="connect", retry_after_s=0), 30),
        (PassingCallError(kind="overloaded_error", http_status=529, retry_after_s=0), 2),
        (PassingCallError(kind="timeout", retry_after_s=0), 2),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
async def test_free_errors_are_retried_any_number_of_times(
    prompt: Say, gate: OpenGate, journal: MemoryJournal, error: PassingCallError, asked: int
) -> None:
    async def ask(body: Mapping[str, Any]) -> Answer:
        if len(journal.opened) == 30:
            raise FinalCallError("enough", kind="enough")
        raise error

    await answer_prompt(Asking(prompt()), ask=ask, gate=gate, journal=journal, policy=Policy(retries=1, wait_max_s=60))

    assert len(journal.opened) == asked


async def test_free_errors_are_retried_for_a_limited_time(prompt: Say, gate: OpenGate, journal: MemoryJournal) -> None:
    async def ask(body: Mapping[str, Any]) -> Answer:
        raise PassingCallError("no connection", kind="connect")

    policy = Policy(retries=2, wait_max_s=0.01)
    outcome = await answer_prompt(Asking(prompt()), ask=ask, gate=gate, journal=journal, policy=policy)

    assert (outcome.status, outcome.passing) == ("failed", True)
    assert 3 <= len(journal.opened) <= 5


@pytest.mark.parametrize("reply", [BUSY, Reply(drops=True)])
async def test_policy_bounds_the_retries_of_other_errors(scripted: Scripted, pursue: Pursue, reply: Reply) -> None:
    scripted.plan(reply)

    await pursue(scripted.url, Policy(retries=2, wait_max_s=0.1), endpoint=ANTHROPIC)

    assert len(scripted.bodies) == 3


async def test_journal_gets_the_likely_cost(
    scripted: Scripted, pursue: Pursue, gate: OpenGate, journal: MemoryJournal
) -> None:
    gate.likely = Decimal("0.07")

    await pursue(scripted.url, endpoint=ANTHROPIC)

    assert [opened.likely_cost_usd for opened in journal.opened] == [Decimal("0.07")]


async def test_attempt_has_its_cost_at_the_price_of_its_day(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal
) -> None:
    scripted.plan(Reply(message(input_tokens=1_000_000, output_tokens=100_000, cache_read_input_tokens=1_000_000)))

    await pursue(scripted.url, endpoint=ANTHROPIC)

    (settled,) = journal.settled
    assert settled.cost_usd == Decimal(3) + Decimal("1.5") + Decimal("0.3")
    assert settled.price_version == PRICE_VERSION
    assert settled.latency_ms >= 0


async def test_price_is_that_of_the_ledgers_day_which_the_attempts_row_shows(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal, machine: SetMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    days: list[date] = []
    monkeypatch.setattr("presswork.answers.pursuing.cost_of", lambda _model, _usage, day: days.append(day))
    machine.ledger_clock.set(utc_now() + timedelta(days=2), boot_time_s())
    scripted.plan(Reply(message()))

    await pursue(scripted.url, endpoint=ANTHROPIC)

    assert days == [journal.settled[0].ended_at.date()] == [_settled_row("id", journal.settled[0]).ended_at.date()]
    assert abs(journal.settled[0].ended_at - now()) < timedelta(hours=1)


async def test_unknown_price_is_none(scripted: Scripted, pursue: Pursue, journal: MemoryJournal) -> None:
    scripted.plan(Reply({**message(), "model": "claude-of-next-year"}))

    assert (await pursue(scripted.url, endpoint=ANTHROPIC, front="model: claude-of-next-year\n")).status == "succeeded"
    assert journal.settled[0].cost_usd is None


async def test_gate_gets_usage_limits_and_errors(
    sandbox: Sandbox, pursue: Pursue, journal: MemoryJournal, gate: OpenGate
) -> None:
    sandbox.configure(overloaded=1)
    await pursue(sandbox.url, Policy(retries=0))
    sandbox.configure(overloaded=0)
    await pursue(sandbox.url)

    (no_usage, limits_of_error, error), (usage, limits, no_error) = gate.told
    assert (no_usage, no_error) == (None, None)
    assert error is not None
    assert error.kind == "overloaded_error"
    assert limits_of_error is not None
    assert limits is not None
    assert usage is not None
    assert usage == journal.settled[1].answer.usage  # type: ignore[union-attr]


async def test_attempt_is_opened_before_its_request_is_sent(
    prompt: Say, gate: OpenGate, journal: MemoryJournal
) -> None:
    seen: list[int] = []

    async def ask(body: Mapping[str, Any]) -> Answer:
        seen.append(len(journal.opened))
        raise StoppingCallError("no", kind="some_error")

    with pytest.raises(StoppingCallError):
        await answer_prompt(Asking(prompt()), ask=ask, gate=gate, journal=journal, policy=PATIENT)

    assert seen == [1]
    assert journal.error_types == ["some_error"]


OF_ANOTHER = Answer("{}", "end_turn", Usage(10, output_tokens=5), "claude-sonnet-4-6", "msg", "req", None, None)


@pytest.mark.parametrize(
    "reason",
    [
        StoppingCallError("stopped", kind="stopped"),
        StoppingCallError("HTTP 400", kind="some_error", http_status=400, request_id="of another"),
        EndpointError("away"),
        WrongEndpointError("another endpoint answered", OF_ANOTHER),
    ],
)
async def test_request_that_the_gate_held_back_was_not_sent(
    scripted: Scripted, pursue: Pursue, gate: OpenGate, journal: MemoryJournal, reason: Exception
) -> None:
    gate.closed = reason

    with pytest.raises(type(reason)):
        await pursue(scripted.url, endpoint=ANTHROPIC)

    assert scripted.bodies == []
    assert journal.error_types == ["not_sent"]
    assert journal.settled[0].latency_ms == 0
    # The error belongs to another request: its status, id, answer and cost are not this one's.
    assert journal.settled[0].error is None
    assert (journal.settled[0].answer, journal.settled[0].cost_usd) == (None, None)


async def test_cancelled_while_it_waits_was_not_sent(
    scripted: Scripted, pursue: Pursue, gate: OpenGate, journal: MemoryJournal
) -> None:
    gate.waits = asyncio.Event()
    task = asyncio.ensure_future(pursue(scripted.url, endpoint=ANTHROPIC))
    await gate.entered.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert journal.error_types == ["not_sent"]


@pytest.mark.parametrize("in_the_gate", [False, True])
async def test_cancelled_while_it_waits_for_the_ledger_was_not_sent(
    scripted: Scripted, pursue: Pursue, gate: OpenGate, journal: MemoryJournal, *, in_the_gate: bool
) -> None:
    gate.waits = asyncio.Event()
    if not in_the_gate:
        journal.is_ready.clear()
    task = asyncio.ensure_future(pursue(scripted.url, endpoint=ANTHROPIC))
    if in_the_gate:
        await gate.entered.wait()
        journal.is_ready.clear()
        gate.waits.set()
    await asyncio.sleep(0.05)
    assert gate.entered.is_set() == in_the_gate
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert scripted.bodies == []
    assert journal.error_types == ["not_sent"]


async def test_cancelled_in_flight_is_abandoned(
    scripted: Scripted, pursue: Pursue, gate: OpenGate, journal: MemoryJournal
) -> None:
    scripted.plan(Reply(hangs=True))
    task = asyncio.ensure_future(pursue(scripted.url, endpoint=ANTHROPIC))
    await scripted.arrived.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert journal.error_types == ["abandoned"]
    assert journal.settled[0].answer is None


async def test_cancelled_in_a_pause_leaves_no_attempt_open(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal, gate: OpenGate
) -> None:
    scripted.plan(Reply(error_body("rate_limit_error"), 429, {"retry-after": "30"}))
    task = asyncio.ensure_future(pursue(scripted.url, Policy(), endpoint=ANTHROPIC))
    await gate.was_told.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert journal.error_types == ["rate_limit_error"]


async def test_answer_is_kept_if_the_gate_fails_afterwards(
    scripted: Scripted, pursue: Pursue, gate: OpenGate, journal: MemoryJournal
) -> None:
    gate.fails_at_the_end = RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        await pursue(scripted.url, endpoint=ANTHROPIC)

    (settled,) = journal.settled
    assert settled.error_type is None
    assert settled.answer is not None
    assert settled.answer.text == GOOD
    assert settled.cost_usd == cost_of("claude-sonnet-4-6", used(settled.answer), settled.ended_at.date())


async def test_bug_in_flight_leaves_no_attempt_open(prompt: Say, gate: OpenGate, journal: MemoryJournal) -> None:
    async def ask(body: Mapping[str, Any]) -> Answer:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        await answer_prompt(Asking(prompt()), ask=ask, gate=gate, journal=journal, policy=PATIENT)

    assert journal.error_types == ["abandoned"]


async def test_all_faults_of_the_sandbox_end_in_content_and_every_attempt_ends(
    sandbox: Sandbox, pursue: Pursue, journal: MemoryJournal
) -> None:
    sandbox.configure(
        overloaded=0.1,
        server_error=0.1,
        dropped_before=0.1,
        dropped_after=0.1,
        invalid=0.1,
        malformed=0.05,
        truncated=0.05,
    )
    patient = Policy(retries=20, repairs=20, escalations=5, wait_max_s=0.001)

    outcomes = [await pursue(sandbox.url, patient) for _ in range(20)]

    assert {outcome.status for outcome in outcomes} == {"succeeded"}
    served = sandbox.stats()
    answers = [settled.answer for settled in journal.settled if settled.answer is not None]
    assert sum(used(answer).output_tokens for answer in answers) == served["served"]["output_tokens"]
    assert (
        journal.error_types.count("connection")
        == served["by_fault"]["dropped_before"] + served["by_fault"]["dropped_after"]
    )


# Unforeseen errors


@pytest.mark.parametrize("error", [RuntimeError("PRIVATE"), RecursionError("PRIVATE"), TypeError()])
async def test_answer_that_cannot_be_validated_fails_its_record_and_is_paid_for_once(
    scripted: Scripted,
    pursue: Pursue,
    journal: MemoryJournal,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def judge(*_arguments: Any) -> Any:
        raise error

    monkeypatch.setattr("presswork.answers.outcomes.validate_answer", judge)

    outcome = await pursue(scripted.url, endpoint=ANTHROPIC)

    assert (outcome.status, outcome.passing) == ("invalid", False)
    assert f"Note could not validate the answer: {type(error).__name__}" in outcome.error_message
    assert "PRIVATE" not in outcome.error_message
    (settled,) = journal.settled
    assert settled.answer is not None
    assert settled.answer.text == GOOD
    assert settled.cost_usd
    assert settled.error_type is None


async def test_attempt_is_settled_even_if_validation_ends_the_process(
    scripted: Scripted, pursue: Pursue, journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EndedError(BaseException):
        """A BaseException, like KeyboardInterrupt."""

    def judge(*_arguments: Any) -> Any:
        raise EndedError

    monkeypatch.setattr("presswork.answers.outcomes.validate_answer", judge)
    with pytest.raises(EndedError):
        await pursue(scripted.url, endpoint=ANTHROPIC)

    assert [settled.error_type for settled in journal.settled] == [None]
    assert journal.settled[0].cost_usd
