"""The prompt's hash changes with everything that changes the answer, with nothing else, and with no upgrade.

If a golden test fails, the next run of every user will pay for all of its content again. If that is intended, report it
in the changelog. If a newer pydantic or SDK causes it, restore the old schema (presswork/claude/client.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import flows.outputs
from presswork.prompts.render import make_brief, render_prompt
from presswork.prompts.templates import list_templates, load_template
from tests.pieces import Note, Say, Write

TEMPLATES = Path(__file__).parents[2] / "templates"
PLAIN = "{% block user %}Name: {{ record.name }}{% endblock %}"
FULL = "{% block system %}You write for a shop.{% endblock %}" + PLAIN
EXAMPLE = "examples:\n- record: {name: Cup}\n  answer: {title: Fine, stars: 5}\n"


class _Anything(dict[str, Any]):
    """A record that has every column, each with a value of its own, so that it fits any template."""

    def __missing__(self, name: str) -> str:
        return f"<{name}>"


def hash_of(prompt: Say, **changes: Any) -> str:
    return prompt(**{"body": FULL, **changes}).hash


GOLDEN = {
    "plain": "f59219852803b3c2433d893763d8eb13e070c088589224f7afe4bb0853bbb9c2",
    "full": "e76c7a84b41dc188bc38482e7131753e31c3fa3bd2f0b6c5a64fa232a3be1bad",
    "thinking": "54a00feb5733997cd48344436a152536f2ca4d18912cf90d36b4e97f9acf96b6",
    "budget": "8ebd2906de186f6740b0730125ead82727645b12166fac58a3f53c2cf536cf6b",
    "example": "a5a4337d302b06805cca5928e204877abb51d3847da54cf8495a5d9021b8dc98",
    "unicode": "18b84b288f707588e49d0411d9f558e1cb174da58aa632c5292bb3f9b7eb8308",
}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("plain", {"body": PLAIN}),
        ("full", {"front": "model: claude-opus-4-6\nmax_tokens: 64\n", "endpoint": "anthropic"}),
        ("thinking", {"front": "thinking: adaptive\neffort: high\n"}),
        ("budget", {"front": "thinking: 2048\nmax_tokens: 4096\n"}),
        ("example", {"front": EXAMPLE}),
        ("unicode", {"record": {"name": "Tee \N{HOT BEVERAGE} \x00 שלום"}}),
    ],
)
def test_golden_hash(prompt: Say, name: str, parts: Mapping[str, Any]) -> None:
    assert hash_of(prompt, **parts) == GOLDEN[name]


def test_hash_is_sha256_over_canonical_json(prompt: Say) -> None:
    made = prompt(FULL, "effort: low\n")
    content = {
        "scheme": 1,
        "endpoint": "sandbox",
        "model": "claude-sonnet-4-6",
        "system": "You write for a shop.",
        "messages": [{"role": "user", "content": "Name: Tea"}],
        "schema": made.brief.schema,
        "settings": {"effort": "low"},
        "variant": 0,
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    assert made.hash == hashlib.sha256(canonical.encode()).hexdigest()


SHIPPED = {
    "album_notes": "4abb3333122b4935a9fc9b0327316de7fe08abc3fe970ea2e85f80bd3dabf6c8",
    "customer_thanks": "5a449187ce00793fafe976a60d038b669c9d803464536ba4bb41b735f99c0940",
    "newsletter_choice": "cf8639d6e63bf910ac55beb5c2c68212b5e5ed8b2997ac5c23a17a174bf2bc0b",
    "newsletter_digest": "1c3bcdd4bc2f86f5ed01fa3c0760ca7bcd391d6e7db83884f7e989a0ede71195",
    "newsletter_subject": "9425f092090da5a8ef60c1a9f551fdde72cc1c3fdef115c96f895b10987d7e39",
    "newsletter_summary": "8333e7c3939a8098350452b1948d0074ddf82e7ad6938f5c60e0c894cbebcbb6",
    "product_copy": "551cf8114ffec685c32ce29f7e813b7790ee1eae54c3682850a01f2078f7c2f2",
    "support_reply": "82ffbe5f8c507b48c6467b4c628c330d4e76a3961acf837e96e88b8d98f2189c",
    "support_triage": "96a0429631634e9bd010acca733663aeb88d49600809cd8cdaebc2663287bdcc",
}
SUMMARY = {"headline": "H", "summary": "S", "takeaway": "T"}
INPUTS: dict[str, dict[str, Any]] = {
    "newsletter_digest": {"newsletter_summary": [SUMMARY]},
    "newsletter_subject": {
        "newsletter_digest": {"title": "T", "intro": "I", "entries": [{"headline": "H", "teaser": "T"}]}
    },
    "newsletter_choice": {"newsletter_subject": [{"subject": "S", "preheader": "P"}]},
    "support_reply": {
        "support_triage": _Anything(),
    },
}


@pytest.mark.parametrize("name", list_templates(TEMPLATES))
def test_golden_hash_of_a_shipped_template(name: str) -> None:
    template = load_template(TEMPLATES, name)
    inputs = {"record": _Anything(), **INPUTS.get(name, {})}

    prompt = render_prompt(make_brief(template, "sandbox", template.stand_ins), inputs)

    assert prompt.hash == SHIPPED.get(name), f"{name}: the hash is now {prompt.hash}"


@pytest.mark.parametrize(
    "parts",
    [
        {"record": {"name": "Cup"}},
        {"endpoint": "anthropic"},
        {"front": "model: claude-opus-4-6\n"},
        {"front": "output: ProductCopy\n"},
        {"front": "thinking: adaptive\n"},
        {"front": "thinking: 1024\nmax_tokens: 2048\n"},
        {"front": "effort: low\n"},
        {"front": EXAMPLE},
        {"body": FULL.replace("shop", "store")},
        {"body": FULL.replace("Name", "Title")},
        {"body": PLAIN},
    ],
)
def test_changes_that_affect_the_answer_change_the_hash(prompt: Say, parts: Mapping[str, Any]) -> None:
    assert hash_of(prompt, **parts) != hash_of(prompt)


@pytest.mark.parametrize(
    "parts",
    [
        {"front": "max_tokens: 4096\n"},
        {"front": "cache: 1h\n"},
        {"front": "cache: off\n"},
        {"front": "accept_models: [claude-haiku-4-5]\n"},
        {"front": "description: A note\n"},
        {"front": "select: SELECT 1 AS id\nkey: id\n"},
        {"front": "params: {tone: {}}\n"},
        {"record": {"name": "Tea", "price": 3}},
        {"body": FULL + "\n{# a comment #}\n"},
        {"body": FULL.replace("Name", "{# a comment #}Name")},
        {"body": "{% set unused = 1 %}" + FULL},
    ],
)
def test_changes_that_do_not_affect_the_answer_keep_the_hash(prompt: Say, parts: Mapping[str, Any]) -> None:
    assert hash_of(prompt, **parts) == hash_of(prompt)


def test_variants_are_different_prompts_of_one_request(write: Write) -> None:
    brief = make_brief(write(), "sandbox", {})

    prompts = [render_prompt(brief, {"record": {"name": "Tea"}}, variant=variant) for variant in range(3)]

    assert len({prompt.hash for prompt in prompts}) == 3
    assert len({prompt.messages[0]["content"] for prompt in prompts}) == 1


def test_wider_output_class_is_another_prompt(prompt: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hash_of(prompt)

    class Wider(Note):
        colour: str

    Wider.__name__ = Wider.__qualname__ = "Note"
    monkeypatch.setattr(flows.outputs, "Note", Wider)

    assert hash_of(prompt) != before


def test_bound_that_is_only_in_words_is_another_prompt(prompt: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hash_of(prompt)
    schema = prompt().brief.schema
    assert "maximum: 5" in schema["properties"]["stars"]["description"]

    monkeypatch.setitem(Note.model_fields, "stars", Note.model_fields["title"])
    Note.model_rebuild(force=True)
    try:
        assert hash_of(prompt) != before
    finally:
        monkeypatch.undo()
        Note.model_rebuild(force=True)


def test_comment_makes_a_new_version_of_the_template_and_the_same_prompt(write: Write) -> None:
    before, after = write(FULL), write("{# a comment #}" + FULL)

    hashes = {
        render_prompt(make_brief(template, "sandbox", {}), {"record": {"name": "Tea"}}).hash
        for template in (before, after)
    }

    assert before.hash != after.hash
    assert len(hashes) == 1
