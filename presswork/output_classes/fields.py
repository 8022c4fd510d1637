"""Make an output class from the fields in a template's front matter, without Python.

    output:
      title: {type: str, max_length: 70, description: The title}
      tags: {type: list[str], max_length: 5}

The types are a fixed list, and nothing is evaluated. The class equals one in flows/outputs.py that is based on
`Output`, so the schema and the prompt's hash are the same. The fields are read before the rest of the prompt, so that
each mistake is reported by its field.
"""

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError, create_model
from pydantic_core import SchemaError

CHOICES = "choices"
LIST = "list"
TYPES: Mapping[str, Any] = {"str": str, "int": int, "float": float, "bool": bool, "date": date, "datetime": datetime}
"""The types in a front matter, for fields and for params."""
_ENDS = ("ge", "gt", "le", "lt")
_BOUNDS: Mapping[str, tuple[str, ...]] = {
    LIST: ("min_length", "max_length"),
    "str": ("min_length", "max_length", "pattern"),
    **dict.fromkeys(("int", "float", "date", "datetime"), _ENDS),
}
"""The bounds that each type allows. A type that is not listed allows none."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_LIST = re.compile(r"\Alist\[([a-z]+)\]\Z")
_WHOLE = re.compile(r"[+-]?\d+")


class Bounds(BaseModel):
    """The bounds of a value. The ends are text, as they are written, and get the field's type later."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    such_as: ClassVar[str] = "max_length: 70"

    min_length: int | None = Field(default=None, ge=0)
    max_length: int | None = Field(default=None, ge=1)
    pattern: str | None = None
    ge: str | None = None
    gt: str | None = None
    le: str | None = None
    lt: str | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, value: Any) -> Any:
        if isinstance(value, dict):
            cls._refuse_unknown(value)
            return value
        # pydantic reports a ValueError by its field, and passes a TypeError on.
        raise ValueError(f"must be keys and values, such as {{{cls.such_as}}}, not {value!r}")

    @classmethod
    def _refuse_unknown(cls, value: Mapping[Any, Any]) -> None:
        known = sorted(cls.model_fields, key=lambda name: name in Bounds.model_fields)  # its own first
        if unknown := [key for key in value if key not in known]:
            quotes = " Put a text with a comma into quotes" if not value[unknown[0]] else ""
            raise ValueError(f"{unknown[0]!r} is not a key here. Available: {', '.join(known)}.{quotes}".rstrip("."))

    def checks(self, kind: str) -> dict[str, Any]:
        """Return the arguments for pydantic's Field. Raises ValueError for a bound that the type does not allow."""
        given = {name: value for name in Bounds.model_fields if (value := getattr(self, name)) is not None}
        allowed = _BOUNDS.get(kind, ())
        for name in given:
            if name not in allowed:
                takes = ", ".join(allowed) or "no bounds"
                more = ", and `items: {...}` for the bounds of its items" if kind == LIST else ""
                raise ValueError(f"{with_article(kind)} takes no `{name}`. Available: {takes}{more}")
        typed = {name: _end(kind, name, given[name]) if name in _ENDS else given[name] for name in given}
        _refuse_empty_range(typed)
        return typed


