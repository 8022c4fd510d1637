"""`presswork diff` and the reasons in a record's history: true, readable without colours, harmless on a screen."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.ledger.rows import TemplateRow
from db.ledger.writing import add_templates
from db.words import TRY
from tests.commands.conftest import Desk, call
from tests.db.rows import DAY, Book, sha

HOSTILE = "\u001b[2J\u202egnp\u200b<b>[red]"


def add(desk: Desk, output: Any, **own: Any) -> str:
    with desk.opened() as ledger:
        return Book(ledger).add("a", output=output, **own)


def add_version(desk: Desk, source: str, day: int) -> str:
    with desk.opened() as ledger:
        Book(ledger)
        sources = {"notes.md.j2": source, "_voice.md.j2": "Be kind."}
        row = TemplateRow(hash=sha(source), name="notes", sources=sources, first_seen_at=DAY + timedelta(days=day))
        add_templates(ledger, [row])
    return sha(source)


def test_difference_is_readable_without_colours(desk: Desk) -> None:
    old = add(desk, {"title": "A red wine.", "tags": ["dry", "old"], "size": 3})
    new = add(desk, {"title": "A white wine.", "tags": ["dry"], "size": 3, "year": 1})

    shown = call("diff", old, new[-12:])

    assert shown.exit_code == 0
    assert "title: changed\nA [-red-]{+white+} wine.\n" in shown.stdout
    assert "tags[1]: removed\n[-old-]\n" in shown.stdout
    assert "year: added\n{+1+}\n" in shown.stdout
    assert "Equal: size" in shown.stdout


def test_one_generation_is_compared_with_the_content_before(desk: Desk) -> None:
    first = add(desk, {"title": "one"})
    add(desk, None, status="failed", output_hash=None)
    second = add(desk, {"title": "two"})

    found = json.loads(call("diff", second, "--json").stdout)
    alone = call("diff", first)

    assert (found["a"]["id"], found["b"]["id"], found["equal"]) == (first, second, False)
    assert (alone.exit_code, "is the first content of its record" in alone.stderr) == (2, True)


def test_records_and_prompts_are_compared(desk: Desk) -> None:
    old = add(desk, {}, record='{"name":"Ann","n":1}', prompt="p", prompt_hash=sha("p"))
    new = add(desk, {}, record='{"name":"Bob","n":1}', prompt="p", prompt_hash=sha("p"))

    assert "name: changed\n[-Ann-]{+Bob+}" in call("diff", old, new, "--of", "record").stdout
    equal = call("diff", old, new, "--of", "prompt")
    assert (equal.exit_code, "The prompts are equal." in equal.stdout) == (0, True)
    missing = call("diff", add(desk, {}, record_hash=None), new, "--of", "record")
    assert (missing.exit_code, "has no record to compare" in missing.stderr) == (2, True)


def test_answer_that_was_cut_off_is_compared_as_text(desk: Desk) -> None:
    old = add(desk, {"title": "one"})
    none = {"status": "truncated", "output": None, "output_hash": None}
    new = add(desk, settled={"output_text": '{"title": "on'}, **none)

    assert "The whole answer: retyped" in call("diff", old, new).stdout


def test_versions_of_a_template_are_compared(desk: Desk) -> None:
    old, new = add_version(desk, "Write one.", 0), add_version(desk, "Write two.", 1)

    by_beginning = call("diff", old[:8], new[:8], "--of", "template").stdout
    assert "notes.md.j2: changed\nWrite [-one-]{+two+}." in by_beginning
    assert "Equal: _voice.md.j2" in by_beginning
    assert json.loads(call("diff", new, "--of", "template", "--json").stdout)["a"]["hash"] == old
    first, unknown = call("diff", old, "--of", "template"), call("diff", "ffff", "--of", "template")
    assert (first.exit_code, "is the first version of 'notes'" in first.stderr) == (2, True)
    assert (unknown.exit_code, old[:12] in unknown.stderr) == (2, True)


@pytest.mark.parametrize("is_closed", [True, False])
def test_version_that_was_only_tried_is_no_earlier_version(desk: Desk, *, is_closed: bool) -> None:
    used, tried, kept, last = (add_version(desk, f"Write {day}.", day) for day in range(4))
    with desk.opened() as ledger:
        trial, run = Book(ledger, trigger=TRY), Book(ledger)
        for version in (tried, kept):
            trial.add(version, step="notes", prompt=version, template_hash=version)
        run.add("a", step="notes", prompt="b", template_hash=kept)
        for book in (trial, run) if is_closed else ():
            book.close()

    def before(version: str) -> str:
        return str(json.loads(call("diff", version, "--of", "template", "--json").stdout)["a"]["hash"])

    # What a run used after its trial counts.
    assert [before(kept), before(last), before(tried)] == [used, kept, used]


def test_hostile_texts_are_text(desk: Desk) -> None:
    old, new = add(desk, {HOSTILE: "x", "k": "a"}), add(desk, {HOSTILE: HOSTILE, "k": "a\u00a0b"})

    shown = call("diff", old, new).stdout

    assert not set("\u001b\u202e\u200b") & set(shown)
    assert "␛[2J⟨U+202E⟩gnp⟨U+200B⟩<b>[red]" in shown


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("a b", "a  b", "a[-␣-]{+␣␣+}b"),
        ("a b", "a\tb", "a[-␣-]{+⇥\t+}b"),
        ("a b", "a\u00a0b", "a[-␣-]{+⟨U+00A0⟩+}b"),
        ("a\r\nb", "a\nb", "a[-␍⏎\n-]{+⏎\n+}b"),
        ("caf\u00e9", "cafe\u0301", "[-café⟨U+00E9⟩-]{+cafe\u0301⟨U+0301⟩+}"),
    ],
    ids=["blanks", "tab", "no break", "line feed", "accent"],
)
def test_change_that_can_not_be_seen_is_marked(desk: Desk, old: str, new: str, shown: str) -> None:
    first, second = add(desk, {"t": old}), add(desk, {"t": new})
    # A table or a line of the terminal may expand tabs.
    assert shown.expandtabs() in call("diff", first, second).stdout.expandtabs()


def test_long_equal_text_is_folded_unless_all_is_asked_for(desk: Desk) -> None:
    far = "equal words " * 300
    old, new = add(desk, {"t": f"{far} one"}), add(desk, {"t": f"{far} two"})

    assert "equal characters" in call("diff", old, new).stdout
    assert call("diff", old, new, "--all").stdout.count("equal words") == 300


def test_unknown_generation_is_a_mistake(desk: Desk) -> None:
    assert call("diff", "0123456789").exit_code == 2
    known = add(desk, {})
    missing = call("diff", known, "0123456789")
    assert (missing.exit_code, "There is no generation" in missing.stderr) == (2, True)


def test_history_says_why_each_content_came(desk: Desk) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    add(desk, {"t": "one"}, record='{"name":"Ann","\u202eprice":1}', created_at=noon)
    add(desk, {"t": "two"}, record='{"name":"Ann","\u202eprice":2}', created_at=noon + timedelta(days=1))
    add(desk, {"t": "3"}, record='{"name":"Ann","\u202eprice":2}', template_hash=sha("b"), output_hash=sha("3"))

    shown = call("history", "product_copy", "--key", "a").stdout

    assert "first outcome" in shown
    assert "record changed: ⟨U+202E⟩price" in shown
    assert f"template changed; {sha('template')[:8]} to {sha('b')[:8]}" in shown
