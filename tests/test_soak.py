"""The long tests in parts: each test in one, none hidden by another that failed. No long test runs here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest

from tests.soak import INTERRUPTED, PARTS, TESTS, files_of_parts, main

Run = Callable[[str, Sequence[str]], int]


def ending(ran: list[str], **statuses: int) -> Run:
    """Run no test: note which part should run, and return its status."""

    def run(name: str, files: Sequence[str]) -> int:
        ran.append(name)
        return statuses.get(name, 0)

    return run


def parts_with_tests() -> list[str]:
    return [name for name, files in files_of_parts().items() if files]


def test_each_file_with_long_tests_is_in_one_part() -> None:
    found = [file for files in files_of_parts().values() for file in files]
    marked = [path for path in TESTS.rglob("test_*.py") if re.search(r"mark\.soak", path.read_text(encoding="utf-8"))]
    assert sorted(found) == sorted(str(path.relative_to(TESTS)) for path in marked)


def test_file_of_a_part_is_not_in_the_part_of_its_folder() -> None:
    found = files_of_parts()
    assert found["kills"] == ["engine/test_night.py"]
    assert "engine/test_shards.py" in found["engine"]
    assert "engine/test_night.py" not in found["engine"]


def test_renamed_folder_is_noticed() -> None:
    assert [place for places in PARTS.values() for place in places if not (TESTS / place).exists()] == []


def test_part_that_fails_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []
    assert main([], ending(ran, kills=1)) == 1
    assert ran == parts_with_tests()
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "FAILED" in lines["kills"]
    assert "FAILED" in lines["whole"]
    assert "passed" in lines["engine"]


@pytest.mark.parametrize("status", [-9, 2, 5], ids=["killed", "not collected", "nothing to run"])
def test_part_that_could_not_run_is_a_failure(status: int) -> None:
    assert main(["engine", "others"], ending([], engine=status)) == 1


def test_part_can_run_alone(capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []
    assert main(["services"], ending(ran)) == 0
    assert ran == ["services"]


def test_unknown_part_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []
    assert main(["night"], ending(ran)) == 2
    assert ran == []
    assert ", ".join(PARTS) in capsys.readouterr().err


def test_interrupt_ends_all_parts_and_still_prints_their_times(capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []
    assert main(["kills", "engine", "others"], ending(ran, engine=INTERRUPTED)) == INTERRUPTED
    assert ran == ["kills", "engine"]
    assert "whole" in capsys.readouterr().out
