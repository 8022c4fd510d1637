"""Reading: what a cached run can't do without. The same records selected, the same prompts rendered and hashed.

By SQLAlchemy and Jinja alone: nothing is checked, looked up or stored.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import anthropic
import jinja2
import orjson
from sqlalchemy import create_engine, text

from bench.material import MODEL, SELECT
from bench.meter import Meter, Sample
from flows.outputs import SubjectLine

AT_ONCE = 500


def run_reading(meter: Meter, template: str) -> Sample:
    """Select all items of PRESSWORK_SOURCE_URL, and hash the prompt of each."""
    source = Path(os.environ["PRESSWORK_TEMPLATES_DIR"], f"{template}.md.j2").read_text()
    body = source.split("---\n", 2)[2]
    schema = anthropic.transform_schema(SubjectLine)
    meter.start()
    blocks = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(body)  # noqa: S701 - text
    system = _rendered(blocks, "system", {})
    hashes: set[str] = set()
    with create_engine(os.environ["PRESSWORK_SOURCE_URL"]).connect() as connection:
        for row in connection.execution_options(yield_per=AT_ONCE).execute(text(SELECT)).mappings():
            user = _rendered(blocks, "user", {"record": dict(row)})
            content = {"model": MODEL, "system": system, "messages": [{"role": "user", "content": user}]}
            told = orjson.dumps({**content, "schema": schema}, option=orjson.OPT_SORT_KEYS)
            hashes.add(hashlib.sha256(told).hexdigest())
    sample = Sample(records=len(hashes), succeeded=len(hashes))
    meter.read(sample)
    return sample


def _rendered(template: jinja2.Template, block: str, values: dict[str, Any]) -> str:
    return "".join(template.blocks[block](template.new_context(values))).strip()
