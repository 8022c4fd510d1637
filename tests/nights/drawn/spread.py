"""Move what happens at a time to where a run is at work: starts are up to hours apart."""

import math
import random
from dataclasses import replace

from tests.nights.plan import Night
from tests.nights.served.endpoint_faults import EndpointFault

MOVED = 0.7
"""The share of timed events, and of the endpoint's faults, whose time is counted from a start."""


def spread_over_starts(night: Night) -> Night:
    """Count the times of most events and faults from a start that the seed chooses."""
    rng = random.Random(f"spread {night.seed}")
    begins = [start.at for start in night.starts]
    events = tuple(
        replace(each, at=round(each.at + rng.choice(begins), 3)) if each.is_timed and rng.random() < MOVED else each
        for each in night.events
    )
    faults = tuple(_later(each, rng.choice(begins)) if rng.random() < MOVED else each for each in night.faults)
    return replace(night, events=events, faults=faults)


def _later(fault: EndpointFault, seconds: float) -> EndpointFault:
    ends = fault.ends if math.isinf(fault.ends) else round(fault.ends + seconds, 3)
    return replace(fault, begins=round(fault.begins + seconds, 3), ends=ends)
