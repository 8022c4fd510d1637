"""The models: what is known of each, what a template may ask of it, and what an endpoint says instead."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from anthropic.resources.messages.messages import DEPRECATED_MODELS
from anthropic.types import ModelInfo, ModelParam
from genai_prices.data_snapshot import get_snapshot

from presswork import known_models
from presswork.catalog import (
    DEFAULT_MODEL,
    MODELS,
    Model,
    ModelFacts,
    NotTold,
    corrected,
    ending,
    estimate_tokens,
    find_model,
    is_other_model,
    likely_tokens,
    most_tokens,
    plain_model_name,
    read_model_facts,
)
from presswork.errors import TemplateError
from presswork.model_rules import misfits, request_settings, require_fit
from presswork.prompts.front_matter import FrontMatter, read_front_matter
from presswork.prompts.lint import errors_that_stop, lint_template
from presswork.prompts.render import Caching, request_body
from tests.pieces import Say

TODAY = date(2026, 11, 25)
SDK = sorted({plain_model_name(name) for name in typing.get_args(typing.get_args(ModelParam)[0])})
ADAPTIVE, OFF, BETWEEN = {"type": "adaptive"}, {"type": "disabled"}, {"type": "between_tools"}
ALWAYS = ["claude-opus-5-5", "claude-fable-5", "claude-fable-5-1", "claude-fable-5-2", "claude-mythos-5-2"]
CAPPED = ["claude-sonnet-5-5", "claude-opus-5", "claude-haiku-5-5"]


def front(model: str, **fields: Any) -> FrontMatter:
    written = "".join(f"{name}: {value}\n" for name, value in fields.items())
    return read_front_matter("note", f"---\noutput: Note\nmodel: {model}\nmax_tokens: 8192\n{written}---\n")


def faults(model: str, told: Model | None = None, **fields: Any) -> list[str]:
    asks, known = front(model, **fields), find_model(model)
    return [str(misfit) for misfit in misfits(asks, request_settings(asks, known), told or known)]


# What is known


@pytest.mark.parametrize("name", SDK)
def test_every_model_of_the_sdk_is_known(name: str) -> None:
    model = MODELS[name]

    assert model.thinking
    assert model.thinks is not None
    if model.lifecycle == "active":
        assert None not in (model.max_output, model.context, model.efforts, model.structured_outputs)


@pytest.mark.parametrize("name", DEPRECATED_MODELS)
def test_what_the_sdk_says_of_ends_is_known(name: str) -> None:
    model = find_model(name)

    assert model is not None
    said = re.sub(r"(?<=\d)(st|nd|rd|th)", "", DEPRECATED_MODELS[name])
    on = datetime.strptime(said, "%B %d, %Y").replace(tzinfo=UTC).date()
    assert (model.retires_on, model.lifecycle) == (on, "retired" if on < TODAY else "deprecated")


def test_contexts_are_those_of_the_price_list() -> None:
    (provider,) = [one for one in get_snapshot().providers if one.id == "anthropic"]
    listed = {plain_model_name(one.id): one.context_window for one in provider.models}
    both = [name for name, model in MODELS.items() if model.context and listed.get(name)]

    assert len(both) > 10
    assert {name: MODELS[name].context for name in both} == {name: listed[name] for name in both}


def test_no_table_has_a_model_that_is_none() -> None:
    named = {
        *known_models._CAPPED,
        *known_models._MEDIUM_BY_DEFAULT,
        *known_models._STRUCTURED_OUTPUTS,
        *known_models._TOKENIZER_OF_4_7,
        *known_models._DEPRECATED,
        *(name for names in known_models._LIMITS for name in names),
        *(name for names in known_models._CACHEABLE for name in names),
        *(name for names in known_models._THINKING for name in names),
        *(name for names in known_models._EFFORTS for name in names),
    }

    assert named <= set(MODELS)
    assert DEFAULT_MODEL in MODELS


def test_the_reference_lists_what_is_known() -> None:
    page = (Path(__file__).parents[1] / "docs" / "templates.md").read_text(encoding="utf-8")
    shown = [line for line in page.splitlines() if line.startswith("| `claude-")]

    assert shown == [known_row(name, model) for name, model in MODELS.items() if model.lifecycle != "retired"]


def known_row(name: str, model: Model) -> str:
    """A model's line in docs/templates.md."""
    levels = ", ".join(level for level in known_models.EFFORTS if level in (model.efforts or ()))
    if model.default_effort:
        levels = levels.replace(model.default_effort, f"**{model.default_effort}**", 1)
    takes = ", ".join(
        {"enabled": "a budget", "disabled": "off", "between_tools": "off"}.get(kind, kind)
        for kind in ("adaptive", "enabled", "disabled", "between_tools")
        if kind in (model.thinking or ())
    )
    figures = [
        "?" if figure is None else f"{figure:,}" for figure in (model.context, model.max_output, model.cacheable)
    ]
    effort = "?" if model.efforts is None else levels or "none"
    cells = [f"`{name}`", *figures, f"{model.tokens:g}", takes, effort, str(model.retires_on or "")]
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


