"""Texts that people read use plain English: phrases that read as translated stay out."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("flows", "presswork", "db", "sandbox", "bench", "docs")
PAGES = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "Makefile", "prefect.yaml", ".env.example")
NOT_READ = {Path("flows/outputs.py")}
"""Part of prompts: a prettier word there would pay for all content again."""

TEXTS = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
BETTER = {
    r"anew": "again",
    r"mend(s|ed|ing)?": "fix, repair",
    r"for (ever|good)": "permanently",
    r"reckon\w*": "estimate",
    r"beside": "next to, as well as",
    r"so (many|often)": "this many, N times",
    r"at its latest": "at the latest",
    r"(bury|buries|buried)": "write, close",
    r"afterlife": "recovery",
    r"furnish\w*": "provide",
    r"(is|are|was|were|be|been|stays|comes) away": "unavailable",
    r"dies|died|dying": "crashes, ends",
    r"whoever": "the process that, anyone who",
    r"(goes?|going|went|gone) on with": "resume, continue",
    r"lies (in|at)": "is in, is at",
    r"what (is|was|are|were) (asked|answered|written|sent|said|told|missed|given)": "a noun",
    r"passed over": "skipped, ignored",
    r"in vain": "without success",
    r"out loud": "clearly",
    r"(is|are|was|were) told": "learns, is reported",
    r"(throws?|thrown|threw) away": "discard",
    r"(hands?|handed) over": "pass",
    r"but for": "except",
    r"(gives?|given|gave) (up|back)": "skip, stop; release, return",
    r"(takes?|taken|took) (a |the )?(run )?up": "resume",
    r"at work": "running, active",
    r"befalls?": "happens to",
    r"(thence|whence)": "so",
}
PATTERN = re.compile(rf"\b({'|'.join(BETTER)})\b", re.IGNORECASE)


def pages() -> list[Path]:
    inside = [path for folder in FOLDERS for suffix in ("*.py", "*.md") for path in (ROOT / folder).rglob(suffix)]
    found = [*inside, *(ROOT / page for page in PAGES)]
    return [path for path in found if path.relative_to(ROOT) not in NOT_READ]


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that people read: of a module its comments and strings, of a page all."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(source.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in TEXTS:
            yield from enumerate(token.string.splitlines(), token.start[0])


def test_no_text_reads_as_translated() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {odd.group(0)!r}"
        for path in pages()
        for line, text in texts(path)
        for odd in PATTERN.finditer(text)
    ]
    assert not found, "each has a plain word in BETTER"


@pytest.mark.parametrize("odd", ["It waits for ever.", "What was answered lies in a file.", "The ledger is away."])
def test_odd_phrase_is_found(odd: str) -> None:
    assert PATTERN.search(odd)
