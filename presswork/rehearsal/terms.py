"""Choose the latency, limits and faults of a rehearsal: from flags, from history, or by default."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.readers.past_answers import PastAnswers
from presswork.errors import ParameterError
from presswork.terminal.flags import RehearseFlags
from sandbox import Switches
from sandbox.__main__ import read_switch

LATENCY_MS, SPREAD = 3000.0, 0.3
"""Assumed without history: the latency of an answer with a few hundred tokens, and its spread."""
WIDEST = 3.0
LIMITS = {"rpm": "requests", "itpm": "input tokens", "otpm": "output tokens"}
FAULT_FLAGS = ("rate_limited", "overloaded", "drops", "invalid", "truncated", "refused")
PERCENT = 100.0


@dataclass(frozen=True)
class Latency:
    """How long an answer takes: median milliseconds, and sigma of the lognormal.

    `known_from` is named (by a flag), history (of this many `answers`) or assumed.
    """

    median_ms: float
    spread: float
    known_from: str
    answers: int = 0


@dataclass(frozen=True)
class Terms:
    """The latency, and all switches of the sandbox."""

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

    def facts(self, ledger: str) -> list[tuple[str, str]]:
        """Return the terms as rows for people; `ledger` names the ledger with the history."""
        limits = [
            f"{limit:,} {what} a minute"
            for name, what in LIMITS.items()
            if (limit := getattr(self.switches, name)) is not None
        ]
        faults = [f"{rate * PERCENT:g} % {name.replace('_', ' ')}" for name, rate in self.switches.rates]
        known = {
            "named": "",
            "history": f", the median of the last {self.latency.answers:,} such answers in {ledger}",
            "assumed": ", assumed: your ledger has no real answers to these prompts yet. Set it with --latency-ms",
        }
        return [
            ("latency", f"{self.latency.median_ms:,.0f} ms{known[self.latency.known_from]}"),
            ("limits", ", ".join(limits) or "none. Set your account's with --rpm-limit, --itpm-limit, --otpm-limit"),
            ("faults", ", ".join(faults) or "none"),
        ]


def make_terms(pasts: Mapping[str, PastAnswers], flags: RehearseFlags) -> Terms:
    """Combine flags and history; raises ParameterError. Half of `drops` come before an answer is made, half after."""
    latency = choose_latency(pasts, flags.latency_ms, flags.latency_spread)
    rates = {name: _share(name, percent) for name in FAULT_FLAGS if (percent := getattr(flags, name)) is not None}
    dropped = rates.pop("drops", None)
    if dropped is not None:
        rates |= {"dropped_before": dropped / 2, "dropped_after": dropped / 2}
    limits = {name: limit for name in LIMITS if (limit := getattr(flags, f"{name}_limit")) is not None}
    try:
        switched = dict(read_switch(text) for text in flags.switches or [])
        known = {"latency_ms": latency.median_ms, "latency_spread": latency.spread, "seed": flags.seed}
        switches = Switches().changed({**known, **limits, **rates, **switched})
    except ValueError as error:
        raise ParameterError(f"{error}. Available switches: {', '.join(Switches.model_fields)}.") from None
    if "latency_ms" in switched or "latency_spread" in switched:
        latency = Latency(switches.latency_ms, switches.latency_spread, "named")
    return Terms(latency, switches)


def choose_latency(pasts: Mapping[str, PastAnswers], median_ms: float | None, spread: float | None) -> Latency:
    """Take the latency from flags, else from history, else the assumed one."""
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
