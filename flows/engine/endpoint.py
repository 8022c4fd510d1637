"""Endpoint: which Messages API a run speaks to, and by which name the ledger knows it.

The name, not the URL, is part of every prompt's hash: a gateway that moves must not buy everything again, and what
the sandbox answered must never pass for Claude's.
"""

from __future__ import annotations

import asyncio
import os
import resource
from dataclasses import dataclass, field
from typing import Any

from flows.errors import ConfigurationError, MissingKeyError, StoppingCallError
from flows.settings import Settings
from flows.steps.complete import ANTHROPIC, SANDBOX, Client, check_endpoint, require_key

FILES_BESIDE = 100  # files that a process has open beside its requests: databases, Prefect, libraries
NO_KEY = "none"  # the sandbox takes any credential
IF_A_GATEWAY = "If a gateway answers there that keeps GET /v1/models to itself, name it: set PRESSWORK_ENDPOINT."


@dataclass
class Endpoint:
    """An open endpoint: its name, its client, whether it has said that it takes the key; a `gateway` may not say."""

    name: str
    client: Client
    verified: bool
    gateway: bool = False
    _once: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def verify(self) -> bool:
        """Ask once, before the first request, whether the key is taken; False where the endpoint can't say.

        Raises StoppingCallError where it refuses, EndpointError where it can't be reached.
        """
        async with self._once:
            if not self.verified:
                identity = await self.client.identify(gateway=self.gateway)
                if identity.is_sandbox or identity.answered:
                    check_endpoint(self.name, is_sandbox=identity.is_sandbox)
                self.verified = identity.answered
        return self.verified


def require_files(concurrency: int) -> None:
    """Refuse a concurrency for which this process may not open enough connections."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = soft - FILES_BESIDE
    if soft != resource.RLIM_INFINITY and concurrency > most:
        raise ConfigurationError(
            f"A concurrency of {concurrency:,} is above what this process may open: with a limit of {soft:,} files "
            f"it is {max(most, 0):,} at most. Lower it, or raise the limit (ulimit -n)."
        )


async def open_endpoint(settings: Settings, concurrency: int) -> Endpoint:
    """Find out what the endpoint is. MissingKeyError and EndpointError come before anything is sent."""
    base_url = os.environ.get("ANTHROPIC_BASE_URL") or None
    key = os.environ.get("ANTHROPIC_API_KEY") or await _key_of_block(settings.api_key_block)
    named = settings.endpoint
    if base_url is None or (named is not None and named != SANDBOX):
        require_key(key)

    client = Client(
        api_key=key or NO_KEY,
        base_url=base_url,
        timeout_s=settings.request_timeout_s,
        connections=concurrency,
    )
    if base_url is None or named is not None:
        return Endpoint(named or ANTHROPIC, client, verified=False, gateway=base_url is not None)
    try:
        identity = await client.identify()
    except StoppingCallError as error:
        await client.__aexit__()
        if key is None:
            raise MissingKeyError from None
        if error.http_status == 403:
            raise StoppingCallError(f"{error} {IF_A_GATEWAY}", kind=error.kind, http_status=403) from None
        raise
    except BaseException:
        await client.__aexit__()
        raise
    if not identity.is_sandbox and key is None:
        await client.__aexit__()
        raise MissingKeyError
    return Endpoint(SANDBOX if identity.is_sandbox else ANTHROPIC, client, verified=identity.answered)


async def _key_of_block(name: str | None) -> str | None:
    """Read the API key from a Prefect Secret block; it is kept nowhere else."""
    if name is None:
        return None
    from prefect.blocks.system import Secret  # noqa: PLC0415 - loads Prefect, which few calls need

    try:
        block: Any = await Secret.aload(name)
    except ValueError:
        raise MissingKeyError(
            f"PRESSWORK_API_KEY_BLOCK: Prefect has no Secret block {name!r}. Make it in its UI under Blocks, or set "
            "ANTHROPIC_API_KEY."
        ) from None
    return str(block.get()) or None
