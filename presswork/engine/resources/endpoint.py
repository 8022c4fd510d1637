"""Open a run's endpoint, a Messages API with the name that the ledger stores.

The name, not the URL, is part of every prompt's hash. So a gateway can move without paying for everything again, and an
answer of the sandbox never passes for Claude's.
"""

import asyncio
import os
import resource
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from db.clock import now
from db.words import ANTHROPIC, SANDBOX
from presswork.catalog import Model, NotTold, corrected, ending, find_model
from presswork.claude.answers import Answer
from presswork.claude.endpoint_check import check_endpoint, require_key
from presswork.errors import CallError, ConfigurationError, MissingKeyError, StoppingCallError
from presswork.model_rules import misfits, request_settings, require_fit
from presswork.prompts.render import Brief
from presswork.prompts.templates import Template
from presswork.report.progress import Progress
from presswork.settings import Settings

if TYPE_CHECKING:
    from presswork.claude.client import Client

OTHER_FILES = 100  # files that a process opens in addition to its requests: databases, Prefect, libraries
NO_KEY = "none"  # the sandbox accepts any key
IF_A_GATEWAY = "If this is a gateway that does not serve GET /v1/models, name it: set PRESSWORK_ENDPOINT."


@dataclass
class Endpoint:
    """An open endpoint. `verified` means that it accepted the key; a `gateway` may be unable to confirm that."""

    name: str
    client: "Client"
    verified: bool
    gateway: bool = False
    _once: asyncio.Lock = field(default_factory=asyncio.Lock)
    _models: dict[str, Model | NotTold] = field(default_factory=dict)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def verify(self) -> bool:
        """Check the key once, before the first request; returns False if the endpoint can't confirm it.

        Raises StoppingCallError if the endpoint refuses the key, EndpointError if it can't be reached.
        """
        async with self._once:
            if not self.verified:
                identity = await self.client.identify(gateway=self.gateway)
                if identity.is_sandbox or identity.answered:
                    check_endpoint(self.name, is_sandbox=identity.is_sandbox)
                self.verified = identity.answered
        return self.verified

    def known(self, name: str) -> Model | None:
        """Return the facts of a model: the catalog's, overridden by the endpoint's if it was asked."""
        told = self._models.get(name)
        return told if isinstance(told, Model) else find_model(name)

    async def ask_about(self, name: str) -> Model | NotTold:
        """Ask the endpoint about a model, once; facts that it leaves out come from the catalog."""
        async with self._asking:
            if name not in self._models:
                try:
                    self._models[name] = corrected(find_model(name), await self.client.read_model(name))
                except CallError as error:
                    self._models[name] = self._not_told(name, error)
        return self._models[name]

    def _not_told(self, name: str, error: CallError) -> NotTold:
        if error.http_status == 404 and self.verified:
            return NotTold(f"The endpoint {self.name!r} has no model {name!r}.", is_unknown=True)
        why = f"HTTP {error.http_status}" if error.http_status else str(error)
        return NotTold(
            f"The endpoint {self.name!r} does not describe the model {name}: {why}. The built-in catalog is used."
        )

    async def require_fit(self, templates: Iterable[Template]) -> None:
        """Raise TemplateError for a template whose settings its model does not accept.

        The endpoint is asked only if the catalog would refuse a template, because the endpoint knows better.
        """
        for template in templates:
            front = template.front
            known = find_model(front.model)
            sent = request_settings(front, known)
            if misfits(front, sent, known):
                await self.ask_about(front.model)
                require_fit(template.file, misfits(front, sent, self.known(front.model)))


