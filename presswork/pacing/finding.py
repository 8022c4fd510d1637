"""Find the rate limit of an endpoint that sends no rate headers, from what it accepts.

The finder knows only when each request was sent and whether it was refused (429). Refusals alone do not prove a limit:
some endpoints refuse a share of requests whatever the rate is. So each cut is on probation. The cut goes to the rate
that was accepted while requests were refused. If the share of refusals does not fall, the finder undoes the cut and
remembers the share. docs/decisions/0007 has the reasons and the measurements.
"""

import math
from collections import deque
from collections.abc import Callable

from presswork.pacing.buckets import Bucket
from presswork.pacing.evidence import LEAST_SHARE, Probation, Sent, Tally, Usual

BELOW = 0.97
"""The share of a found limit that is used, so that the endpoint's own bucket does not stay empty."""
ROOM = 2.0
"""Requests held back at a cut, to leave room for those that arrive a little early."""
ALARM, ALARM_AT_USUAL = 3.0, 5.0
"""The evidence that starts a measurement: two refusals close together, or more if some are usual."""
MEASURE_S, MEASURE_AT_MOST_S = 2.0, 30.0
ENOUGH, FEW_ACCEPTED = 10, 3
"""The number of accepted requests that shows a rate well, and the smallest that shows one at all."""
REFUSALS, REQUESTS, PROBATION_S = 12, 300, 10.0
"""A measurement is long enough with this many refusals or requests, or after this many seconds."""
PROBATION_REQUESTS = 500
"""A probation stops growth for at most this many requests, or for PROBATION_S."""
LIKELY_AT_FIRST, LIKELY_AT_LIMIT = 0.6, 0.3
"""A useless cut is undone up to these shares of refusals: before any limit was found, and after. A larger share
more likely means that other processes use up the same limit."""
REST_S, REST_REQUESTS = 10.0, 40
"""The pause in growth after a cut, in seconds and in requests: each probe costs two or three refusals."""
RAMP, FASTEST = 0.004, 0.2
"""Growth per second, as a share of the rate: it rises by RAMP each second, up to FASTEST. 40 s give a factor of 4."""
FULL_RATE, LEAST_GROWTH = 4.0, 0.1
"""Below this many requests per second growth is slower, since each probe costs refusals, however low the rate is."""
STEEP, PROBE_AFTER, DOUBLED_IN_S = 3.0, 10, 2.0
"""A cut this steep may have measured an endpoint in trouble: probe it at once, after this many requests."""
NEAR, FAR = 1.02, 1.3
"""Refused growth beyond the last limit is undone within these bounds; beyond them the rate is measured."""
LOWER_EVERY_S = 30.0
"""Refusals at the limit that end by themselves lower it a little, but at most once in this time."""
STORM = 1.0
"""Requests per second after a measurement in which almost nothing was accepted; halved each time."""
HELD_S, IDLE_S = 1.5, 5.0
"""A limit is in use if a request waited for it within HELD_S; the process is idle if it sent none for IDLE_S."""
AT_ONCE_S, LATE_S = 0.1, 5.0
"""The bounds on how long a refusal is expected to take."""


