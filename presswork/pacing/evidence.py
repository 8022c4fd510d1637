"""Weigh the evidence for an unknown limit: how many 429s there were, how many are usual, whether a cut helped.

This is the arithmetic for finding.py, which decides. Evidence is the logarithm of odds, added up request by request
(Wald's sequential test). So a large difference shows after few requests and a small one after many.
"""

import math
from collections import deque
from dataclasses import dataclass, field

UNUSUAL = 0.15
"""Refusals matter when their share is this far above the usual one."""
LEAST_SHARE, FEWEST = 0.02, 5
"""Below this share of refusals, or this number beyond the usual ones, a cut is not worth it."""
SURE = 5.0
"""The evidence that decides a probation: about one in 150 is decided wrongly."""
SETTLE_S = 4.0
"""Probation lasts at least this long times the share of refusals: other processes may be finding the same limit."""
TRY_AGAIN_S, TRY_AGAIN_AT_MOST_S = 60.0, 600.0
"""When to test again a share that no cut has lowered; the time doubles with each test."""
FOLLOWED_OVER = 200
"""The number of requests over which such a share is averaged when it falls."""
BATCH_SIZE, BATCHES = 20, 10
"""Below a limit, refusals are counted in blocks of this many requests, and this many blocks are kept."""
AT_REST_AT_MOST = 0.025
"""Below a limit, a share up to this one counts as usual without probation. If it were higher, processes that share a
limit would count each other's refusals as usual."""


def weigh(low: float, high: float, *, refused: bool) -> float:
    """Return how much one request supports `high` over `low` as the share of refusals."""
    return math.log(high / low) if refused else math.log((1 - high) / (1 - low))


@dataclass(slots=True)
class Sent:
    """A request that was sent; `lost` if it is unknown whether it was refused."""

    at: float
    refused: bool = False
    lost: bool = False
    counted: bool = False


@dataclass(slots=True)
class Tally:
    """Counts the requests sent since a moment; `late` are those sent more than a second after it.

    `suspicion` is the evidence that more requests are refused than usual, `suspicious` the refusals behind it.
    """

    since: float
    asked: int = 0
    refused: int = 0
    late: int = 0
    late_refused: int = 0
    told_to_wait_s: float = 0.0
    suspicion: float = 0.0
    suspicious: int = 0

    @property
    def accepted(self) -> int:
        """Requests that were not refused."""
        return self.asked - self.refused

    @property
    def share(self) -> float:
        """The share of refusals."""
        return self.refused / self.asked if self.asked else 0.0

    @property
    def late_share(self) -> float:
        """The share of refusals after the first second."""
        return self.late_refused / self.late if self.late else 0.0

    @property
    def pause_s(self) -> float:
        """How long the endpoint asks refused callers to wait, on average."""
        return self.told_to_wait_s / self.refused if self.refused else 0.0

    def count(self, sent: Sent) -> None:
        """Add a request."""
        self.asked += 1
        self.late += sent.at >= self.since + 1.0
        if sent.refused:
            self.refuse(sent)

    def refuse(self, sent: Sent) -> None:
        """Add the refusal of a request that was already counted."""
        self.refused += 1
        self.late_refused += sent.at >= self.since + 1.0

    def suspect(self, usual: float, *, refused: bool) -> None:
        """Weigh one more request as evidence for refusals above the usual share."""
        self.suspicion = max(0.0, self.suspicion + weigh(usual, usual + UNUSUAL, refused=refused))
        self.suspicious = self.suspicious + refused if self.suspicion else 0

    def is_unusual(self, usual: float) -> bool:
        """Whether more requests were refused than usual, beyond chance and enough to matter."""
        over = self.refused - self.asked * usual
        chance = 3 * math.sqrt(self.asked * usual * (1 - usual))
        return over >= max(FEWEST, chance) and self.share - usual >= max(LEAST_SHARE, usual / 4)


@dataclass
class Usual:
    """The share of refusals that no cut of the rate has lowered."""

    _share: float = 0.0
    _judged: float = 0.0
    _doubted_at: float = math.inf
    _doubted_in_s: float = TRY_AGAIN_S
    _block: Tally = field(default_factory=lambda: Tally(-math.inf))
    _blocks: deque[float] = field(default_factory=lambda: deque(maxlen=BATCHES))

    def share(self, now: float) -> float:
        """The share; 0 when it is time to test a cut again."""
        return self._share if now < self._doubted_at else 0.0

    def suspicious_above(self, now: float) -> float:
        """The share above which refusals are suspicious."""
        # Random refusals spread over all blocks; those caused by others who try a higher rate fall into a few.
        at_rest = sorted(self._blocks)[len(self._blocks) // 3] if self._blocks else 0.0
        return max(self.share(now), LEAST_SHARE / 2, min(at_rest, AT_REST_AT_MOST))

    def learn(self, share: float, now: float) -> None:
        """Remember a share that a cut did not lower."""
        self._share = self._judged = share
        self._doubted_at = now + self._doubted_in_s
        self._doubted_in_s = min(2 * self._doubted_in_s, TRY_AGAIN_AT_MOST_S)

    def note(self, sent: Sent, *, at_rest: bool) -> None:
        """Lower the share when refusals become fewer, and count those that occur while the rate is constant."""
        if self._judged:
            self._share = min(self._judged, self._share + (sent.refused - self._share) / FOLLOWED_OVER)
        if at_rest:
            self._block.count(sent)
            if self._block.asked == BATCH_SIZE:
                self._blocks.append(self._block.share)
                self._block = Tally(-math.inf)


class Probation:
    """A cut on probation: either refusals keep their share, so that the cut was useless, or they become much fewer."""

    def __init__(self, measured: Tally, usual: float, *, rate: float, base: float, now: float) -> None:
        self.rate, self.base = rate, base
        self.high = min(measured.share, 0.98)
        self.low = max(usual, min(LEAST_SHARE, self.high / 4), min(self.high / 2, self.high - 0.1))
        self.settled_at = now + SETTLE_S * self.high
        self._counts_from = now + SETTLE_S * self.high / 2
        self._before = measured
        self.after = Tally(self._counts_from)
        self.evidence = 0.0

    @property
    def share(self) -> float:
        """The share of refusals before and after the cut together."""
        return (self._before.refused + self.after.refused) / max(self._before.asked + self.after.asked, 1)

    @property
    def has_helped(self) -> bool | None:
        """Whether the cut helped; None while that is not known."""
        return None if abs(self.evidence) < SURE else self.evidence < 0

    @property
    def is_void(self) -> bool:
        """Whether refusals increased so much that something else must have changed."""
        return self.after.share > 1.5 * self.high + 0.05

    def count(self, sent: Sent) -> None:
        """Weigh one request."""
        if sent.at >= self._counts_from:
            self.after.count(sent)
            self.evidence += weigh(self.low, self.high, refused=sent.refused)