class RunEndpoint:
    """The endpoint that the steps of one run share; it is asked about each model before the first request.

    `reaches` makes the endpoint confirm the key, if it has not yet.
    """

    def __init__(self, endpoint: Endpoint, reaches: Callable[[], Awaitable[bool]], progress: Progress) -> None:
        self.name = endpoint.name
        self.verify = endpoint.verify
        self._endpoint = endpoint
        self._reaches = reaches
        self._progress = progress
        self._templates: dict[str, set[str]] = defaultdict(set)

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """Send a request."""
        return await self._endpoint.client.ask(body, self.name)

    def uses(self, brief: Brief) -> None:
        """Note a template of the run, so that the summary warns if its model retires soon."""
        front = brief.template.front
        self._templates[front.model].add(brief.template.name)
        self._note_ending(front.model)

    async def learn_model(self, brief: Brief) -> int | None:
        """Ask the endpoint about a step's model, and return the model's longest answer in tokens.

        Raises TemplateError if the model does not accept the settings of the step's requests.
        """
        front = brief.template.front
        if await self._reaches():
            await self._endpoint.ask_about(front.model)
        model = self._endpoint.known(front.model)
        require_fit(brief.template.file, misfits(front, brief.settings, model))
        self._note_ending(front.model)
        return model.max_output if model else None

    def _note_ending(self, model: str) -> None:
        told = ending(model, self._endpoint.known(model), now().date())
        if told is None:
            self._progress.notes.pop(f"model {model}", None)
        else:
            named = ", ".join(sorted(self._templates[model]))
            self._progress.notes[f"model {model}"] = f"{told}. Change the model in: {named}."


async def read_models(settings: Settings, names: Iterable[str]) -> dict[str, Model | NotTold]:
    """Ask the endpoint about models. Raises MissingKeyError, EndpointError or StoppingCallError if that fails."""
    asked = list(names)
    endpoint = await open_endpoint(settings, max(1, len(asked)))
    async with endpoint.client:
        await endpoint.verify()
        return {name: await endpoint.ask_about(name) for name in asked}


def require_files(concurrency: int) -> None:
    """Raise ConfigurationError if this process may not open enough connections for a concurrency."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = soft - OTHER_FILES
    if soft != resource.RLIM_INFINITY and concurrency > most:
        raise ConfigurationError(
            f"The concurrency {concurrency:,} is too high: with a limit of {soft:,} open files, this process can use "
            f"at most {max(most, 0):,}. Lower the concurrency, or raise the limit (ulimit -n)."
        )


async def open_endpoint(settings: Settings, concurrency: int) -> Endpoint:
    """Open the endpoint that the environment sets. Raises MissingKeyError or EndpointError before any request."""
    base_url = os.environ.get("ANTHROPIC_BASE_URL") or None
    key = os.environ.get("ANTHROPIC_API_KEY") or await _key_of_block(settings.api_key_block)
    named = settings.endpoint
    if base_url is None or (named is not None and named != SANDBOX):
        require_key(key)
    from presswork.claude.client import Client  # noqa: PLC0415 - loads the SDK, in a second, once something is sent

    client = Client(
        api_key=key or NO_KEY,
        base_url=base_url,
        timeout_s=settings.request_timeout_s,
        connections=concurrency,
    )
    if base_url is None or named is not None:
        return Endpoint(named or ANTHROPIC, client, verified=False, gateway=base_url is not None)
    try:
        return await _identified(client, key)
    except BaseException:
        await client.__aexit__()
        raise


async def _identified(client: "Client", key: str | None) -> Endpoint:
    """Find out the name of an endpoint by asking it."""
    try:
        identity = await client.identify()
    except StoppingCallError as error:
        if key is None:
            raise MissingKeyError from None
        if error.http_status == 403:
            raise StoppingCallError(f"{error} {IF_A_GATEWAY}", kind=error.kind, http_status=403) from None
        raise
    if not identity.is_sandbox and key is None:
        raise MissingKeyError
    return Endpoint(SANDBOX if identity.is_sandbox else ANTHROPIC, client, verified=identity.answered)


async def _key_of_block(name: str | None) -> str | None:
    """Read the API key from a Prefect Secret block; it is stored nowhere else."""
    if name is None:
        return None
    from prefect.blocks.system import Secret  # noqa: PLC0415 - loads Prefect, which takes seconds, only for such a block

    try:
        block: Any = await Secret.aload(name)
    except ValueError:
        raise MissingKeyError(
            f"PRESSWORK_API_KEY_BLOCK: Prefect has no Secret block {name!r}. Create it in the Prefect UI under Blocks, "
            "or set ANTHROPIC_API_KEY."
        ) from None
    return str(block.get()) or None
