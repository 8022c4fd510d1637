"""Measure the least work of a cached run: select the same records, and render and hash the same prompts.

It uses only SQLAlchemy and Jinja, and checks, looks up and stores nothing.
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

from bench.clients.client import Options, run_client
from bench.material import MODEL, SELECT
from bench.meter import Meter, Sample
from flows.outputs import SubjectLine

AT_ONCE = 500


def run_reading(meter: Meter, options: Options) -> Sample:
    """Select all items of PRESSWORK_SOURCE_URL, and hash the prompt of each."""
    source = Path(os.environ["PRESSWORK_TEMPLATES_DIR"], f"{options.template}.md.j2").read_text()
    body = source.split("---\n", 2)[2]
    schema = anthropic.transform_schema(SubjectLine)
    meter.start()
    blocks = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=jinja2.select_autoescape(default_for_string=False)
    ).from_string(body)
    system = _rendered(blocks, "system", {})
    hashes: set[str] = set()
    with create_engine(os.environ["PRESSWORK_SOURCE_URL"]).connect() as connection:
        for row in connection.execution_options(yield_per=AT_ONCE).execute(text(SELECT)).mappings():
            user = _rendered(blocks, "user", {"record": dict(row)})
            content = {"model": MODEL, "system": system, "messages": [{"role": "user", "content": user}]}
            request = orjson.dumps({**content, "schema": schema}, option=orjson.OPT_SORT_KEYS)
            hashes.add(hashlib.sha256(request).hexdigest())
    sample = Sample(records=len(hashes), succeeded=len(hashes))
    meter.read(sample)
    return sample


def _rendered(template: jinja2.Template, block: str, values: dict[str, Any]) -> str:
    return "".join(template.blocks[block](template.new_context(values))).strip()


if __name__ == "__main__":
    run_client({"reading": run_reading})
