"""An endpoint is asked once about a model: its facts override the catalog, and a missing reply stops nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from presswork.catalog import MODELS, Model, NotTold
from presswork.claude.client import Client
from presswork.engine.resources.endpoint import Endpoint
from presswork.errors import TemplateError
from presswork.prompts.templates import load_template
from tests.engine.workshop import Workshop

NAME = "claude-sonnet-4-6"
YES, NO = {"supported": True}, {"supported": False}
HIGHER = {"capabilities": {"effort": {"supported": True, "xhigh": YES}}}


class Gateway:
    """A gateway with scripted model facts that passes requests to a sandbox; `asked` lists the queried models."""

    def __init__(self, says: Mapping[str, Any] | int | None, sandbox: str = "") -> None:
        self.says, self.sandbox = says, sandbox
        self.asked: list[str] = []
        self.requests = 0
        self.url = ""

    async def model(self, request: web.Request) -> web.Response:
        self.asked.append(request.match_info["name"])
        if self.says is None:
            await asyncio.sleep(60)
        if isinstance(self.says, int):
            return web.Response(status=self.says, text="<html>")
        return web.json_response(self.says)

    async def message(self, request: web.Request) -> web.Response:
        self.requests += 1
        body = await request.json()
        # The sandbox has the rules of the real models.
        body["output_config"].pop("effort", None)
        body["model"] = NAME
        headers = {"x-api-key": "any", "anthropic-version": request.headers["anthropic-version"]}
        url = f"{self.sandbox}/v1/messages"
        async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answered:
            return web.json_response(await answered.json(), status=answered.status)


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[Gateway]:
    app = web.Application()
    app.router.add_get("/v1/models/{name}", gateway.model)
    app.router.add_post("/v1/messages", gateway.message)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield gateway
    finally:
        await runner.cleanup()


@asynccontextmanager
async def endpoint_at(gateway: Gateway) -> AsyncIterator[Endpoint]:
    async with serving(gateway), Client(api_key="k", base_url=gateway.url, timeout_s=9, connections=2) as client:
        yield Endpoint("gateway", client, verified=False)


@asynccontextmanager
async def behind(workshop: Workshop, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    gateway.sandbox = workshop.sandbox.url
    async with serving(gateway):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", gateway.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "any")
        monkeypatch.setenv("PRESSWORK_ENDPOINT", "gateway")
        yield gateway


def in_days(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


# The endpoint


async def test_a_model_is_asked_about_once() -> None:
    async with endpoint_at(gateway := Gateway({"max_tokens": 300_000})) as endpoint:
        models = await asyncio.gather(*(endpoint.ask_about(NAME) for _ in range(5)))

        assert {model.max_output for model in models if isinstance(model, Model)} == {300_000}
        assert endpoint.known(NAME) == models[0]
    assert gateway.asked == [NAME]


@pytest.mark.parametrize("says", [404, 403, 401, 500, None, [], {"data": []}])
async def test_an_endpoint_that_is_silent_leaves_what_is_known(says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if says is None:
        monkeypatch.setattr("presswork.claude.client.MODEL_TIMEOUT_S", 1)
    async with endpoint_at(gateway := Gateway(says)) as endpoint:
        for name in (NAME, "a-gateways-own", NAME):
            await endpoint.ask_about(name)
        assert endpoint.known(NAME) == MODELS[NAME]
        assert (endpoint.known("a-gateways-own") is None) == (says is None or isinstance(says, int))
    assert gateway.asked == [NAME, "a-gateways-own"]


async def test_only_an_endpoint_that_tells_of_models_can_say_that_there_is_none() -> None:
    async with endpoint_at(Gateway(404)) as endpoint:
        said = await endpoint.ask_about(NAME)
        endpoint.verified = True
        denied = await endpoint.ask_about("claude-9")

    assert said == NotTold(
        f"The endpoint 'gateway' does not describe the model {NAME}: HTTP 404. The built-in catalog is used."
    )
    assert denied == NotTold("The endpoint 'gateway' has no model 'claude-9'.", is_unknown=True)


@pytest.mark.parametrize(
    ("front", "says", "fits", "asked"),
    [
        ("", {"max_tokens": 10}, True, []),
        ("effort: xhigh\n", HIGHER, True, [NAME]),
        ("effort: xhigh\n", 404, False, [NAME]),
        ("effort: xhigh\nmax_tokens: 200000\n", HIGHER, False, [NAME]),
    ],
)
async def test_a_template_is_refused_only_where_the_endpoint_does_not_know_better(
    tmp_path: Path, front: str, says: Any, fits: bool, asked: list[str]
) -> None:
    (tmp_path / "note.md.j2").write_text(f"---\noutput: SubjectLine\n{front}---\n{{% block user %}}x{{% endblock %}}")
    template = load_template(tmp_path, "note")
    async with endpoint_at(gateway := Gateway(says)) as endpoint:
        if fits:
            await endpoint.require_fit([template])
        else:
            with pytest.raises(TemplateError, match=r"^note\.md\.j2: the front matter is wrong: "):
                await endpoint.require_fit([template])
    assert gateway.asked == asked


# A run


async def test_a_run_says_which_model_retires_and_who_names_it(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(3)
    retires_at = in_days(20)
    says = {"lifecycle": "deprecated", "retires_at": retires_at}
    async with behind(workshop, Gateway(says), monkeypatch) as gateway:
        summary = await workshop.run()
        again = await workshop.run()

    (note,) = summary.notes
    assert note.startswith(f"{NAME} is deprecated and retires on {retires_at[:10]}, in ")
    assert note.endswith("Change the model in: note.")
    assert (summary.succeeded, gateway.asked) == (3, [NAME])
    # If everything is in the ledger, the endpoint is not asked.
    assert (again.cached, again.notes) == (3, [])


async def test_a_run_does_without_what_is_not_said(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presswork.claude.client.MODEL_TIMEOUT_S", 1)
    workshop.numbered(2)
    async with behind(workshop, Gateway(None), monkeypatch) as gateway:
        summary = await workshop.run()

    assert (summary.succeeded, summary.notes, summary.exit_status) == (2, [], 0)
    assert gateway.asked == [NAME]


async def test_a_run_stops_before_its_first_request_where_the_model_does_not_take_it(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(2)
    async with behind(workshop, Gateway({"max_tokens": 100}), monkeypatch) as gateway:
        with pytest.raises(TemplateError, match="max_tokens: claude-sonnet-4-6 answers with 100 tokens at most"):
            await workshop.run()

    assert (gateway.requests, workshop.value("SELECT count(*) FROM attempts")) == (0, 0)
    assert workshop.value("SELECT status FROM runs") == "failed"


async def test_a_run_goes_by_the_endpoint_where_that_knows_better(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(2)
    file = workshop.templates / "note.md.j2"
    file.write_text(file.read_text().replace("key: id\n", "key: id\neffort: xhigh\n"))
    async with behind(workshop, Gateway(HIGHER), monkeypatch):
        assert (await workshop.run()).succeeded == 2
    async with behind(workshop, Gateway(404), monkeypatch):
        with pytest.raises(TemplateError, match="takes low, medium, high, max, not xhigh"):
            await workshop.run(refresh=True)


async def test_a_run_of_a_model_that_is_known_to_end_says_so(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(1)
    file = workshop.templates / "note.md.j2"
    file.write_text(
        file.read_text().replace("key: id\n", "key: id\nmodel: claude-sonnet-4-5\naccept_models: [claude-sonnet-4-6]\n")
    )
    async with behind(workshop, Gateway(404), monkeypatch):
        summary = await workshop.run()

    (note,) = summary.notes
    assert "claude-sonnet-4-5 " in note
    assert "2026-11-30" in note
    assert summary.succeeded == 1