@pytest.mark.parametrize("answered", ["claude-haiku-3", "anthropic.claude-3-haiku-20240307-v1:0", "claude-sonnet-4-6"])
def test_who_answers_for_a_retired_model_is_not_judged(answered: str) -> None:
    assert not is_other_model("claude-3-haiku-20240307", answered)
    assert is_other_model("claude-sonnet-5", answered)


# What a request carries


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("claude-sonnet-4-6", None),
        ("claude-opus-4-6", None),
        ("claude-haiku-4-5", None),
        ("claude-opus-4-5", None),
        ("claude-opus-4-8", None),
        ("claude-sonnet-5", OFF),
        ("us.anthropic.claude-sonnet-5-v1:0", OFF),
        ("claude-opus-5", OFF),
        ("claude-haiku-5-5", OFF),
        ("claude-sonnet-5-5", BETWEEN),
        ("claude-sonnet-4", None),
        ("a-gateways-own", None),
        *((model, None) for model in ALWAYS),
    ],
)
def test_without_the_field_a_model_thinks_as_little_as_it_can(prompt: Say, model: str, sent: Any) -> None:
    assert request_body(prompt(front=f"model: {model}\n")).get("thinking") == sent


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("claude-sonnet-4-6", None),
        ("claude-haiku-4-5", None),
        ("claude-sonnet-5", OFF),
        ("claude-sonnet-5-5", BETWEEN),
        ("a-gateways-own", OFF),
    ],
)
def test_off_is_the_models_own_way_of_not_thinking(prompt: Say, model: str, sent: Any) -> None:
    assert request_body(prompt(front=f"model: {model}\nthinking: off\n")).get("thinking") == sent


@pytest.mark.parametrize("model", ["claude-sonnet-4-6", "claude-sonnet-5", "claude-sonnet-5-5", "claude-haiku-5-5"])
def test_off_and_no_field_are_one_prompt(prompt: Say, model: str) -> None:
    assert prompt(front=f"model: {model}\n").hash == prompt(front=f"model: {model}\nthinking: off\n").hash


# The hashes of requests that say nothing of thinking, as they were before models were told apart.
@pytest.mark.parametrize("model", ["claude-opus-4-6", "claude-haiku-4-5", "claude-opus-4-8", *ALWAYS, "my-own"])
def test_a_model_that_is_sent_nothing_of_thinking_has_nothing_of_it_in_the_hash(prompt: Say, model: str) -> None:
    assert prompt(front=f"model: {model}\n").brief.settings == {}


# What a model takes


