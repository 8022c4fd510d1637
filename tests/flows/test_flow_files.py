"""The content flows are what people copy: short, and each complete in itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import db
import flows
from presswork.settings import ROOT

LONGEST = 60


@pytest.mark.parametrize("name", ["product_copy", "support_replies", "newsletter", "content"])
def test_flow_file_is_short_enough_to_read_aloud(name: str) -> None:
    lines = (ROOT / "flows" / f"{name}.py").read_text().splitlines()
    assert len(lines) < LONGEST


def test_flows_import_from_this_repository() -> None:
    for package in (db, flows):
        assert Path(str(package.__file__)).parent.parent == ROOT
