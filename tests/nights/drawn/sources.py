"""Add what goes wrong with the user's own data: the source's database, its keys and values, and the templates."""

import random
from dataclasses import replace

from tests.nights.plan import Event, Night

FAILING = 0.3
"""The share of nights with something of this."""
KINDS = (
    *("source_unavailable", "source_lost", "source_lost", "source_fails"),
    *("null_key", "repeated_key", "unstorable_key"),
    *("odd_value", "odd_value", "odd_value", "odd_value", "bad_template", "bad_template"),
)


def with_failing_sources(night: Night) -> Night:
    """Add one to three such things to some nights; each is there when a run begins."""
    rng = random.Random(f"sources {night.seed}")
    if rng.random() >= FAILING:
        return night
    events = [_event(night, rng, rng.choice(KINDS)) for _each in range(rng.choice((1, 2, 3)))]
    return replace(night, events=(*night.events, *events))


def _event(night: Night, rng: random.Random, kind: str) -> Event:
    lasts = round(rng.choice((0.5, 5.0, 40.0, 400.0)) * (0.5 + rng.random()), 3)
    at = rng.choice(night.starts).at - lasts * rng.choice((0.0, 0.5)) * rng.random()
    return Event(kind, round(max(0.0, at), 3), rng.randrange(14), lasts)
