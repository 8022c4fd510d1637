"""Run a client: read its options, measure once, and print the sample as one line of JSON.

`python -m MODULE KIND --records N --concurrency N --source FILE --watch sandbox=PID [server=PID]`. Each client is a
module, so that it loads only its own libraries: the bare loop must not load Prefect. The environment has the endpoint's
URL and the ledger's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.material import TEMPLATE
from bench.meter import Meter, Sample


@dataclass(frozen=True)
class Options:
    """The options of a client; `watched` has the pids of other processes by name."""

    records: int
    concurrency: int
    source: Path
    template: str
    runs: int
    watched: Mapping[str, int]


Measure = Callable[[Meter, Options], Sample]


def run_client(kinds: Mapping[str, Measure]) -> None:
    """Measure the kind that the command line names, and print its sample."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=tuple(kinds))
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--source", type=Path, default=Path())
    parser.add_argument("--template", default=TEMPLATE)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--watch", nargs="*", default=[])
    given = vars(parser.parse_args())
    measure = kinds[given.pop("kind")]
    watched = {name: int(pid) for name, pid in (item.split("=") for item in given.pop("watch"))}
    print(json.dumps(measure(Meter(watched), Options(**given, watched=watched)).as_json()), flush=True)
