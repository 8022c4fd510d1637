"""Read a template's front matter: its settings, in YAML between two lines of `---` at the top.

This is a module of its own so that a mistake is reported by field or line before the prompt is read.
"""

import math
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field, InstanceOf, TypeAdapter, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from presswork.catalog import DEFAULT_MODEL
from presswork.errors import ParameterError, TemplateError
from presswork.known_models import Effort
from presswork.output_classes.fields import TYPES, OutputFields, read_fields, with_article
from presswork.prompts.front_yaml import as_yaml_1_1, load_yaml

SUFFIX = ".md.j2"
ParamType = Literal["str", "int", "float", "bool", "date", "datetime"]
LEAST_THINKING = 1024
"""The smallest thinking budget that the API accepts."""

# Values for checks that render before a run gives the true ones.
_DAY = datetime(2000, 1, 1, tzinfo=UTC)
_STAND_INS = {"str": "", "int": 1, "float": 1.0, "bool": True, "date": _DAY.date(), "datetime": _DAY}
# These replace messages that pydantic writes for programmers.
_IN_WORDS = {
    "extra_forbidden": "unknown key; docs/templates.md lists the available ones",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be keys and values, such as {a: b}",
    "model_type": "must be keys and values, such as {type: int}",
}
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_REQUIRED = object()


class Param(BaseModel):
    """A parameter of a template's select, bound with its type; without a `default` it must be given."""

    model_config = ConfigDict(extra="forbid")

    type: ParamType = "str"
    default: Any = Field(default=_REQUIRED)
    title: str | None = None
    description: str | None = None
    choices: list[Any] | None = Field(default=None, min_length=1)

    @pydantic.model_validator(mode="after")
    def _default_and_choices_have_the_type(self) -> Self:
        choices, self.choices = self.choices, None
        if choices is not None:
            self.choices = [self._typed_as_written(choice) for choice in choices]
        if not self.required and self.default is not None:
            self.default = self._typed_as_written(self.default)
        return self

    @property
    def required(self) -> bool:
        """Whether a run must give it."""
        return self.default is _REQUIRED

    @property
    def nullable(self) -> bool:
        """Whether it may be null: only if its default is null."""
        return not self.required and self.default is None

    @property
    def stand_in(self) -> Any:
        """The value for checks before a run has values."""
        if not self.required:
            return self.default
        return self.choices[0] if self.choices else _STAND_INS[self.type]

    def parse(self, name: str, value: Any) -> Any:
        """Convert a value to the parameter's type; raises ParameterError for a value that does not fit.

        An empty text, as `--set name=` gives it, becomes null if null is allowed. Otherwise only a `str` can be empty.
        """
        if self.nullable and (value is None or value == ""):
            return None
        try:
            return _storable(self._typed(value))
        except ValueError as error:
            raise ParameterError(f"The parameter {name!r} {error}.") from None

    def _typed_as_written(self, value: Any) -> Any:
        try:
            return self._typed(value)
        except ValueError:
            # 0x1F, .inf: templates of earlier releases may have these.
            if not isinstance(value, str) or self.type == "str":
                raise
            with suppress(ValueError):
                return self._typed(as_yaml_1_1(value))
            raise

    def _typed(self, value: Any) -> Any:
        if value is None or (value == "" and self.type != "str"):
            raise ValueError(f"must have a value of type {self.type}")
        try:
            parsed = TypeAdapter[Any](TYPES[self.type]).validate_python(value)
        except ValidationError:
            raise ValueError(f"takes {with_article(self.type)}, not {value!r}") from None
        if self.choices is not None and parsed not in self.choices:
            raise ValueError(f"takes one of {', '.join(map(str, self.choices))}, not {value!r}")
        return parsed


def _storable(value: Any) -> Any:
    # SQLite would bind NaN as NULL, and each database rejects too large a number with another message.
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"takes a finite number, not {value}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("takes a whole number of at most 64 bits")
    return value


class Example(BaseModel):
    """A few-shot example: a record (and outputs of earlier steps) and the answer that it should get.

    Its values are plain, like those of real records: text, numbers, true, false, null, lists and mappings.
    """

    model_config = ConfigDict(extra="forbid")

    record: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, Any] = Field(default_factory=dict)
    answer: Any


