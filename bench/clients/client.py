"""Client: one measurement in a process of its own; prints one line of JSON.

`python -m bench.clients.client KIND --records N --concurrency N --source FILE --watch sandbox=PID [server=PID]`, where
KIND is bare, content, again, reading, load, spool or cursor; the environment says where to ask and what to write to.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path

from bench.material import TEMPLATE
from bench.meter import Meter, Sample


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("bare", "content", "again", "reading", "load", "spool", "cursor"))
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--source", type=Path, default=Path())
    parser.add_argument("--template", default=TEMPLATE)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--watch", nargs="*", default=[])
    options = parser.parse_args()
    watched = {name: int(pid) for name, pid in (item.split("=") for item in options.watch)}
    print(json.dumps(_measure(options, watched).as_json()), flush=True)


def _measure(options: argparse.Namespace, watched: dict[str, int]) -> Sample:
    # Each loads only its own libraries: a bare loop must not carry Prefect.
    meter = Meter(watched)
    if options.kind == "content":
        from bench.clients.content import run_content  # noqa: PLC0415 - as above

        return run_content(meter, options.template, options.concurrency, watched["server"])
    if options.kind == "again":
        from bench.clients.content import run_again  # noqa: PLC0415 - as above

        return run_again(meter, options.template, options.concurrency, options.runs)
    if options.kind == "reading":
        from bench.clients.reading import run_reading  # noqa: PLC0415 - as above

        return run_reading(meter, options.template)
    if options.kind in {"spool", "cursor"}:
        from bench.spooling import run_cursor, run_spool  # noqa: PLC0415 - only what is measured is loaded

        url = os.environ["PRESSWORK_SOURCE_URL"]
        return run_spool(meter, url) if options.kind == "spool" else run_cursor(meter, url)
    if options.kind == "bare":
        from bench.clients.bare import run_bare  # noqa: PLC0415 - as above

        return asyncio.run(run_bare(meter, options.source, options.records, options.concurrency))
    from bench.clients.load import run_load  # noqa: PLC0415 - as above

    return asyncio.run(run_load(meter, options.source, options.records, options.concurrency))


if __name__ == "__main__":
    main()
