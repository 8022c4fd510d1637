"""Draw an ordinary night: its starts, what goes wrong at random, and helpers."""

import random
from dataclasses import replace
from typing import Any

from tests.nights.plan import JOBS, Event, Night, Start
from tests.nights.served.endpoint_faults import draw_faults

FAULT_RATES = {
    "rate_limited": 0.1,
    "overloaded": 0.1,
    "server_error": 0.08,
    "spend_limit": 0.01,
    "dropped_before": 0.08,
    "dropped_after": 0.08,
    "stall": 0.05,
    "truncated": 0.1,
    "refused": 0.08,
    "invalid": 0.15,
    "malformed": 0.08,
    "context_exceeded": 0.04,
    "paused": 0.03,
    "tool_use": 0.03,
}
"""The most that each fault's rate is."""
HELPED = 0.2
"""The share of nights whose runs may be split: a helper is one more process to step."""
INDEXED = 0.12
"""The share of nights whose ledger has an index of words."""


def ordinary_night(seed: int) -> Night:
    """Draw a night."""
    rng = random.Random(f"night {seed}")
    shared = rng.random() < 0.4
    hosts = rng.choice((2, 2, 3)) if shared else 1
    night = Night(
        seed,
        records=rng.choice((3, 6, 10, 14)),
        shared=shared,
        hosts=hosts,
        starts=_starts(rng, hosts),
        events=_events(rng, hosts, shared=shared),
        faults=draw_faults(rng, 60.0) if rng.random() < 0.35 else (),
        switches=_switches(rng),
        settings=_settings(rng),
        refused=tuple(sorted(rng.sample(range(3), k=rng.choice((0, 0, 0, 1))))),
        indexed=random.Random(f"indexed {seed}").random() < INDEXED,
        skews=tuple(rng.choice((0.0, 0.0, 0.3, -2.0, 90.0, -600.0)) if shared else 0.0 for _host in range(hosts)),
    )
    return _helped(night)


def _helped(night: Night) -> Night:
    """Split the runs of some nights over helpers, with what goes wrong with helpers, workers and Prefect's server.

    Its draws are from a generator of their own: the other nights stay what they are if these change.
    """
    rng = random.Random(f"helpers {night.seed}")
    if rng.random() >= HELPED:
        return night
    starts = [each if each.trial else replace(each, shards=rng.choice((None, 2, 2, 3))) for each in night.starts]
    events = [_trouble_of_helpers(rng) for _each in range(rng.choice((0, 1, 2, 4)))]
    settings = dict(night.settings)
    if rng.random() < 0.4:
        settings["shard_patience_s"] = rng.choice((20, 60))
    if rng.random() < 0.4:
        settings["shard_attempts"] = rng.choice((1, 2))
    if rng.random() < 0.1:
        events.append(Event("no_deployment", round(60 * rng.random(), 3)))
    return replace(night, starts=tuple(starts), events=(*night.events, *events), settings=tuple(settings.items()))


def _trouble_of_helpers(rng: random.Random) -> Event:
    kind = rng.choice("kill kill freeze no_worker late_worker worker_dies unnoticed unnoticed no_server".split())
    long = round(rng.choice((2.0, 40.0, 130.0, 400.0)) * (0.5 + rng.random()), 2)
    match kind:
        case "kill" | "freeze":
            # The first processes are those of runs.
            return Event(kind, who=1 + rng.randrange(8), nth=int(10 ** (rng.random() * 3.3)) + 1, size=long)
        case "no_server":
            return Event(kind, round(60 * rng.random(), 3), size=long)
        case _:
            return Event(kind, who=rng.randrange(4), size=long)