class FrontMatter(BaseModel):
    """The settings of a template's job."""

    model_config = ConfigDict(extra="forbid")

    description: str | None = None
    source: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    select: str | None = None
    params: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")], Param] = Field(default_factory=dict)
    key: str | list[str] | None = None
    output: str | InstanceOf[OutputFields]
    model: str = DEFAULT_MODEL
    accept_models: list[str] = Field(default_factory=list)
    # Strict, as YAML's `true` would count as 1.
    max_tokens: int = Field(default=1024, ge=1, strict=True)
    thinking: Literal["adaptive", "off"] | Annotated[int, Field(ge=LEAST_THINKING, strict=True)] | None = None
    effort: Effort | None = None
    cache: Literal["5m", "1h", "off"] = "5m"
    examples: list[Example] = Field(default_factory=list)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The key's columns, one or several; empty if there is no key."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key or ())

    @pydantic.field_validator("key", mode="before")
    @classmethod
    def _names_columns(cls, value: Any) -> Any:
        if isinstance(value, list) and value and all(isinstance(column, str) and column for column in value):
            if len(set(value)) < len(value):
                raise ValueError("names a column twice")
        elif value is not None and not isinstance(value, str):
            raise ValueError("must name a column, or list columns: [order_id, line]")
        return value

    @pydantic.field_validator("output", mode="before")
    @classmethod
    def _fields_are_a_class(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, dict):
            return read_fields((info.context or {}).get("template", ""), value)
        if isinstance(value, str | OutputFields):
            return value
        raise ValueError("must name an output class, such as ProductCopy or shop.Entry, or define fields")

    @pydantic.field_validator("cache", "thinking", mode="before")
    @classmethod
    def _off_has_many_words(cls, value: Any) -> Any:
        # All words that YAML 1.1 reads as false.
        return "off" if str(value).lower() in {"off", "no", "n", "false"} else value

    @pydantic.field_validator("max_tokens", "thinking", mode="before")
    @classmethod
    def _number_may_be_any_of_yaml_1_1(cls, value: Any) -> Any:
        # 1_500, 0x400: templates of earlier releases may have these.
        read = as_yaml_1_1(value) if isinstance(value, str) else None
        return read if type(read) is int else value

    @property
    def output_name(self) -> str:
        """The name of the output class, as the template has it."""
        return self.output if isinstance(self.output, str) else self.output.name

    @pydantic.model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        # Rules that differ by model are in model_rules.py.
        if isinstance(self.thinking, int) and self.thinking >= self.max_tokens:
            raise ValueError("thinking: the budget is part of max_tokens, so it must be smaller")
        if self.select is not None and self.key is None:
            raise ValueError("a `select` needs a `key`: the column that identifies a record, or a list of columns")
        if isinstance(self.key, list) and self.select is None:
            raise ValueError("key: a list of columns needs a `select`")
        return self


def read_file(path: Path) -> str:
    """Read a template's file, or a part's, with plain line ends and without a byte order mark.

    So an editor that writes either of them does not change the template's version.
    """
    return path.read_text(encoding="utf-8-sig")


def read_front_matter(name: str, source: str) -> FrontMatter:
    """Read the YAML at a template's head; TemplateError names each field that is wrong."""
    file = name + SUFFIX
    match = _FRONT_MATTER.match(source)
    if match is None:
        raise TemplateError("the front matter is missing. Begin the file with ---, `output: ...` and ---.", file=file)
    try:
        data = load_yaml(match.group(1))
    except RecursionError:
        raise TemplateError("the front matter can't be read: it is nested too deeply.", file=file) from None
    except (yaml.YAMLError, ValueError) as error:
        # A tag's value that does not fit is a ValueError. Marks count from 0, below the first `---`.
        problem, mark = getattr(error, "problem", error), getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark else None
        raise TemplateError(f"the front matter is not valid YAML: {problem}.", file=file, line=line) from None
    try:
        return FrontMatter.model_validate({} if data is None else data, context={"template": name})
    except ValidationError as error:
        # Each member of a union reports an error: print equal ones once.
        wrong = "; ".join(dict.fromkeys(map(_fault, error.errors(include_url=False))))
        raise TemplateError(f"the front matter is wrong: {wrong}.", file=file) from None


def blank_front_matter(source: str) -> str:
    """Replace the front matter by a comment of as many lines, so that Jinja's line numbers are the file's."""
    return _FRONT_MATTER.sub(lambda found: "{#" + "\n" * found[0].count("\n") + "-#}", source)


def _fault(error: ErrorDetails) -> str:
    location = error["loc"]
    if location[:1] == ("thinking",):
        return f"thinking: must be `off`, `adaptive` or a budget of at least {LEAST_THINKING:,} tokens"
    message = _IN_WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))
    return f"{'.'.join(map(str, location))}: {message}" if location else message
