"""Write values as HTML for people: texts from outside, money, numbers, moments and words of the ledger.

Every text from records, answers, errors, templates or keys is written by `text` or `passage`: control characters are
shown as marks, and the text can't change the direction of what stands around it.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from markupsafe import Markup, escape

from db.words import (
    BATCH,
    CACHED,
    CANCELLED,
    CAPPED,
    COMPLETED,
    CRASHED,
    FAILED,
    INVALID,
    REFUSED,
    RUNNING,
    SANDBOX,
    SKIPPED,
    SUCCEEDED,
    SUSPENDED,
    TRUNCATED,
    TRY,
)
from presswork.escaping import visible
from presswork.report.amounts import duration, percent

LOOKS: Mapping[str, str] = {
    **dict.fromkeys((SUCCEEDED, COMPLETED), "good"),
    **dict.fromkeys((CACHED, RUNNING, BATCH, TRY), "calm"),
    **dict.fromkeys((SKIPPED, CAPPED, CANCELLED, SUSPENDED, SANDBOX), "warn"),
    **dict.fromkeys((INVALID, TRUNCATED, REFUSED, FAILED, CRASHED), "bad"),
}
"""The look of a word of the ledger in a badge; all others are plain."""
NONE = Markup('<span class="none">none</span>')
SHORT_ID_END = 12  # as in the terminal: an id's end is random, so that ids of one second differ


def text(value: object) -> Markup:
    """Write a short text from outside, in its own direction."""
    return NONE if value is None else Markup('<bdi class="text" dir="auto">{}</bdi>').format(_harmless(value))


def passage(value: object) -> Markup:
    """Write a long text from outside as a block that keeps its lines."""
    return NONE if value is None else Markup('<div class="text passage" dir="auto">{}</div>').format(_harmless(value))


def code(value: object) -> Markup:
    """Write a text from outside that is code or JSON, as a block with a fixed pitch."""
    if value is None:
        return NONE
    made = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
    return Markup('<pre class="text" dir="auto" tabindex="0">{}</pre>').format(_harmless(made))


def cut(value: object, longest: int = 120) -> str:
    """Put a text on one line, cut to a length; the result is still to be written by `text`."""
    flat = " ".join(str(value)[: longest * 4].split())
    return flat if len(flat) <= longest else flat[: longest - 1].rstrip() + "…"


def number(value: float | None) -> Markup:
    """Write a number with its thousands apart."""
    return NONE if value is None else Markup('<data value="{}">{:,}</data>').format(value, value)


def amount(value: int | None) -> Markup:
    """Write a large number in three digits, such as tokens; the exact one is in its value and its title."""
    if value is None or abs(value) < 10_000:
        return number(value)
    for size, name in ((1_000_000_000, "bn"), (1_000_000, "M"), (1_000, "k")):
        if abs(value) >= size:
            shown = f"{value / size:.3g}" if abs(value) < 999.5 * size else f"{value / size:,.0f}"
            return Markup('<data value="{}" title="{:,}">{}&nbsp;{}</data>').format(value, value, shown, name)
    return number(value)


def money(cost: Decimal | None, unpriced: int = 0) -> Markup:
    """Write a cost in US dollars; the exact one is in its value and its title. An unknown price is never 0."""
    if cost is None:
        return Markup('<span class="none">unknown</span>')
    digits = 2 if abs(cost) >= 100 else 4
    # A cost that rounds to nothing is not nothing.
    shown = f"${cost:,.{digits}f}" if cost == 0 or abs(cost) >= Decimal("0.0001") else f"${plain(cost)}"
    shown = shown.replace("$-", "\N{MINUS SIGN}$")
    made = Markup('<data value="{}" title="{}">{}</data>').format(plain(cost), f"${plain(cost)}", shown)
    return made + Markup(' <span class="lacks">and {:,} unpriced</span>').format(unpriced) if unpriced else made


def plain(cost: Decimal) -> str:
    """Write a Decimal exactly, without an exponent and without zeros at its end."""
    shown = f"{cost:f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def moment(value: datetime | None) -> Markup:
    """Write a moment in UTC, to the second; the exact one is in its `datetime`."""
    if value is None:
        return NONE
    utc = value.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(utc.isoformat(), utc.strftime("%Y-%m-%d %H:%M:%S"))


def day(value: date | str | None) -> Markup:
    """Write a UTC day."""
    return NONE if value is None else Markup('<time datetime="{}">{}</time>').format(str(value), str(value))


def took(started: datetime, ended: datetime | None) -> str:
    """Write how long something took; empty if it has not ended."""
    return "" if ended is None else duration((ended - started).total_seconds())


def short(identifier: str | None) -> Markup:
    """Write the end of an id, which tells it from others; the whole one is in its title."""
    if identifier is None:
        return NONE
    return Markup('<code title="{}">{}</code>').format(visible(identifier), visible(identifier)[-SHORT_ID_END:])


def short_hash(value: str | None) -> Markup:
    """Write the beginning of a hash; the whole one is in its title."""
    return NONE if value is None else Markup('<code title="{}">{}</code>').format(visible(value), visible(value)[:10])


def badge(word: str | None) -> Markup:
    """Write a status, an origin, an endpoint or a trigger as a badge."""
    if word is None:
        return NONE
    return Markup('<span class="mark {}">{}</span>').format(LOOKS.get(word, "plain"), visible(word))


def share(part: float, whole: float) -> str:
    """Write a part of a whole as a percentage; empty if there is no whole."""
    if not whole:
        return ""
    return "< 1 %" if 0 < part / whole < 0.005 else percent(part / whole)


def _harmless(value: object) -> Markup:
    return escape(visible(str(value)))


FILTERS: Mapping[str, Callable[..., Any]] = {
    "amount": amount,
    "badge": badge,
    "code": code,
    "cut": cut,
    "day": day,
    "duration": duration,
    "moment": moment,
    "money": money,
    "number": number,
    "passage": passage,
    "percent": percent,
    "plain": plain,
    "short": short,
    "short_hash": short_hash,
    "text": text,
    "visible": visible,
}
"""The filters that pages use, by their names in templates."""
FUNCTIONS: Mapping[str, Callable[..., Any]] = {"share": share, "took": took}
"""The functions that pages use."""
