"""Ask the endpoint about the models that templates name. This module loads the SDK, which takes a second."""

import asyncio
from contextlib import suppress

from presswork.catalog import ModelsByName
from presswork.commands.templates.linting import ChosenTemplates, print_lint
from presswork.commands.templates.retiring import NamedModels, models_of
from presswork.engine.resources.endpoint import read_models
from presswork.errors import CallError, ConfigurationError
from presswork.terminal.endings import CommandContext

ENDPOINT_TIMEOUT_S = 3.0
"""How long `presswork status` waits for the endpoint before it falls back on what is known here."""


def lint_online(command: CommandContext, chosen: ChosenTemplates) -> int:
    """Lint templates by what the endpoint reports about their models; return the exit status.

    Raises MissingKeyError, EndpointError or StoppingCallError if the endpoint can't be asked.
    """
    settings = command.settings
    models = models_of(settings.templates_dir, chosen.names)
    return print_lint(command, chosen, asyncio.run(read_models(settings, models)))


def ask_at_once(command: CommandContext, named: NamedModels) -> ModelsByName:
    """Return what the endpoint reports about models; nothing if it fails or takes longer than ENDPOINT_TIMEOUT_S."""

    async def ask() -> ModelsByName:
        async with asyncio.timeout(ENDPOINT_TIMEOUT_S):
            return await read_models(command.settings, named.names)

    with suppress(TimeoutError, CallError, ConfigurationError):
        return asyncio.run(ask())
    return {}
