"""Classify error answers: which stop the run, which concern one record, and which are alike."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from db.words import ANTHROPIC
from presswork.claude.answers import read_error
from presswork.claude.refusals import judge, likeness
from presswork.errors import CallError, FinalCallError, PassingCallError, StoppingCallError
from presswork.prompts.render import request_body
from tests.pieces import KEY, Connect, Reply, Say, Scripted, error_body

CREDIT = (
    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase "
    "credits."
)
USAGE = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
BUDGET = "Budget has been exceeded! Current cost: 0.1, Max budget: 0.05"


def litellm(kind: str | None, said: str, code: Any = "400") -> dict[str, Any]:
    """Return an error in LiteLLM's format."""
    return {"error": {"message": said, "type": kind, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "kind", "remedy"),
    [
        (400, error_body("invalid_request_error", CREDIT), "invalid_request_error", "billing page"),
        (
            400,
            error_body("invalid_request_error", "Your credit balance is too low"),
            "invalid_request_error",
            "billing",
        ),
        (400, litellm("None", f"litellm.BadRequestError: AnthropicException - {CREDIT}"), "None", "billing page"),
        (400, error_body("invalid_request_error", USAGE), "invalid_request_error", "Raise the limit"),
        (429, error_body("rate_limit_error", USAGE), "rate_limit_error", "Raise the limit"),
        (
            400,
            error_body("invalid_request_error", USAGE.replace("API", "workspace API")),
            "invalid_request_error",
            "limit",
        ),
        (400, litellm("budget_exceeded", BUDGET), "budget_exceeded", "budget"),
        (429, litellm("budget_exceeded", BUDGET, "429"), "budget_exceeded", "budget"),
        (429, litellm(None, BUDGET), "http_429", "budget"),
        (400, litellm("error", "no", "budget_exceeded"), "error", "budget"),
        (400, litellm("auth_error", "ExceededBudget: User=7 over budget."), "auth_error", "budget"),
        (429, litellm("insufficient_quota", "You exceeded your current quota"), "insufficient_quota", "billing page"),
        (400, error_body("billing_error", "no"), "billing_error", "billing page"),
        (500, error_body("authentication_error", "no"), "authentication_error", "ANTHROPIC_API_KEY"),
        (
            400,
            error_body("invalid_request_error", "This organization has been disabled."),
            "invalid_request_error",
            "support",
        ),
        (401, b"<html>", "http_401", "ANTHROPIC_API_KEY"),
        (402, b"", "http_402", "billing page"),
        (403, litellm("permission_error", "no"), "permission_error", "permissions"),
        (404, error_body("a_type_of_next_year", "no"), "a_type_of_next_year", "`model`"),
        (200, error_body("invalid_request_error", CREDIT), "invalid_request_error", "billing page"),
    ],
)
async def test_key_account_or_budget_error_stops_the_run_and_names_the_remedy(
    scripted: Scripted, connect: Connect, prompt: Say, status: int, body: Any, kind: str, remedy: str
) -> None:
    error = await failure(connect, prompt, scripted, Reply(body, status))

    assert type(error) is StoppingCallError
    assert (error.kind, error.http_status) == (kind, status)
    assert remedy in str(error)


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize(
    "body",
    [
        b"<html>Request blocked. Incident 5f2a</html>",
        b"",
        {"message": "Forbidden"},
        {"detail": "Not Found"},
        litellm("content_policy", "blocked"),
    ],
)
async def test_403_or_404_not_in_the_apis_format_concerns_one_record(
    scripted: Scripted, connect: Connect, prompt: Say, status: int, body: Any
) -> None:
    error = await failure(connect, prompt, scripted, Reply(body, status))

    assert type(error) is FinalCallError
    assert "Incident" not in str(error)


@pytest.mark.parametrize("status", [502, 504, 520, 524])
async def test_page_of_a_proxy_may_hide_a_billed_answer(
    scripted: Scripted, connect: Connect, prompt: Say, status: int
) -> None:
    error = await failure(connect, prompt, scripted, Reply(b"<html>Bad gateway</html>", status))

    assert type(error) is PassingCallError
    assert (error.kind, str(error)) == ("proxy", f"HTTP {status} from a proxy")


async def test_504_of_the_api_itself_is_not_a_proxys(scripted: Scripted, connect: Connect, prompt: Say) -> None:
    error = await failure(connect, prompt, scripted, Reply(error_body("timeout_error"), 504))

    assert (type(error), error.kind) == (PassingCallError, "timeout_error")


@pytest.mark.parametrize("status", [302, 307])
async def test_redirect_loop_is_final_and_costs_four_requests(
    scripted: Scripted, connect: Connect, prompt: Say, status: int
) -> None:
    error = await failure(connect, prompt, scripted, Reply(b"", status, {"location": "/v1/messages"}))

    assert type(error) is FinalCallError
    assert error.kind == "redirect"
    assert "ANTHROPIC_BASE_URL" in str(error)
    assert len(scripted.bodies) == 4


