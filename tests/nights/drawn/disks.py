"""Add full and read-only disks, for spill files and for the records that a run keeps."""

import random
from dataclasses import replace

from tests.nights.drawn.rare import spilling
from tests.nights.plan import Event, Night

FULL = 0.3
"""The share of nights with something of this."""
KINDS = (
    "spill_full",
    "spill_unwritable",
    "disks_full",
    "disks_full",
    "cut_spill",
    "cut_spill",
    "cut_spill",
    "spool_full",
)


def with_full_disks(night: Night) -> Night:
    """Let disks be full in some nights: most of them while the ledger is unavailable, so that they are needed."""
    rng = random.Random(f"disks {night.seed}")
    if rng.random() >= FULL:
        return night
    kind = rng.choice(KINDS)
    start = rng.choice(night.starts)
    lasts = round(rng.choice((20.0, 100.0, 1000.0)) * (0.5 + rng.random()), 3)
    if kind == "spool_full":
        return replace(night, events=(*night.events, Event(kind, start.at, start.host, lasts)))
    night, process, outage = spilling(night, rng, plus_start=rng.random() < 0.5)
    if kind == "cut_spill":
        trouble = Event(kind, who=process, nth=rng.choice((1, 1, 2)))
    else:
        trouble = Event(kind, outage.at, outage.who, lasts)
    return replace(night, events=(*night.events, trouble))
