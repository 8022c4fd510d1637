"""Templates: a prompt file is read, checked and made ready to render.

Everything that can be known to be wrong without a database or a key is found here, before any request: the front
matter's fields, Jinja's syntax, a reach for Python's insides, `record` read in the shared system block, an output
class that is missing or that the API can't take. A template's version is the sha256 of its source, and of all
that it includes or imports.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jinja2
import jinja2.meta
import orjson
import yaml
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from flows.errors import ParameterError, TemplateError
from flows.steps.catalog import DEFAULT_MODEL
from flows.steps.validate import OutputClass, load_output_class

SUFFIX = ".md.j2"
ParamType = Literal["str", "int", "float", "bool", "date", "datetime"]
PARAM_TYPES: dict[ParamType, type] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "date": date,
    "datetime": datetime,
}
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?\n", re.DOTALL | re.MULTILINE)
_REQUIRED = object()


class Param(BaseModel):
    """A parameter of a template's select, bound with its type; without a `default` it must be given."""

    model_config = ConfigDict(extra="forbid")

    type: ParamType = "str"
    default: Any = Field(default=_REQUIRED)
    title: str | None = None
    description: str | None = None
    choices: list[Any] | None = None

    @property
    def required(self) -> bool:
        """Whether a run must give it."""
        return self.default is _REQUIRED

    def parse(self, name: str, value: Any) -> Any:
        """Bring a value to the parameter's type; what does not fit raises ParameterError."""
        if value is None:
            if not self.required and self.default is None:
                return None
            raise ParameterError(f"The parameter {name!r} must have a value of type {self.type}.")
        try:
            parsed = TypeAdapter(PARAM_TYPES[self.type]).validate_python(value)
        except ValidationError:
            raise ParameterError(f"The parameter {name!r} takes {_article(self.type)}, not {value!r}.") from None
        if self.choices is not None and parsed not in self.choices:
            raise ParameterError(f"The parameter {name!r} takes one of {self.choices}, not {value!r}.")
        return parsed


class Example(BaseModel):
    """A few-shot example: a record (and earlier steps' outputs) and the answer that it should get."""

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
    params: dict[str, Param] = Field(default_factory=dict)
    key: str | None = None
    output: str
    model: str = DEFAULT_MODEL
    max_tokens: int = Field(default=1024, ge=1)
    thinking: Literal["adaptive"] | int | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    cache: Literal["5m", "1h", "off"] = "5m"
    examples: list[Example] = Field(default_factory=list)


@dataclass(frozen=True)
class Template:
    """A prompt file, ready to render; `sources` are the files that its `hash` stands for, by name."""

    name: str
    front: FrontMatter
    hash: str
    sources: Mapping[str, str]
    select_sql: str | None
    output_class: OutputClass
    _blocks: Mapping[str, Callable[[Context], Iterator[str]]]
    _jinja: jinja2.Template

    @property
    def key(self) -> str:
        """The key column of a select, or the record key of a fan-in."""
        return self.front.key or "all"

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema that the request carries."""
        # The SDK takes seconds to load; a list of templates, or a mistake in one, does without it.
        from flows.steps.complete import output_schema  # noqa: PLC0415

        return output_schema(self.output_class)

    @cached_property
    def schema_json(self) -> str:
        """The schema as canonical JSON."""
        return orjson.dumps(self.schema, option=orjson.OPT_SORT_KEYS).decode()

    @cached_property
    def reads(self) -> frozenset[str]:
        """The names that the user block takes from outside: `record`, `params`, and the steps it needs."""
        environment = self._jinja.environment
        names: set[str] = set()
        for file, source in self.sources.items():
            if file.endswith(".sql"):
                continue
            tree = _parse(environment, file.removesuffix(SUFFIX), source)
            part = _block_as_template(tree, "user") if file == self.name + SUFFIX else tree
            names |= jinja2.meta.find_undeclared_variables(part)
        return frozenset(names - set(environment.globals))

    def render_block(self, block: Literal["system", "user"], values: Mapping[str, Any]) -> str:
        """Fill one block; Jinja's errors go up unchanged, with the template's name and line in them."""
        found = self._blocks.get(block)
        if found is None:
            return ""
        context = self._jinja.new_context({**self._top_level, **values})
        return "".join(found(context)).strip()

    @cached_property
    def _top_level(self) -> dict[str, Any]:
        # What stands above the blocks (imports of macros, set) is run once, with the blocks left out:
        # they are rendered one by one, a user block for each record.
        context = self._jinja.new_context({})
        context.blocks = {name: [lambda _context: iter(())] for name in self._blocks}
        for _text in self._jinja.root_render_func(context):
            pass
        return {name: context.vars[name] for name in context.vars}

    def parse_params(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Fill in defaults and types; an unknown name or a wrong value raises ParameterError."""
        unknown = sorted(set(values) - set(self.front.params))
        if unknown:
            takes = ", ".join(sorted(self.front.params)) or "no parameters"
            raise ParameterError(f"The template {self.name!r} has no parameter {unknown[0]!r}; it takes {takes}.")
        missing = [name for name, param in self.front.params.items() if param.required and name not in values]
        if missing:
            raise ParameterError(
                f"The template {self.name!r} needs the parameter {missing[0]!r}: --set {missing[0]}=VALUE."
            )
        return {
            name: param.parse(name, values[name]) if name in values else param.default
            for name, param in self.front.params.items()
        }


