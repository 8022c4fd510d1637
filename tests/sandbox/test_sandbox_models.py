"""Each model is served by its own rules: thinking, effort, limits, tokens, prefill, tools and lifecycle."""

from typing import Any, get_args

import pytest
from anthropic import AsyncAnthropic, BadRequestError, NotFoundError
from anthropic.resources.messages import DEPRECATED_MODELS
from anthropic.types import ModelParam

from presswork import known_models
from presswork.catalog import plain_model_name
from sandbox.known import SERVED_MODELS, find_model

NAMED: tuple[str, ...] = get_args(get_args(ModelParam)[0])
SERVED = [name for name in NAMED if find_model(name).lifecycle != "retired"]
TEXT = "Name: Mountain Oolong\nFeatures: hand rolled, floral aroma"
TOOL = {"name": "look", "input_schema": {"type": "object"}}


def asked(model: str, **changes: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 4096, "messages": [{"role": "user", "content": TEXT}]} | changes


def kinds(message: Any) -> list[str]:
    return [block.type for block in message.content]


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
async def test_every_model_that_the_sdk_names_answers(client: AsyncAnthropic, name: str) -> None:
    info = await client.models.retrieve(name)
    message = await client.messages.create(**asked(name))
    assert message.model == info.id == find_model(name).id
    assert name.startswith(info.id[: len(name)])
    assert str(info.line) in name
    assert info.capabilities is not None
    assert info.capabilities.structured_outputs.supported
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize("name", sorted(DEPRECATED_MODELS.keys() | {"claude-opus-4-1"}))
@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
async def test_models_past_their_end_are_not_found_and_stay_in_the_catalogue(client: AsyncAnthropic, name: str) -> None:
    info = await client.models.retrieve(name)
    assert info.retires_at is not None
    if name.startswith("claude-sonnet-4-5"):
        assert (info.lifecycle, f"{info.retires_at:%Y-%m-%d}") == ("deprecated", "2026-11-30")
        assert (await client.messages.create(**asked(name))).model == "claude-sonnet-4-5-20250929"
        return
    assert info.lifecycle == "retired"
    for send in (client.messages.create(**asked(name)), client.messages.count_tokens(**counted(name))):
        with pytest.raises(NotFoundError) as caught:
            await send
        assert caught.value.type == "not_found_error"


def counted(model: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in asked(model, **changes).items() if name != "max_tokens"}


THINKING = {
    "adaptive": {"type": "adaptive"},
    "between_tools": {"type": "between_tools"},
    "disabled": {"type": "disabled"},
    "enabled": {"type": "enabled", "budget_tokens": 1024},
}
# What is accepted, and whether an answer thinks where the request says nothing.
ACCEPTED = {
    "claude-haiku-4-5": ("enabled disabled", False),
    "claude-opus-4-5": ("enabled disabled", False),
    "claude-sonnet-4-6": ("adaptive enabled disabled", False),
    "claude-opus-4-8": ("adaptive disabled", False),
    "claude-sonnet-5": ("adaptive disabled", True),
    "claude-opus-5": ("adaptive disabled", True),
    "claude-haiku-5-5": ("adaptive disabled", True),
    "claude-sonnet-5-5": ("adaptive between_tools", True),
    "claude-opus-5-5": ("adaptive", True),
    "claude-fable-5": ("adaptive", True),
    "claude-mythos-5-2": ("adaptive", True),
}


@pytest.mark.parametrize("name", ACCEPTED)
async def test_thinking_modes_are_accepted_and_told_by_model(client: AsyncAnthropic, name: str) -> None:
    accepted, thinks = ACCEPTED[name]
    capabilities = (await client.models.retrieve(name)).capabilities
    assert capabilities is not None
    for kind, thinking in THINKING.items():
        assert getattr(capabilities.thinking.types, kind).supported == (kind in accepted.split())
        if kind in accepted.split():
            message = await client.messages.create(**asked(name, thinking=thinking))
            assert ("thinking" in kinds(message)) == (kind in ("adaptive", "enabled"))
            continue
        for send in (
            client.messages.create(**asked(name, thinking=thinking)),
            client.messages.count_tokens(**counted(name, thinking=thinking)),
        ):
            with pytest.raises(BadRequestError, match=f'"thinking.type.{kind}" is not supported for this model'):
                await send
    assert ("thinking" in kinds(await client.messages.create(**asked(name)))) == thinks