@pytest.mark.parametrize(
    ("model", "fields", "found"),
    [
        ("claude-sonnet-4-6", {"thinking": 2048, "effort": "max"}, []),
        ("claude-sonnet-4-6", {"thinking": "adaptive"}, []),
        ("claude-haiku-4-5", {"thinking": 2048}, []),
        ("claude-sonnet-5", {"effort": "max"}, []),
        ("claude-sonnet-5-5", {"effort": "high"}, []),
        ("claude-sonnet-5-5", {"effort": "max", "thinking": "adaptive"}, []),
        ("claude-opus-5-5", {"effort": "max"}, []),
        ("claude-opus-4-8", {"effort": "xhigh", "thinking": "off"}, []),
        ("claude-haiku-4-5", {"thinking": "adaptive"}, ["thinking: claude-haiku-4-5 does not take `adaptive`"]),
        ("claude-opus-4-5", {"thinking": "adaptive"}, ["thinking: claude-opus-4-5 does not take `adaptive`"]),
        *(
            (model, {"thinking": 2048}, [f"thinking: {model} takes no budget; write `adaptive`"])
            for model in ["claude-opus-4-7", "claude-sonnet-5", *CAPPED, *ALWAYS]
        ),
        *((model, {"thinking": "off"}, [f"thinking: {model} always thinks; leave the field out"]) for model in ALWAYS),
        *(
            (model, fields | {"effort": effort}, [f"effort: {model} takes {effort} only while it thinks"])
            for model in CAPPED
            for effort in ("xhigh", "max")
            for fields in ({}, {"thinking": "off"})
        ),
        (
            "claude-sonnet-4-6",
            {"effort": "xhigh"},
            ["effort: claude-sonnet-4-6 takes low, medium, high, max, not xhigh"],
        ),
        ("claude-opus-4-5", {"effort": "max"}, ["effort: claude-opus-4-5 takes low, medium, high, not max"]),
        ("claude-haiku-4-5", {"effort": "low"}, ["effort: claude-haiku-4-5 takes no effort"]),
        ("claude-mythos-preview", {"effort": "low", "thinking": 2048}, []),
        ("claude-3-opus-latest", {"effort": "low", "thinking": 2048}, []),
        ("a-gateways-own", {"effort": "max", "thinking": 2048}, []),
    ],
)
def test_what_a_model_does_not_take_is_told_by_its_field(model: str, fields: dict[str, Any], found: list[str]) -> None:
    told = faults(model, **fields)

    assert len(told) == len(found)
    for line, begins in zip(told, found, strict=True):
        assert line.startswith(begins)


def test_answers_are_no_longer_than_the_model_gives() -> None:
    assert faults("claude-haiku-5-5", max_tokens=128_000) == []
    (fault,) = faults("claude-haiku-4-5", max_tokens=64_001)
    assert fault == "max_tokens: claude-haiku-4-5 answers with 64,000 tokens at most"
    with pytest.raises(
        TemplateError, match=r"^note\.md\.j2: the front matter is wrong: max_tokens: claude-haiku-4-5 a"
    ):
        require_fit(
            "note.md.j2", misfits(front("claude-haiku-4-5", max_tokens=64_001), {}, find_model("claude-haiku-4-5"))
        )


# What an endpoint says


def said(**changes: Any) -> dict[str, Any]:
    """What the API says of a model, in its shape."""
    yes = {"supported": True}
    whole = {
        "type": "model",
        "id": "claude-sonnet-4-6",
        "display_name": "Claude Sonnet 4.6",
        "created_at": "2026-02-17T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 1_000_000,
        "max_tokens": 128_000,
        "deprecated_at": None,
        "retires_at": None,
        "capabilities": {
            "structured_outputs": yes,
            "effort": {"supported": True, "low": yes, "medium": yes, "high": yes, "xhigh": yes, "max": yes},
            "thinking": {
                "supported": True,
                "types": {"adaptive": yes, "enabled": {"supported": False}, "disabled": yes, "between_tools": yes},
            },
        },
    }
    return whole | changes


def test_what_an_endpoint_says_is_read_as_the_sdk_reads_it() -> None:
    told = read_model_facts(said(lifecycle="deprecated", retires_at="2027-01-31T08:00:00Z"))
    info = ModelInfo.model_construct(**said())

    assert (told.context, told.max_output) == (info.max_input_tokens, info.max_tokens)
    assert told.thinking == {"adaptive": True, "enabled": False, "disabled": True, "between_tools": True}
    assert set(told.efforts) == {"low", "medium", "high", "xhigh", "max"}
    assert (told.lifecycle, told.retires_on, told.structured_outputs) == ("deprecated", date(2027, 1, 31), True)


@pytest.mark.parametrize(
    "info",
    [
        None,
        [],
        "model",
        {"id": "x", "object": "model"},
        said(max_tokens=None, max_input_tokens="many", lifecycle="young", capabilities=None),
        said(max_tokens=True, max_input_tokens=-1, lifecycle=None, retires_at="soon", capabilities={"thinking": [1]}),
        said(max_tokens=0, max_input_tokens=1.5, lifecycle=3, capabilities={"effort": {"low": "yes"}, "thinking": {}}),
    ],
)
def test_what_is_of_another_shape_is_not_told(info: Any) -> None:
    told = read_model_facts(info)

    assert told == ModelFacts()
    assert corrected(MODELS["claude-sonnet-4-6"], told) == MODELS["claude-sonnet-4-6"]
    assert corrected(None, told) == Model()


