"""Templates: a prompt file is read, checked and made ready to render.

Everything that can be known to be wrong without a database or a key is found here, before any request: the front
matter's fields, Jinja's syntax, a reach for Python's insides, `record` read in the shared system block, an output
class that is missing or that the API can't take. A template's version is the sha256 of its source, and of all
that it includes or imports.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import orjson
from jinja2 import nodes

from presswork.errors import ConfigurationError, ParameterError, TemplateError
from presswork.output_classes.classes import load_output_class
from presswork.output_classes.validate import Invalid, OutputClass, validate_stored
from presswork.prompts.front_matter import SUFFIX, FrontMatter, blank_front_matter, read_file, read_front_matter
from presswork.prompts.nulls import with_nulls
from presswork.prompts.syntax import check_blocks, make_environment, parse, template_error
from presswork.prompts.variables import Block, Trees, Variable, above, variables_inside, variables_of


@dataclass(frozen=True)
class Template:
    """A prompt file, ready to render; `sources` are the files that its `hash` stands for, by name."""

    name: str
    front: FrontMatter
    hash: str
    sources: Mapping[str, str]
    select_sql: str | None
    output_class: OutputClass
    _trees: Trees
    _jinja: jinja2.Template

    @property
    def file(self) -> str:
        """The file's name, as errors have it."""
        return self.name + SUFFIX

    @property
    def key(self) -> str:
        """The record key of a fan-in; for a select its key columns, as messages have them."""
        return ", ".join(self.front.key_columns) or "all"

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema that the request carries."""
        # A list of templates, or a mistake in one, does without it.
        from presswork.claude.output_schema import output_schema  # noqa: PLC0415 - loads the SDK, for seconds

        return output_schema(self.output_class)

    @cached_property
    def schema_json(self) -> str:
        """The schema as canonical JSON."""
        return orjson.dumps(self.schema, option=orjson.OPT_SORT_KEYS).decode()

    @cached_property
    def reads(self) -> frozenset[str]:
        """The names that the user block takes from outside: `record`, `params`, and the steps it needs."""
        return frozenset(variable.name for variable in self.variables("user"))

    def variables(self, block: Block) -> list[Variable]:
        """List what a block, and what stands above the blocks, reads from outside."""
        return variables_of(self._trees, self.file, block)

    @property
    def stand_ins(self) -> dict[str, Any]:
        """Parameters for a check, before a run has any."""
        return {name: param.stand_in for name, param in self.front.params.items()}

    @cached_property
    def _has_names_above(self) -> bool:
        return bool(above(self._trees[self.file]))

    def render_block(self, block: Block, values: Mapping[str, Any]) -> str:
        """Fill one block; Jinja's errors go up unchanged. syntax.place_of finds their file and line."""
        found = self._jinja.blocks.get(block)
        if found is None:
            return ""
        values = with_nulls(values)
        if self._has_names_above:
            # Blocks are rendered one by one, without what Jinja runs before them: imports of macros, `set`. So it is
            # run here with the blocks left out.
            context = self._jinja.new_context(dict(values))
            context.blocks = {name: [lambda _context: iter(())] for name in self._jinja.blocks}
            for _text in self._jinja.root_render_func(context):
                pass
            values = {**values, **context.vars}
        return "".join(found(self._jinja.new_context(dict(values)))).strip()

    def render_system(self, params: Mapping[str, Any]) -> str:
        """Fill the system block, which all records share; TemplateError where it can't be."""
        hint = "The system block, and what stands above it, can read `params` only."
        return self._render_whole("system", {"params": params}, hint, jinja2.UndefinedError)

    def render_example(self, number: int, params: Mapping[str, Any]) -> tuple[str, str]:
        """Return what an example, counted from 1, asks and answers; TemplateError where one of the two is wrong."""
        example = self.front.examples[number - 1]
        values = {"record": example.record, "params": params, **example.inputs}
        asked = self._render_whole("user", values, f"It was rendered with the record of example {number}.")
        answer = validate_stored(self.output_class, example.answer)
        if isinstance(answer, Invalid):
            what = f"the answer of example {number} is not a valid {self.output_class.__name__}: {answer}."
            raise TemplateError(what, file=self.file)
        return asked, orjson.dumps(answer.output).decode()

    def _render_whole(self, block: Block, values: Mapping[str, Any], hint: str, on: type[Exception] = Exception) -> str:
        try:
            return self.render_block(block, values)
        except Exception as error:  # noqa: BLE001 - whatever a template's code raises is a mistake in the template
            raise template_error(self.file, error, hint if isinstance(error, on) else "") from None

    def parse_params(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Fill in defaults and types; an unknown name or a wrong value raises ParameterError."""
        if unknown := sorted(set(values) - set(self.front.params)):
            takes = ", ".join(sorted(self.front.params)) or "no parameters"
            raise ParameterError(f"The template {self.name!r} has no parameter {unknown[0]!r}; it takes {takes}.")
        if missing := [name for name, param in self.front.params.items() if param.required and name not in values]:
            raise ParameterError(
                f"The template {self.name!r} needs the parameter {missing[0]!r}: --set {missing[0]}=VALUE."
            )
        return {
            name: param.parse(name, values[name]) if name in values else param.default
            for name, param in self.front.params.items()
        }


def list_templates(folder: Path) -> list[str]:
    """Name the templates in a folder; files that begin with an underscore are parts of others."""
    files = [path.name for path in folder.glob(f"*{SUFFIX}") if path.is_file()]
    # What begins with a dot is an editor's or a file manager's own, such as Emacs's lock of a file that is open.
    return sorted(name.removesuffix(SUFFIX) for name in files if not name.startswith(("_", ".")))


def read_heads(
    folder: Path, names: Iterable[str] | None = None
) -> Iterator[tuple[str, FrontMatter | ConfigurationError]]:
    """Yield the front matters of templates, by default of all in a folder; for one that can't be read, the error."""
    for name in list_templates(folder) if names is None else names:
        file = name + SUFFIX
        try:
            source = _read(folder, file)
            head = None if source is None else read_front_matter(name, source)
        except ConfigurationError as error:
            yield name, error
        else:
            yield name, head or TemplateError(f"it is no file in {folder.name}/.", file=file)


def load_template(folder: Path, name: str) -> Template:
    """Read a template and all it includes; TemplateError or OutputClassError say file, line and what to do."""
    file = name + SUFFIX
    sources: dict[str, str] = {}
    environment = make_environment(jinja2.FunctionLoader(lambda wanted: blank_front_matter(sources[wanted])))
    trees = dict(_read_all(environment, folder, file, sources))
    front = read_front_matter(name, sources[file])
    check_blocks(file, trees[file])
    output_class = load_output_class(front.output)
    try:
        # Some mistakes are found only when a file is compiled.
        compiled = {source: environment.get_template(source) for source in sources}
    except jinja2.TemplateSyntaxError as error:
        raise template_error(file, error) from None
    # Copied for each record: a plain dict in a third of the time of Jinja's mapping below a mapping.
    compiled[file].globals = dict(compiled[file].globals)
    select_sql = _read_select(folder, file, front, sources)
    template = Template(
        name=name,
        front=front,
        hash=hashlib.sha256(orjson.dumps(sources, option=orjson.OPT_SORT_KEYS)).hexdigest(),
        sources=sources,
        select_sql=select_sql,
        output_class=output_class,
        _trees=trees,
        _jinja=compiled[file],
    )
    _check_system(template, trees)
    for number in range(1, len(front.examples) + 1):
        template.render_example(number, template.stand_ins)
    return template


def _read_all(
    environment: jinja2.Environment, folder: Path, file: str, sources: dict[str, str], wanted_by: tuple[str, ...] = ()
) -> Iterator[tuple[str, nodes.Template]]:
    if file in wanted_by:
        circle = " -> ".join((*wanted_by[wanted_by.index(file) :], file))
        raise TemplateError(f"these files include each other without end: {circle}.", file=file)
    if file in sources:
        return
    source = _read(folder, file)
    if source is None and wanted_by:
        raise TemplateError(f"it includes {file!r}, which is not in {folder.name}/.", file=wanted_by[-1])
    if source is None:
        name, known = file.removesuffix(SUFFIX), ", ".join(list_templates(folder)) or "none"
        raise TemplateError(f"There is no template {name!r} in {folder.name}/; there are: {known}.")
    sources[file] = source
    tree = parse(environment, file, source)
    yield file, tree
    for named in jinja2.meta.find_referenced_templates(tree):
        if named is None:
            raise TemplateError("includes and imports must name their file, so that the version covers it.", file=file)
        yield from _read_all(environment, folder, named, sources, (*wanted_by, file))


def _read(folder: Path, file: str) -> str | None:
    """Read a file of the folder; None where there is none, and where a path or a symbolic link leads out of it."""
    try:
        file.encode()  # a name of other bytes than UTF-8 can't be hashed, stored or shown
        path = (folder / file).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            return None
        return read_file(path)
    except UnicodeDecodeError as error:
        raise TemplateError(f"the file is not UTF-8 text (byte {error.start}).", file=file) from None
    except (OSError, ValueError, RuntimeError) as error:
        # Symbolic links that go round in a circle are a RuntimeError before Python 3.13.
        reason = getattr(error, "strerror", None) or error
        raise TemplateError(f"the file can't be read: {reason}.", file=file) from None


def _read_select(folder: Path, file: str, front: FrontMatter, sources: dict[str, str]) -> str | None:
    named = (front.select or "").strip()
    if not named.endswith(".sql"):
        return front.select
    if (sql := _read(folder, named)) is None:
        raise TemplateError(f"`select` names {named!r}, which is not in {folder.name}/.", file=file)
    sources[named] = sql
    return sql


def _check_system(template: Template, trees: Trees) -> None:
    # By its text first: what is read in a branch that this check does not take is read all the same.
    if outside := [found for found in variables_inside(trees, template.file, "system") if found.name != "params"]:
        first = min(outside, key=lambda found: (found.name, found.line))
        what = (
            f"the system block is shared by all records, so it can read `params` only, not {first.name!r}. "
            "Move what differs by record to the user block."
        )
        raise TemplateError(what, file=first.file, line=first.line)
    template.render_system(template.stand_ins)
