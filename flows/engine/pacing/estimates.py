"""Estimate what a request is likely to take, before it is sent.

Input is counted from the rendered prompt and corrected by what answers of the same template used; output and cost are
those of the template's answers so far, in this run or, before there is one, in the ledger. Without any history the
most expensive case is assumed: the whole of max_tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from db.ledger.clock import now
from flows.engine.pacing.buckets import Need
from flows.steps.prices import Usage, cost_of
from flows.steps.prompts.render import Caching, Prompt

DECIMALS = Decimal("1e-10")
LEARNT = 0.1
"""The weight of a new answer in a running mean."""
LIKELY = Decimal("1.25")
"""A likely cost is a quarter more than the mean, as answers differ in length."""


@dataclass
class Estimate:
    """What requests of one template take, as far as is known; tokens are None before anything is.

    `input_tokens` are those of earlier answers: the least that a cost is estimated from, as a schema's are not counted.
    """

    input_ratio: float = 1.0
    input_tokens: float | None = None
    output_tokens: float | None = None
    cost_usd: Decimal | None = None

    def need(self, prompt: Prompt, max_tokens: int) -> Need:
        """What a request will probably take of the endpoint's limits."""
        output = float(max_tokens) if self.output_tokens is None else min(self.output_tokens, float(max_tokens))
        return Need(1.0, prompt.estimated_tokens * self.input_ratio, output)

    def likely_cost(self, prompt: Prompt, max_tokens: int) -> Decimal | None:
        """What a request will probably cost, to the ledger's decimals; None where the model's price is unknown."""
        cost = self.cost_usd
        if cost is None:
            output = max_tokens if self.output_tokens is None else round(min(self.output_tokens, max_tokens))
            counted = max(prompt.estimated_tokens, round(self.input_tokens or 0))
            # The first ones may write the prompt cache, at more than the price of input.
            writes = counted if prompt.brief.caching in {Caching.UNSURE, Caching.ON} else 0
            used = Usage(counted - writes, cache_creation_5m_tokens=writes, output_tokens=output)
            cost = cost_of(prompt.model, used, now().date())
        is_mean = self.output_tokens is not None or self.cost_usd is not None
        return None if cost is None else (cost * (LIKELY if is_mean else 1)).quantize(DECIMALS)

    def learn(self, prompt: Prompt, usage: Usage, cost: Decimal | None) -> None:
        """Take an answer's true usage into account."""
        ratio = (usage.prompt_tokens - usage.cache_read_tokens) / max(prompt.estimated_tokens, 1)
        self.input_ratio += LEARNT * (ratio - self.input_ratio)
        before = usage.output_tokens if self.output_tokens is None else self.output_tokens
        self.output_tokens = before + LEARNT * (usage.output_tokens - before)
        if cost is not None:
            self.cost_usd = cost if self.cost_usd is None else self.cost_usd + (cost - self.cost_usd) / 10
