"""The picture of a run's steps is an image that shows each step, its counts and what it was made from."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree as ET

from presswork.report.prefect.artifacts import draw_steps
from presswork.report.summary import StepSummary


def test_each_step_is_below_the_step_that_it_was_made_from() -> None:
    steps = [
        StepSummary(step="triage", generations=12, succeeded=10, cached=1, failed=1),
        StepSummary(step="reply", made_from="triage", generations=9, succeeded=9),
        StepSummary(step="<b>note", made_from="triage", generations=3, succeeded=3),
    ]

    image = draw_steps(1200, steps)

    assert image.startswith("![records 1,200, triage 11, reply 9, <b>note 3](data:image/svg+xml;base64,")
    encoded = re.search(r"base64,([^)]+)", image)
    assert encoded is not None
    svg = ET.fromstring(base64.b64decode(encoded.group(1)))  # noqa: S314 - our own SVG, which must be well-formed
    texts = [(text.text, int(text.attrib["y"])) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    rows = dict(texts)
    assert rows["records"] < rows["triage"] < rows["reply"] == rows["<b>note"]
    assert {"1,200", "11 with content, 1 without", "9 with content"} <= set(rows)
