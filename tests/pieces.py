"""The smallest real thing of each kind for the steps: a template file, an endpoint over HTTP, a gate, a journal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import orjson
import pytest
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

import flows
import flows.outputs
from db.words import SANDBOX
from presswork.answers.outcomes import Asking, Outcome, Policy
from presswork.answers.pursuing import Opened, Settled, answer_prompt
from presswork.claude.answers import Answer
from presswork.claude.client import Client
from presswork.claude.rate_limits import RateLimits
from presswork.errors import CallError
from presswork.prices import Usage
from presswork.prompts.render import Prompt, make_brief, render_prompt
from presswork.prompts.templates import Template, load_template
from sandbox import Sandbox

KEY = "sk-ant-test-0123456789abcdef"
GOOD = '{"title":"Fine","stars":4}'
PATIENT = Policy(wait_max_s=0.01, retry_after_cap_s=0.05)


class Note(BaseModel):
    """A short note."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(min_length=3, max_length=40, description="What it is called")
    stars: int = Field(ge=1, le=5)


@pytest.fixture
def note_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.outputs, "Note", Note, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "templates"
    folder.mkdir()
    return folder


Write = Callable[..., Template]


@pytest.fixture
def write(folder: Path, note_class: None) -> Write:
    """Write a template and load it; other files of the folder are given by name."""

    def write(
        body: str = "{% block user %}Name: {{ record.name }}{% endblock %}",
        front: str = "",
        files: Mapping[str, str] | None = None,
        name: str = "note",
    ) -> Template:
        for file, text in (files or {}).items():
            (folder / file).write_text(text, encoding="utf-8")
        output = "" if "output:" in front else "output: Note\n"
        (folder / f"{name}.md.j2").write_text(f"---\n{output}{front}---\n{body}", encoding="utf-8")
        return load_template(folder, name)

    return write


Put = Callable[[str, str], Path]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Put]:
    """Put a user's module into flows/ for one test."""
    folder = tmp_path / "flows"
    before = dict(sys.modules)
    monkeypatch.setattr("presswork.output_classes.classes._heavy_imports", {})
    monkeypatch.setattr(flows, "__path__", [*flows.__path__, str(folder)])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])

    def put(name: str, text: str) -> Path:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    yield put
    for name in set(sys.modules) - set(before):
        if name.startswith("flows.") or name == "heavy_friend":
            sys.modules.pop(name)
            vars(flows).pop(name.removeprefix("flows."), None)
    # Modules that the test made Python load again are those of before, which other tests have imported from.
    for name, module in before.items():
        if name.startswith("flows."):
            sys.modules[name] = module
            if "." not in name.removeprefix("flows."):
                setattr(flows, name.removeprefix("flows."), module)


Say = Callable[..., Prompt]


@pytest.fixture
def prompt(write: Write) -> Say:
    """Render a prompt for a record from the template's parts."""

    def prompt(
        body: str = "{% block user %}Name: {{ record.name }}{% endblock %}",
        front: str = "",
        record: Mapping[str, Any] | None = None,
        endpoint: str = SANDBOX,
    ) -> Prompt:
        template = write(body, front)
        return render_prompt(make_brief(template, endpoint, template.stand_ins), {"record": record or {"name": "Tea"}})

    return prompt


@dataclass
class Reply:
    """What the scripted endpoint does with a request; a body of bytes goes as it is, another as JSON."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    drops: bool = False
    hangs: bool = False


def message(text: str = GOOD, stop_reason: str | None = "end_turn", **usage: Any) -> dict[str, Any]:
    """An answer in the API's shape."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [{"type": "text", "text": text}],
        "stop_reason": stop_reason,
        "usage": {"input_tokens": 10, "output_tokens": 20, **usage},
    }


def error_body(kind: str, said: str = "", code: str | None = None) -> dict[str, Any]:
    """An error in the API's shape."""
    details = {"details": {"error_code": code}} if code else {}
    return {"type": "error", "error": {"type": kind, "message": said, **details}, "request_id": "req_1"}


class Scripted:
    """An endpoint that does what it is told: one reply a request, the last one again and again."""

    def __init__(self) -> None:
        self.replies: list[Reply] = [Reply(message())]
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.paths: list[str] = []
        self.arrived = asyncio.Event()
        self.url = ""
        self._ended = asyncio.Event()
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.1)

    def plan(self, *replies: Reply) -> None:
        self.replies = list(replies)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._ended.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.headers.append(request.headers)
        self.paths.append(request.rel_url.raw_path)
        body = await request.read()
        self.bodies.append(orjson.loads(body) if body else {})
        self.arrived.set()
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply.hangs:
            await self._ended.wait()
        if reply.drops and request.transport is not None:
            request.transport.close()
        raw = reply.body if isinstance(reply.body, bytes) else orjson.dumps(reply.body)
        headers = {"content-type": "application/json", "request-id": "req_1", **reply.headers}
        return web.Response(body=raw, status=reply.status, headers=headers)


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    async with Scripted() as endpoint:
        yield endpoint


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running


