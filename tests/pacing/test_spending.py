"""The cost cap of a job: known, likely and reserved costs stay under it, and the message says who spent them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine

from db.clock import new_id
from db.ledger.rows import WriteBatch
from db.ledger.writing import write
from db.readers.chains import Spent, spent_by_chain, spent_by_leases, spent_by_run
from presswork.errors import (
    CallError,
    CostCapError,
    FinalCallError,
    PassingCallError,
    StoppedError,
    StoppingCallError,
    UntoldCostError,
)
from presswork.pacing.breaker import AT_START
from presswork.pacing.limiter import Limiter
from presswork.pacing.pace import Pace
from presswork.pacing.spending import Answers, Estimate, Spending, mean_of, share_of_cap
from presswork.prices import Usage
from presswork.prompts.render import Prompt, make_brief, render_prompt
from presswork.prompts.templates import load_template
from tests.db.rows import Book, settled_row

CENT = Decimal("0.01")


def usd(text: str) -> Decimal:
    return Decimal(text)


async def reserve(spending: Spending, likely: Decimal | None = CENT) -> Decimal | None:
    return await spending.reserve("claude-sonnet-4-6", lambda: likely, lambda: False)


# Which costs count


@pytest.mark.parametrize(
    ("cost", "error", "spent"),
    [
        (usd("0.5"), None, Spent(usd("0.5"), usd("0"))),
        (usd("0.5"), FinalCallError(kind="wrong_endpoint"), Spent(usd("0.5"), usd("0"))),
        (None, None, Spent(usd("0"), CENT)),
        (None, PassingCallError(kind="timeout"), Spent(usd("0"), CENT)),
        (None, PassingCallError(kind="connection"), Spent(usd("0"), CENT)),
        (None, PassingCallError(kind="proxy"), Spent(usd("0"), CENT)),
        (None, PassingCallError(kind="connect"), Spent()),
        (None, PassingCallError(kind="rate_limit_error", http_status=429), Spent()),
        (None, PassingCallError(kind="overloaded_error", http_status=529), Spent()),
        (None, FinalCallError(kind="invalid_request_error", http_status=400), Spent()),
    ],
)
async def test_what_a_request_counts_for(cost: Decimal | None, error: CallError | None, spent: Spent) -> None:
    spending = Spending(usd("1"))
    spending.count(cost, CENT, error)
    assert spending.spent == spent


async def test_lost_request_without_a_known_price_counts_nothing() -> None:
    spending = Spending(None)
    spending.count(None, None, PassingCallError(kind="timeout"))
    assert spending.spent == Spent()


# Which requests fit


async def test_costs_spent_or_in_flight_stay_under_the_cap() -> None:
    spending = Spending(usd("0.10"), Spent(usd("0.05"), usd("0.01")))
    spending.helpers = Spent(usd("0.02"))
    assert [await reserve(spending), await reserve(spending)] == [CENT, CENT]

    third = asyncio.ensure_future(reserve(spending))
    await asyncio.sleep(0)
    assert not third.done()
    # One request in flight turns out to be cheaper than estimated.
    spending.count(usd("0"), CENT, None)
    spending.release(CENT)
    assert await third == CENT


async def test_cap_is_reached_only_when_no_request_is_in_flight() -> None:
    spending = Spending(usd("0.02"))
    await reserve(spending)
    await reserve(spending)
    third = asyncio.ensure_future(reserve(spending))
    for _ in range(2):
        await asyncio.sleep(0)
        assert not third.done()
        spending.count(CENT, CENT, None)
        spending.release(CENT)
    with pytest.raises(CostCapError):
        await third


async def test_stop_ends_the_wait() -> None:
    spending, stopped = Spending(CENT), False
    await reserve(spending)
    waiting = asyncio.ensure_future(spending.reserve("m", lambda: CENT, lambda: stopped))
    await asyncio.sleep(0)
    stopped = True
    spending.wake()
    assert await waiting is None


async def test_unknown_price_keeps_no_cap() -> None:
    assert await reserve(Spending(None), None) is None
    with pytest.raises(UntoldCostError, match=r"no price of claude-sonnet-4-6 is known\. Run again without --max-cost"):
        await reserve(Spending(usd("1")), None)


@pytest.mark.parametrize(
    ("earlier", "helpers", "own", "said", "remedy"),
    [
        (Spent(), Spent(), Spent(usd("4.98")), "", "Raise --max-cost"),
        (
            Spent(usd("3.10")),
            Spent(),
            Spent(usd("1.88")),
            ", $3.10 of it earlier, by this run or by runs that it resumes",
            "use --resume with a higher --max-cost",
        ),
        (
            Spent(),
            Spent(usd("4")),
            Spent(usd("0.96"), usd("0.02")),
            ", $4.00 of it by its shards, $0.0200 of it likely, for requests whose answers were lost",
            "Raise --max-cost",
        ),
    ],
)
async def test_message_says_who_has_spent_it(
    earlier: Spent, helpers: Spent, own: Spent, said: str, remedy: str
) -> None:
    spending = Spending(usd("5.0"), earlier)
    spending.helpers, spending.own = helpers, own
    with pytest.raises(CostCapError) as reached:
        await reserve(spending, usd("0.03"))
    assert f"The cost cap of $5 is reached: $4.98 is spent{said}. The next request may cost" in str(reached.value)
    assert remedy in str(reached.value)


# How much a helper may spend

FIRST, FIRST_AGAIN, SECOND = (f"00000000-0000-7000-8000-00000000000{n}" for n in "123")


def spend(book: Book, dollars: str, lease_id: str | None = None) -> None:
    """Spend on a run, under a helper's lease or the run's own."""
    batch = WriteBatch()
    attempt = book.attempt(batch, new_id(), new_id(), lease_id=lease_id or book.lease.id)
    batch.settled.append(settled_row(attempt, cost_usd=usd(dollars)))
    write(book.ledger, batch)


def share(book: Book, *earlier: str, lease_id: str | None = None, waiting: int = 2) -> float:
    """Return what a helper may spend whose `earlier` attempts crashed; `lease_id` is that of the run's process."""
    run = (book.ledger, book.run_id)
    found = share_of_cap(
        1.0,
        spent=spent_by_chain(*run) + spent_by_run(*run, except_lease=lease_id or book.lease.id),
        by_helpers=spent_by_leases(*run, [FIRST, FIRST_AGAIN, SECOND]),
        by_earlier=spent_by_leases(*run, earlier),
        helpers=2,
        waiting=waiting,
    )
    return round(found, 6)