def test_what_an_endpoint_says_wins_over_what_is_known() -> None:
    known = MODELS["claude-sonnet-4-6"]

    model = corrected(
        known, read_model_facts(said(max_tokens=300_000, lifecycle="deprecated", retires_at="2027-01-31"))
    )

    assert (model.max_output, model.lifecycle, model.retires_on) == (300_000, "deprecated", date(2027, 1, 31))
    assert model.efforts == frozenset(known_models.EFFORTS)
    assert set(model.thinking or ()) == {"adaptive", "disabled", "between_tools"}
    # What it does not say stays.
    assert (model.cacheable, model.thinks, model.tokens) == (known.cacheable, known.thinks, known.tokens)


def test_a_retirement_that_is_called_off_is_forgotten() -> None:
    assert corrected(MODELS["claude-sonnet-4-5"], read_model_facts(said())).retires_on is None
    assert corrected(MODELS["claude-sonnet-4-5"], ModelFacts()).retires_on == date(2026, 11, 30)


def test_a_model_that_is_known_to_the_endpoint_alone_is_checked_by_what_it_says() -> None:
    model = corrected(None, read_model_facts(said(max_tokens=4096)))

    assert faults("a-gateways-own", model, thinking=2048) == [
        "thinking: a-gateways-own takes no budget; write `adaptive`, and say how much with `effort`",
        "max_tokens: a-gateways-own answers with 4,096 tokens at most",
    ]


def test_levels_of_an_effort_that_is_not_supported_count_for_nothing() -> None:
    effort = {"supported": False, "low": {"supported": True}, "high": {"supported": False}}
    told = read_model_facts(said(capabilities={"effort": effort, "structured_outputs": {"supported": False}}))

    assert told.efforts == {"low": False, "high": False}
    assert faults("claude-opus-4-5", corrected(MODELS["claude-opus-4-5"], told), effort="low") == [
        "effort: claude-opus-4-5 takes medium, not low",
        "model: claude-opus-4-5 takes no output schema",
    ]


# When a model ends


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Model(lifecycle="active"), None),
        (Model(), None),
        (None, None),
        (Model(lifecycle="active", retires_on=TODAY + timedelta(61)), None),
        (Model(lifecycle="active", retires_on=TODAY + timedelta(60)), "m retires on 2027-01-24, in 60 days"),
        (
            Model(lifecycle="deprecated", retires_on=TODAY + timedelta(400)),
            "m is deprecated and retires on 2027-12-30, in",
        ),
        (Model(lifecycle="deprecated", retires_on=TODAY + timedelta(1)), "on 2026-11-26, in 1 day"),
        (Model(lifecycle="deprecated", retires_on=TODAY), "m is deprecated and retires on 2026-11-25, today"),
        (Model(lifecycle="deprecated"), "m is deprecated; when it retires is not known"),
        (Model(lifecycle="deprecated", retires_on=TODAY - timedelta(1)), "m was to retire on 2026-11-24, and may stop"),
        (
            Model(lifecycle="retired", retires_on=date(2026, 8, 5)),
            "m is retired since 2026-08-05: requests that name it f",
        ),
        (Model(lifecycle="retired"), "m is retired: requests that name it fail"),
    ],
)
def test_a_model_that_ends_is_told(model: Model | None, words: str | None) -> None:
    told = ending("m", model, TODAY)

    assert told is None if words is None else told and words in told


# How many tokens


@pytest.mark.parametrize(
    ("name", "tokens"), [("claude-sonnet-4-6", 10), ("claude-sonnet-5", 13), ("claude-opus-4-7", 13)]
)
def test_newer_models_count_more_tokens_for_the_same_text(prompt: Say, name: str, tokens: int) -> None:
    model = find_model(name)

    assert estimate_tokens(40, model) == tokens
    assert likely_tokens("x" * 30, model) == tokens
    assert most_tokens("x" * 20, model) >= tokens
    assert prompt("{% block user %}" + "x" * 40 + "{% endblock %}", f"model: {name}\n").estimated_tokens == tokens


def test_a_model_that_is_not_known_counts_as_before() -> None:
    assert estimate_tokens(40, None) == estimate_tokens(40, Model()) == estimate_tokens(40) == 10


