"""Retiring: the models that templates name, and which of them are deprecated or retire soon."""

import asyncio
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from presswork.catalog import Model, NotTold, ending, find_model
from presswork.errors import CallError, ConfigurationError
from presswork.prompts.front_matter import FrontMatter
from presswork.prompts.templates import read_heads
from presswork.settings import Settings

ENDPOINT_TIMEOUT_S = 3.0
"""How long `status` waits for what the endpoint says: it answers at once, or does without."""


@dataclass(frozen=True, slots=True)
class Retiring:
    """A model that ends, in words, and the templates that name it."""

    model: str
    words: str
    lifecycle: str | None
    retires_on: date | None
    templates: list[str]


def models_of(folder: Path, names: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Return the models that templates name, by default all, each with its templates, as far as these can be read."""
    found: dict[str, list[str]] = {}
    for name, head in read_heads(folder, names):
        if isinstance(head, FrontMatter):
            found.setdefault(head.model, []).append(name)
    return found


def ask_endpoint(
    settings: Settings, names: Iterable[str], patience_s: float | None = None
) -> Mapping[str, Model | NotTold]:
    """Ask the endpoint about models. Raises MissingKeyError, EndpointError, StoppingCallError or TimeoutError."""
    from presswork.engine.resources.endpoint import read_models  # noqa: PLC0415 - loads the SDK

    async def ask() -> Mapping[str, Model | NotTold]:
        async with asyncio.timeout(patience_s):
            return await read_models(settings, names)

    return asyncio.run(ask())


def retiring(settings: Settings, today: date) -> list[Retiring]:
    """Find the models that end soon: as the endpoint says, where it does so at once, else as is known here."""
    named = models_of(settings.templates_dir)
    told: Mapping[str, Model | NotTold] = {}
    # Without a key there is no one to ask, and the SDK takes seconds to load.
    if any(os.environ.get(name) for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")):
        with suppress(TimeoutError, CallError, ConfigurationError):
            told = ask_endpoint(settings, named, ENDPOINT_TIMEOUT_S)
    found: list[Retiring] = []
    for name, templates in sorted(named.items()):
        said = told.get(name)
        model = said if isinstance(said, Model) else find_model(name)
        words = ending(name, model, today)
        if words is not None and model is not None:
            found.append(Retiring(name, words, model.lifecycle, model.retires_on, templates))
    return found
