"""The endpoint as the steps of one run use it: it is asked, and asked about each model before the first request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from db.ledger.clock import now
from flows.engine.report.progress import Progress
from flows.engine.resources.endpoint import Endpoint
from flows.steps.catalog import ending
from flows.steps.claude.answers import Answer
from flows.steps.model_rules import misfits, require_fit
from flows.steps.prompts.render import Brief


class RunEndpoint:
    """Implements flows.engine.context.AskedEndpoint; `reaches` has the endpoint confirm the key, unless it has."""

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
        """Take note of a template of the run; its summary says if the model is about to end."""
        front = brief.template.front
        self._templates[front.model].add(brief.template.name)
        self._note_ending(front.model)

    async def learn_model(self, brief: Brief) -> int | None:
        """Ask the endpoint about a step's model, and return the longest answer that it gives, in tokens.

        Raises TemplateError where the model does not take what the step's requests carry.
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
            self._progress.note(f"model {model}", f"{told}. Move to another model: it is named by {named}.")
