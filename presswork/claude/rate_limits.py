"""Read an endpoint's rate limits from its headers: what is left of each in this minute, and how long to wait."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from db.machine import utc_now


@dataclass(frozen=True, slots=True)
class Limit:
    """One of the endpoint's rate limits, from the headers of an answer."""

    limit: int
    remaining: int


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The account's limits a minute and what is left of them. All users of the account share them."""

    requests: Limit | None
    input_tokens: Limit | None
    output_tokens: Limit | None


def read_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Read the anthropic-ratelimit-* headers. None if the endpoint sends none."""
    limits = RateLimits(*(_limit(headers, name) for name in ("requests", "input-tokens", "output-tokens")))
    return None if limits == RateLimits(None, None, None) else limits


def _limit(headers: Mapping[str, str], name: str) -> Limit | None:
    prefix = f"anthropic-ratelimit-{name}-"
    try:
        return Limit(*(int(float(headers[prefix + what])) for what in ("limit", "remaining")))
    except (KeyError, ValueError, OverflowError):
        return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `retry-after` (seconds or an HTTP date) as seconds of at least 0. None if it is missing or unreadable.

    The result may be any number, even infinity, so the caller must bound its wait.
    """
    text = headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        until = _date(text)
    if until is None:
        return None
    # By the endpoint's clock if it sends a date, because ours may be wrong.
    return max(0.0, (until - (_date(headers.get("date", "")) or utc_now())).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        read = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    # "-0000" means an unknown time zone; HTTP dates are in UTC.
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)
