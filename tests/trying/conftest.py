"""Trials are made in the engine's workshop."""

from tests.engine.conftest import quick, sandbox, shop, workshop, workshop_on_each

__all__ = ["quick", "sandbox", "shop", "workshop", "workshop_on_each"]
