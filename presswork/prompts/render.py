"""Render a template and one record to a prompt, whose hash is its identity.

The hash is sha256 over canonical JSON (UTF-8, sorted keys, no white space) of everything that changes the answer, and
of nothing else: a larger max_tokens, a moved cache breakpoint, another run or a retry must not pay for an answer again.
tests/prompts/test_hash.py pins hashes, so that no upgrade does so either.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from presswork.catalog import estimate_tokens, find_model, likely_tokens, most_tokens
from presswork.errors import RecordError, place_in
from presswork.model_rules import request_settings
from presswork.output_classes.validate import OutputClass
from presswork.prompts.syntax import place_of, without_values
from presswork.prompts.templates import Template

HASH_SCHEME = 1
"""Part of every hash. Raising it makes every prompt new, so raise it only if the old hash was wrong."""


class Caching(Enum):
    """Whether the endpoint can cache the shared start of a template's prompts: the output schema and the system block.

    TOO_SHORT is certain, and the only case that is not marked for the cache. UNSURE is marked, and probably too short.
    """

    OFF = "off"
    TOO_SHORT = "too short"
    UNSURE = "unsure"
    ON = "on"


@dataclass(frozen=True, slots=True)
class Brief:
    """The shared part of all prompts of one template in one run, rendered and hashed once.

    `prefix` identifies the part that the endpoint caches: equal ones share an entry. Neither `prefix` nor `caching` is
    part of a prompt's hash.
    """

    template: Template
    endpoint: str
    params: Mapping[str, Any]
    system: str
    examples: tuple[dict[str, str], ...]
    schema: dict[str, Any]
    settings: dict[str, Any]
    caching: Caching
    prefix: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered request. `messages` alternate between user and assistant, and the last one is the user's."""

    hash: str
    brief: Brief
    messages: tuple[dict[str, str], ...]
    variant: int

    @property
    def model(self) -> str:
        """The model of the request."""
        return self.brief.template.front.model

    @property
    def max_tokens(self) -> int:
        """The limit of the answer in tokens, from the template."""
        return self.brief.template.front.max_tokens

    @property
    def output_class(self) -> OutputClass:
        """The class of a valid answer."""
        return self.brief.template.output_class

    @property
    def characters(self) -> int:
        """The number of characters that are sent."""
        return len(self.brief.system) + sum(len(message["content"]) for message in self.messages)

    @property
    def estimated_tokens(self) -> int:
        """The approximate number of tokens that are sent, as the model counts them."""
        return estimate_tokens(self.characters, find_model(self.model))


def make_brief(template: Template, endpoint: str, params: Mapping[str, Any]) -> Brief:
    """Render the shared part of a template's prompts; a mistake in it raises TemplateError."""
    front = template.front
    system = template.render_system(params)
    examples: list[dict[str, str]] = []
    for number in range(1, len(front.examples) + 1):
        asked, answer = template.render_example(number, params)
        examples += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    settings = request_settings(front, find_model(front.model))
    told = orjson.dumps([front.model, front.cache, settings], option=orjson.OPT_SORT_KEYS)
    shared = (template.schema_json + system).encode("utf-8", "surrogatepass")
    caching, prefix = _caching(template, system), hashlib.sha256(told + shared).hexdigest()
    return Brief(template, endpoint, params, system, tuple(examples), template.schema, settings, caching, prefix)


def _caching(template: Template, system: str) -> Caching:
    model, whole = find_model(template.front.model), template.schema_json + system
    if not system or template.front.cache == "off":
        return Caching.OFF
    if model is None or model.cacheable is None:
        return Caching.ON
    if most_tokens(whole, model) < model.cacheable:
        return Caching.TOO_SHORT
    return Caching.ON if likely_tokens(whole, model) >= model.cacheable else Caching.UNSURE


def render_prompt(brief: Brief, inputs: Mapping[str, Any], *, variant: int = 0) -> Prompt:
    """Fill the user block with a record and the outputs of earlier steps, by name.

    A missing value raises RecordError, and never renders as empty. Values are never rendered again: a record that
    contains `{{ ... }}` stays text.
    """
    template = brief.template
    try:
        user = template.render_block("user", {"params": brief.params, **inputs})
    except Exception as error:  # noqa: BLE001 - the boundary of one record: it fails alone
        what = without_values(error, template.sources.values())
        raise RecordError(f"{place_in(*place_of(template.file, error))}: {what}.") from None
    if not user:
        raise RecordError(f"{template.file}: the user block renders as empty text.")
    messages = (*brief.examples, {"role": "user", "content": user})
    try:
        prompt_hash = hash_request(brief, messages, variant)
    except TypeError:
        # Half of a surrogate pair, which can't be encoded.
        raise RecordError(f"{template.file}: the record holds text that is not Unicode.") from None
    return Prompt(prompt_hash, brief, messages, variant)


def hash_request(brief: Brief, messages: tuple[dict[str, str], ...], variant: int) -> str:
    """Return the prompt's identity: 64 hex digits."""
    content = {
        "scheme": HASH_SCHEME,
        "endpoint": brief.endpoint,
        "model": brief.template.front.model,
        "system": brief.system,
        "messages": messages,
        "schema": brief.schema,
        "settings": brief.settings,
        "variant": variant,
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def request_body(prompt: Prompt) -> dict[str, Any]:
    """Build the body of POST /v1/messages."""
    brief = prompt.brief
    body: dict[str, Any] = {
        "model": prompt.model,
        "max_tokens": prompt.max_tokens,
        "messages": list(prompt.messages),
        "output_config": {"format": {"type": "json_schema", "schema": brief.schema}},
    }
    if brief.system:
        block: dict[str, Any] = {"type": "text", "text": brief.system}
        if brief.caching in {Caching.UNSURE, Caching.ON}:
            block["cache_control"] = {"type": "ephemeral", "ttl": brief.template.front.cache}
        body["system"] = [block]
    if "thinking" in brief.settings:
        body["thinking"] = brief.settings["thinking"]
    if "effort" in brief.settings:
        body["output_config"]["effort"] = brief.settings["effort"]
    return body
