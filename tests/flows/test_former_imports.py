"""A content flow that was written for an earlier release goes on working, and says what to change."""

from __future__ import annotations

import importlib

import pytest

import presswork


@pytest.mark.parametrize("name", presswork.__all__)
def test_name_is_still_found_where_it_was(name: str) -> None:
    former = importlib.import_module("flows.engine")
    with pytest.warns(FutureWarning, match="Import from presswork"):
        assert getattr(former, name) is getattr(presswork, name)


def test_copy_of_the_former_content_flow_is_still_loaded() -> None:
    choices = importlib.import_module("flows.engine.choices")
    with pytest.warns(FutureWarning, match="Import from presswork"):
        assert choices.TemplateName is presswork.TemplateName


def test_name_that_never_was_there_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = importlib.import_module("flows.engine").nothing
