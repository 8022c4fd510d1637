"""The sandbox's clocks: no other module of it asks the time, so a simulation can pass its own."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clocks:
    """Functions that return seconds: since the epoch, and since any moment in the past, by a clock that nobody sets."""

    wall_s: Callable[[], float] = time.time
    monotonic_s: Callable[[], float] = time.monotonic


REAL_CLOCKS = Clocks()
"""The machine's own."""
