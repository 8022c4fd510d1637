"""What a person sees of trials: every text harmless, cut and readable, at any width and without colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from presswork.commands.trying.try_changes import is_same, print_change, print_prompt_change, print_session
from presswork.commands.trying.try_line import TrialLine, waiting_in_words
from presswork.commands.trying.try_record import print_record, print_system
from presswork.commands.trying.try_sides import print_sides
from presswork.commands.trying.try_template import AskedTrials
from presswork.commands.trying.try_totals import exit_status, print_totals
from presswork.output_classes.validate import Fault
from presswork.prompts.rendering.marking import MarkedPrompt, PromptPiece
from presswork.report.progress import Progress
from presswork.report.sent_prompts import Said, SentPrompt
from presswork.terminal.flags import TryFlags
from presswork.trying.trials import Asked, TokenCounts, Trial, TriedRecord
from presswork.trying.versions import OpenedVersion

HOSTILE = "\x1b[2J\u202egnp\u200b[bold]x[/bold]"
HARMLESS = "␛[2J⟨U+202E⟩gnp⟨U+200B⟩[bold]x[/bold]"
ASKED = AskedTrials(TryFlags(name="notes"), Asked("notes"))


def sent(*pieces: PromptPiece, **own: Any) -> SentPrompt:
    given: dict[str, Any] = {"settings": {}, "system": [], "examples": [], "user": MarkedPrompt(pieces), "schema": "{}"}
    return SentPrompt(**given | own)


def record(output: Any = None, **own: Any) -> TriedRecord:
    given: dict[str, Any] = {
        "key": "1",
        "generation_id": "0123456789ab-cdef-a123456789ab",
        "status": "invalid" if output is None else "succeeded",
        "system": "Write.",
        "prompt": "Text: one",
        "output": output,
        "requests": 1,
        "tokens": TokenCounts(320, 85),
        "cost_usd": Decimal("0.0021"),
        "latency_ms": 1240,
        "answer_tokens": TokenCounts(320, 85),
        "answer_usd": Decimal("0.0021"),
    }
    return TriedRecord(**given | own)


def trial(*records: TriedRecord, **own: Any) -> Trial:
    given: dict[str, Any] = {
        "run_id": "run",
        "template": "notes",
        "template_hash": "3f2a91c04b7e99",
        "endpoint": "anthropic",
        "records": records,
        "requests": len(records),
        "tokens": TokenCounts(320, 85),
        "cost_usd": Decimal("0.0042"),
        "session_usd": Decimal("0.0126"),
    }
    return Trial(**given | own)


def seen(show: Callable[..., None], *values: Any, width: int = 200, terminal: bool = False, **own: Any) -> str:
    """What is printed on a console without colours, each line without the blanks at its end."""
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, no_color=True, highlight=False)
    show(console, *values, **own)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    if terminal:
        text = "".join(part.partition("m")[2] if place else part for place, part in enumerate(text.split("\x1b[")))
        assert max(map(len, text.splitlines())) <= width
    return "\n".join(line.rstrip() for line in text.splitlines())


def test_record_is_printed_from_its_prompt_to_its_cost() -> None:
    pieces = (PromptPiece("Text: "), PromptPiece("one", "record"))
    text = seen(print_record, record({"title": "One", "tags": ["a", "b"], "size": 3}, sent=sent(*pieces)))

    assert "✔ 1  valid · 1.2 s · 320 tokens in, 85 out, $0.0021 · show a123456789ab" in text
    assert "    Text: «one»\n" in text
    assert "    title  One\n    tags   • a\n           • b\n    size   3" in text


def test_answer_that_is_no_content_is_shown_with_the_fault_of_each_field() -> None:
    faults = (
        Fault("title", "String should have at most 70 characters"),
        Fault("tags.1", "too long"),
        Fault("text", "Field required"),
        Fault("", "they contradict each other"),
    )
    raw = '{"title": "' + "x" * 71 + '", "tags": ["a", "bb"]}'
    text = seen(print_record, record(raw=raw, faults=faults, error="It is invalid.", requests=3))

    assert "✘ 1  invalid · 1.2 s · 3 requests · 320 tokens in, 85 out, $0.0021" in text
    assert "                ✘ String should have at most 70 characters (it has 71)\n" in text
    assert "                ✘ tags.1: too long\n" in text
    assert "    text        ✘ Field required\n    the answer  ✘ they contradict each other\n" in text
    assert text.endswith("  It is invalid.")


def test_fault_that_is_shown_at_its_field_is_not_said_again() -> None:
    faults = (Fault("title", "too long"), Fault("", "no sense"))
    error = "title: too long; no sense. It is not retried."
    text = seen(print_record, record(raw='{"title": "One"}', faults=faults, error=error))

    assert text.count("too long") == text.count("no sense") == 1
    assert text.endswith("\n  It is not retried.")
    assert "too long; no sense" in seen(print_record, record(raw=None, faults=faults, error=error))


@pytest.mark.parametrize(
    ("key", "shown"),
    [("", '""'), ("a ", '"a "'), ("a\nb", '"a␊b"'), ("a b|\u202e", "a b|⟨U+202E⟩"), ("ä b", "ä b")],
)
def test_key_that_would_not_be_seen_is_quoted(key: str, shown: str) -> None:
    made, line = record({"t": 1}, key=key), TrialLine()
    line.ask(1, [key])

    assert f"✔ {shown}  valid" in seen(print_record, made)
    assert f"\n{shown}\n" in seen(
        print_sides, trial(made), trial(made), OpenedVersion(Path(), "a", "sha", frozenset()), width=160, terminal=True
    )
    assert f"  prompt of {shown}\n" in seen(print_prompt_change, made, replace(made, prompt="x"))
    assert line.words().startswith(f"asking about {shown}:")


def test_commands_of_a_narrow_terminal_are_not_cut() -> None:
    text = seen(print_totals, trial(record({"t": 1})), ASKED, width=40, terminal=True)

    assert re.search(r"\bshow a123456789ab *\n", text)
    assert "\n      an answer whole" in text


@pytest.mark.parametrize("raw", ["Sorry, I can't.", '["a"', "[" * 100_000, '"\\ud800"', "{}"])
def test_answer_of_any_kind_is_shown_as_it_came(raw: str) -> None:
    text = seen(print_record, record(raw=raw, faults=(Fault("", "It is no object"),)))

    assert raw[:20] in text
    assert "✘ It is no object" in text


def test_repair_says_what_was_wrong_before() -> None:
    text = seen(print_record, record({"title": "One"}, faults=(Fault("title", "too long"),), requests=2))

    assert "2 requests" in text
    assert "repaired: title: too long" in text


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("width", [40, 60, 120, 200])
def test_hostile_texts_are_text_at_any_width(width: int, terminal: bool) -> None:
    hostile = record(
        {HOSTILE: HOSTILE, "list": [HOSTILE], "deep": {HOSTILE: [HOSTILE]}},
        key=HOSTILE,
        system=HOSTILE,
        prompt=HOSTILE,
        sent=sent(PromptPiece(HOSTILE, "record")),
        faults=(Fault(HOSTILE, HOSTILE),),
    )
    refused = replace(hostile, output=None, raw=HOSTILE, error=HOSTILE, status="refused")
    before = replace(hostile, output={HOSTILE: "x"}, system="x", prompt="x")
    shows: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (print_system, (hostile,)),
        (print_record, (hostile,)),
        (print_record, (refused,)),
        (print_change, (before, hostile)),
        (print_change, (refused, hostile)),
        (print_prompt_change, (before, hostile)),
        (print_sides, (trial(before), trial(hostile), OpenedVersion(Path(), HOSTILE, "sha", frozenset(), HOSTILE))),
        (print_sides, (trial(refused), trial(hostile), OpenedVersion(Path(), HOSTILE, "sha", frozenset()))),
        (print_totals, (trial(hostile, missing=(HOSTILE,), stopped=HOSTILE), ASKED)),
    ]
    for show, values in shows:
        text = seen(show, *values, width=width, terminal=terminal)
        assert not set("\x1b\u202e\u200b") & set(text)
        assert "⟩x" not in text  # such as where "[bold]" is read as markup
        if width == 200:
            assert "[bold]x[/bold]" in text


def test_long_answers_are_cut_and_say_so() -> None:
    many = {f"f{number}": "x" for number in range(200)}
    long = {"text": "word " * 1_000, "lines": "\n".join("abc"), "items": [str(number) for number in range(100)]}

    assert "… 160 more fields" in seen(print_record, record(many))
    text = seen(print_record, record(long, prompt="word\n" * 1_000, system="word\n" * 1_000))
    assert "… 3,800 more characters" in text
    assert text.count("more characters") == 3
    assert len(text) < 5_000


def test_long_changes_are_cut_and_say_so() -> None:
    old = record({f"f{number}": "x " * 2_000 for number in range(3)} | {f"g{number}": 1 for number in range(99)})
    new = replace(old, output=dict.fromkeys(old.output, "y " * 2_000) | {"g1": 1}, prompt="z " * 2_000)
    text = seen(print_change, old, new) + seen(print_prompt_change, old, new)

    assert "… 71 more changes" in text
    assert "more characters" in text
    assert len(text) < 150_000


def test_long_answers_that_differ_only_at_their_end_are_not_called_the_same() -> None:
    old = trial(record({"text": "word " * 1_000 + "old", "size": 3}))
    new = trial(record({"text": "word " * 1_000 + "new", "size": 3}))
    version = OpenedVersion(Path(), "git:HEAD", "sha", frozenset())
    for width in (60, 160):
        text = seen(print_sides, old, new, version, width=width, terminal=True)
        assert "[-old-]" in text
        assert "{+new+}" in text
    assert text.count("the same") == 2  # the size, and the prompts


def test_name_that_needs_a_line_of_its_own_gets_one() -> None:
    text = seen(print_record, record({"a_name_that_is_very_long_indeed": "A value."}), width=60, terminal=True)

    assert "    a_name_that_is_very_long_indeed\n      A value." in text


def test_writing_from_right_to_left_and_emoji_stay_as_they_are() -> None:
    text = seen(print_record, record({"t": "مرحبا 👩‍👩‍👧 🏳️‍🌈"}))

    assert "مرحبا 👩‍👩‍👧 🏳️‍🌈" in text


def test_change_is_shown_word_by_word_with_tokens_and_cost() -> None:
    old = record({"title": "A red wine.", "size": 3, "tags": ["dry", "old"]})
    new = replace(
        old,
        output={"title": "A white wine.", "size": 3, "tags": ["dry"]},
        answer_tokens=TokenCounts(324, 80),
        answer_usd=Decimal("0.0020"),
    )
    text = seen(print_change, old, new)

    assert "$0.0021 · +4 in, -5 out, -$0.0001 · show" in text
    assert "    title    A [-red-]{+white+} wine.\n    tags[1]  [-old-]\n    equal: size" in text
    again = seen(print_change, new, replace(old, requests=0, is_cached=True))
    assert "nothing sent; it took 320 tokens in, 85 out, $0.0021 · -4 in, +5 out, +$0.0001" in again
    assert "the same answer as before" in seen(print_change, old, replace(old, requests=0))


def test_answer_that_became_content_says_what_it_was_before() -> None:
    bad = record(raw="{}", faults=(Fault("title", "Field required"),), error="It is invalid.")
    text = seen(print_change, bad, record({"title": "One"}))

    assert "before: invalid, title: Field required" in text
    assert "    title  One" in text
    lost = seen(print_change, record({"title": "One"}), bad)
    assert "before: succeeded" in lost
    assert "✘ Field required" in lost


def test_what_claude_reads_differs_also_by_examples_schema_and_settings() -> None:
    old = record({"t": 1}, requests=0, sent=sent(schema='{"a": 1}', examples=[Said("user", "x")]))
    for own in ({"schema": '{"a": 2}'}, {"examples": [Said("user", "y")]}, {"settings": {"effort": "low"}}):
        new = replace(old, sent=sent(**{"schema": '{"a": 1}', "examples": [Said("user", "x")]} | own))
        assert not is_same(old, new)
        assert seen(print_prompt_change, old, new)
    assert is_same(old, replace(old))
    assert not is_same(old, replace(old, requests=1))


def test_totals_say_what_comes_next_and_what_a_thousand_would_cost() -> None:
    text = seen(print_totals, trial(record({"t": 1}), record({"t": 1}, key="2", requests=0, is_cached=True)), ASKED)

    assert "✔ 2 records: 1 valid, 1 from the ledger, in 0.0 s" in text
    assert "  version        3f2a91c04b7e\n" in text
    assert "about $4.20, if they are like these" in text
    assert "run notes" in text
    assert "it pays nothing for these 2" in text
    assert "templates try notes --watch" in text
    assert "made up" not in text


def test_totals_say_whatever_makes_a_trial_less_than_it_looks() -> None:
    bad = trial(record(), endpoint="sandbox", missing=("7",), stopped="The cap is reached.", cost_usd=None, unpriced=1)
    text = seen(print_totals, bad, ASKED)

    assert "▲ 1 record: 1 invalid" in text
    assert "its answers are made up, and nothing was billed" in text
    assert "The select no longer finds 7." in text
    assert "The cap is reached." in text
    assert "unknown (no price" in text
    assert "run notes" not in text
    assert "as Claude would bill it" in text


@pytest.mark.parametrize(
    ("tried", "status"),
    [
        (trial(record({"t": 1})), 0),
        (trial(record({"t": 1}), record()), 1),
        (trial(record({"t": 1}), missing=("7",)), 1),
        (trial(record({"t": 1}), stopped="cap"), 3),
    ],
)
def test_exit_status_is_that_of_a_run(tried: Trial, status: int) -> None:
    assert exit_status(tried) == status


def test_sides_show_both_answers_also_if_one_is_no_content() -> None:
    old = trial(record(raw='{"title": "One"}', faults=(Fault("text", "Field required"),)), requests=0)
    new = trial(record({"title": "One", "text": "Two"}))
    version = OpenedVersion(Path(), "git:HEAD", "sha", frozenset(), "The class has changed.")
    wide = seen(print_sides, old, new, version, width=160, terminal=True)
    narrow = seen(print_sides, old, new, version, width=60, terminal=True)

    assert "Marks: [-git:HEAD-] {+this version+}\nThe class has changed." in wide
    assert "✘ Field required" in wide
    assert "Both versions give Claude the same prompts" in wide
    assert "before: invalid, text: Field required" in narrow
    for text in (wide, narrow):
        assert "Two" in text
        assert re.search(r"with content +0 of 1 +1 of 1", text)
        assert re.search(r"requests now +none +1, \$0.0042", text)


def test_session_says_what_is_left_of_the_cap() -> None:
    now = trial(record({"t": 1}), cost_usd=Decimal("0.0050"))

    assert "out, $0.0050 (+$0.0008) · in all $0.0126 of $1.00" in seen(print_session, now, trial(record()), 1.0)
    assert " of $0.019" in seen(print_session, now, trial(record()), 0.019)
    assert seen(print_session, replace(now, is_capped=False), None, 1.0).endswith("in all $0.0126")


def test_line_says_what_is_waited_for() -> None:
    line = TrialLine()
    line.ask(3)
    line.follow(lambda: "reading the records")
    assert line.words().startswith("reading the records, ")
    line.follow(lambda: None)
    line.one_ended("1")
    assert line.words().startswith("asking about 3 records: 2 to come")
    for _record in range(4):
        line.one_ended("1")
    assert line.words().startswith("recording")
    line.ask(2, ["1", HOSTILE])
    line.one_ended("1")
    assert line.words().startswith(f"asking about {HARMLESS}: 1 to come")
    line.opened(Progress("run", "notes", "sandbox", is_stopping=lambda: True))
    assert line.words() == "Stopping."
    line.opened(Progress("run", "notes", "sandbox", is_stopping=lambda: True, in_flight=lambda: 2))
    assert line.words() == "Stopping: waiting for 2 answers. Ctrl-C again gives them up."
    line.watch(["notes.md.j2", HOSTILE])
    assert line.words() == f"Waiting for a save of notes.md.j2, {HARMLESS}. Ctrl-C ends."
    assert "and 2 more." in waiting_in_words(list("abcdef"))