@pytest.mark.parametrize(
    ("words", "model", "caching"),
    [
        # 900 tokens at most by the older count, and more than 1,024 perhaps by the newer.
        (120, "claude-sonnet-4-6", Caching.TOO_SHORT),
        (120, "claude-sonnet-5", Caching.UNSURE),
        (20, "claude-opus-5-5", Caching.ON),
        (20, "claude-sonnet-5-5", Caching.TOO_SHORT),
    ],
)
def test_a_prefix_is_measured_by_its_models_count(prompt: Say, words: int, model: str, caching: Caching) -> None:
    body = "{% block system %}" + "We sell tea. " * words + "{% endblock %}{% block user %}x{% endblock %}"

    assert prompt(body, f"model: {model}\n").brief.caching is caching


# What the lint says


def lint(
    folder: Path, told: Mapping[str, Model | NotTold] | None = None, **fields: Any
) -> list[tuple[str, int | None, str, str]]:
    head = "".join(f"{name}: {value}\n" for name, value in {"output": "SubjectLine", **fields}.items())
    (folder / "made.md.j2").write_text(f"---\n{head}---\n{{% block user %}}x{{% endblock %}}\n", encoding="utf-8")
    found = lint_template(folder, "made", told=told, today=TODAY)
    return [(one.level, one.line, one.code, one.message) for one in found]


def test_a_misfit_is_an_error_on_its_own_line(tmp_path: Path) -> None:
    ((level, line, code, message),) = lint(tmp_path, model="claude-sonnet-5-5", effort="xhigh")

    assert (level, line, code) == ("error", 4, "limits")
    assert message == "effort: claude-sonnet-5-5 takes xhigh only while it thinks; write `thinking: adaptive`."
    # The endpoint knows better what its models take: a run asks it.
    assert errors_that_stop(lint_template(tmp_path, "made")) == []


def test_a_model_that_always_thinks_is_a_note(tmp_path: Path) -> None:
    ((level, _line, code, message),) = lint(tmp_path, model="claude-opus-5-5")

    assert (level, code) == ("note", "thinking")
    assert "max_tokens (1,024) covers thinking and answer together" in message


def test_a_model_that_retires_is_a_note_as_of_the_day(tmp_path: Path) -> None:
    ((level, line, code, message),) = lint(tmp_path, model="claude-sonnet-4-5-20250929")

    assert (level, line, code) == ("note", 3, "lifecycle")
    assert "is deprecated and retires on 2026-11-30, in 5 days. Move to another model." in message


def test_an_accepted_model_that_refuses_the_request_is_a_note(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "thinking": 2048,
        "max_tokens": 4096,
        "accept_models": "[claude-sonnet-5, claude-haiku-4-5]",
    }

    ((level, line, code, message),) = lint(tmp_path, **fields)

    assert (level, line, code) == ("note", 5, "limits")
    assert "If the gateway routes to claude-sonnet-5, it rejects the request: thinking: claude-sonnet-5 tak" in message


def test_what_the_endpoint_says_wins_in_the_lint(tmp_path: Path) -> None:
    wide = {"claude-sonnet-4-6": corrected(None, read_model_facts(said(max_tokens=300_000)))}
    fields: dict[str, Any] = {"max_tokens": 200_000, "effort": "xhigh"}

    assert {code for _level, _line, code, _message in lint(tmp_path, **fields)} == {"limits"}
    assert lint(tmp_path, wide, **fields) == []
    told = {"claude-9": corrected(None, read_model_facts(said(lifecycle="deprecated")))}
    ((level, _line, code, _message),) = lint(tmp_path, told, model="claude-9")
    assert (level, code) == ("note", "lifecycle")


def test_what_the_endpoint_does_not_say_is_a_note_and_what_it_does_not_know_an_error(tmp_path: Path) -> None:
    silent = {"claude-sonnet-4-6": NotTold("It says nothing.")}
    unknown = {"claude-sonnet-4-6": NotTold("There is none.", is_unknown=True)}

    assert lint(tmp_path, silent, model="claude-sonnet-4-6") == [("note", 3, "model", "It says nothing.")]
    assert lint(tmp_path, unknown, model="claude-sonnet-4-6") == [("error", 3, "model", "There is none.")]