def _starts(rng: random.Random, hosts: int) -> tuple[Start, ...]:
    at, starts = 0.0, []
    jobs = rng.choice((JOBS, JOBS[:1], JOBS[:2]))
    for number in range(rng.choice((2, 3, 3, 4, 5))):
        starts.append(
            Start(
                round(at, 3),
                rng.choice(jobs),
                rng.randrange(hosts),
                again=number > 0 and rng.random() < 0.25,
                resumes=number > 0 and rng.random() < 0.25,
                refresh=rng.random() < 0.1,
                trial=rng.random() < 0.07,
                retries=rng.choice((0, 0, 0, 1)),
                deployed=rng.random() < 0.3,
                max_cost=rng.choice((None, None, None, None, 0.02, 0.005)),
                limit=rng.choice((None, None, None, None, 2)),
                concurrency=rng.choice((1, 2, 4, 8)),
                chunk_size=rng.choice((1, 2, 4, 100)),
            )
        )
        at += rng.choice((0.0, 0.2, 1.0, 5.0, 60.0, 400.0, 4000.0)) * rng.random()
    return tuple(Start(each.at, host=each.host, trial=True) if each.trial else each for each in starts)


def _events(rng: random.Random, hosts: int, *, shared: bool) -> tuple[Event, ...]:
    return tuple(_event(rng, hosts, shared=shared) for _each in range(rng.choice((0, 1, 2, 3, 4, 6))))


def _event(rng: random.Random, hosts: int, *, shared: bool) -> Event:
    at = round(rng.choice((1.0, 3.0, 10.0, 100.0)) * rng.random(), 3)
    process, host = rng.randrange(5), rng.randrange(hosts)
    long = round(rng.choice((1.0, 10.0, 70.0, 130.0, 400.0)) * (0.5 + rng.random()), 2)
    nth = int(10 ** (rng.random() * 3.3)) + 1
    kind = rng.choice(
        "kill kill kill_statement kill_commit lose_commit freeze sleep reboot interrupt cancel "
        "unavailable locked full slow partition jump edit edit compact".split()
    )
    match kind:
        case "kill" | "freeze":
            return Event(kind, who=process, nth=nth, size=long)
        case "kill_statement":
            return Event(kind, who=process, nth=int(10 ** (rng.random() * 2.5)) + 1)
        case "kill_commit" | "lose_commit":
            return Event(kind, who=process, nth=int(10 ** (rng.random() * 1.6)) * rng.choice((1, -1)))
        case "unavailable" | "locked" | "full" | "slow" | "partition":
            return Event(kind, at, host, long)
        case "jump":
            return Event(kind, at, host, rng.choice((-3600.0, -200.0, 5.0, 200.0, 3600.0)))
        case "interrupt":
            return Event(kind, at, process, size=rng.choice((0.0, 0.5)))
        case _:
            return Event(kind, at, host if kind in {"sleep", "reboot"} else process, long)


def _switches(rng: random.Random) -> tuple[tuple[str, Any], ...]:
    drawn: dict[str, Any] = {"latency_ms": rng.choice((5, 350, 3000)), "latency_spread": rng.choice((0, 0.5))}
    for name, most in FAULT_RATES.items():
        if rng.random() < 0.2:
            drawn[name] = round(most * rng.random(), 4)
    if rng.random() < 0.2:
        drawn |= {"rpm": rng.choice((30, 120, 600)), "burst_seconds": rng.choice((1, 10, 60))}
    if rng.random() < 0.1:
        drawn["otpm"] = rng.choice((2000, 20000))
    if rng.random() < 0.3:
        drawn["rate_headers"] = False
    if rng.random() < 0.2:
        drawn["stall_seconds"] = rng.choice((30, 700))
    return tuple(drawn.items())


def _settings(rng: random.Random) -> tuple[tuple[str, Any], ...]:
    drawn: dict[str, Any] = {}
    if rng.random() < 0.3:
        drawn["database_patience_s"] = rng.choice((0, 5, 60))
    if rng.random() < 0.2:
        drawn["request_timeout_s"] = rng.choice((2, 60))
    if rng.random() < 0.2:
        drawn["max_paid_requests"] = rng.choice((1, 2, 3))
    if rng.random() < 0.2:
        drawn["chunk_retries"] = rng.choice((0, 1))
    if rng.random() < 0.2:
        drawn["give_up_after"] = rng.choice((1, 2))
    if rng.random() < 0.2:
        drawn["stop_wait_s"] = rng.choice((0, 2))
    if rng.random() < 0.2:
        drawn["commit_interval_s"] = rng.choice((0.0, 1.0))
    return tuple(drawn.items())
