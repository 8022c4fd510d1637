"""Detect the language of a text by its script, or by small words that are common in only one language."""

import re

_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
)
_SMALL_WORDS = {
    "de": frozenset("der und das nicht ich wir bei f\u00fcr mit eine einen ist sind".split()),
    "fr": frozenset("le les des une est pas vous je dans pour mais avec qui".split()),
    "es": frozenset("el los una pero con por y es muy gracias mi esta".split()),
    "it": frozenset("il che non una per sono della grazie di \u00e8 si".split()),
    "pt": frozenset("uma n\u00e3o com mas meu minha obrigada obrigado os ainda ela".split()),
    "nl": frozenset("het een niet ik van met voor maar zijn".split()),
}
_LETTERS = re.compile(r"[^\W\d_]+")
# A script counts from an eighth of the letters on, so a single foreign word does not.
_SHARE = 8
_FEW = 3
_READ = 600


def language_of(text: str) -> str:
    """An ISO 639-1 code; "en" by default."""
    text = text[:_READ]
    if not text.isascii():
        letters = sum(map(len, _LETTERS.findall(text)))
        for code, script in _SCRIPTS:
            if len(script.findall(text)) * _SHARE > letters:
                return code
    words = text.lower().split()
    found = {code: len(small.intersection(words)) for code, small in _SMALL_WORDS.items()}
    likely = max(found, key=found.__getitem__)
    return likely if found[likely] >= _FEW else "en"