Connect = Callable[..., Client]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Open clients, and close them after the test."""
    clients: list[Client] = []

    def connect(url: str, timeout_s: float = 20) -> Client:
        clients.append(Client(api_key=KEY, base_url=url, timeout_s=timeout_s, connections=4))
        return clients[-1]

    yield connect
    for client in clients:
        await client.__aexit__()


class MemoryJournal:
    """Keeps attempts, and fails where one is settled twice or was never opened."""

    def __init__(self) -> None:
        self.opened: list[Opened] = []
        self._settled: dict[str, Settled] = {}
        self.is_ready = asyncio.Event()
        self.is_ready.set()

    async def ready(self) -> None:
        await self.is_ready.wait()

    async def open(self, opened: Opened) -> str:
        self.opened.append(opened)
        return str(len(self.opened) - 1)

    def settle(self, attempt_id: str, settled: Settled) -> None:
        assert int(attempt_id) < len(self.opened)
        assert attempt_id not in self._settled
        self._settled[attempt_id] = settled

    @property
    def settled(self) -> list[Settled]:
        """How the attempts ended, in their order: exactly one end for each."""
        assert sorted(self._settled, key=int) == [str(number) for number in range(len(self.opened))]
        return [self._settled[str(number)] for number in range(len(self.opened))]

    @property
    def kinds(self) -> list[str]:
        return [opened.kind for opened in self.opened]

    @property
    def ordinals(self) -> list[int]:
        return [opened.ordinal for opened in self.opened]

    @property
    def error_types(self) -> list[str | None]:
        return [settled.error_type for settled in self.settled]


class OpenGate:
    """Lets every request go and keeps what it was told; `closed` is raised instead, `waits` is waited for."""

    def __init__(self) -> None:
        self.likely = Decimal("0.01")
        self.told: list[tuple[Usage | None, RateLimits | None, CallError | None]] = []
        self.models: list[str | None] = []
        self.asked_for: list[int] = []
        self.closed: BaseException | None = None
        self.waits: asyncio.Event | None = None
        self.fails_at_the_end: BaseException | None = None
        self.inside = 0
        self.entered = asyncio.Event()
        self.was_told = asyncio.Event()

    @asynccontextmanager
    async def reserve(self, prompt: Prompt, max_tokens: int, added_tokens: int) -> AsyncIterator[Decimal]:
        yield self.likely

    @asynccontextmanager
    async def enter(self, prompt: Prompt, max_tokens: int, likely: Decimal | None) -> AsyncIterator[Self]:
        self.asked_for.append(max_tokens)
        self.entered.set()
        if self.waits is not None:
            await self.waits.wait()
        if self.closed is not None:
            raise self.closed
        self.inside += 1
        try:
            yield self
        finally:
            self.inside -= 1
        if self.fails_at_the_end is not None:
            raise self.fails_at_the_end

    def tell(
        self, usage: Usage | None, limits: RateLimits | None, error: CallError | None, *, model: str | None = None
    ) -> None:
        self.told.append((usage, limits, error))
        self.models.append(model)
        self.was_told.set()


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def gate() -> Iterator[OpenGate]:
    gate = OpenGate()
    yield gate
    assert gate.inside == 0


def used(answer: Answer | None) -> Usage:
    """What an answer says that it used, where it says so."""
    assert answer is not None
    assert answer.usage is not None
    return answer.usage


Pursue = Callable[..., Any]


@pytest.fixture
def pursue(prompt: Say, journal: MemoryJournal, gate: OpenGate, connect: Connect) -> Pursue:
    """Answer a prompt at a URL; the outcome, with attempts in `journal`."""

    async def pursue(
        url: str,
        policy: Policy = PATIENT,
        front: str = "",
        *,
        endpoint: str = SANDBOX,
        asking: Asking | None = None,
        timeout_s: float = 20,
    ) -> Outcome:
        client = connect(url, timeout_s)

        async def ask(body: Mapping[str, Any]) -> Answer:
            return await client.ask(body, endpoint)

        return await answer_prompt(
            asking or Asking(prompt(front=front, endpoint=endpoint)),
            ask=ask,
            gate=gate,
            journal=journal,
            policy=policy,
        )

    return pursue
