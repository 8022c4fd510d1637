"""Read the dates and moments that people type, on the command line and on a page. All times are UTC.

A date or a word for a day means its first moment, because figures are sums over whole UTC days.
"""

import re
from datetime import UTC, datetime, time, timedelta

ACCEPTED = "2026-03-01, 2026-03-01T14:30Z, today, yesterday, 7d, 12h"
_AGO = re.compile(r"(\d{1,5})\s*([hdw])", re.ASCII)
_DAYS = {"d": 1, "w": 7}
_WORDS = {"today": 0, "yesterday": 1}


def moment_of(text: str, now: datetime) -> datetime:
    """Return the moment that a text means: a date, an ISO 8601 moment, a day's word, or how long ago.

    `7d` is the beginning of the UTC day seven days before `now`, `12h` is twelve hours before it, to the minute. A
    moment without a zone is in UTC. Raises a ValueError for anything else.
    """
    plain = text.strip().lower()
    utc = now.astimezone(UTC)
    ago = _AGO.fullmatch(plain)
    try:
        if plain in _WORDS:
            return _day_before(utc, _WORDS[plain])
        if ago and ago[2] == "h":
            return utc.replace(second=0, microsecond=0) - timedelta(hours=int(ago[1]))
        if ago:
            return _day_before(utc, int(ago[1]) * _DAYS[ago[2]])
        found = datetime.fromisoformat(text.strip())
        return found.replace(tzinfo=UTC) if found.utcoffset() is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no date or moment; examples: {ACCEPTED}") from None


def _day_before(moment: datetime, days: int) -> datetime:
    return datetime.combine(moment.date() - timedelta(days=days), time(), UTC)