def list_templates(folder: Path) -> list[str]:
    """Name the templates in a folder; files that begin with an underscore are parts of others."""
    return sorted(path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("_"))


def load_template(folder: Path, name: str) -> Template:
    """Read a template and all it includes; TemplateError or OutputClassError say file, line and what to do."""
    environment = make_environment(folder)
    sources = dict(_read_all(environment, folder, name + SUFFIX))
    front = read_front_matter(name, sources[name + SUFFIX])
    for file, source in sources.items():
        _refuse_unsafe(file, _parse(environment, file.removesuffix(SUFFIX), source))
    output_class = load_output_class(front.output)
    try:
        jinja = environment.get_template(name + SUFFIX)
    except jinja2.TemplateError as error:
        raise template_error(name, error) from None
    select_sql = _read_select(folder, name, front)
    if select_sql is not None and select_sql != front.select:
        sources[str(front.select).strip()] = select_sql
    blocks = jinja.blocks
    unknown = sorted(set(blocks) - {"system", "user"})
    if unknown or "user" not in blocks:
        raise TemplateError(
            f"{name}{SUFFIX}: a template has the blocks `system` and `user`, "
            + (f"not {unknown[0]!r}." if unknown else "and this one has no `user` block.")
        )
    template = Template(
        name=name,
        front=front,
        hash=_version(sources),
        sources=sources,
        select_sql=select_sql,
        output_class=output_class,
        _blocks=blocks,
        _jinja=jinja,
    )
    _check_system(template)
    _check_examples(template)
    return template


def make_environment(folder: Path) -> jinja2.Environment:
    """Make the sandboxed Jinja environment: strict, without autoescape (prompts are text), front matter cut off."""
    # The front matter is blanked, not cut, so that Jinja's line numbers are those of the file.
    loader = jinja2.FunctionLoader(lambda file: _body_of(folder, file))
    environment = ImmutableSandboxedEnvironment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - a prompt is plain text, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals = {name: environment.globals[name] for name in ("range", "dict", "namespace")}
    return environment


def read_front_matter(name: str, source: str) -> FrontMatter:
    """Read the YAML at a template's head; TemplateError names each field that is wrong."""
    match = _FRONT_MATTER.match(source)
    if match is None:
        raise TemplateError(
            f"{name}{SUFFIX}: there is no front matter. Begin the file with ---, `output: ...`, and ---."
        )
    try:
        data = yaml.safe_load(match.group(1))
        return FrontMatter.model_validate({} if data is None else data)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 2}" if mark else ""
        raise TemplateError(
            f"{name}{SUFFIX}:{line} the front matter is not valid YAML: {getattr(error, 'problem', error)}."
        ) from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise TemplateError(f"{name}{SUFFIX}: the front matter is wrong: {wrong}.") from None


def template_error(name: str, error: Exception) -> TemplateError:
    """Say a Jinja error with its file and line, and without any value of a record."""
    line = getattr(error, "lineno", None)
    where = f"{getattr(error, 'name', None) or name + SUFFIX}" + (f", line {line}" if line else "")
    return TemplateError(f"{where}: {error}.".replace("..", "."))


def _body_of(folder: Path, file: str) -> str | None:
    path = _inside(folder, file)
    if path is None:
        return None
    source = path.read_text(encoding="utf-8")
    match = _FRONT_MATTER.match(source)
    # One comment that spans the lines of the front matter renders to nothing and keeps the line numbers.
    return "{#" + "\n" * match.group(0).count("\n") + "-#}" + source[match.end() :] if match else source


