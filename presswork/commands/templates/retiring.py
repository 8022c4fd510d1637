"""Find the models that templates name, and which of them are deprecated or retire soon."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from presswork.catalog import Model, ModelsByName, ending, find_model
from presswork.prompts.front_matter import FrontMatter
from presswork.prompts.templates import read_heads


@dataclass(frozen=True, slots=True)
class Retiring:
    """A model that is deprecated or retires soon; `words` say when, `templates` name it."""

    model: str
    words: str
    lifecycle: str | None
    retires_on: date | None
    templates: list[str]


@dataclass(frozen=True, slots=True)
class NamedModels:
    """The models to ask the endpoint about."""

    names: list[str]


def models_of(folder: Path, names: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Return the models that templates name, each with its templates, by default of all templates.

    Templates whose front matter has a mistake are left out.
    """
    found: dict[str, list[str]] = {}
    for name, head in read_heads(folder, names):
        if isinstance(head, FrontMatter):
            found.setdefault(head.model, []).append(name)
    return found


def models_to_ask(folder: Path) -> NamedModels | None:
    """Return the models of all templates, or None if no endpoint is configured that could be asked."""
    if not any(os.environ.get(name) for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")):
        return None
    return NamedModels(list(models_of(folder)))


def retiring(folder: Path, reported: ModelsByName, today: date) -> list[Retiring]:
    """Find the models that retire soon, as the endpoint reported them, or else as this release knows them."""
    found: list[Retiring] = []
    for name, templates in sorted(models_of(folder).items()):
        said = reported.get(name)
        model = said if isinstance(said, Model) else find_model(name)
        words = ending(name, model, today)
        if words is not None and model is not None:
            found.append(Retiring(name, words, model.lifecycle, model.retires_on, templates))
    return found