def test_helpers_share_nine_tenths_of_a_cap(ledger: Engine) -> None:
    assert share(Book(ledger)) == 0.45


def test_restarted_helper_may_spend_the_rest_of_its_share(ledger: Engine) -> None:
    run = Book(ledger)
    spend(run, "0.2", FIRST)
    spend(run, "0.1", FIRST_AGAIN)
    spend(run, "0.2", SECOND)

    assert share(run, FIRST, FIRST_AGAIN) == 0.15
    assert share(run, SECOND) == 0.25


def test_resumed_run_counts_the_costs_of_its_helpers_and_its_earlier_process(ledger: Engine) -> None:
    run = Book(ledger)
    spend(run, "0.3", FIRST)
    now_by = new_id()
    assert (share(run, FIRST, lease_id=now_by), share(run, lease_id=now_by)) == (0.15, 0.35)

    # The rest of the cap was spent after the helpers had ended: a helper gets nothing either.
    spend(run, "0.7")
    assert share(run, FIRST, lease_id=now_by) <= 0


def test_run_that_resumes_one_with_helpers_divides_what_is_left(ledger: Engine) -> None:
    earlier = Book(ledger)
    spend(earlier, "0.4", FIRST)
    spend(earlier, "0.2")
    assert share(Book(ledger, resumes_run_id=earlier.run_id)) == 0.18


# How much a request will likely cost


