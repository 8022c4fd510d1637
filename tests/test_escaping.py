"""Text from records does nothing where it is shown, and what people write stays readable."""

import pytest

from presswork.escaping import quoted, spreadsheet_cell, visible

ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x07", "␛[31mred␇"),
        ("bare\rreturn\x00", "bare␍return␀"),
        ("\x9b31m \x7f", "⟨U+009B⟩31m ⟨U+007F⟩"),
        ("abc\u202egnp.exe", "abc⟨U+202E⟩gnp.exe"),
        ("pay\u200bpal \ufeffx\u2060y", "pay⟨U+200B⟩pal ⟨U+FEFF⟩x⟨U+2060⟩y"),
        ("soft\xadhyphen", "soft⟨U+00AD⟩hyphen"),
        ("a\u200db", "a⟨U+200D⟩b"),
        ("a\u2028b\u2029c", "a⟨U+2028⟩b⟨U+2029⟩c"),
        ("hi\U000e0041\U000e0042", "hi⟨U+E0041⟩⟨U+E0042⟩"),
        ("\U0001f3f4\U000e0041\U000e007f", "\U0001f3f4⟨U+E0041⟩⟨U+E007F⟩"),
        ("a\ufe0f", "a⟨U+FE0F⟩"),
        ("\U0001f600\ufe0f\ufe0e\U000e0101", "\U0001f600\ufe0f⟨U+FE0E⟩⟨U+E0101⟩"),
        ("\u3164 \uffa0 \u2800", "⟨U+3164⟩ ⟨U+FFA0⟩ ⟨U+2800⟩"),
        ("half \ud83d", "half ⟨U+D83D⟩"),
    ],
)
def test_what_is_not_seen_gets_a_mark(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "Zwölf Boxkämpfer\n\tjagen — Viktor…",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f\u200d\U0001f525 1\ufe0f\u20e3 \u270c\U0001f3fd",
        ENGLAND,
        "\u0645\u06cc\u200c\u062e\u0648",  # Persian
        "क\u094d\u200dष",  # Hindi
        "葛\U000e0100飾",  # how a name writes its sign
        "שלום עולם",
        "a\xa0b\u3000c",
    ],
)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("  \xa0@SUM(A1)", "'  \xa0@SUM(A1)"),
        ("+49 30", "'+49 30"),
        ("-", "'-"),
        ("\tx", "'\tx"),
        ("\n=1", "'\n'=1"),
        ("fine\n=cmd|' /C calc'!A0\nfine", "fine\n'=cmd|' /C calc'!A0\nfine"),
        ("\uff1d1\uff0b1", "'\uff1d1\uff0b1"),
        ("\u200b=1", "⟨U+200B⟩=1"),
        ("\r=1", "␍=1"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("tea;=1+1", "tea;'=1+1"),
        ('tea; "=1+1"', 'tea;\' "=1+1"'),
        ("tea\t@SUM(A1)", "tea\t'@SUM(A1)"),
        ("a = b - c; d", "a = b - c; d"),
        ("two\n\nparagraphs", "two\n\nparagraphs"),
        ("", ""),
    ],
)
def test_a_cell_is_no_formula_however_the_file_is_separated(text: str, cell: str) -> None:
    assert spreadsheet_cell(text) == cell


def test_quoted_text_is_visible_and_short() -> None:
    assert quoted("a\u202e'b\x1b") == "'a⟨U+202E⟩'b␛'"
    assert quoted("k" * 16_000) == f"'{'k' * 200}…'"
