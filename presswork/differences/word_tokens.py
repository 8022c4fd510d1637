"""Cut a text into sentences, and sentences into words, in any script; joined again, the pieces are the text.

Chinese, Japanese, Thai and other scripts without blanks are cut at each character. What a reader sees as one character
stays whole: a letter with its accents, an emoji with its modifiers, a flag.
"""

import re
import unicodedata
from functools import lru_cache
from itertools import groupby

# A sentence that ends with a stop of Latin scripts needs a blank after it: a price of 3.14 is no end.
_STOPS = ".!?\u2026\u061f\u06d4\u0964"  # and the ellipsis, the Arabic question mark and full stop, the danda
_FULL_STOPS = "\u3002\uff01\uff1f"  # of Chinese and Japanese
_APOSTROPHES = "'\u2019"
_CLOSING = rf"[{_APOSTROPHES}\"»”」』)\]]*+"
_END = rf"[{_STOPS}]++{_CLOSING}(?:[^\S\n]++|(?=\n)|\Z)|[{_FULL_STOPS}]++{_CLOSING}"
# Possessive, so that no text makes this take more than one pass.
_SENTENCE = re.compile(rf"(?:[^\n{_STOPS}{_FULL_STOPS}]++|(?!{_END})[{_STOPS}]++)*+(?:{_END}|\n+|\Z)")
_BLANKS = r"\r?\n|[^\S\n]+|\d+(?:[.,:]\d+)+"
_ASCII_WORD = re.compile(rf"{_BLANKS}|\w+(?:'\w+)*|.", re.DOTALL)
_LINE = re.compile(r"[^\n]*(?:\n+|\Z)")
_WITHOUT_BLANKS = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua000-\ua4cf\uf900-\ufaff\uff66-\uff9d\U00020000-\U000323af"
)
_JOINERS = "\u200c\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"


def sentences(text: str) -> list[str]:
    """Cut a text after each sentence and each line."""
    return [piece for piece in _SENTENCE.findall(text) if piece]


def lines(text: str) -> list[str]:
    """Cut a text after each line; blank lines stay with the line before."""
    return [piece for piece in _LINE.findall(text) if piece]


def words(text: str) -> list[str]:
    """Cut a text into words, numbers, blanks, line breaks and single signs."""
    return (_ASCII_WORD if text.isascii() else _any_word()).findall(text)


@lru_cache(maxsize=1)
def _any_word() -> re.Pattern[str]:
    marks = f"[{_marks()}{_JOINERS}]"
    letter = rf"[^\W{_WITHOUT_BLANKS}]{marks}*"
    word = rf"(?:{letter})+"
    flag = "[\U0001f1e6-\U0001f1ff]{2}"
    sign = rf".{marks}*(?:(?<=\u200d)\S{marks}*)*"
    return re.compile(rf"{_BLANKS}|{word}(?:[{_APOSTROPHES}]{word})*|{flag}|{sign}", re.DOTALL)


def _marks() -> str:
    """Return the ranges of all combining characters that this Python knows, for a character class."""
    # Beyond these planes only the variation selectors combine.
    codes = [*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)]
    combining = [code for code in codes if unicodedata.category(chr(code))[0] == "M"]
    runs = groupby(enumerate(combining), key=lambda pair: pair[1] - pair[0])
    ranges = [[code for _index, code in run] for _gap, run in runs]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in ranges)
