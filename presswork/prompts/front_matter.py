"""Front matter: what a template says about its job, in YAML between two lines of `---` at its head.

It stands alone so that a mistake in it is told by field, or by line, before anything of the prompt is looked at.
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
"""The smallest thinking budget that the API takes."""

# A value that a check may render with where only a run knows the true one.
_DAY = datetime(2000, 1, 1, tzinfo=UTC)
_STAND_INS = {"str": "", "int": 1, "float": 1.0, "bool": True, "date": _DAY.date(), "datetime": _DAY}
# Where pydantic's words are meant for programmers.
_IN_WORDS = {
    "extra_forbidden": "there is no such key; docs/templates.md lists those that there are",
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
        """Whether null is a value of it, as it is where null is the default."""
        return not self.required and self.default is None

    @property
    def stand_in(self) -> Any:
        """What the template is checked with before a run has values."""
        if not self.required:
            return self.default
        return self.choices[0] if self.choices else _STAND_INS[self.type]

    def parse(self, name: str, value: Any) -> Any:
        """Bring a value to the parameter's type; what does not fit raises ParameterError.

        An empty text, as `--set name=` gives it, is null where null is allowed. Elsewhere only a `str` can be empty.
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
            # 0x1F, .inf: as templates of earlier releases may have it.
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
    # SQLite would bind NaN as NULL, and each database has its own words for a number that is too large.
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"takes a finite number, not {value}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("takes a whole number of at most 64 bits")
    return value


class Example(BaseModel):
    """A few-shot example: a record (and earlier steps' outputs) and the answer that it should get.

    Its values are plain, as those of real records are: text, numbers, true, false, null, lists and mappings.
    """

    model_config = ConfigDict(extra="forbid")

    record: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, Any] = Field(default_factory=dict)
    answer: Any


class FrontMatter(BaseModel):
    """What a template says about its job."""

    model_config = ConfigDict(extra="forbid")

    description: str | None = None
    source: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    select: str | None = None
    params: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")], Param] = Field(default_factory=dict)
    key: str | list[str] | None = None
    output: str | InstanceOf[OutputFields]
    model: str = DEFAULT_MODEL
    accept_models: list[str] = Field(default_factory=list)
    # Strict: YAML's `true` would pass for 1.
    max_tokens: int = Field(default=1024, ge=1, strict=True)
    thinking: Literal["adaptive", "off"] | Annotated[int, Field(ge=LEAST_THINKING, strict=True)] | None = None
    effort: Effort | None = None
    cache: Literal["5m", "1h", "off"] = "5m"
    examples: list[Example] = Field(default_factory=list)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The key's columns, one or several; empty where there is no key."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key or ())

    @pydantic.field_validator("key", mode="before")
    @classmethod
    def _names_columns(cls, value: Any) -> Any:
        if isinstance(value, list) and value and all(isinstance(column, str) and column for column in value):
            if len(set(value)) < len(value):
                raise ValueError("it names a column twice")
        elif value is not None and not isinstance(value, str):
            raise ValueError("it must name a column, or list columns: [order_id, line]")
        return value

    @pydantic.field_validator("output", mode="before")
    @classmethod
    def _fields_are_a_class(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, dict):
            return read_fields((info.context or {}).get("template", ""), value)
        if isinstance(value, str | OutputFields):
            return value
        raise ValueError("names a class, such as ProductCopy or shop.Entry, or lists the fields of one")

    @pydantic.field_validator("cache", "thinking", mode="before")
    @classmethod
    def _off_has_many_words(cls, value: Any) -> Any:
        # All that YAML 1.1 reads as false.
        return "off" if str(value).lower() in {"off", "no", "n", "false"} else value

    @pydantic.field_validator("max_tokens", "thinking", mode="before")
    @classmethod
    def _number_may_be_any_of_yaml_1_1(cls, value: Any) -> Any:
        # 1_500, 0x400: as templates of earlier releases may have it.
        read = as_yaml_1_1(value) if isinstance(value, str) else None
        return read if type(read) is int else value

    @property
    def output_name(self) -> str:
        """The name of the output class, as the template has it."""
        return self.output if isinstance(self.output, str) else self.output.name

    @pydantic.model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        # What one model takes and another does not is in model_rules.py.
        if isinstance(self.thinking, int) and self.thinking >= self.max_tokens:
            raise ValueError("thinking: its budget is part of max_tokens, and must be smaller")
        if self.select is not None and self.key is None:
            raise ValueError("a `select` needs a `key`: the column that tells records apart, or a list of columns")
        if isinstance(self.key, list) and self.select is None:
            raise ValueError("key: a list names columns of a `select`, and there is none")
        return self


def read_file(path: Path) -> str:
    """Read a template's file, or a part's, with plain line ends and without a byte order mark.

    So an editor that writes either of them makes no new version.
    """
    return path.read_text(encoding="utf-8-sig")


def read_front_matter(name: str, source: str) -> FrontMatter:
    """Read the YAML at a template's head; TemplateError names each field that is wrong."""
    file = name + SUFFIX
    match = _FRONT_MATTER.match(source)
    if match is None:
        raise TemplateError("there is no front matter. Begin the file with ---, `output: ...`, and ---.", file=file)
    try:
        data = load_yaml(match.group(1))
    except RecursionError:
        raise TemplateError("the front matter can't be read: it is nested too deeply.", file=file) from None
    except (yaml.YAMLError, ValueError) as error:
        # A tag's value that does not fit is a ValueError. A mark is counted from 0, below the line of `---`.
        problem, mark = getattr(error, "problem", error), getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark else None
        raise TemplateError(f"the front matter is not valid YAML: {problem}.", file=file, line=line) from None
    try:
        return FrontMatter.model_validate({} if data is None else data, context={"template": name})
    except ValidationError as error:
        # A union's members each have a fault of their own: what they say alike is said once.
        wrong = "; ".join(dict.fromkeys(map(_fault, error.errors(include_url=False))))
        raise TemplateError(f"the front matter is wrong: {wrong}.", file=file) from None


def blank_front_matter(source: str) -> str:
    """Put a comment of as many lines in its place: it renders to nothing, and Jinja's line numbers are the file's."""
    return _FRONT_MATTER.sub(lambda found: "{#" + "\n" * found[0].count("\n") + "-#}", source)


def _fault(error: ErrorDetails) -> str:
    location = error["loc"]
    if location[:1] == ("thinking",):
        return f"thinking: takes `off`, `adaptive`, or a budget in tokens, at least {LEAST_THINKING:,}"
    message = _IN_WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))
    return f"{'.'.join(map(str, location))}: {message}" if location else message
