"""Flags that several commands share, so that each means the same everywhere; and flags that belong together."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from flows.errors import ParameterError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
OfSandbox = Annotated[
    bool, typer.Option("--sandbox", help="Use the sandbox's own ledger, where PRESSWORK_DATABASE_URL names none.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the flow or template; may be repeated."),
]


def takes_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take flags in groups: a parameter that is a dataclass stands for a flag for each of its fields."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    flags: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name in groups:
            flags += inspect.signature(groups[parameter.name], eval_str=True).parameters.values()
        else:
            flags.append(parameter)

    @wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    # Typer reads these two to find a command's flags.
    by_name = [flag.replace(kind=inspect.Parameter.KEYWORD_ONLY) for flag in flags]
    called.__signature__ = inspect.Signature(by_name)  # type: ignore[attr-defined]
    called.__annotations__ = {flag.name: flag.annotation for flag in flags}
    return called


def parse_sets(items: list[str] | None) -> dict[str, str]:
    """Read `--set name=value`; ParameterError where there is no `=`, no name, or the name a second time."""
    found: dict[str, str] = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ParameterError(f"--set takes name=value, such as --set category=tea, not {item!r}.")
        if name in found:
            raise ParameterError(f"--set gives {name!r} twice; give it once.")
        found[name] = value
    return found
