"""Add what needs several things at once, which chance alone would bring together in a night of a hundred."""

import math
import random
from collections.abc import Callable
from dataclasses import replace

from tests.nights.plan import Event, Night, Start
from tests.nights.served.endpoint_faults import EndpointFault

RARE = 0.7
"""The share of nights with something of this."""
GATEWAY_FAULTS = ("proxy_before", "proxy_after", "proxy_after", "own_timeout", "no_usage", "half_json")
BEGINS_S = 3.0
"""How long a run takes about until its first request."""
LAPSES_S = 140.0
"""A process that stops for longer has lost its lease by then."""


def with_rare_things(night: Night) -> Night:
    """Add one or two such things to most nights."""
    rng = random.Random(f"rare {night.seed}")
    if rng.random() >= RARE:
        return night
    for added in rng.sample(_RARE, k=rng.choice((1, 1, 2))):
        night = added(night, rng)
    return night


def _replaced(night: Night, rng: random.Random) -> Night:
    """Stop a process until its lease has expired; meanwhile somebody starts the job, or its flow run, again."""
    night, number, at = working(night, rng)
    start = night.starts[number]
    stops = round(LAPSES_S + 20 + 300 * rng.random(), 2)
    later = at + LAPSES_S + (stops - LAPSES_S) * rng.random()
    again = replace(start, at=round(later, 3), again=rng.random() < 0.4, resumes=rng.random() < 0.2)
    return _plus(night, again, Event("pause", at, process_of(night, start), stops))


def _started_twice(night: Night, rng: random.Random) -> Night:
    """Start a flow run again while its process works."""
    night, number, at = working(night, rng)
    start = night.starts[number]
    twice = replace(start, at=round(start.at + rng.choice((0.2, 2.0, 20.0)) * rng.random(), 3), again=True)
    pause = Event("pause", min(at, twice.at), process_of(night, start), 60.0)
    return _plus(night, twice, *([] if rng.random() < 0.5 else [pause]))


def _interrupted(night: Night, rng: random.Random) -> Night:
    """Press Ctrl-C or Cancel, or send SIGTERM, soon after a start; some do it twice."""
    night, start = _requesting(night, rng)
    at = round(start.at + rng.choice((0.1, 0.5, 3.0)) * rng.random(), 3)
    kind = rng.choice(("interrupt", "interrupt", "terminate", "cancel"))
    return _plus(night, None, Event(kind, at, rng.randrange(5), rng.choice((0.0, 0.0, 0.5))))


def _suspended(night: Night, rng: random.Random) -> Night:
    """Let runs be suspended, and let something happen in the time in which they wait, or to who resumes them."""
    starts = tuple(each if each.trial or rng.random() < 0.4 else replace(each, job="reviewed") for each in night.starts)
    at = round(rng.choice(starts).at + 40 * rng.random(), 3)
    kind = rng.choice(("reboot", "edit", "unavailable", "jump", "compact"))
    size = -200.0 if kind == "jump" else round(1 + 60 * rng.random(), 2)
    return _plus(replace(night, starts=starts), None, Event(kind, at, rng.randrange(night.hosts), size))


def _gateway(night: Night, rng: random.Random) -> Night:
    """Put a gateway in front of the endpoint that fails, or answers with another model."""
    night, start = _requesting(night, rng)
    added = [
        EndpointFault(name, round(0.2 + 0.5 * rng.random(), 3), start.at, round(start.at + 5 + 30 * rng.random(), 3))
        for name in rng.sample(GATEWAY_FAULTS, k=2)
    ]
    if rng.random() < 0.6:
        added.append(EndpointFault("another_model", round(0.4 + 0.6 * rng.random(), 3), start.at, start.at + 60.0))
    if rng.random() < 0.5:
        # The client's timeout is longer than most answers take.
        night = replace(night, settings=tuple((dict(night.settings) | {"request_timeout_s": 60}).items()))
        added.append(EndpointFault("too_slow", round(0.1 + 0.3 * rng.random(), 3), start.at, start.at + 60.0))
    return replace(night, faults=(*night.faults, *added))