@pytest.fixture
def prompt(tmp_path: Path) -> Prompt:
    source = "---\noutput: SubjectLine\n---\n{% block user %}A line about tea.{% endblock %}"
    (tmp_path / "note.md.j2").write_text(source, encoding="utf-8")
    return render_prompt(make_brief(load_template(tmp_path, "note"), "sandbox", {}), {"record": {}})


@pytest.mark.parametrize(
    ("estimate", "likely"),
    [
        # Input is about 300 tokens, at $3 a million; output costs $15 a million.
        (Estimate(), usd("0.0150")),
        (Estimate(output_tokens=100), usd("0.0015") * usd("1.25")),
        (Estimate(output_tokens=100, cost_usd=usd("0.002")), usd("0.0025")),
    ],
)
def test_likely_cost_is_a_quarter_over_the_mean_and_at_first_all_of_max_tokens(
    prompt: Prompt, estimate: Estimate, likely: Decimal
) -> None:
    found = estimate.likely_cost(prompt, 1000)
    assert found is not None
    assert likely <= found <= likely + usd("0.0025")


def test_mean_of_other_models_answers_is_at_the_higher_price_of_theirs_and_the_requested_one() -> None:
    usage = Usage(input_tokens=1000, output_tokens=1000)
    dear, cheap, asked = (
        Answers(model, 1, usage, usd(cost))
        for model, cost in (("claude-opus-4-6", "0.03"), ("claude-haiku-4-5", "0.006"), ("claude-sonnet-4-6", "0.018"))
    )
    twice = Answers("claude-haiku-4-5", 2, Usage(input_tokens=2000, output_tokens=2000), usd("0.012"))
    assert mean_of([twice], "claude-sonnet-4-6") == Estimate(
        input_tokens=1000, output_tokens=1000, cost_usd=usd("0.018")
    )
    assert mean_of([asked, cheap, dear], "claude-sonnet-4-6").cost_usd == usd("0.022")
    assert mean_of([Answers("gpt-9", 1, usage, None)], "gpt-8").cost_usd is None


def test_repair_is_likely_to_cost_what_it_sends_more(prompt: Prompt) -> None:
    known = Estimate(output_tokens=100, cost_usd=usd("0.002"))
    first, repair = known.likely_cost(prompt, 1000), known.likely_cost(prompt, 1000, 400)
    assert first is not None
    assert repair is not None
    assert repair - first == usd("0.0012") * usd("1.25")  # $3 a million


# At the gate


def gate(max_cost: str | None, concurrency: int = 4) -> Pace:
    async def verified() -> bool:
        return True

    cap = None if max_cost is None else usd(max_cost)
    return Pace(concurrency=concurrency, limiter=Limiter(), verify=verified, max_cost=cap)


async def one(pace: Pace, prompt: Prompt, usage: Usage | None, error: CallError | None = None) -> None:
    async with pace.reserve(prompt, 1000) as likely, pace.enter(prompt, 1000, likely) as place:
        if usage is not None or error is not None:
            place.tell(usage, None, error)


