"""The engine needs Prefect only for flows, and the SDK only for requests, so that mistakes are told before both."""

from __future__ import annotations

import subprocess
import sys

import pytest

from presswork.settings import ROOT

MOST_MODULES = 850
"""767 were counted; with the SDK they would be 4,000, with Prefect 2,500."""
NEVER = ("prefect", "anthropic", "alembic", "uvicorn", "starlette", "fastapi")
COUNT = "import {module}, sys; print(len(sys.modules), *sorted({never!r} & {{*sys.modules}}))"


@pytest.mark.parametrize("module", ["presswork.engine.opening", "presswork.trying.sessions", "presswork.trying.saves"])
def test_engine_is_loaded_without_prefect_and_without_the_sdk(module: str) -> None:
    code = COUNT.format(module=module, never=set(NEVER))
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    count, *unwanted = ended.stdout.split()
    assert unwanted == []
    assert int(count) <= MOST_MODULES


def test_flow_still_gets_its_run_from_prefect() -> None:
    code = "from presswork import open_run; import sys; print(open_run.__module__, 'prefect' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["presswork.engine.flow_runs", "True"]
