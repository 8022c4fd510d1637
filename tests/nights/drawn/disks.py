"""Add full and read-only disks: for spill files and for the records that a run keeps."""

import random
from dataclasses import replace

from tests.nights.drawn.rare import spilling
from tests.nights.plan import Event, Night

FULL = 0.22
"""The share of nights with something of this."""
INDEXED = 0.12
"""The share of nights whose ledger has an index of words."""


def with_full_disks(night: Night) -> Night:
    """Let disks be full in some nights: most of them while the ledger is unavailable, so that they are needed."""
    rng = random.Random(f"disks {night.seed}")
    night = replace(night, indexed=rng.random() < INDEXED)
    if rng.random() >= FULL:
        return night
    kind = rng.choice(("spill_full", "spill_unwritable", "disks_full", "cut_spill", "cut_spill", "spool_full"))
    start = rng.choice(night.starts)
    lasts = round(rng.choice((5.0, 100.0, 1000.0)) * (0.5 + rng.random()), 3)
    if kind == "spool_full":
        return replace(night, events=(*night.events, Event(kind, start.at, start.host, lasts)))
    night = spilling(night, rng, plus_start=rng.random() < 0.5)
    outage = night.events[-1]
    if kind == "cut_spill":
        # By the number of a process, the first of which are those of runs.
        trouble = Event(kind, who=rng.randrange(3), nth=rng.choice((1, 1, 2)))
    else:
        trouble = Event(kind, outage.at, outage.who, lasts)
    return replace(night, events=(*night.events, trouble))