def _spilled(night: Night, rng: random.Random) -> Night:
    """Let the ledger be unavailable for longer than a run waits for it; another run is started afterwards."""
    night, _number, _outage = spilling(night, rng, plus_start=True)
    return night


def spilling(night: Night, rng: random.Random, *, plus_start: bool) -> tuple[Night, int, Event]:
    """Let the ledger be unavailable for longer than a run waits for it; also returns the run's process, and when."""
    night, number, at = working(night, rng)
    start = night.starts[number]
    lasts = round(15 + 200 * rng.random(), 2)
    kind = rng.choice(("unavailable", "unavailable", "full", "locked", "partition"))
    outage = Event(kind, at, start.host, lasts)
    later = Start(round(outage.at + lasts + 100 * rng.random(), 3), start.job, rng.randrange(night.hosts))
    settings = dict(night.settings) | {"database_patience_s": rng.choice((0, 5))}
    night = _plus(replace(night, settings=tuple(settings.items())), later if plus_start else None, outage)
    return night, process_of(night, start), outage


def _failing(night: Night, rng: random.Random) -> Night:
    """Let a statement and a commit of a process fail once, each anywhere."""
    statement, commit = (int(10 ** (rng.random() * powers)) + 1 for powers in (2.5, 1.6))
    events = (
        Event("fail_statement", who=rng.randrange(5), nth=statement),
        Event("fail_commit", who=rng.randrange(5), nth=commit),
    )
    return _plus(night, None, *events)


def working(night: Night, rng: random.Random) -> tuple[Night, int, float]:
    """Let a start have requests in flight for a while; returns its number, and a time at which it has."""
    night, start = _requesting(night, rng)
    switches = dict(night.switches)
    switches["latency_ms"] = max(350, switches.get("latency_ms", 350))
    number, start = night.starts.index(start), replace(start, concurrency=min(2, start.concurrency), limit=None)
    starts = (*night.starts[:number], start, *night.starts[number + 1 :])
    rounds = math.ceil(night.records / start.concurrency)
    at = start.at + BEGINS_S + rounds * switches["latency_ms"] / 1000 * rng.random()
    return replace(night, starts=starts, switches=tuple(switches.items())), number, round(at, 3)


def process_of(night: Night, start: Start) -> int:
    """Return the number of a start's process, if no flow run is resumed before it."""
    return sum(each.at < start.at for each in night.starts)


def _bounded(night: Night, rng: random.Random) -> Night:
    """Bound runs by caps and limits, in trials and refreshes too."""
    starts = tuple(
        replace(
            each,
            max_cost=rng.choice((None, 0.004, 0.008)),
            limit=rng.choice((None, 1, 3)),
            refresh=each.refresh or rng.random() < 0.3,
            again=each.again and not each.trial,
        )
        for each in night.starts
    )
    return replace(night, starts=starts)


def _requesting(night: Night, rng: random.Random) -> tuple[Night, Start]:
    """Choose a start that makes requests: the first, or one that refreshes what the ledger has."""
    number = rng.choice((0, rng.randrange(len(night.starts))))
    start = night.starts[number]
    if number > 0:
        start = replace(start, refresh=True)
    return replace(night, starts=(*night.starts[:number], start, *night.starts[number + 1 :])), start


def _plus(night: Night, start: Start | None, *events: Event) -> Night:
    starts = night.starts if start is None else (*night.starts, start)
    return replace(night, starts=starts, events=(*night.events, *events))


_RARE: tuple[Callable[[Night, random.Random], Night], ...] = (
    _replaced,
    _started_twice,
    _interrupted,
    _suspended,
    _suspended,
    _gateway,
    _gateway,
    _spilled,
    _failing,
    _bounded,
)