def _inside(folder: Path, file: str) -> Path | None:
    path = (folder / file).resolve()
    return path if path.is_relative_to(folder.resolve()) and path.is_file() else None


def _read_all(environment: jinja2.Environment, folder: Path, file: str) -> Iterator[tuple[str, str]]:
    waiting, seen = [(file, file)], set()
    while waiting:
        current, wanted_by = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        path = _inside(folder, current)
        if path is None:
            raise TemplateError(_missing(folder, current, wanted_by))
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise TemplateError(f"{current}: the file is not UTF-8 text (byte {error.start}).") from None
        yield current, source
        for referenced in jinja2.meta.find_referenced_templates(
            _parse(environment, current.removesuffix(SUFFIX), source)
        ):
            if referenced is None:
                raise TemplateError(
                    f"{current}: includes and imports must name their file, so that the version covers it."
                )
            waiting.append((referenced, current))


def _missing(folder: Path, file: str, wanted_by: str) -> str:
    if file == wanted_by:
        known = ", ".join(list_templates(folder)) or "none"
        return f"There is no template {file.removesuffix(SUFFIX)!r} in {folder.name}/; there are: {known}."
    return f"{wanted_by}: it includes {file!r}, which is not in {folder.name}/."


def _parse(environment: jinja2.Environment, name: str, source: str) -> nodes.Template:
    match = _FRONT_MATTER.match(source)
    body = "\n" * match.group(0).count("\n") + source[match.end() :] if match else source
    try:
        return environment.parse(body, name, name + SUFFIX)
    except jinja2.TemplateSyntaxError as error:
        raise template_error(name, error) from None


def _refuse_unsafe(file: str, tree: nodes.Template) -> None:
    if next(tree.find_all(nodes.Extends), None) is not None:
        raise TemplateError(f"{file}: `extends` is not supported; use `include` or a macro.")
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Filter)):
        name = _reached_name(node)
        if name is not None and name.startswith("_"):
            raise TemplateError(f"{file}, line {node.lineno}: {name!r} reaches into Python; templates read data only.")


def _reached_name(node: nodes.Node) -> str | None:
    match node:
        case nodes.Getattr(attr=str(name)):
            return name
        case nodes.Getitem(arg=nodes.Const(value=str(name))):
            return name if name.startswith("__") else None
        case nodes.Filter(name="attr" | "map", args=[nodes.Const(value=str(name)), *_]):
            return name
        case _:
            return None


def _block_as_template(tree: nodes.Template, block: str) -> nodes.Template:
    top = [node for node in tree.body if not isinstance(node, nodes.Block)]
    found = [node for node in tree.find_all(nodes.Block) if node.name == block]
    part = nodes.Template([*top, *(item for node in found for item in node.body)], lineno=1)
    part.environment = tree.environment
    return part


def _version(sources: Mapping[str, str]) -> str:
    return hashlib.sha256(orjson.dumps(dict(sources), option=orjson.OPT_SORT_KEYS)).hexdigest()


def _read_select(folder: Path, name: str, front: FrontMatter) -> str | None:
    if front.select is None:
        return None
    if front.key is None:
        raise TemplateError(f"{name}{SUFFIX}: a `select` needs a `key`: the column that tells records apart.")
    if not front.select.strip().endswith(".sql"):
        return front.select
    path = _inside(folder, front.select.strip())
    if path is None:
        raise TemplateError(f"{name}{SUFFIX}: `select` names {front.select!r}, which is not in {folder.name}/.")
    return path.read_text(encoding="utf-8")


def _check_system(template: Template) -> None:
    try:
        template.render_block("system", {"params": {name: "" for name in template.front.params}})
    except jinja2.UndefinedError as error:
        raise TemplateError(
            f"{template.name}{SUFFIX}: the system block is shared by all records, so it can't read one: {error}. "
            "Move what differs by record to the user block."
        ) from None
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise template_error(template.name, error) from None


def _check_examples(template: Template) -> None:
    for number, example in enumerate(template.front.examples, start=1):
        try:
            template.output_class.model_validate(example.answer)
            template.render_block("user", {"record": example.record, "params": {}, **example.inputs})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise TemplateError(
                f"{template.name}{SUFFIX}: the answer of example {number} is not a valid "
                f"{template.front.output}: {where}: {first['msg']}."
            ) from None
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise TemplateError(f"{template.name}{SUFFIX}: example {number} does not render: {error}.") from None


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
