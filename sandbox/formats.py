"""Make strings of the formats that the API's schemas may name. Addresses are in the ranges reserved for examples."""

import re
from datetime import date, timedelta
from uuid import UUID

from sandbox.draws import Draw
from sandbox.hints import ANY_MOMENT, Moment
from sandbox.topics import Topic


def formatted(format_: str, topic: Topic, draw: Draw, moment: Moment = ANY_MOMENT) -> str:
    """A string of that format; empty for an unknown format."""
    made = _formatted(format_, topic, draw)
    if format_ in {"date", "date-time"}:
        made = _day_within(made[:10], moment) + made[10:]
    return made if moment.zone else made.removesuffix("Z")


def _day_within(day: str, moment: Moment) -> str:
    try:
        if moment.above and day <= moment.above[:10]:
            day = str(date.fromisoformat(moment.above[:10]) + timedelta(days=1))
        if moment.below and day >= moment.below[:10]:
            day = str(date.fromisoformat(moment.below[:10]) - timedelta(days=1))
    except (ValueError, OverflowError):  # an end that is no date
        return day
    return day


def is_day(text: str, moment: Moment) -> bool:
    """Whether a text is a date within the moment's ends."""
    try:
        return _day_within(date.fromisoformat(text).isoformat(), moment) == text
    except ValueError:
        return False


def _formatted(format_: str, topic: Topic, draw: Draw) -> str:
    day = f"2026-{draw.between(1, 12):02}-{draw.between(1, 28):02}"
    hour = f"{draw.between(8, 18):02}:{draw.between(0, 59):02}:00"
    match format_:
        case "date":
            return day
        case "time":
            return f"{hour}Z"
        case "date-time":
            return f"{day}T{hour}Z"
        case "duration":
            return f"P{draw.between(1, 14)}D"
        case "email":
            return f"{_slug(topic.person or topic.subject)}@example.com"
        case "hostname":
            return f"{_slug(topic.subject)}.example.com"
        case "uri":
            return f"https://example.com/{_slug(topic.subject)}"
        case "ipv4":
            return f"192.0.2.{draw.between(1, 254)}"
        case "ipv6":
            return f"2001:db8::{draw.between(1, 0xFFFF):x}"
        case "uuid":
            return str(UUID(int=draw.below(1 << 32) << 96 | draw.below(1 << 32) << 64 | draw.below(1 << 32), version=4))
        case _:
            return ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-") or "example"
