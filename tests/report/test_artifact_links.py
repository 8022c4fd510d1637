"""With an address of the audit room, a run's artifact in Prefect links to the run's page and to its failures' pages."""

from __future__ import annotations

import pytest

from presswork.report.prefect.artifacts import summary_markdown
from presswork.report.summary import Failure
from presswork.settings import AUDIT_URL
from presswork.terminal.quiet_prefect import _links
from tests.terminal.test_screen import summary

FAILURE = Failure(
    generation_id="0193-g", step="reply", record_key="](javascript:alert(1))", status="refused", kind=None, message=None
)


@pytest.mark.parametrize("url", ["https://audit.example/rooms", "https://audit.example/rooms/"])
def test_artifact_links_to_the_run_and_to_each_failure(url: str) -> None:
    found = summary(failures=[FAILURE])

    text = summary_markdown(found, url)

    assert f"| run | [`{found.run_id}`](https://audit.example/rooms/runs/{found.run_id}) |" in text
    assert "| [`presswork show 0193-g`](https://audit.example/rooms/generations/0193-g) |" in text
    assert text.count("](http") == 2
    assert "](javascript" not in text


def test_artifact_without_an_address_has_no_links() -> None:
    text = summary_markdown(summary(failures=[FAILURE]))

    assert "](http" not in text
    assert "`presswork show 0193-g`" in text


@pytest.mark.parametrize(
    ("given", "kept"), [(None, "http://127.0.0.1:4201"), ("https://audit.example", None), ("", None)]
)
def test_run_of_a_command_links_to_the_audit_room_of_this_machine_unless_told_otherwise(
    given: str | None, kept: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given is None:
        monkeypatch.delenv(AUDIT_URL, raising=False)
    else:
        monkeypatch.setenv(AUDIT_URL, given)
    assert _links("http://127.0.0.1:4201").get(AUDIT_URL) == kept
    assert _links(None) == {}
