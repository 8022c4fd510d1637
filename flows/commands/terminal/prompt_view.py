"""Prompts on the screen: a request turn by turn, every text as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from flows.commands.terminal import screen


def print_request(console: Console, request: Mapping[str, Any]) -> None:
    """Print the body of a request: model and limits, then each text under its role, then the output schema."""
    shown = {name: value for name, value in request.items() if name not in ("system", "messages", "output_config")}
    screen.print_facts(console, [(name, value_of(value)) for name, value in shown.items()], indent=2)
    for part in request.get("system", []):
        note = f" (cached for {part['cache_control'].get('ttl', '5m')})" if "cache_control" in part else ""
        turn(console, f"system{note}", part["text"])
    for message in request["messages"]:
        content = message["content"]
        turn(console, message["role"], content if isinstance(content, str) else pretty(content))
    turn(console, "output schema and settings", pretty(request.get("output_config", {})))


def section(console: Console, title: str) -> None:
    """Begin a part of the screen."""
    console.print()
    console.print(Text(title, "bold"))


def turn(console: Console, title: str, text: str) -> None:
    """Print a text under its title."""
    console.print(Text(f"  {title}", "cyan"))
    screen.print_text(console, text, indent=4)


def pretty(value: Any) -> str:
    """Write a value as JSON for people."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def value_of(value: Any) -> str:
    """Write a value on one line."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