async def test_probe_finds_room_even_if_waiting_requests_hold_all_of_it(
    prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presswork.pacing.breaker.PROBE_TIMEOUT_S", 60)
    refused = FinalCallError("HTTP 403", kind="proxy", alike="a firewall")
    pace = gate(None, concurrency=1)
    pace.breaker("note").send_probe = lambda: "far"
    for number in range(AT_START):
        await one(pace, replace(prompt, hash=str(number)), None, refused)
    held = [asyncio.create_task(one(pace, replace(prompt, hash=f"near {number}"), None)) for number in range(10)]
    await asyncio.sleep(0)

    async with asyncio.timeout(30):
        await one(pace, replace(prompt, hash="far"), None, refused)

    assert isinstance(pace.stopped, StoppingCallError)
    ended = await asyncio.gather(*held, return_exceptions=True)
    assert all(isinstance(error, StoppingCallError) for error in ended)


async def test_row_of_refusals_holds_no_other_template_back(prompt: Prompt, tmp_path: Path) -> None:
    (tmp_path / "other.md.j2").write_text((tmp_path / "note.md.j2").read_text(), encoding="utf-8")
    other = render_prompt(make_brief(load_template(tmp_path, "other"), "sandbox", {}), {"record": {}})
    pace = gate(None)
    for number in range(AT_START):
        await one(pace, replace(prompt, hash=str(number)), None, FinalCallError(kind="proxy", alike="a firewall"))

    async with asyncio.timeout(1):
        await one(pace, other, Usage(input_tokens=1))
    assert pace.stopped is None


@pytest.mark.parametrize("error", [None, PassingCallError(kind="timeout")], ids=["cut off", "timed out"])
async def test_lost_answer_counts_at_its_likely_price(prompt: Prompt, error: CallError | None) -> None:
    pace = gate("1")
    pace.estimates.setdefault("note", Estimate(cost_usd=usd("0.02")))
    await one(pace, prompt, None, error)
    assert pace.spending.spent == Spent(likely_usd=usd("0.025"))
    assert pace.spending.reserved_usd == 0


@pytest.mark.parametrize(
    ("model", "spent"),
    [
        (None, Spent(usd("0.018"))),
        ("claude-opus-4-6", Spent(usd("0.03"))),
        # No price is known: its likely cost counts, as in the ledger.
        ("gpt-9", Spent(likely_usd=usd("0.025"))),
    ],
)
async def test_answer_counts_at_the_price_of_the_model_that_gave_it(
    prompt: Prompt, model: str | None, spent: Spent
) -> None:
    pace = gate("1")
    pace.estimates.setdefault("note", Estimate(cost_usd=usd("0.02")))
    async with pace.reserve(prompt, 1000) as likely, pace.enter(prompt, 1000, likely) as place:
        place.tell(Usage(input_tokens=1000, output_tokens=1000), None, None, model=model)
    assert pace.spending.spent == spent


@pytest.mark.parametrize(
    ("model", "mean"),
    [
        (None, usd("0.018")),
        ("claude-sonnet-4-6", usd("0.018")),
        ("claude-haiku-4-5", usd("0.018")),  # the cheaper model may not answer again
        ("claude-opus-4-6", usd("0.03")),
        ("gpt-9", usd("0.018")),
    ],
)
async def test_answer_of_a_cheaper_model_makes_the_next_request_no_cheaper(
    prompt: Prompt, model: str | None, mean: Decimal
) -> None:
    pace = gate("1")
    async with pace.reserve(prompt, 1000) as likely, pace.enter(prompt, 1000, likely) as place:
        place.tell(Usage(input_tokens=1000, output_tokens=1000), None, None, model=model)
    assert pace.estimates["note"].likely_cost(prompt, 1000) == mean * usd("1.25")


async def test_request_that_the_gate_stopped_costs_nothing(prompt: Prompt) -> None:
    pace = gate("1")
    async with pace.reserve(prompt, 1000) as likely:
        pace.stop(StoppedError())
        with pytest.raises(StoppedError):
            async with pace.enter(prompt, 1000, likely):
                pytest.fail("it was let go")
    assert pace.spending.spent == Spent()
    with pytest.raises(StoppedError):
        await one(pace, prompt, None)


@pytest.mark.parametrize(("concurrency", "ahead"), [(1, 3), (4, 6), (100, 125)])
async def test_few_requests_are_written_ahead_under_a_cap(prompt: Prompt, concurrency: int, ahead: int) -> None:
    pace = gate("1000", concurrency)
    async with AsyncExitStack() as stack:
        for _ in range(ahead):
            await stack.enter_async_context(pace.reserve(prompt, 10))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), pace.reserve(prompt, 10):
                pytest.fail("one too many")


async def test_many_at_once_spend_no_more_than_the_cap(prompt: Prompt) -> None:
    pace = gate("0.05", concurrency=10)
    usage = Usage(input_tokens=100, output_tokens=100)

    ended = await asyncio.gather(*(one(pace, prompt, usage) for _ in range(200)), return_exceptions=True)

    assert {type(error) for error in ended} == {type(None), CostCapError}
    assert usd("0.045") < pace.spending.spent.total_usd <= usd("0.05")
    assert pace.spending.reserved_usd == 0
