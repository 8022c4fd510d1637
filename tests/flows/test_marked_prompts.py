"""The prompts of the flows that come with Presswork are marked from the ledger alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from db.readers.stored_generations import read_generation
from flows.newsletter import newsletter
from flows.product_copy import Products, product_copy
from flows.support_replies import support_replies
from presswork.prompts.rendering.marking import NO_TEMPLATE, OTHER_TEXT
from presswork.report.sent_prompts import TOO_MANY, SentPrompt, sent_prompt
from tests.engine.workshop import Workshop


def sent(workshop: Workshop, generation_id: str, most: int = 200) -> SentPrompt:
    audit = read_generation(workshop.ledger, generation_id, most)
    assert audit is not None
    found = sent_prompt(workshop.ledger, audit)
    assert found is not None
    assert "".join(piece.text for piece in found.user.pieces) == audit.request["messages"][-1]["content"]
    return found


def prompts(workshop: Workshop) -> dict[str, list[SentPrompt]]:
    found: dict[str, list[SentPrompt]] = {}
    for row in workshop.rows("SELECT id, step FROM generations ORDER BY id"):
        found.setdefault(row["step"], []).append(sent(workshop, row["id"]))
    return found


FLOWS: list[tuple[Callable[..., Any], dict[str, set[str]]]] = [
    (product_copy, {"product_copy": {"record"}}),
    (support_replies, {"support_triage": {"record"}, "support_reply": {"record", "support_triage"}}),
    (
        newsletter,
        {
            "newsletter_summary": {"record"},
            "newsletter_digest": {"newsletter_summary"},
            "newsletter_subject": {"newsletter_digest"},
            "newsletter_choice": {"newsletter_subject"},
        },
    ),
]


@pytest.mark.parametrize(("flow", "sources"), FLOWS, ids=["product_copy", "support_replies", "newsletter"])
async def test_every_prompt_is_marked(shop: Workshop, flow: Any, sources: dict[str, set[str]]) -> None:
    await shop.call(flow)

    found = prompts(shop)
    assert {prompt.user.why_unmarked for each in found.values() for prompt in each} == {None}
    assert {
        step: {piece.source for prompt in each for piece in prompt.user.pieces if piece.source}
        for step, each in found.items()
    } == sources


async def test_examples_stand_apart(shop: Workshop) -> None:
    await shop.call(product_copy, Products(category="tea"))

    prompt = prompts(shop)["product_copy"][0]
    assert [said.role for said in prompt.examples] == ["user", "assistant"] * 2
    assert "Ceylon Nuwara Eliya" in prompt.examples[0].text
    assert [said.note for said in prompt.system] == ["cached for 5m"]
    assert prompt.settings["model"] == "claude-sonnet-4-6"
    assert '"meta_description"' in prompt.schema


async def test_says_why_a_prompt_is_not_marked(shop: Workshop) -> None:
    await shop.call(newsletter)
    with shop.ledger.begin() as connection:
        connection.exec_driver_sql("DELETE FROM templates WHERE name = 'newsletter_digest'")
        connection.exec_driver_sql('UPDATE records SET body = \'{"title": "other"}\'')

    ids = {row["step"]: row["id"] for row in shop.rows("SELECT step, id FROM generations")}
    why = {step: sent(shop, generation_id).user.why_unmarked for step, generation_id in ids.items()}
    assert why["newsletter_summary"] == OTHER_TEXT
    assert why["newsletter_digest"] == NO_TEMPLATE
    assert sent(shop, ids["newsletter_choice"], most=2).user.why_unmarked == TOO_MANY
