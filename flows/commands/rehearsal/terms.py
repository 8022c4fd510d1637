"""Terms: what a rehearsal is played with. Latency, limits and faults as they are named, or as they are known."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db.readers.past_answers import PastAnswers
from flows.errors import ParameterError
from flows.sandbox import Switches
from flows.sandbox.__main__ import read_switch

LATENCY_MS, SPREAD = 3000.0, 0.3
"""Assumed where nothing is known: an answer of some hundred tokens, and how such answers differ."""
WIDEST = 3.0
LIMITS = {"rpm": "requests", "itpm": "input tokens", "otpm": "output tokens"}
PERCENT = 100.0


@dataclass(frozen=True)
class Latency:
    """How long an answer takes: median milliseconds, and sigma of the lognormal.

    `known_from` is named (by a flag), history (of so many answers) or assumed.
    """

    median_ms: float
    spread: float
    known_from: str
    answers: int = 0


@dataclass(frozen=True)
class Terms:
    """The latency, and all that the sandbox is told."""

    latency: Latency
    switches: Switches

    def for_programs(self) -> dict[str, Any]:
        """The terms as plain JSON values; faults are shares of requests."""
        return {
            "latency_ms": round(self.latency.median_ms, 1),
            "latency_spread": round(self.latency.spread, 3),
            "latency_from": self.latency.known_from,
            "latency_answers": self.latency.answers,
            "limits": {name: getattr(self.switches, name) for name in LIMITS},
            "faults": dict(self.switches.rates),
            "seed": self.switches.seed,
        }

    def facts(self, ledger: str | None) -> list[tuple[str, str]]:
        """Say the terms to a person; `ledger` is where the history stands."""
        limits = [
            f"{getattr(self.switches, name):,} {what} a minute" for name, what in LIMITS.items() if self._has(name)
        ]
        faults = [f"{rate * PERCENT:g} % {name.replace('_', ' ')}" for name, rate in self.switches.rates]
        return [
            ("latency", self._said(ledger)),
            ("limits", ", ".join(limits) or "none; name your account's with --rpm-limit, --itpm-limit, --otpm-limit"),
            ("faults", ", ".join(faults) or "none"),
        ]

    def _has(self, name: str) -> bool:
        return getattr(self.switches, name) is not None

    def _said(self, ledger: str | None) -> str:
        median = f"{self.latency.median_ms:,.0f} ms"
        match self.latency.known_from:
            case "named":
                return median
            case "history":
                return f"{median}, the median of the last {self.latency.answers:,} such answers in {ledger}"
            case _:
                return (
                    f"{median}, assumed, as your ledger has no real answers to it yet; name another with --latency-ms"
                )


def agree(
    pasts: Mapping[str, PastAnswers],
    *,
    latency_ms: float | None,
    latency_spread: float | None,
    limits: Mapping[str, int | None],
    percents: Mapping[str, float | None],
    others: Sequence[str],
    seed: int,
) -> Terms:
    """Put the terms together; raises ParameterError. `drops` are half before an answer was generated, half after."""
    latency = choose_latency(pasts, latency_ms, latency_spread)
    rates = {name: _share(name, percent) for name, percent in percents.items() if percent is not None}
    dropped = rates.pop("drops", None)
    if dropped is not None:
        rates |= {"dropped_before": dropped / 2, "dropped_after": dropped / 2}
    try:
        told = dict(read_switch(text) for text in others)
        switches = Switches().changed(
            {
                "latency_ms": latency.median_ms,
                "latency_spread": latency.spread,
                "seed": seed,
                **{name: limit for name, limit in limits.items() if limit is not None},
                **rates,
                **told,
            }
        )
    except ValueError as error:
        raise ParameterError(f"{error}. The switches are: {', '.join(Switches.model_fields)}.") from None
    if "latency_ms" in told or "latency_spread" in told:
        latency = Latency(switches.latency_ms, switches.latency_spread, "named")
    return Terms(latency, switches)


def choose_latency(pasts: Mapping[str, PastAnswers], median_ms: float | None, spread: float | None) -> Latency:
    """Take what was named, else what the history says, else what is assumed."""
    past = [math.log(latency) for found in pasts.values() for latency in found.latencies_ms if latency > 0]
    if median_ms is not None:
        return Latency(median_ms, SPREAD if spread is None else spread, "named")
    if past:
        seen = min(statistics.pstdev(past), WIDEST)
        return Latency(math.exp(statistics.median(past)), seen if spread is None else spread, "history", len(past))
    return Latency(LATENCY_MS, SPREAD if spread is None else spread, "assumed")


def _share(name: str, percent: float) -> float:
    if not 0 <= percent <= PERCENT:
        flag = "--" + name.replace("_", "-")
        raise ParameterError(f"{flag} {percent:g}: it must be from 0 to 100, in percent.")
    return percent / PERCENT