@pytest.mark.parametrize(
    ("name", "kind"),
    [("claude-sonnet-5-5", "between_tools"), ("claude-opus-5", "disabled"), ("claude-haiku-5-5", "disabled")],
)
async def test_thinking_is_not_turned_off_with_the_highest_efforts(
    client: AsyncAnthropic, name: str, kind: str
) -> None:
    for effort in ("low", "high", "xhigh", "max"):
        body = asked(name, thinking={"type": kind}, output_config={"effort": effort})
        if effort in ("low", "high"):
            assert kinds(await client.messages.create(**body)) == ["text"]
        else:
            with pytest.raises(BadRequestError, match=f"is not supported with effort .*{effort}"):
                await client.messages.create(**body)


async def test_thinking_that_nobody_asked_for_is_output_and_fills_max_tokens(client: AsyncAnthropic) -> None:
    thought = await client.messages.create(**asked("claude-sonnet-5"))
    plain = await client.messages.create(**asked("claude-sonnet-5", thinking={"type": "disabled"}))
    assert thought.usage.output_tokens_details is not None
    spent = thought.usage.output_tokens_details.thinking_tokens
    assert thought.usage.output_tokens == plain.usage.output_tokens + spent
    block = thought.content[0]
    assert block.type == "thinking"
    assert (block.thinking, bool(block.signature)) == ("", True), "thinking is omitted unless `display` asks for it"
    short = await client.messages.create(**asked("claude-sonnet-5", max_tokens=spent + 2))
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", spent + 2)
    shorter = await client.messages.create(**asked("claude-sonnet-5", max_tokens=20))
    assert (kinds(shorter), shorter.usage.output_tokens) == (["thinking"], 20)


async def test_thinking_is_shown_as_display_says(client: AsyncAnthropic) -> None:
    for name, display, shown in [
        ("claude-sonnet-4-6", None, True),
        ("claude-sonnet-4-6", "omitted", False),
        ("claude-sonnet-5-5", None, False),
        ("claude-sonnet-5-5", "summarized", True),
    ]:
        thinking = {"type": "adaptive"} | ({"display": display} if display else {})
        block = (await client.messages.create(**asked(name, thinking=thinking))).content[0]
        assert block.type == "thinking"
        assert bool(block.thinking) == shown


EFFORTS = {
    "claude-sonnet-4-5": "",
    "claude-opus-4-5": "low medium high",
    "claude-sonnet-4-6": "low medium high max",
    "claude-opus-4-7": "low medium high xhigh max",
    "claude-sonnet-5-5": "low medium high xhigh max",
}


@pytest.mark.parametrize("name", EFFORTS)
@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
async def test_efforts_are_accepted_and_told_by_model(client: AsyncAnthropic, name: str) -> None:
    capabilities = (await client.models.retrieve(name)).capabilities
    assert capabilities is not None
    assert capabilities.effort.supported == bool(EFFORTS[name])
    for effort in ("low", "medium", "high", "xhigh", "max"):
        level = getattr(capabilities.effort, effort)
        assert level.supported == (effort in EFFORTS[name].split())
        if not level.supported:
            with pytest.raises(BadRequestError, match=r"output_config\.effort"):
                await client.messages.create(**asked(name, output_config={"effort": effort}))


async def test_more_effort_thinks_more(client: AsyncAnthropic) -> None:
    spent = []
    for effort in ("low", "medium", "high", "xhigh", "max"):
        usage = (await client.messages.create(**asked("claude-opus-5", output_config={"effort": effort}))).usage
        assert usage.output_tokens_details is not None
        spent.append(usage.output_tokens_details.thinking_tokens)
    assert spent == sorted(set(spent))


@pytest.mark.parametrize("name", ["claude-sonnet-5-5", "claude-opus-5-5", "claude-fable-5-1"])
async def test_newest_models_take_neither_prefill_nor_forced_tools_nor_sampling(
    client: AsyncAnthropic, name: str
) -> None:
    prefilled = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "{"}]
    refused: list[dict[str, Any]] = [
        {"messages": prefilled},
        {"tools": [TOOL], "tool_choice": {"type": "any"}},
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "look"}},
        {"extra_body": {"temperature": 0.5}},
    ]
    for changes in refused:
        with pytest.raises(BadRequestError):
            await client.messages.create(**asked(name, **changes))
    await client.messages.create(**asked(name, tools=[TOOL], tool_choice={"type": "auto"}))


async def test_older_models_take_forced_tools_and_the_oldest_prefill(client: AsyncAnthropic) -> None:
    await client.messages.create(**asked("claude-sonnet-5", tools=[TOOL], tool_choice={"type": "any"}))
    prefilled = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "{"}]
    await client.messages.create(**asked("claude-haiku-4-5", messages=prefilled))


