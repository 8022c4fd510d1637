"""The inputs that a step had in an earlier run: the same prompts again, and clear errors where there are none."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from flows.newsletter import Articles, newsletter
from flows.support_replies import support_replies
from presswork import Summary, open_run
from presswork.errors import ConfigurationError, ParameterError
from presswork.prompts.templates import load_template
from presswork.settings import ROOT, load_settings
from presswork.trying.inputs import find_inputs, past_run
from presswork.trying.past_materials import PastInputs
from tests.engine.workshop import Workshop

FAN_OUT = ("newsletter_summary", "newsletter_digest", "newsletter_subject", "newsletter_choice")


@flow
async def step_again(flow_name: str, template: str, run_id: str, asked: dict[str, Any]) -> tuple[Summary, list[str]]:
    """Generate one step from the inputs that it had in a run."""
    async with open_run(flow=flow_name) as run:
        ledger = run.ledger.engine
        inputs = find_inputs(ledger, past_run(ledger, run_id), run.briefs.template(template), **asked)
        await run.generate(template, inputs, variants=inputs.variants)
        return run.summary(), list(inputs.keys)


@flow
async def parallel() -> None:
    async with open_run() as run:
        for name in ("one", "two"):
            await run.generate(name, run.select(name))


@flow
async def in_variants() -> None:
    async with open_run() as run:
        await run.generate("note", run.select("note"), variants=3)


@dataclass(frozen=True)
class OwnTemplates:
    """A folder of templates that a test may edit."""

    folder: Path

    def edit(self, name: str, old: str, new: str) -> None:
        file = self.folder / f"{name}.md.j2"
        source = file.read_text(encoding="utf-8")
        assert old in source
        file.write_text(source.replace(old, new), encoding="utf-8")

    def write(self, name: str, source: str) -> None:
        (self.folder / f"{name}.md.j2").write_text(source, encoding="utf-8")


@pytest.fixture
def own(shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OwnTemplates:
    """Copies of Presswork's own templates, which the shop uses from now on."""
    folder = shutil.copytree(ROOT / "templates", tmp_path / "own")
    monkeypatch.setenv("PRESSWORK_TEMPLATES_DIR", str(folder))
    return OwnTemplates(folder)


def find(workshop: Workshop, run_id: str, step: str, *, folder: Path | None = None, **asked: Any) -> PastInputs:
    template = load_template(folder or load_settings().templates_dir, step)
    return find_inputs(workshop.ledger, past_run(workshop.ledger, run_id), template, **asked)


async def parents(found: PastInputs) -> list[str]:
    return [
        parent
        for page in [each async for each in found.pages(frozenset())]
        for material in page
        for parent in material.parents
    ]


@pytest.mark.parametrize("step", FAN_OUT)
async def test_unchanged_step_of_a_newsletter_pays_nothing(shop: Workshop, step: str) -> None:
    await shop.call(newsletter, Articles(section="tea"))
    run_id = shop.value("SELECT max(id) FROM runs")
    count = shop.value("SELECT count(*) FROM generations WHERE step = :step", step=step)
    summary, _keys = await shop.call(step_again, "newsletter", step, run_id[:18], {})
    assert (summary.requests, summary.cached, summary.failed) == (0, count, 0)
    # Nothing differs from the content, so its inputs and keys are those of the real step.
    assert shop.value("SELECT count(*) FROM generations WHERE run_id > :id", id=run_id) == 0


async def test_unchanged_reply_pays_nothing_where_a_condition_chose_the_tickets(shop: Workshop) -> None:
    await shop.call(support_replies)
    run_id = shop.value("SELECT max(id) FROM runs")
    replied = shop.value("SELECT count(*) FROM generations WHERE step = 'support_reply'")
    summary, keys = await shop.call(step_again, "support_replies", "support_reply", run_id, {})
    assert (summary.requests, summary.cached) == (0, replied)
    assert len(keys) == replied < 30


