"""A run's gate with a real endpoint over HTTP: what is requested first, and which errors stop all other requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from presswork.answers.outcomes import Asking, Outcome
from presswork.answers.pursuing import answer_prompt
from presswork.engine.resources.endpoint import Endpoint, open_endpoint
from presswork.errors import EndpointError, MissingKeyError, StoppingCallError
from presswork.pacing.limiter import Limiter
from presswork.pacing.pace import Pace
from presswork.prompts.render import make_brief, render_prompt
from presswork.prompts.templates import load_template
from presswork.settings import load_settings
from sandbox import Sandbox
from tests.pieces import PATIENT, MemoryJournal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def gateway(answer: Handler, *, models: int = 404) -> AsyncIterator[str]:
    """Serve a gateway that has only POST /v1/messages; GET /v1/models fails with the status `models`."""

    async def refuse(_request: web.Request) -> web.Response:
        error = {"type": "permission_error", "message": "not here"}
        return web.json_response({"type": "error", "error": error}, status=models)

    app = web.Application()
    app.router.add_get("/v1/models", refuse)
    app.router.add_post("/v1/messages", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def passing_on(sandbox: Sandbox, **usage: Any) -> Handler:
    """Make a handler that passes requests to the sandbox, and changes the usage in its answers."""

    async def answer(request: web.Request) -> web.Response:
        headers = {"x-api-key": "any", "anthropic-version": request.headers["anthropic-version"]}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{sandbox.url}/v1/messages", data=await request.read(), headers=headers) as answered,
        ):
            message = await answered.json()
        message["usage"] |= usage
        return web.json_response(message)

    return answer


@dataclass
class Caller:
    """Sends prompts to an endpoint through the gate of a run, without the run."""

    endpoint: Endpoint
    pace: Pace
    folder: Path
    journal: MemoryJournal = field(default_factory=MemoryJournal)

    async def ask(self, count: int) -> list[Outcome | BaseException]:
        """Send prompts all at once; returns the outcome or the error of each."""
        (self.folder / "note.md.j2").write_text(
            "---\noutput: SubjectLine\n---\n{% block user %}A line about {{ record.n }}.{% endblock %}",
            encoding="utf-8",
        )
        brief = make_brief(load_template(self.folder, "note"), self.endpoint.name, {})
        send = partial(self.endpoint.client.ask, endpoint=self.endpoint.name)
        return await asyncio.gather(
            *(
                answer_prompt(
                    Asking(render_prompt(brief, {"record": {"n": number}})),
                    ask=send,
                    gate=self.pace,
                    journal=self.journal,
                    policy=PATIENT,
                )
                for number in range(count)
            ),
            return_exceptions=True,
        )

    async def is_stopped(self, count: int, match: str | None = None) -> None:
        """Send prompts, and assert that each ends with the error that stopped the run."""
        for ended in await self.ask(count):
            with pytest.raises(StoppingCallError, match=match):
                raise ended if isinstance(ended, BaseException) else AssertionError(ended)


Open = Callable[[], Awaitable[Caller]]


@pytest.fixture
async def open_gate(tmp_path: Path) -> AsyncIterator[Open]:
    """Open the endpoint that the environment names, with a gate."""
    opened: list[Endpoint] = []

    async def open_one() -> Caller:
        endpoint = await open_endpoint(load_settings(), 20)
        opened.append(endpoint)
        return Caller(endpoint, Pace(concurrency=20, limiter=Limiter(), verify=endpoint.verify), tmp_path)

    yield open_one
    for endpoint in opened:
        await endpoint.client.__aexit__()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the endpoint's URL, its name and the key; None unsets one."""

    def say(url: str, name: str | None = None, key: str | None = "sk-ant-mine") -> None:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        for variable, value in {"PRESSWORK_ENDPOINT": name, "ANTHROPIC_API_KEY": key}.items():
            if value is None:
                monkeypatch.delenv(variable, raising=False)
            else:
                monkeypatch.setenv(variable, value)

    return say


# Unavailable


async def test_endpoint_that_is_away_is_not_opened(sandbox: Sandbox, open_gate: Open) -> None:
    await sandbox.stop()
    with pytest.raises(EndpointError, match="can't be reached"):
        await open_gate()