@pytest.mark.parametrize(
    ("name", "percent"),
    [("claude-haiku-4-5", 100), ("claude-opus-4-7", 130), ("claude-sonnet-5", 130), ("claude-sonnet-5-5", 130)],
)
async def test_same_text_is_more_tokens_for_newer_models(client: AsyncAnthropic, name: str, percent: int) -> None:
    long = [{"role": "user", "content": TEXT * 100}]
    plain = (await client.messages.count_tokens(**counted("claude-sonnet-4-6", messages=long))).input_tokens
    tokens = (await client.messages.count_tokens(**counted(name, messages=long))).input_tokens
    assert tokens == -(-plain * percent // 100)
    off = {"type": "between_tools" if name == "claude-sonnet-5-5" else "disabled"}
    usage = (await client.messages.create(**asked(name, messages=long, thinking=off))).usage
    old = (await client.messages.create(**asked("claude-sonnet-4-6", messages=long))).usage
    assert usage.input_tokens == tokens
    assert usage.output_tokens == -(-old.output_tokens * percent // 100)


async def test_prefix_is_cached_from_the_models_minimum_on(client: AsyncAnthropic) -> None:
    system = [{"type": "text", "text": "We sell tea. " * 200, "cache_control": {"type": "ephemeral"}}]  # 650 tokens
    for name, cached in [("claude-sonnet-4-6", 0), ("claude-opus-4-7", 0), ("claude-opus-5", -(-654 * 130 // 100))]:
        usage = (await client.messages.create(**asked(name, system=system))).usage
        assert usage.cache_creation_input_tokens == cached


@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
async def test_limits_are_told_and_kept(client: AsyncAnthropic) -> None:
    info = await client.models.retrieve("claude-haiku-4-5")
    assert (info.max_tokens, info.max_input_tokens, info.line) == (64_000, 200_000, "haiku")
    for model in SERVED_MODELS.values():
        if model.lifecycle != "retired":
            with pytest.raises(BadRequestError, match=f"> {model.max_output}"):
                await client.messages.create(**asked(model.id, max_tokens=model.max_output + 1, timeout=60))


async def test_models_are_listed_in_pages_newest_first(client: AsyncAnthropic) -> None:
    listed = [model async for model in client.models.list(limit=5)]
    ids = [model.id for model in listed]
    assert set(ids) == {find_model(name).id for name in SERVED}
    assert len(ids) == len(set(ids))
    assert [model.created_at for model in listed if model.line == "opus"] == sorted(
        [model.created_at for model in listed if model.line == "opus"], reverse=True
    )
    at = ids.index("claude-sonnet-4-6")
    before = await client.models.list(before_id="claude-sonnet-4-6", limit=2)
    assert [model.id for model in before.data] == ids[at - 2 : at]
    assert before.has_more
    after = await client.models.list(after_id="claude-haiku-4-5", limit=1000)
    assert [model.id for model in after.data] == ids[ids.index("claude-haiku-4-5-20251001") + 1 :]
    assert not after.has_more
    assert (after.first_id, after.last_id) == (after.data[0].id, ids[-1])


def test_the_sandbox_and_the_catalogue_know_the_same_lives() -> None:
    lives = {plain_model_name(name): (model.lifecycle, model.retires) for name, model in SERVED_MODELS.items()}
    assert lives == {
        name: (model.lifecycle, model.retires_on and f"{model.retires_on}")
        for name, model in known_models.MODELS.items()
        if name != "claude-3-5-sonnet"  # the SDK, whose names the sandbox has, forgot it
    }


async def test_models_are_listed_by_lifecycle(client: AsyncAnthropic) -> None:
    deprecated = await client.models.list(lifecycle=["deprecated"])
    assert [model.id for model in deprecated.data] == ["claude-sonnet-4-5-20250929"]
    retired = await client.models.list(lifecycle=["deprecated", "retired"], limit=1000)
    assert "claude-mythos-preview" in [model.id for model in retired.data]
    assert not [model for model in retired.data if model.lifecycle == "active"]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "lifecycle[]=new"])
async def test_wrong_query_is_refused(client: AsyncAnthropic, query: str) -> None:
    with pytest.raises(BadRequestError):
        await client.get(f"/v1/models?{query}", cast_to=object)


async def test_unknown_model_or_cursor_is_not_found(client: AsyncAnthropic) -> None:
    with pytest.raises(NotFoundError):
        await client.models.retrieve("claude-2")
    with pytest.raises(NotFoundError):
        await client.models.list(after_id="claude-2")
