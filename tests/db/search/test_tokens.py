"""What counts as a word, in a text and in a query."""

from __future__ import annotations

import pytest

from db.search.tokens import BOUNDARY, COMPARED_LENGTH, MOST_WORDS, QueryError, parse_query, spaced_words, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The price: 12.50 (net)!", "the price 12 50 net"),
        ("e-mail foo_bar don't", "e mail foo bar don t"),
        ("Größe STRASSE straße", "grösse strasse strasse"),
        ("Cafe\u0301 café cafe", "café café cafe"),
        ("\uff21\uff22\uff23\uff11\uff12 \ufb01ne x²", "abc12 fine x2"),
        ("co\u00adop zero\u200bwidth \u202eabc\u2066", "coop zerowidth abc"),
        ("हिन्दी العربية", "हिन्दी العربية"),
        ("東京都に住む。", "東 京 都 に 住 む"),
        ("สวัสดี", "ส ว ั ส ด ี"),
        ("서울에서", "서 울 에 서"),
        ("iPhone15를", "iphone15 를"),
        ("\x00\x1b[31m\ud800 🎉 ' \" \\ % * -", "31m"),
        (BOUNDARY, ""),
        ("", ""),
    ],
)
def test_words_of_a_text(text: str, words: str) -> None:
    assert " ".join(words_of(text)) == words


def test_long_word_counts_by_its_beginning() -> None:
    assert words_of("a" * 5_000) == ["a" * COMPARED_LENGTH]


@pytest.mark.parametrize(
    ("asked", "phrases"),
    [
        ("red shoe", [("red",), ("shoe",)]),
        ('"red shoe" cheap', [("red", "shoe"), ("cheap",)]),
        ("„red shoe“ «big sale»", [("red", "shoe"), ("big", "sale")]),
        ('cheap "red shoe', [("cheap",), ("red", "shoe")]),
        ("e-mail", [("e", "mail")]),
        ("東京", [("東", "京")]),
        ("red RED red", [("red",)]),
        ("red AND shoe* NOT (a:b) ^c", [("red",), ("and",), ("shoe",), ("not",), ("a", "b"), ("c",)]),
    ],
)
def test_query_is_words_and_phrases_and_nothing_else(asked: str, phrases: list[tuple[str, ...]]) -> None:
    assert list(parse_query(asked).phrases) == phrases


@pytest.mark.parametrize("asked", ["", "  ", '"" - * 🎉', "word " + " ".join(f"w{n}" for n in range(MOST_WORDS))])
def test_query_without_words_or_with_too_many_is_an_error(asked: str) -> None:
    with pytest.raises(QueryError, match="word"):
        parse_query(asked)


def test_phrase_does_not_cross_from_one_text_into_the_next() -> None:
    spaced = spaced_words(["the red", "shoe box"])

    assert parse_query('red "shoe box"').matches(spaced)
    assert not parse_query('"red shoe"').matches(spaced)
    assert not parse_query("he").matches(spaced)