async def test_named_endpoint_that_is_away_is_tried_once_and_stops_all(
    open_gate: Open, at: Callable[..., None]
) -> None:
    tried = 0

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tried
        tried += 1
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "gateway")
    caller = await open_gate()
    await caller.is_stopped(30, "can't be reached")
    server.close()
    await server.wait_closed()
    # aiohttp retries once if the server closes the connection.
    assert tried <= 2
    assert set(caller.journal.error_types) <= {"not_sent"}


# Refusing


@pytest.mark.parametrize("name", [None, "sandbox"])
async def test_refused_key_sends_nothing(
    sandbox: Sandbox, open_gate: Open, at: Callable[..., None], name: str | None
) -> None:
    at(sandbox.url, name, "sk-invalid-1")
    if name is None:
        with pytest.raises(StoppingCallError, match="ANTHROPIC_API_KEY"):
            await open_gate()
    else:
        await (await open_gate()).is_stopped(30, "ANTHROPIC_API_KEY")
    assert sandbox.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "authentication_error"), (402, "billing_error"), (403, "permission_error"), (404, "not_found_error")],
)
async def test_gateway_that_refuses_gets_one_request_and_no_more(
    open_gate: Open, at: Callable[..., None], status: int, kind: str
) -> None:
    asked = 0

    async def refuse(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return web.json_response({"type": "error", "error": {"type": kind, "message": "no"}}, status=status)

    async with gateway(refuse) as url:
        at(url, "gateway")
        caller = await open_gate()
        await caller.is_stopped(150)
    assert asked == 1
    sent = [settled for settled in caller.journal.settled if settled.error_type != "not_sent"]
    assert [(settled.error_type, settled.error and settled.error.http_status) for settled in sent] == [(kind, status)]


@pytest.mark.parametrize("status", [403, 404, 405])
async def test_gateway_that_keeps_its_models_to_itself_stops_nothing_once_it_is_named(
    sandbox: Sandbox, open_gate: Open, at: Callable[..., None], status: int
) -> None:
    async with gateway(passing_on(sandbox), models=status) as url:
        if status == 403:
            at(url)
            with pytest.raises(StoppingCallError, match="set PRESSWORK_ENDPOINT"):
                await open_gate()
            assert sandbox.stats()["requests"] == 0
        at(url, "gateway")
        caller = await open_gate()
        ended = await caller.ask(12)
    assert {outcome.status for outcome in ended if isinstance(outcome, Outcome)} == {"succeeded"}
    assert (len(ended), sandbox.stats()["requests"], caller.endpoint.name) == (12, 12, "gateway")
    assert not caller.endpoint.verified


# Another endpoint than named


@pytest.mark.parametrize("name", ["anthropic", "gateway"])
async def test_sandbox_under_another_name_is_asked_nothing(
    sandbox: Sandbox, open_gate: Open, at: Callable[..., None], name: str
) -> None:
    at(sandbox.url, name)
    caller = await open_gate()
    await caller.is_stopped(5, "but the sandbox answered")
    assert sandbox.stats()["requests"] == 0
    assert set(caller.journal.error_types) <= {"not_sent"}


async def test_another_endpoint_under_the_sandboxs_name_stops_all_and_its_answer_counts_as_paid(
    sandbox: Sandbox, open_gate: Open, at: Callable[..., None]
) -> None:
    async with gateway(passing_on(sandbox)) as url:
        at(url, "sandbox", None)
        caller = await open_gate()
        await caller.is_stopped(5, "but another endpoint answered")
    assert sandbox.stats()["requests"] == 1
    assert caller.pace.spending.own.known_usd > 0


@pytest.mark.parametrize("name", [None, "anthropic", "gateway"])
async def test_missing_key_is_said_before_anything_is_sent(
    sandbox: Sandbox,
    open_gate: Open,
    at: Callable[..., None],
    name: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at(sandbox.url, name, None)
    if name is None:
        monkeypatch.delenv("ANTHROPIC_BASE_URL")
    with pytest.raises(MissingKeyError, match="ANTHROPIC_API_KEY"):
        await open_gate()
    assert sum(sandbox.stats()["other_requests"].values()) == 0
