"""Give each test a workshop, and sessions that try its template."""

from __future__ import annotations

from tests.engine.conftest import quick, sandbox, workshop, workshop_on_each

__all__ = ["quick", "sandbox", "workshop", "workshop_on_each"]
