"""A difference is true, readable in any script, and bounded whatever the texts are."""

from __future__ import annotations

import random
from itertools import pairwise
from time import process_time

import pytest

from presswork.differences.operations import FoldedText, Operation, folded, made_of
from presswork.differences.text_differences import LONG_HUNK, MANY_LINES, compare_texts
from presswork.differences.word_tokens import lines, sentences, words

LETTERS = [
    *"abc .,!?\n\t\r'\u2019-",
    "e\u0301",
    "好",
    "。",
    "ไ",
    "ที่",
    "हिन्दी",
    "👩‍👩‍👧",
    "👍🏽",
    "🇩🇪",
    "\u202e",
    "\u200b",
    "\u200d",
    "\0",
    "\ud800",
    "3.14",
    "the quick brown fox. ",
]


def marked(old: str, new: str) -> str:
    """The difference as it is read without colours."""
    return "".join(
        each.old
        if each.is_equal
        else (f"[-{each.old}-]" if each.old else "") + (f"{{+{each.new}+}}" if each.new else "")
        for each in compare_texts(old, new)
    )


def check(old: str, new: str) -> list[Operation]:
    found = compare_texts(old, new)
    assert "".join(each.old for each in found) == old
    assert "".join(each.new for each in found) == new
    assert all((each.kind == "equal") == (each.old == each.new) for each in found)
    # Equal and changed pieces alternate.
    assert all(before.is_equal != after.is_equal for before, after in pairwise(found))
    return found


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("The quick fox runs.", "The slow fox runs.", "The [-quick-]{+slow+} fox runs."),
        ("One. Two. Three.", "One. Three.", "One. [-Two. -]Three."),
        ("It runs.", "It runs fast.", "It runs{+ fast+}."),
        ("for $3.14 now", "for $3.15 now", "for $[-3.14-]{+3.15+} now"),
        ("A1 is\nB1 is\n", "A2 is\nB2 is\n", "[-A1-]{+A2+} is\n[-B1-]{+B2+} is\n"),
        ("a  b", "a b", "a[-  -]{+ +}b"),
        ("a\r\nb", "a\nb", "a[-\r\n-]{+\n+}b"),
        ("价格是三百元、很便宜。", "价格是四百元、很便宜。", "价格是[-三-]{+四+}百元、很便宜。"),
        ("วันที่ดี", "วันที่งาม", "วันที่[-ดี-]{+งาม+}"),
        ("हिन्दी भाषा", "हिन्दू भाषा", "[-हिन्दी-]{+हिन्दू+} भाषा"),
        ("x 👩‍👩‍👧 y", "x 👩‍👩‍👦 y", "x [-👩‍👩‍👧-]{+👩‍👩‍👦+} y"),
        ("ok 👍🏽 so", "ok 👍 so", "ok [-👍🏽-]{+👍+} so"),
        ("at 🇩🇪🇫🇷.", "at 🇩🇪🇮🇹.", "at 🇩🇪[-🇫🇷-]{+🇮🇹+}."),
        ("e\u0301 it", "e it", "[-e\u0301-]{+e+} it"),
        ("don't go on", "do go on", "[-don't-]{+do+} go on"),
    ],
)
def test_difference_is_told_in_words_of_any_script(old: str, new: str, shown: str) -> None:
    check(old, new)
    assert marked(old, new) == shown


def test_change_of_several_words_is_one_change() -> None:
    assert marked("see the quick brown fox here", "see the slow red fox here") == (
        "see the [-quick brown-]{+slow red+} fox here"
    )


def test_equal_and_empty_texts_have_no_changes() -> None:
    assert check("", "") == []
    assert check("same", "same") == [Operation("equal", "same", "same")]
    assert check("", "new") == [Operation("insert", "", "new")]
    assert check("old", "") == [Operation("delete", "old", "")]


def test_both_sides_are_always_whole() -> None:
    chance = random.Random(12)
    for _turn in range(1500):
        old = [chance.choice(LETTERS) for _letter in range(chance.randrange(60))]
        new = list(old)
        for _edit in range(chance.randrange(8)):
            at = chance.randrange(len(new) + 1)
            new[at : at + chance.randrange(3)] = [chance.choice(LETTERS)] * chance.randrange(3)
        check("".join(old), "".join(new))


def test_pieces_joined_are_the_text() -> None:
    chance = random.Random(7)
    for _turn in range(500):
        text = "".join(chance.choice(LETTERS) for _letter in range(chance.randrange(80)))
        assert "".join(sentences(text)) == "".join(lines(text)) == "".join(words(text)) == text


def test_long_hunk_is_cut_where_both_texts_agree() -> None:
    numbers = [f"word{number} " for number in range(20_000)]
    changed = [f"other{number} " if number % 500 == 250 else word for number, word in enumerate(numbers)]
    found = check("".join(numbers), "".join(changed))
    assert len([each for each in found if not each.is_equal]) == 40


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a " * 200_000, "b " * 200_000),
        ("ab" * 100_000, "ba" * 100_000),
        (". " * 100_000, "! " * 100_000),
        ("e" + "\u0301" * 200_000, "e" + "\u0302" * 200_000),
        ("\u200d" * 100_000, "\u200d" * 99_999 + "a"),
        ('."' * 100_000, "." * 200_000 + "x"),
        ("a\n" * 2_500_000, "b\n" * 2_500_000),
        ("a b " * 1_250_000, "b a " * 1_250_000),
        ("好" * 200_000, "坏好" * 100_000),
    ],
    ids=["words", "one word", "stops", "accents", "joiners", "quotes", "lines", "5 MB", "Chinese"],
)
def test_worst_cases_stay_bounded(old: str, new: str) -> None:
    before = process_time()
    check(old, new)
    # Without the bounds each of these takes minutes or gigabytes.
    assert process_time() - before < 20


def test_what_is_too_long_is_shown_whole() -> None:
    old, new = "a" * LONG_HUNK, "a" * LONG_HUNK + " b"
    assert check(old, new) == [Operation("replace", old, new)]
    old, new = "a\n" * (MANY_LINES + 1), "b\n" * (MANY_LINES + 1)
    assert check(old, new) == [Operation("replace", old, new)]


def test_equal_text_far_from_a_change_is_folded() -> None:
    far = "equal words " * 200
    operations = made_of([(far, far), ("x", "y"), (far, far), ("", "z"), ("end", "end")])
    found = list(folded(operations))

    texts = [each.text if isinstance(each, FoldedText) else each.old for each in found]
    assert "".join(texts) == far + "x" + far + "end"
    assert [type(each) is FoldedText for each in found] == [True, False, False, False, True, False, False, False]
    assert all(len(each.old) < 250 for each in found if isinstance(each, Operation))


def test_folding_cuts_a_text_without_blanks_too() -> None:
    far = "x" * 5000
    operations = made_of([("a", "b"), (far, far), ("c", "d")])
    assert sum(isinstance(each, FoldedText) for each in folded(operations)) == 1
