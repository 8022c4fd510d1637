"""What goes wrong at a simulated endpoint: faults of the sandbox, of gateways in front of it, and of the way there.

A fault is a plain value, so that a night can leave it out and be run again.
"""

import math
import random
from dataclasses import dataclass

from sandbox.switches import FAULTS
from tests.nights.served.spoilt_replies import ANSWER_RULES, GATEWAY_RULES

AWAY = "away"
"""No connection can be made, and those that exist are lost."""
LOST_BEFORE = "lost_before"
"""The connection is lost before the request has arrived."""
TOO_SLOW = "too_slow"
"""The answer comes after the client's timeout."""
OF_THE_RECORD = frozenset({"blocked", "too_large", "quotes_key"})
"""Faults that hit the same bodies each time, as a firewall does."""
STOPPING = ("spend_limit", "key_refused", "no_credit", "gateway_budget", "other_endpoint")
"""Faults after which the run stops."""
LONGEST_BURST_S = 60.0
"""How long a drawn burst lasts at most, in which no request is answered."""
ALL_FAULTS = (*FAULTS, AWAY, LOST_BEFORE, TOO_SLOW, *GATEWAY_RULES, *ANSWER_RULES)


@dataclass(frozen=True, slots=True)
class EndpointFault:
    """A fault with its rate among the requests that arrive while it lasts, in the world's seconds."""

    name: str
    rate: float = 1.0
    begins: float = 0.0
    ends: float = math.inf

    def __post_init__(self) -> None:
        if self.name not in ALL_FAULTS:
            raise ValueError(f"no such fault: {self.name}")

    def __str__(self) -> str:
        return f"{self.name} at {self.rate:g} from {self.begins:,.1f} s to {self.ends:,.1f} s"

    def lasts(self, now: float) -> bool:
        """Whether it happens at that time."""
        return self.begins <= now < self.ends


def draw_faults(rng: random.Random, until: float) -> tuple[EndpointFault, ...]:
    """Draw the faults of a night: a few kinds, each in a part of the time before `until`."""
    ordinary = [name for name in ALL_FAULTS if name not in STOPPING and name != AWAY]
    kinds = rng.sample(ordinary, rng.randrange(7))
    found = [_window(rng, name, until, 0.02 + 0.4 * rng.random() ** 2) for name in kinds]
    # A burst is short, because each of its many refusals is a row that is committed.
    bursts = [name for name, chance in ((AWAY, 0.3), ("overloaded", 0.15)) if rng.random() < chance]
    found += [_window(rng, name, until, 1.0, LONGEST_BURST_S) for name in bursts]
    if rng.random() < 0.15:
        found.append(_window(rng, rng.choice(STOPPING), until, 0.02))
    return tuple(found)


def _window(rng: random.Random, name: str, until: float, rate: float, most_s: float = math.inf) -> EndpointFault:
    begins = until * rng.random() * rng.choice((0.0, 0.5, 0.9))
    lasts = min((until - begins) * rng.choice((0.05, 0.3, 1.0)), most_s)
    return EndpointFault(name, round(rate, 3), round(begins, 3), round(begins + lasts, 3))
