"""Measure runs at an endpoint that does not report its limits, by the counts of the sandbox during the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.meter import Sample
from bench.stage import Stage

MINUTE_S, LOOK_S = 60.0, 0.5
BURST_S = 2.0
FAULTS = {"rate_limited": 0.1, "dropped_before": 0.01, "dropped_after": 0.01}


@dataclass(frozen=True)
class Look:
    """The sandbox's counts of answers and 429s, `at` seconds after the first request."""

    at: float
    accepted: int
    refused: int


def at_random_refusals(records: int, latency_ms: float, *, faults: bool) -> Callable[[Stage], Sample]:
    """Return a measurement without a limit; with `faults`, 10 % of answers are 429 at any rate, and 2 % are lost."""

    def take(stage: Stage) -> Sample:
        stage.set_sandbox(latency_ms=latency_ms, rate_headers=False, **(FAULTS if faults else {}))
        sample = stage.measure("content", records, stage.new_sqlite())
        sample.rate_limited = stage.sandbox_stats()["by_status"].get("429", 0)
        return sample

    return take


def at_hidden_limit(records: int, rpm: int) -> Callable[[Stage], Sample]:
    """Return a measurement at a limit that shows only by 429s."""

    def take(stage: Stage) -> Sample:
        stage.set_sandbox(rpm=rpm, burst_seconds=BURST_S, rate_headers=False, latency_ms=50)
        sample, looks = _watched(stage, records, [])
        last = looks[-1]
        sample.rate_limited = last.refused
        sample.share = last.accepted / (rpm / MINUTE_S * (BURST_S + sample.last_answered - sample.first_sent))
        sample.late_429 = _between(looks, MINUTE_S, last.at)[1]
        return sample

    return take


def at_changing_limit(rpms: Sequence[int], each_s: float) -> Callable[[Stage], Sample]:
    """Return a measurement at a limit that shows only by 429s, and that changes during the run."""
    records = round(sum(rpms) / MINUTE_S * each_s * 0.95)

    def take(stage: Stage) -> Sample:
        stage.set_sandbox(rpm=rpms[0], burst_seconds=BURST_S, rate_headers=False, latency_ms=50)
        changes = [(each_s * number, rpm) for number, rpm in enumerate(rpms)][1:]
        sample, looks = _watched(stage, records, changes)
        sample.rate_limited = looks[-1].refused
        # Twenty seconds, from a minute after each change.
        rates = [_rate(looks, at + MINUTE_S, at + MINUTE_S + 20) / rpm for at, rpm in changes]
        sample.after_fall, sample.after_rise = rates[0], rates[1]
        return sample

    return take


def _watched(stage: Stage, records: int, changes: list[tuple[float, int]]) -> tuple[Sample, list[Look]]:
    client = stage.start("content", records, stage.new_sqlite())
    looks: list[Look] = []
    began = None
    left = list(changes)
    while client.poll() is None:
        stats = stage.sandbox_stats()
        now = time.monotonic()
        if began is None and stats["requests"]:
            began = now
        if began is not None:
            counted = stats["by_status"]
            looks.append(Look(now - began, counted.get("200", 0), counted.get("429", 0)))
            if left and now - began >= left[0][0]:
                stage.change_sandbox(rpm=left.pop(0)[1])
        time.sleep(LOOK_S)
    return stage.finish(client), looks


def _between(looks: Sequence[Look], since: float, until: float) -> tuple[int, float]:
    """Return the number of accepted requests between two moments, and the share of 429s among all answers."""
    inside = [look for look in looks if since <= look.at <= until]
    if len(inside) < 2:
        return 0, 0.0
    accepted = inside[-1].accepted - inside[0].accepted
    refused = inside[-1].refused - inside[0].refused
    return accepted, refused / max(accepted + refused, 1)


def _rate(looks: Sequence[Look], since: float, until: float) -> float:
    """Return the accepted requests a minute between two moments."""
    return _between(looks, since, until)[0] / (until - since) * MINUTE_S
