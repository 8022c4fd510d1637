"""Count for GET /sandbox/stats: requests, statuses, faults, and tokens served and dropped."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

# A body's 16-byte digest takes about 130 bytes of memory. A long rehearsal has 2 million bodies, 260 MB.
_REMEMBERED = 2_000_000


@dataclass(slots=True)
class Tokens:
    """Sums over answers."""

    answers: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_5m_tokens: int = 0
    cache_creation_1h_tokens: int = 0
    cache_read_tokens: int = 0

    def add(self, usage: "Tokens") -> None:
        """Add another sum."""
        self.answers += usage.answers
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cache_creation_5m_tokens += usage.cache_creation_5m_tokens
        self.cache_creation_1h_tokens += usage.cache_creation_1h_tokens
        self.cache_read_tokens += usage.cache_read_tokens


class Bodies:
    """How often each body was seen, and whether it got a good answer."""

    def __init__(self) -> None:
        """Start with none."""
        self._seen: dict[bytes, int] = {}  # twice the times seen, plus 1 after a good answer

    def __len__(self) -> int:
        """The number of distinct bodies."""
        return len(self._seen)

    def seen(self, body: bytes) -> int:
        """How often `see` was called for this body."""
        return self._seen.get(body, 0) >> 1

    def see(self, body: bytes) -> bool:
        """Count a body. Returns True if it had a good answer before, so the client pays twice."""
        known = self._seen.get(body, 0)
        if not known and len(self._seen) >= _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[body] = known + 2
        return bool(known & 1)

    def answered(self, body: bytes) -> None:
        """Note that a good answer to this body was sent to its end."""
        self._seen[body] = self._seen.get(body, 2) | 1


@dataclass(slots=True)
class Counts:
    """All counts since the start or the last reset; `requests` are those to POST /v1/messages.

    The clock gives seconds since any moment.
    """

    clock: Callable[[], float]
    started: float = field(init=False)
    last: float = 0
    requests: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    repeated_bodies: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    by_fault: Counter[str] = field(default_factory=Counter)
    by_stop_reason: Counter[str] = field(default_factory=Counter)
    other_requests: Counter[str] = field(default_factory=Counter)
    served: Tokens = field(default_factory=Tokens)
    dropped: Tokens = field(default_factory=Tokens)
    bodies: Bodies = field(default_factory=Bodies)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def enter(self) -> None:
        """Count a new request."""
        self.requests += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def leave(self, status: str) -> None:
        """Count the end of a request: its HTTP status, or "dropped" for its connection."""
        self.in_flight -= 1
        self.by_status[status] += 1
        self.last = self.clock()

    def report(self) -> dict[str, object]:
        """The counts as JSON. The rate is over the time up to the last answer."""
        busy = max(self.last - self.started, 1e-9)
        return {
            "seconds": round(self.clock() - self.started, 3),
            "requests": self.requests,
            "requests_per_second": round(self.requests / busy, 1) if self.last else 0.0,
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "distinct_bodies": len(self.bodies),
            "repeated_bodies": self.repeated_bodies,
            "by_status": dict(self.by_status),
            "by_fault": dict(self.by_fault),
            "by_stop_reason": dict(self.by_stop_reason),
            "other_requests": dict(self.other_requests),
            "served": asdict(self.served),
            "dropped": asdict(self.dropped),
        }
