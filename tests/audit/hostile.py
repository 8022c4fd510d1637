"""Texts that a page must show as text."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = (
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)" x=\'',
    "<svg/onload=alert(1)>",
    "javascript:alert(1)",
    "\u202egnp.exe\u2066",
    "zero\u200bwidth\ufeff",
    "\x1b[2J\x1b]0;owned\x07",
    "=cmd|' /C calc'!A0",
    "</bdi></td></table>{{ 7 * 7 }}${7}",
    "a\r\nset-cookie: x=y",
)
_UNSEEN = "\u202e\u2066\u200b\ufeff\x1b\x07"


class _Parts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "iframe", "object", "embed", "style", "base"}:
            self.wrong.append(tag)
        for name, value in attrs:
            leads_away = name in {"href", "src", "action"} and not (value or "").startswith(
                ("/", "#", "http://127.0.0.1")
            )
            if name.startswith("on") or name == "style" or leads_away:
                self.wrong.append(f"{tag} {name}={value}")


def faults_in(html: str) -> list[str]:
    """What of the texts above acts on a page: a tag, a handler, a link, an invisible or moving character."""
    parts = _Parts()
    parts.feed(html)
    return parts.wrong + [f"U+{ord(each):04X}" for each in _UNSEEN if each in html]