async def test_limit_and_keys_choose_among_the_outcomes(shop: Workshop) -> None:
    await shop.call(newsletter, Articles(section="tea"))
    run_id = shop.value("SELECT max(id) FROM runs")
    articles = [row["record_key"] for row in keys_of(shop, "newsletter_summary")]
    for step, asked, keys in (
        ("newsletter_summary", {"limit": 3}, articles[:3]),
        ("newsletter_summary", {"keys": articles[5:1:-1], "limit": 1}, articles[2:6]),
        ("newsletter_subject", {"limit": 2}, ["digest/0", "digest/1"]),
        ("newsletter_subject", {"keys": ["digest/3"]}, ["digest/3"]),
        ("newsletter_subject", {"keys": ["digest"]}, [f"digest/{number}" for number in range(5)]),
        ("newsletter_choice", {"limit": 1}, ["choice"]),
    ):
        summary, found = await shop.call(step_again, "newsletter", step, run_id, asked)
        assert found == keys
        assert (summary.requests, summary.cached) == (0, len(keys)), (step, asked)


def keys_of(shop: Workshop, step: str) -> list[dict[str, Any]]:
    return shop.rows("SELECT record_key FROM generations WHERE step = :step ORDER BY 1", step=step)


async def test_run_that_found_everything_unchanged_has_the_same_inputs(shop: Workshop) -> None:
    for _ in range(3):
        await shop.call(newsletter, Articles(section="tea"))
    for run_id in [row["id"] for row in shop.rows("SELECT id FROM runs ORDER BY 1")][1:]:
        for step, count in zip(FAN_OUT, (6, 1, 5, 1), strict=True):
            summary, keys = await shop.call(step_again, "newsletter", step, run_id, {})
            assert (summary.requests, summary.cached, len(keys)) == (0, count, count)


async def test_inputs_are_those_of_the_time_though_the_content_has_changed(shop: Workshop, own: OwnTemplates) -> None:
    await shop.call(newsletter, Articles(section="tea"))
    first = shop.value("SELECT max(id) FROM runs")
    own.edit("newsletter_summary", "Your task: sum up", "Your task: quickly sum up")
    await shop.call(newsletter, Articles(section="tea"))
    assert shop.value("SELECT count(*) FROM generations WHERE step = 'newsletter_digest'") == 2
    for step in FAN_OUT[1:]:
        found = find(shop, first, step)
        of_first = "SELECT id FROM generations WHERE run_id = :run AND step = :step ORDER BY id"
        expected = shop.rows(of_first, run=first, step=found.step)
        assert [row["id"] for row in expected] == sorted(await parents(found))


async def test_unchanged_inputs_of_an_older_run_are_noted_as_uncertain(shop: Workshop, own: OwnTemplates) -> None:
    tea = Articles(section="tea")
    await shop.call(newsletter, tea)
    await shop.call(newsletter, tea)
    second = shop.value("SELECT max(id) FROM runs")
    assert find(shop, second, "newsletter_digest").note is None
    await shop.call(newsletter, tea)
    uncertain = find(shop, second, "newsletter_summary")
    assert uncertain.note is not None
    assert second in uncertain.note
    own.edit("newsletter_summary", "Your task: sum up", "Your task: quickly sum up")
    await shop.call(newsletter, tea)
    # The content of then was replaced since, and is found nevertheless.
    assert find(shop, second, "newsletter_summary").keys == uncertain.keys


async def test_record_that_only_a_later_run_selected_is_no_input(shop: Workshop) -> None:
    await shop.call(newsletter, Articles(section="tea"))
    first = shop.value("SELECT max(id) FROM runs")
    await shop.call(newsletter)
    tea = shop.value("SELECT count(*) FROM generations WHERE run_id = :id AND step = 'newsletter_summary'", id=first)
    assert len(find(shop, first, "newsletter_summary").keys) == tea < 24


async def test_params_come_from_the_run_and_can_be_set(shop: Workshop) -> None:
    await shop.call(newsletter, Articles(section="tea"))
    run_id = shop.value("SELECT max(id) FROM runs")
    assert find(shop, run_id, "newsletter_summary").params == {"section": "tea"}
    assert find(shop, run_id, "newsletter_summary", sets={"section": "coffee"}).params == {"section": "coffee"}
    assert find(shop, run_id, "newsletter_digest").params == {}
    with pytest.raises(ParameterError, match="has no parameter 'section'"):
        find(shop, run_id, "newsletter_digest", sets={"section": "tea"})


