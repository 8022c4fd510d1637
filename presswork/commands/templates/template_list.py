"""List the templates. The lint is in a module of its own, as it loads what reads SQL."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from presswork.errors import ConfigurationError
from presswork.prompts.front_matter import FrontMatter
from presswork.prompts.templates import read_heads
from presswork.terminal import screen
from presswork.terminal.endings import CommandContext
from presswork.terminal.flags import TemplatesFlags


def show_templates(command: CommandContext, _flags: TemplatesFlags) -> None:
    """Print all templates."""
    folder = command.settings.templates_dir
    found = [{"name": name, **_summary(head)} for name, head in read_heads(folder)]
    command.answer(found, lambda console: _print_list(console, found, folder))


def _summary(front: FrontMatter | ConfigurationError) -> dict[str, Any]:
    if isinstance(front, Exception):
        return {"error": str(front)}
    return {
        "description": front.description,
        "output": front.output_name,
        "model": front.model,
        "source": front.source,
        "selects": front.select is not None,
        "params": {
            name: {"type": param.type, "required": param.required, "default": None if param.required else param.default}
            for name, param in front.params.items()
        },
    }


def _print_list(console: Console, found: Sequence[dict[str, Any]], folder: Path) -> None:
    if not found:
        console.print(screen.data(f"There are no templates in {folder}. A template is a file NAME.md.j2."))
        return
    rows: list[tuple[Any, ...]] = []
    for item in found:
        if "error" in item:
            rows.append((item["name"], "", "", screen.data(item["error"], "red")))
            continue
        takes = " ".join(f"--set {name}=..." for name in item["params"])
        what = screen.data(item["description"] or "")
        if not item["selects"]:
            what.append(" (a step of a flow)", "dim")
        rows.append((item["name"], item["output"], takes, what))
    console.print(screen.table(["template", "output", "parameters", "description"], rows))
