"""Price what requests wrote to the prompt cache and read from it, for a run's summary as for figures over months."""

from collections.abc import Sequence
from decimal import Decimal

from db.readers.figures import PromptCacheUse
from presswork.prices import Usage, saved_by_prompt_cache


def saved_by_reads(uses: Sequence[PromptCacheUse]) -> Decimal | None:
    """Add up what reads of the prompt cache saved, minus the cost of writes; None if a price is not known."""
    total = Decimal(0)
    for use in uses:
        used = Usage(
            input_tokens=0,
            cache_creation_5m_tokens=use.written_5m,
            cache_creation_1h_tokens=use.written_1h,
            cache_read_tokens=use.read,
            service_tier=use.service_tier,
            inference_geo=use.inference_geo,
            speed=use.speed,
        )
        saved = saved_by_prompt_cache(use.model, used, use.day, prompt_tokens=use.prompt_tokens)
        if saved is None:
            return None
        total += saved
    return total