class OutputField(Bounds):
    """One field of an answer."""

    such_as: ClassVar[str] = "type: str, max_length: 70"

    type: str | None = None
    description: str | None = None
    choices: list[str] | None = Field(default=None, min_length=1)
    items: Bounds | None = None
    optional: bool = False

    @pydantic.model_validator(mode="after")
    def _can_be_made(self) -> Self:
        definition: Any = self.definition()
        try:
            create_model("Field", field=definition)
        except SchemaError as error:
            # pydantic uses Rust's regular expressions.
            reason = str(error).strip().splitlines()[-1].strip()
            raise ValueError(f"the pattern is not a regular expression that pydantic accepts: {reason}") from None
        return self

    @property
    def kind(self) -> str:
        """The type, or the type of a list's items."""
        return _LIST.sub(r"\1", self._type)

    @property
    def is_list(self) -> bool:
        """Whether the field is a list."""
        return _LIST.fullmatch(self._type) is not None

    def definition(self) -> tuple[Any, Any]:
        """Return the annotation and pydantic's Field. Raises ValueError if the field can't be made."""
        single = self._single()
        if self.is_list:
            bounds = (self.items or Bounds()).checks(self.kind)
            annotation: Any = list[Annotated[single, Field(**bounds)]] if bounds else list[single]  # type: ignore[valid-type]
            own = self.checks(LIST)
        elif self.items is not None:
            raise ValueError("only a list can have `items`, the bounds of its items. Use a type such as list[str]")
        else:
            annotation, own = single, self.checks(self.kind)
        options: dict[str, Any] = {"default": None} if self.optional else {}
        if self.description is not None:
            options["description"] = self.description
        return (annotation | None if self.optional else annotation), Field(**options, **own)

    @property
    def _type(self) -> str:
        return self.type or (CHOICES if self.choices else "str")

    def _single(self) -> Any:
        if self.kind not in {*TYPES, CHOICES}:
            singles = ", ".join([*TYPES, CHOICES])
            raise ValueError(f"there is no type {self.type!r}. Available: {singles}, and lists of these: list[str]")
        if self.choices is None:
            if self.kind == CHOICES:
                raise ValueError("the type `choices` needs `choices: [...]`, the texts to choose from")
            return TYPES[self.kind]
        if self.kind not in {CHOICES, "str", "int"}:
            raise ValueError(f"{with_article(self.kind)} takes no `choices`. Use the type choices, str or int")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("`choices` names the same value twice")
        values = [_typed("int", "choices", text) for text in self.choices] if self.kind == "int" else self.choices
        return Literal[tuple(values)]


@dataclass(frozen=True, slots=True)
class OutputFields:
    """An output class in a front matter: its name and its fields, in the schema's order."""

    name: str
    fields: Mapping[str, OutputField]


class _Answer(BaseModel):
    """Equals `Output` in flows/outputs.py, which users may change."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


def read_fields(template: str, written: Mapping[Any, Any]) -> OutputFields:
    """Read the fields of a front matter, whose values are all text (front_yaml.py). ValueError lists all mistakes."""
    if not written:
        raise ValueError("has no field. Write at least one, such as title: {type: str, max_length: 70}")
    fields: dict[str, OutputField] = {}
    wrong: list[str] = []
    for name, value in written.items():
        try:
            _check_name(name)
            fields[name] = OutputField.model_validate(value)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                where = ".".join(map(str, (name, *item["loc"])))
                wrong.append(f"{where}: {item['msg'].removeprefix('Value error, ')}")
        except ValueError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return OutputFields(class_name(template), fields)


def make_output_class(output: OutputFields) -> type[BaseModel]:
    """Make the pydantic class from its fields."""
    definitions: dict[str, Any] = {name: field.definition() for name, field in output.fields.items()}
    return create_model(output.name, __base__=_Answer, **definitions)


def class_name(template: str) -> str:
    """Return the name of a template's own class: ProductCopy for product_copy."""
    words = re.findall(r"[^\W_]+", template)
    return "".join(word[0].upper() + word[1:] for word in words) or "Answer"


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("a name starts with a letter and has at most 64 letters, digits and underscores")
    if hasattr(BaseModel, name) or keyword.iskeyword(name):
        raise ValueError(f"Python or pydantic reserves this name. Choose another, such as {name}_text")


def _end(kind: str, name: str, text: str) -> Any:
    # As in Python, where `ge=0` also bounds a float: the schema, and so the hash, keeps the number as it is written.
    return _typed("int" if kind == "float" and _WHOLE.fullmatch(text) else kind, name, text)


def _typed(kind: str, name: str, text: str) -> Any:
    annotation = FiniteFloat if kind == "float" else TYPES[kind]
    try:
        return TypeAdapter[Any](annotation).validate_python(text)
    except ValidationError:
        raise ValueError(f"`{name}` takes {with_article(kind)}, not {text!r}") from None


def with_article(kind: str) -> str:
    """Return a type's name with its article, for messages."""
    return f"an {kind}" if kind == "int" else "a choice" if kind == CHOICES else f"a {kind}"


def _refuse_empty_range(bounds: Mapping[str, Any]) -> None:
    for low, high in (("min_length", "max_length"), *((low, high) for low in ("ge", "gt") for high in ("le", "lt"))):
        if low in bounds and high in bounds:
            try:
                is_empty = bounds[low] > bounds[high] or (bounds[low] == bounds[high] and {low, high} & {"gt", "lt"})
            except TypeError:
                raise ValueError(f"`{low}` and `{high}` must both have a time zone, or none") from None
            if is_empty:
                raise ValueError(f"no value is between `{low}` and `{high}`")
