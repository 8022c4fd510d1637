"""Run the sandbox by itself: `python -m sandbox [--port N] [--switch name=value]...`."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence

from sandbox.own_process import serve
from sandbox.switches import Switches

DEFAULT_PORT = 8787


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted. Returns 2 if an argument is wrong or the port is in use."""
    options = _parser().parse_args(arguments)
    try:
        switches = Switches().changed(dict(read_switch(text) for text in options.switch))
    except ValueError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 2
    announce = _say_url if options.child else _say_hello
    try:
        asyncio.run(serve(options.port, switches, announce, until_stdin_ends=options.child))
    except OSError as error:
        print(f"sandbox: port {options.port}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def read_switch(text: str) -> tuple[str, object]:
    """Split "name=value". A value that is not JSON is text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--switch takes name=value, not {text!r}")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes any free one (default: %(default)s)")
    parser.add_argument(
        "--switch", action="append", default=[], metavar="NAME=VALUE", help=", ".join(Switches.model_fields)
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


def _say_url(url: str) -> None:
    print(url, flush=True)


def _say_hello(url: str) -> None:
    print(f"The sandbox listens on {url}: no answer of it comes from a model, and nothing is billed.")
    print(
        f"Set ANTHROPIC_BASE_URL={url} and any ANTHROPIC_API_KEY; see {url}/sandbox/stats. Ctrl-C ends it.",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
