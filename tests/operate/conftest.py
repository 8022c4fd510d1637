"""What the control room's tests share with the engine's."""

from tests.engine.conftest import quick, sandbox, shop, workshop

__all__ = ["quick", "sandbox", "shop", "workshop"]