@pytest.mark.parametrize("status", [300, 302, 304, 418, 451])
async def test_unforeseen_status_is_final(scripted: Scripted, connect: Connect, prompt: Say, status: int) -> None:
    error = await failure(connect, prompt, scripted, Reply(b"", status))

    assert (type(error), error.kind) == (FinalCallError, f"http_{status}")


async def test_key_in_an_error_with_a_success_status_is_left_out(
    scripted: Scripted, connect: Connect, prompt: Say
) -> None:
    error = await failure(connect, prompt, scripted, Reply(error_body("invalid_request_error", f"bad {KEY} here")))

    assert str(error) == "HTTP 200 invalid_request_error: bad [key] here"


async def test_unstorable_characters_of_an_error_are_cleaned(scripted: Scripted, connect: Connect, prompt: Say) -> None:
    body = b'{"type":"error","error":{"type":"odd\\u0000\\ud800","message":"why\\u0000\\udc00"}}'

    error = await failure(connect, prompt, scripted, Reply(body, 400))

    assert (error.kind, str(error)) == ("odd\ufffd\ufffd", "HTTP 400 odd\ufffd\ufffd: why\ufffd\ufffd")


@pytest.mark.parametrize("name", ["error", "message", "detail"])
async def test_words_of_an_error_in_another_format_are_passed_on(
    scripted: Scripted, connect: Connect, prompt: Say, name: str
) -> None:
    error = await failure(connect, prompt, scripted, Reply(orjson.dumps({name: "no such field"}), 400))

    assert (type(error), error.kind, str(error)) == (FinalCallError, "http_400", "HTTP 400: no such field")


async def test_error_in_another_format_still_concerns_the_record_or_the_account(
    scripted: Scripted, connect: Connect, prompt: Say
) -> None:
    long = await failure(connect, prompt, scripted, Reply(b'{"message":"Prompt is too long: 210000 tokens"}', 400))
    spent = await failure(connect, prompt, scripted, Reply(b'{"detail":"Budget has been exceeded! Now: 10.2"}', 400))

    assert (type(long), long.alike) == (FinalCallError, None)
    assert type(spent) is StoppingCallError


async def test_error_without_any_words_is_its_status(scripted: Scripted, connect: Connect, prompt: Say) -> None:
    error = await failure(connect, prompt, scripted, Reply(b"", 500))

    assert str(error) == "HTTP 500"


async def failure(connect: Connect, prompt: Say, scripted: Scripted, reply: Reply) -> CallError:
    """Return the error for the reply of a scripted endpoint."""
    scripted.plan(reply)
    with pytest.raises(CallError) as raised:
        await connect(scripted.url).ask(request_body(prompt()), ANTHROPIC)
    return raised.value


# A record whose text is about money


@pytest.mark.parametrize(
    "said",
    [
        'messages.0.content: "My credit balance is too low" is not allowed',
        "messages.0: the ticket says that a budget has been exceeded",
        "This request would exceed your organization's rate limit of 50 requests per minute.",
    ],
)
@pytest.mark.parametrize("status", [400, 429])
def test_words_of_a_record_do_not_stop_the_run(status: int, said: str) -> None:
    error, _kind, _remedy = judge(status, read_error(error_body("invalid_request_error", said)))

    assert error is (PassingCallError if status == 429 else FinalCallError)


# Alike


def alike(status: int, said: str, kind: str = "invalid_request_error") -> str | None:
    return likeness(status, read_error(error_body(kind, said)))


def test_rejections_are_alike_if_only_numbers_differ() -> None:
    one = alike(400, "messages.0: at 12:07 the budget of team-7 was 0.10 (request 01a7-beef)")
    other = alike(400, "messages.3: at 12:08 the budget of team-9 was 3.5 (request 77ff-0123)")

    assert one == other
    assert one is not None


@pytest.mark.parametrize(
    "other",
    [
        alike(422, "no tea"),
        alike(400, "no coffee"),
        alike(400, "no tea", "another_error"),
        alike(400, "no tea. " + "It quotes the record. " * 30),
    ],
)
def test_different_rejections_are_not_alike(other: str | None) -> None:
    assert alike(400, "no tea") != other


def test_pages_of_one_status_are_alike() -> None:
    assert likeness(403, read_error("<html>Incident a</html>")) == likeness(403, read_error("<html>Incident b</html>"))


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (413, "no"),
        (400, "prompt is too long: 210000 tokens > 200000 maximum"),
        (400, "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"),
        (400, "Input is too long for requested model."),
        (400, "This model's maximum context length is 8192 tokens"),
    ],
)
def test_prompt_that_is_too_long_concerns_one_record(status: int, said: str) -> None:
    assert alike(status, said) is None