@pytest.mark.parametrize(
    ("body", "step", "keys"),
    [
        ("{{ record.title }} {{ newsletter_summary.headline }}", "newsletter_summary", 3),
        ("{% for each in newsletter_summary %}{{ each.headline }}{% endfor %}", "newsletter_summary", 1),
        ("{{ newsletter_digest.title }}", "newsletter_digest", 1),
        ("{{ newsletter_subject.subject }}", "newsletter_subject", 3),
        ("{{ newsletter_subject.subject }}{{ newsletter_digest.title }}", "newsletter_subject", 3),
        ("{{ record.title }}", "newsletter_summary", 3),
        ("{{ newsletter_digest.title }}{% if teaser is defined %}{{ teaser }}{% endif %}", "newsletter_digest", 1),
    ],
)
async def test_new_template_follows_the_latest_step_that_it_reads(
    shop: Workshop, own: OwnTemplates, body: str, step: str, keys: int
) -> None:
    await shop.call(newsletter, Articles(section="tea"))
    run_id = shop.value("SELECT max(id) FROM runs")
    own.write("slogan", f"---\noutput: SubjectLine\n---\n{{% block user %}}{body}{{% endblock %}}")
    found = find(shop, run_id, "slogan", limit=3)
    assert (found.step, len(found.keys)) == (step, keys)
    summary, _keys = await shop.call(step_again, "newsletter", "slogan", run_id, {"limit": 3})
    assert (summary.requests, summary.succeeded) == (keys, keys)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{{ support_triage.summary }}", r"reads 'support_triage', which is no step of the run .* \(newsletter\)"),
        ("{{ newsletter_digest.title }} {{ slogans.line }}", "reads 'slogans', which is no step"),
    ],
)
async def test_step_that_the_run_does_not_have_is_named(
    shop: Workshop, own: OwnTemplates, body: str, message: str
) -> None:
    await shop.call(newsletter, Articles(section="tea"))
    run_id = shop.value("SELECT max(id) FROM runs")
    own.write("slogan", f"---\noutput: SubjectLine\n---\n{{% block user %}}{body}{{% endblock %}}")
    with pytest.raises(ConfigurationError, match=message) as raised:
        find(shop, run_id, "slogan")
    assert f"Its steps: {', '.join(FAN_OUT)}." in str(raised.value)


async def test_steps_that_do_not_lead_to_each_other_are_ambiguous(workshop: Workshop) -> None:
    workshop.numbered(2)
    workshop.template(name="one")
    workshop.template(name="two")
    await workshop.call(parallel)
    run_id = workshop.value("SELECT max(id) FROM runs")
    own = OwnTemplates(workshop.templates)
    own.write(
        "slogan", "---\noutput: SubjectLine\n---\n{% block user %}{{ one.subject }}{{ two.subject }}{% endblock %}"
    )
    with pytest.raises(ConfigurationError, match=r"not clear which step .* because it reads one and two"):
        find(workshop, run_id, "slogan", folder=workshop.templates)
    own.write("slogan", "---\noutput: SubjectLine\n---\n{% block user %}{{ record.name }}{% endblock %}")
    with pytest.raises(ConfigurationError, match=r"because it reads records only\. .* Its steps: one, two"):
        find(workshop, run_id, "slogan", folder=workshop.templates)


async def test_template_with_a_select_needs_no_run_that_did_not_have_it(workshop: Workshop) -> None:
    workshop.numbered(1)
    await workshop.run()
    run_id = workshop.value("SELECT max(id) FROM runs")
    workshop.template(name="other")
    with pytest.raises(ConfigurationError, match="'other' selects its own records and was no step of the run"):
        find(workshop, run_id, "other", folder=workshop.templates)


async def test_unknown_key_names_some_that_there_are(shop: Workshop) -> None:
    await shop.call(newsletter, Articles(section="tea"))
    run_id = shop.value("SELECT max(id) FROM runs")
    first = keys_of(shop, "newsletter_summary")[0]["record_key"]
    for step, key in (("newsletter_summary", "\x1b[2Jmissing"), ("newsletter_digest", "tea")):
        with pytest.raises(ConfigurationError, match="has no record with the key") as raised:
            find(shop, run_id, step, keys=[first, key] if step == "newsletter_summary" else [key])
        assert "\x1b" not in str(raised.value)
        assert (f"'{first}'" if step == "newsletter_summary" else "'digest'") in str(raised.value)


