"""Check the fields of a request that do not change the answer, with the API's error messages.

Few requests have any of them, so pydantic checks them; its messages are the API's own.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandbox.error_shapes import Refusal, bad_request


class _OptionModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Skill(_OptionModel):
    type: Literal["anthropic", "custom"]
    skill_id: str
    version: str = "latest"


class _Container(_OptionModel):
    id: str | None = None
    skills: list[_Skill] | None = None


class _Diagnostics(_OptionModel):
    previous_message_id: str | None = None


class _Metadata(_OptionModel):
    user_id: str | None = None


class _Choice(_OptionModel):
    type: Literal["auto", "any"]
    disable_parallel_tool_use: bool = False


class _ToolChoice(_OptionModel):
    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool = False


class _NoChoice(_OptionModel):
    type: Literal["none"]


class _ToolSchema(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    type: Literal["object"]
    properties: dict[str, Any] | None = None
    required: list[str] | None = None


class _Tool(_OptionModel):
    """A tool that the caller runs. Tools that Anthropic runs are not checked."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    input_schema: _ToolSchema
    type: Literal["custom"] | None = None
    description: str = ""
    allowed_callers: list[str] = []
    cache_control: dict[str, Any] | None = None
    defer_loading: bool = False
    eager_input_streaming: bool | None = None
    input_examples: list[dict[str, Any]] = []
    strict: bool = False


class _Options(_OptionModel):
    container: str | _Container | None = None
    diagnostics: _Diagnostics | None = None
    inference_geo: str | None = None
    metadata: _Metadata = _Metadata()
    service_tier: Literal["auto", "standard_only"] = "auto"
    speed: Literal["standard", "fast"] | None = None
    tool_choice: Annotated[_Choice | _ToolChoice | _NoChoice | None, Field(discriminator="type")] = None


_FIELDS = frozenset(_Options.model_fields)


def read_options(body: Mapping[str, Any], *, forced_tools: bool) -> None:
    """Check these fields of a request, and its tools; raises Refusal."""
    if "tools" in body:
        _check_tools(body["tools"])
    if _FIELDS.isdisjoint(body):
        return
    try:
        options = _Options.model_validate({name: body[name] for name in _FIELDS & body.keys()})
    except ValidationError as error:
        raise said(error) from error
    if options.tool_choice is not None:
        _check_choice(options.tool_choice, body.get("tools", []), forced_tools=forced_tools)


def said(error: ValidationError, where: str = "") -> Refusal:
    """A refusal with the first error. For a union, it is the error of the alternative that matched furthest."""
    first = max(error.errors(include_url=False), key=lambda item: len(item["loc"]))
    place = where + ".".join(str(part) for part in first["loc"])
    return bad_request(f"{place}: {first['msg']}" if place else first["msg"])


def _check_tools(tools: object) -> None:
    if not isinstance(tools, list):
        raise bad_request("tools: Input should be a valid list")
    for i, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise bad_request(f"tools.{i}: Input should be a valid dictionary")
        if tool.get("type") in (None, "custom"):
            try:
                _Tool.model_validate(tool)
            except ValidationError as error:
                raise said(error, f"tools.{i}.custom.") from error
        elif not isinstance(tool["type"], str):
            raise bad_request(f"tools.{i}.type: Input should be a valid string")


def _check_choice(choice: _Choice | _ToolChoice | _NoChoice, tools: list[Any], *, forced_tools: bool) -> None:
    if not tools:
        raise bad_request("tool_choice may only be specified while providing tools.")
    if choice.type in ("any", "tool") and not forced_tools:
        raise bad_request("tool_choice forces tool use is not compatible with this model.")
    if isinstance(choice, _ToolChoice) and choice.name not in [tool.get("name") for tool in tools]:
        raise bad_request(f"Tool '{choice.name}' not found in provided tools")
