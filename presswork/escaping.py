"""Make text from records, answers and errors harmless where it is shown: on a page, in a terminal, in a spreadsheet.

Page, terminal and CSV share one filter, so that a person sees the same marks in all of them. JSON and Parquet carry
the text as it is stored.
"""

import re

_PICTURES = (
    "\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u27bf\u2934\u2935\u2b00-\u2bff\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001faff"
)
_IDEOGRAPHS = "\u2e80-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Scripts whose letters change shape with their neighbours: Arabic to Khmer, and later additions.
_JOINING = "\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18af\ua840-\ua87f\ua8e0-\ua9ff\U00010a00-\U00011fff"
_VIRAMAS = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca"
_TAGGED = ("gbeng", "gbsct", "gbwls")  # the only flags that are written with tag characters

# These draw nothing of their own, and yet belong to what people write.
_MEANT = "|".join(
    [
        *("\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in flag) + "\U000e007f" for flag in _TAGGED),
        f"(?<=[{_PICTURES}\ufe0f])\u200d(?=[{_PICTURES}])",  # a family is persons with joiners between them
        f"(?<=[{_PICTURES}])[\ufe0e\ufe0f]",
        "(?<=[0-9#*])\ufe0f(?=\u20e3)",  # a digit on a key
        f"(?<=[{_IDEOGRAPHS}])[\ufe00-\ufe02\U000e0100-\U000e01ef]",  # how a name writes its sign
        f"(?<=[{_JOINING}])[\u200c\u200d](?=[{_JOINING}])",
        f"(?<=[{_VIRAMAS}])[\u200c\u200d]",
        "(?<=[\u1820-\u18aa])[\u180b-\u180f]",
    ]
)
# Controls, all that Unicode calls ignorable by default (direction, zero width, tags, variation, fillers), its other
# ends of lines, annotations, the blank among the braille signs, and halves of characters.
_UNSEEN = (
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff\ud800-\udfff]"
)
_SEEN = re.compile(f"(?P<meant>{_MEANT})|{_UNSEEN}")

_QUOTED = 200  # characters

# A spreadsheet takes full-width and small forms of these signs for the signs.
_BLANKS = r" \xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_SIGNS = r"=+\-@\t\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"
_FORMULA = re.compile(
    rf"(?:\A|(?<=\n))(?=[{_BLANKS}]*[{_SIGNS}])"
    # Where the comma is the decimal sign, Excel begins a cell after each semicolon, in spite of our quotes.
    rf"|(?<=[;\t])(?=[{_BLANKS}\"]*[{_SIGNS}])"
    r"|\A(?=\s*\n)"
)


def visible(text: str) -> str:
    """Show each character that is invisible, moves the cursor or turns the line as a mark, such as ␛ or ⟨U+202E⟩.

    Line feeds and tabs stay. So do joiners and selectors where a script or an emoji needs them.
    """
    return text if text.isascii() and text.isprintable() else _SEEN.sub(_mark, text)


def quoted(text: str) -> str:
    """Quote a text from outside in a message, visible and not longer than a message may be."""
    return f"'{visible(text if len(text) <= _QUOTED else text[:_QUOTED] + '…')}'"


def spreadsheet_cell(text: str) -> str:
    """Make a text safe as a cell of a CSV file: visible, and with ' before each part that would be a formula.

    Lines, and what follows a semicolon or a tab, are parts: a file that is read with another separator begins cells
    there. Pass numbers as they are.
    """
    return _FORMULA.sub("'", visible(text))


def _mark(found: re.Match[str]) -> str:
    if found["meant"]:
        return found["meant"]
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"