class Finder:
    """The limit that was found for one endpoint. `bucket` applies it; before, it limits nothing."""

    def __init__(self) -> None:
        self.bucket = Bucket()
        self.usual = Usual()
        # The current phase: _watch, _measure or _judge.
        self._phase: Callable[[float], None] = self._watch
        self._tally = Tally(-math.inf)
        self._probation: Probation | None = None
        # In the order in which they were sent. A refusal arrives at once and an answer late, so a request that is not
        # refused within the usual time of a refusal counts as accepted.
        self._sent: deque[Sent] = deque()
        self._sent_at = self._horizon = -math.inf
        self._refusal_s = AT_ONCE_S
        self._base = math.inf
        self._is_fresh = False
        self._rate_before = math.inf
        self._asked = 0
        self._empty = (-math.inf, 0)
        self._held_at = self._lowered_at = -math.inf
        self._grow_from = self._grown_at = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds that the next request has to wait."""
        self._look(now)
        wait = self.bucket.wait_s(1.0, now)
        if wait > 0:
            self._held_at = now
        return wait

    def is_holding(self, now: float, *, within_s: float = HELD_S) -> bool:
        """Whether a request recently had to wait for the limit that was found."""
        return now - self._held_at <= within_s

    def send(self, now: float) -> Sent:
        """Record that a request is sent."""
        is_working = self._phase != self._watch and self._asked and not self.is_holding(now)
        # A measurement across idle time would find a limit of almost nothing.
        if is_working and now - self._sent_at > IDLE_S + self._tally.pause_s:
            self._release(now)
        sent = Sent(now)
        self._sent.append(sent)
        self._sent_at = now
        self.bucket.take(1.0)
        return sent

    def refuse(self, sent: Sent, now: float, retry_after_s: float) -> None:
        """Record a 429."""
        sent.refused = True
        took = 2 * (now - sent.at) + AT_ONCE_S / 2
        self._refusal_s = min(max(AT_ONCE_S, 0.9 * self._refusal_s, took), LATE_S)
        if sent.at >= self._tally.since:
            self._tally.told_to_wait_s += retry_after_s
            if sent.counted:
                self._tally.refuse(sent)
                self._tally.suspect(self.usual.suspicious_above(now), refused=True)
        self._look(now)

    def hold_growth(self, now: float) -> None:
        """Pause growth, because the endpoint is in trouble."""
        self._grow_from = max(self._grow_from, now + 1.0)

    def _look(self, now: float) -> None:
        self._horizon = max(self._horizon, now - self._refusal_s)
        while self._sent and self._sent[0].at <= self._horizon:
            sent = self._sent.popleft()
            if not sent.lost:
                self._count(sent, now)
        self._phase(now)

    def _count(self, sent: Sent, now: float) -> None:
        sent.counted = True
        self._asked += 1
        if self._probation is not None:
            self._probation.count(sent)
        if sent.at < self._tally.since:
            return
        self._tally.count(sent)
        if self._phase == self._watch:
            self._tally.suspect(self.usual.suspicious_above(now), refused=sent.refused)
            self.usual.note(sent, at_rest=not self._is_probing)

    @property
    def _is_probing(self) -> bool:
        """Whether the rate has grown beyond the limit that was found last."""
        return self.bucket.rate > self._base * NEAR

    def _turn(self, phase: Callable[[float], None], now: float) -> None:
        self._phase, self._tally = phase, Tally(now)

    def _rest(self, now: float) -> None:
        """Pause growth for a while."""
        self._grow_from = now + max(REST_S, REST_REQUESTS / self.bucket.rate)

    # Watching

    def _watch(self, now: float) -> None:
        self._settle(now)
        alarm = ALARM if self.usual.share(now) < LEAST_SHARE else ALARM_AT_USUAL
        if self._tally.suspicion <= alarm / 2:
            self._grow(now)
        self._grown_at = now
        if self._tally.suspicion < alarm:
            return
        if self._is_probing and (self._is_fresh or self.bucket.rate < self._base * FAR):
            self._retreat(now)
        else:
            self._rate_before, self._is_fresh = self.bucket.rate, False
            self._turn(self._measure, now)

    def _grow(self, now: float) -> None:
        passed, rate = min(now - self._grown_at, 1.0), self.bucket.rate
        # Grow only when the limit is used up: otherwise it is unknown whether a higher rate would be accepted.
        if rate == math.inf or not self.is_holding(now):
            return
        if rate < self._base:
            # It was cut without a measurement.
            if self._tally.accepted:
                self.bucket.hold(min(rate * 2**passed, self._base), now)
        elif self._is_fresh:
            if now > self._tally.since + min(PROBE_AFTER / rate, IDLE_S):
                self.bucket.hold(rate * 2 ** (passed / DOUBLED_IN_S), now)
        elif now > self._grow_from:
            growth = min(RAMP * (now - self._grow_from), FASTEST) * min(1.0, max(rate / FULL_RATE, LEAST_GROWTH))
            self.bucket.hold(rate * math.exp(growth * passed), now)

    def _retreat(self, now: float) -> None:
        """Return to the last limit after growing beyond it, and correct it by the requests accepted since."""
        limit = self._base / BELOW
        since, asked = self._empty
        lasted = self._horizon - since
        if lasted >= PROBATION_S and not self._is_fresh:
            # The endpoint's bucket was empty then and is empty now, so it accepted exactly what has flowed in.
            let_in = self._asked - self._tally.suspicious - asked
            limit = min(max(let_in / lasted, BELOW * limit), self.bucket.rate)
        self._base, self._is_fresh = limit * BELOW, False
        self._cut(self._base, now)
        self._turn(self._watch, now)

    def _cut(self, rate: float, now: float) -> None:
        self.bucket.hold(rate, now)
        # Even at a slow rate one request may go: refused requests used nothing.
        self.bucket.level = 1.0 - min(ROOM, rate / 5)
        self._empty = (self._horizon, self._asked)
        self._rest(now)

    # Measuring

    def _measure(self, now: float) -> None:
        tally, lasted = self._tally, self._horizon - self._tally.since
        # Long enough that refused callers try again.
        least = min(max(MEASURE_S, 2 * tally.pause_s), MEASURE_AT_MOST_S)
        if lasted >= least and self._is_measured(lasted, now):
            self._conclude(lasted, now)
        elif lasted >= least / 2 and self.bucket.rate == self._rate_before and tally.asked >= 2 * ENOUGH:
            # Far beyond a limit, send three times the accepted rate: that shows as much, with fewer refusals.
            rate = 3 * tally.accepted / lasted + 2 * STORM
            if tally.share > 0.5 and rate < self.bucket.rate:
                self.bucket.hold(rate, now)
                self.bucket.level = 1.0

    def _is_measured(self, lasted: float, now: float) -> bool:
        tally = self._tally
        if lasted >= PROBATION_S:
            return tally.accepted >= FEW_ACCEPTED or lasted >= MEASURE_AT_MOST_S
        is_false_alarm = tally.refused - tally.asked * self.usual.share(now) <= 1
        is_plain = is_false_alarm or tally.refused >= REFUSALS or tally.asked >= REQUESTS
        return is_plain and tally.accepted >= ENOUGH

    def _conclude(self, lasted: float, now: float) -> None:
        tally, usual = self._tally, self.usual.share(now)
        over = tally.share - usual
        # If a limit is already known, other processes that probe it cause refusals, until they lower their rate.
        has_passed = self._base < math.inf and tally.late_share - usual < over / 2
        if has_passed or not tally.is_unusual(usual):
            self._dismiss(now)
        elif tally.accepted < FEW_ACCEPTED:
            self._cut(STORM if self.bucket.rate > STORM else max(self.bucket.rate / 2, STORM / 30), now)
            self._turn(self._watch, now)
        else:
            # A second cut before the first is decided belongs to the same probation: both may be undone.
            if self._probation is None:
                self._probation = Probation(tally, usual, rate=self._rate_before, base=self._base, now=now)
            rate = tally.accepted / lasted / (1 - usual) * BELOW
            self._is_fresh = self._base == math.inf or self._rate_before > STEEP * rate
            self._base = rate
            self._cut(rate, now)
            self._turn(self._judge, now)

    def _dismiss(self, now: float) -> None:
        tally, usual = self._tally, self.usual.share(now)
        self._release(now)
        if self._base == math.inf:
            return
        if self._is_probing:
            if tally.refused - tally.asked * usual > 1:
                self._retreat(now)
        elif now - self._lowered_at > LOWER_EVERY_S and usual < LEAST_SHARE:
            # The limit was reached after all: several processes that share it stay below it together.
            self._lowered_at = now
            self._base = self.bucket.rate * BELOW
            self.bucket.hold(self._base, now)
            self._rest(now)

    def _release(self, now: float) -> None:
        if self._phase == self._measure:
            self.bucket.hold(self._rate_before, now)
        self._turn(self._watch, now)

    # Judging

    def _judge(self, now: float) -> None:
        probation, lasted = self._probation, self._horizon - self._tally.since
        if probation is None or self._horizon < probation.settled_at:
            return
        asked = self._tally.asked
        is_long_enough = (lasted >= PROBATION_S and asked >= ENOUGH / 2) or asked >= PROBATION_REQUESTS
        if probation.has_helped is not None or is_long_enough:
            # An undecided probation continues while the finder watches.
            self._settle(now)
            self._turn(self._watch, now)

    def _settle(self, now: float) -> None:
        """End a probation that is decided, or that growth has passed."""
        probation = self._probation
        if probation is None or (probation.has_helped is None and self.bucket.rate < 0.9 * probation.rate):
            return
        self._probation = None
        if probation.has_helped is not False or probation.is_void:
            return
        likely = LIKELY_AT_FIRST if probation.base == math.inf else LIKELY_AT_LIMIT
        self.usual.learn(min(probation.share, likely), now)
        self._tally.suspicion, self._tally.suspicious = 0.0, 0
        if probation.share <= likely:
            self._base = probation.base
            self.bucket.hold(probation.rate, now)
