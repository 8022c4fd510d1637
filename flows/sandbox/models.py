"""The models the sandbox knows, with their limits, in the shape of GET /v1/models."""

from collections.abc import Mapping
from dataclasses import dataclass

from flows.sandbox.refusals import Refusal


@dataclass(frozen=True, slots=True)
class Model:
    """One model: its limits in tokens, and what it can do."""

    id: str
    name: str
    line: str
    created_at: str
    max_output: int
    context: int
    cache_minimum: int
    efforts: frozenset[str]
    adaptive_thinking: bool = True
    prefill: bool = False


_EFFORTS = frozenset({"low", "medium", "high", "max"})

MODELS: Mapping[str, Model] = {
    model.id: model
    for model in (
        Model(
            "claude-sonnet-5-5",
            "Claude Sonnet 5.5",
            "sonnet",
            "2026-09-15T00:00:00Z",
            128_000,
            1_000_000,
            1_024,
            _EFFORTS | {"xhigh"},
        ),
        Model(
            "claude-sonnet-4-6",
            "Claude Sonnet 4.6",
            "sonnet",
            "2026-02-17T00:00:00Z",
            128_000,
            1_000_000,
            1_024,
            _EFFORTS,
        ),
        Model(
            "claude-opus-4-6",
            "Claude Opus 4.6",
            "opus",
            "2026-02-05T00:00:00Z",
            128_000,
            1_000_000,
            4_096,
            _EFFORTS,
        ),
        Model(
            "claude-haiku-4-5",
            "Claude Haiku 4.5",
            "haiku",
            "2025-10-15T00:00:00Z",
            64_000,
            200_000,
            4_096,
            frozenset(),
            adaptive_thinking=False,
            prefill=True,
        ),
    )
}


def find_model(name: object, field: str = "model: ") -> Model:
    """The model of that id; raises Refusal (404) for one nobody knows."""
    model = MODELS.get(name) if isinstance(name, str) else None
    if model is None:
        raise Refusal(404, "not_found_error", f"{field}{name}")
    return model


def model_info(model: Model) -> dict[str, object]:
    """A ModelInfo."""
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.name,
        "line": model.line,
        "lifecycle": "active",
        "created_at": model.created_at,
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": model.context,
        "max_tokens": model.max_output,
        "capabilities": _capabilities(model),
    }


def model_page(query: Mapping[str, str]) -> dict[str, object]:
    """A page of ModelInfo, by `limit`, `after_id` and `before_id`."""
    ids = list(MODELS)
    limit = query.get("limit", "20")
    if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
        raise Refusal(400, "invalid_request_error", "limit: Input should be between 1 and 1000")
    if "after_id" in query:
        find_model(query["after_id"], "after_id: ")
        ids = ids[ids.index(query["after_id"]) + 1 :]
    more = len(ids) > int(limit)
    if "before_id" in query:
        find_model(query["before_id"], "before_id: ")
        ids = ids[: ids.index(query["before_id"])]
        more = len(ids) > int(limit)
        ids = ids[-int(limit) :]
    ids = ids[: int(limit)]
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    return {
        "data": [model_info(MODELS[i]) for i in ids],
        "has_more": more,
        "first_id": first,
        "last_id": last,
    }


def _capabilities(model: Model) -> dict[str, object]:
    yes, no = {"supported": True}, {"supported": False}

    def has(it: object) -> dict[str, bool]:
        return yes if it else no

    thinking = {
        "adaptive": has(model.adaptive_thinking),
        "between_tools": no,
        "disabled": yes,
        "enabled": yes,
    }
    efforts = {effort: has(effort in model.efforts) for effort in ("low", "medium", "high", "xhigh", "max")}
    return {
        "batch": no,
        "citations": no,
        "code_execution": no,
        "context_management": no,
        "effort": {"supported": bool(model.efforts), **efforts},
        "image_input": yes,
        "pdf_input": yes,
        "server_tools": {"supported": False, "code_execution": no, "web_search": no},
        "structured_outputs": yes,
        "thinking": {"supported": True, "types": thinking},
    }
