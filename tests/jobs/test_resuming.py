"""`--resume` reuses the values with which the run was started, of every type."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, TypeAdapter

from db.ledger.connecting import open_ledger
from db.words import TRY
from presswork import Selection
from presswork.errors import TrialError
from presswork.jobs.checking import read_resumed
from presswork.jobs.named_jobs import make_selection
from presswork.prompts.front_matter import Param
from tests.db.rows import Book

PARAMS = {
    "word": Param(default=None),
    "tone": Param(),
    "copies": Param(type="int", default=2),
    "price": Param(type="float", default=None),
    "urgent": Param(type="bool", default=None),
    "since": Param(type="date", default=None),
    "moment": Param(type="datetime", default=None),
}


class Picked(Selection):
    category: str | None = "tea"
    tone: str = "plain"
    since: date | None = None
    urgent: bool = True
    tags: list[str] = Field(default_factory=list)


def resumed(folder: Path, **parameters: Any) -> Mapping[str, Any]:
    """Return the values with which a run of these parameters is resumed."""
    url = f"sqlite:///{folder / 'ledger.sqlite'}"
    ledger = open_ledger(url)
    # As a run writes them: engine/orchestration/origin.py.
    book = Book(ledger, parameters=TypeAdapter(dict[str, Any]).dump_python(parameters, mode="json"))
    found = read_resumed(ledger, book.run_id)
    ledger.dispose()
    assert found is not None
    return found.sets


@pytest.mark.parametrize(
    "given",
    [
        {"tone": ""},
        {"tone": "warm", "word": ""},
        {"tone": "x", "word": None, "price": None, "urgent": None, "since": None},
        # As `--set` gives them, as a form does, and as Python does.
        {"tone": "x", "copies": "3", "price": "2.5", "urgent": "no", "since": "2026-11-15"},
        {"tone": "x", "copies": 3, "price": 2.5, "urgent": False, "moment": "2026-11-15T00:00:00Z"},
        {"tone": "None", "price": 1e-7, "urgent": True, "since": date(2026, 11, 15)},
    ],
)
def test_params_of_a_template_are_the_same_again(tmp_path: Path, given: dict[str, Any]) -> None:
    again = resumed(tmp_path, template="notes", params=given)
    assert {name: PARAMS[name].parse(name, value) for name, value in again.items()} == {
        name: PARAMS[name].parse(name, value) for name, value in given.items()
    }


@pytest.mark.parametrize(
    "selection",
    [
        Picked(),
        Picked(category=None, tone="", urgent=False),
        Picked(category="None", since=date(2026, 11, 15), tags=["a", "b"]),
    ],
)
def test_selection_of_a_flow_is_the_same_again(tmp_path: Path, selection: Picked) -> None:
    assert make_selection("flow", Picked, resumed(tmp_path, selection=selection)) == selection


def test_trial_is_no_run_to_resume(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    trial = Book(ledger, trigger=TRY)
    with pytest.raises(TrialError, match="is a trial, which can't be resumed"):
        read_resumed(ledger, trial.run_id)
    ledger.dispose()
