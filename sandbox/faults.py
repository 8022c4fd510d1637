"""Draw the fault and the latency of each request.

The draw depends on the seed, the body's digest and how often that body was seen. So a run repeats exactly in any order
of its requests, and a repeated body gets a new draw.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from sandbox.draws import Draw, digest
from sandbox.switches import Switches

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class DrawnFault:
    """The draw for a request: its fault ("" for none), its latency in seconds, and a key for further draws."""

    fault: str
    latency: float
    key: bytes


def draw_fate(switches: Switches, body: bytes, seen: int) -> DrawnFault:
    """Draw for a body, given its digest and how often it was seen before."""
    key = digest(b"%d" % switches.seed, body, b"%d" % seen)
    fault = _fault(switches, int.from_bytes(key[:6], "little") / (1 << 48))
    latency = _latency(switches, int.from_bytes(key[6:12], "little") / (1 << 48))
    if fault == "stall":
        latency += switches.stall_seconds
    return DrawnFault(fault, latency, key)


def misses_cache(switches: Switches, body: bytes, seen: int) -> bool:
    """Draw whether a request misses the prompt cache, even if its prefix is cached."""
    if not switches.cache_missed:
        return False
    return Draw(digest(b"cache %d" % switches.seed, body, b"%d" % seen)).fraction() < switches.cache_missed


def _fault(switches: Switches, point: float) -> str:
    for name, rate in switches.rates:
        if point < rate:
            return name
        point -= rate
    return ""


def _latency(switches: Switches, point: float) -> float:
    median = switches.latency_ms / 1000
    if not median or not switches.latency_spread:
        return median
    return median * math.exp(switches.latency_spread * _NORMAL.inv_cdf(min(max(point, 1e-9), 1 - 1e-9)))