async def test_unknown_and_ambiguous_runs_are_errors(workshop: Workshop) -> None:
    workshop.numbered(1)
    for _ in range(2):
        await workshop.run()
    run_id = workshop.value("SELECT max(id) FROM runs")
    assert past_run(workshop.ledger, run_id[-12:]).id == run_id
    # Two runs of one millisecond have the same beginning; fewer than six characters are no id.
    for text in ("ffffff", run_id[:5], "", "%", "\x1b[2J", "x' OR '1'='1"):
        with pytest.raises(ConfigurationError, match="There is no run, or more than one") as raised:
            past_run(workshop.ledger, text)
        assert "\x1b" not in str(raised.value)


async def test_record_that_failed_in_the_run_can_be_tried(workshop: Workshop) -> None:
    workshop.items({"a": "good", "b": ""})
    workshop.template("{{ record.name }}")
    summary = await workshop.run()
    assert summary.failed == 1
    found = find(workshop, summary.run_id, "note", keys=["b"], folder=workshop.templates)
    ((material,),) = [page async for page in found.pages(frozenset())]
    assert (material.key, dict(material.record.data) if material.record else None) == ("b", {"id": "b", "name": ""})


async def test_key_that_looks_like_a_variant_is_a_key(workshop: Workshop) -> None:
    workshop.items({"a": "good", "a/1": "better", "b/0": "best"})
    summary = await workshop.run()
    found = find(workshop, summary.run_id, "note", folder=workshop.templates)
    assert (found.keys, found.variants) == (("a", "a/1", "b/0"), 1)
    assert find(workshop, summary.run_id, "note", keys=["a"], folder=workshop.templates).keys == ("a",)


async def test_records_of_a_select_with_variants_are_found(workshop: Workshop) -> None:
    workshop.items({"a": "good", "b/1": "better"})
    await workshop.call(in_variants)
    run_id = workshop.value("SELECT max(id) FROM runs")
    found = find(workshop, run_id, "note", keys=["b/1/2", "a/0"], folder=workshop.templates)
    assert (found.keys, found.variants, found.wanted) == (
        ("a/0", "b/1/2"),
        3,
        {"a": frozenset({0}), "b/1": frozenset({2})},
    )
    summary, _keys = await workshop.call(step_again, "in_variants", "note", run_id, {})
    assert (summary.requests, summary.cached) == (0, 6)


async def test_edited_key_of_a_fan_in_still_finds_its_inputs(shop: Workshop, own: OwnTemplates) -> None:
    await shop.call(newsletter, Articles(section="tea"))
    run_id = shop.value("SELECT max(id) FROM runs")
    own.edit("newsletter_digest", "key: digest", "key: issue")
    for keys in ((), ("digest",), ("issue",)):
        found = find(shop, run_id, "newsletter_digest", keys=keys)
        assert found.keys == ("issue",)
        assert len(await parents(found)) == len(keys_of(shop, "newsletter_summary"))


@flow
async def chained() -> None:
    async with open_run() as run:
        notes = await run.generate("note", run.select("note"))
        await run.generate("reply", notes, variants=2)


async def test_both_databases_find_the_same_inputs(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    # In the order of bytes, and not in that of a language.
    workshop.items({"b": "one", "A": "two", "a/1": "three"})
    own = OwnTemplates(workshop.templates)
    own.write(
        "reply", "---\noutput: SubjectLine\n---\n{% block user %}{{ note.subject }} {{ record.name }}{% endblock %}"
    )
    for _ in range(3):
        await workshop.call(chained)
    first, second, last = (row["id"] for row in workshop.rows("SELECT id FROM runs ORDER BY id"))
    asked = ((first, "note", True), (second, "reply", False), (last, "reply", True))
    for run_id, step, is_certain in asked:
        found = find(workshop, run_id, step, limit=4, folder=workshop.templates)
        keys = ("A", "a/1", "b") if step == "note" else ("A/0", "A/1", "a/1/0", "a/1/1")
        assert (found.keys, found.note is None) == (keys, is_certain)
    for run_id, step, _is_certain in asked:
        summary, keys_asked = await workshop.call(step_again, "chained", step, run_id, {"limit": 4})
        assert (summary.requests, summary.cached) == (0, len(keys_asked))
