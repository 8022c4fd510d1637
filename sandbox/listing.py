"""List in pages: models, and anything else with an id, by `limit`, `after_id` and `before_id`."""

from collections.abc import Callable, Mapping, Sequence

from sandbox.error_shapes import Refusal, bad_request
from sandbox.known import SERVED_MODELS, ServedModel, find_model

# A query as urllib.parse.parse_qs returns it: each name may have several values.
QueryParameters = Mapping[str, list[str]]

_LIFECYCLES = ("active", "deprecated", "retired")
# Ids that the SDK's own tests request from GET /v1/models. The API has no such models. Each is mapped to one here so
# that those tests can run (docs/sandbox.md).
_EXAMPLES = {"model_id": "claude-sonnet-4-6", "after_id": "claude-fable-5-2", "before_id": "claude-opus-4-6"}


def model_info(name: str) -> dict[str, object]:
    """The ModelInfo of an id or alias; raises Refusal for an unknown one."""
    return _info(_listed(name, "model: "))


def model_page(query: QueryParameters) -> dict[str, object]:
    """A page of ModelInfo. Retired models are only listed if `lifecycle` includes them."""
    asked = [*query.get("lifecycle[]", []), *query.get("lifecycle", [])] or list(_LIFECYCLES[:2])
    for value in asked:
        if value not in _LIFECYCLES:
            raise bad_request(f"lifecycle: Input should be {', '.join(map(repr, _LIFECYCLES))}")
    infos = {model.id: _info(model) for model in SERVED_MODELS.values() if model.lifecycle in asked}
    return page(list(infos.items()), query, lambda cursor: _listed(cursor, "").id)


def page(
    items: Sequence[tuple[str, object]], query: QueryParameters, resolve: Callable[[str], str] = str
) -> dict[str, object]:
    """A page of items, each with its id; raises Refusal for a wrong limit or an unknown cursor."""
    text = query.get("limit", ["20"])[-1]
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise bad_request("limit: Input should be between 1 and 1000")
    limit, ids = int(text), [item_id for item_id, _ in items]
    first, last = 0, len(ids)
    if "after_id" in query:
        first = _index(ids, resolve(query["after_id"][-1]), "after_id") + 1
    if "before_id" in query:
        last = _index(ids, resolve(query["before_id"][-1]), "before_id")
        first, more = max(first, last - limit), last - first > limit
    else:
        last, more = min(last, first + limit), last - first > limit
    found = items[first:last]
    return {
        "data": [item for _, item in found],
        "has_more": more,
        "first_id": found[0][0] if found else None,
        "last_id": found[-1][0] if found else None,
    }


def _index(ids: Sequence[str], cursor: str, field: str) -> int:
    if cursor not in ids:
        raise Refusal(404, "not_found_error", f"{field}: {cursor}")
    return ids.index(cursor)


def _listed(name: str, field: str) -> ServedModel:
    return find_model(_EXAMPLES.get(name, name), field)


def _info(model: ServedModel) -> dict[str, object]:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.name,
        "line": model.line or None,
        "lifecycle": model.lifecycle,
        "created_at": _midnight(model.released),
        "deprecated_at": None,
        "retires_at": _midnight(model.retires),
        "max_input_tokens": model.context,
        "max_tokens": model.max_output,
        "capabilities": _capabilities(model),
    }


def _midnight(day: str | None) -> str | None:
    return None if day is None else f"{day}T00:00:00Z"


def _capabilities(model: ServedModel) -> dict[str, object]:
    yes, no = {"supported": True}, {"supported": False}

    def has(it: object) -> dict[str, bool]:
        return yes if it else no

    rules = model.rules
    kinds = ("adaptive", "between_tools", "disabled", "enabled")
    efforts = {effort: has(effort in rules.efforts) for effort in ("low", "medium", "high", "xhigh", "max")}
    return {
        "batch": yes,
        "citations": no,
        "code_execution": no,
        "context_management": no,
        "effort": {"supported": bool(rules.efforts), **efforts},
        "image_input": yes,
        "pdf_input": yes,
        "server_tools": {"supported": False, "code_execution": no, "web_search": no},
        "structured_outputs": yes,
        "thinking": {"supported": True, "types": {kind: has(kind in rules.thinking) for kind in kinds}},
    }
