"""What the flows' tests share with the engine's."""

from tests.engine.conftest import no_limiter_of_an_earlier_loop, quick, sandbox, shop, workshop

__all__ = ["no_limiter_of_an_earlier_loop", "quick", "sandbox", "shop", "workshop"]
