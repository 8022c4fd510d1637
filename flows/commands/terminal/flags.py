"""Flags that several commands share, so that each means the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
OfSandbox = Annotated[
    bool, typer.Option("--sandbox", help="Use the sandbox's own ledger, where PRESSWORK_DATABASE_URL names none.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the flow or template; may be repeated."),
]
