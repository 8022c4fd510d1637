"""Read a prompt file, check it, and prepare it for rendering.

This finds every mistake that needs no database and no key, before any request: in the front matter's fields and Jinja's
syntax, access to Python's internals, `record` in the shared system block, an output class that is missing or that the
API can't accept. A template's version is the sha256 of its source and of all files that it includes or imports.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import jinja2
import jinja2.meta
import orjson
from jinja2 import nodes

from presswork.claude.output_schema import output_schema
from presswork.errors import ConfigurationError, ParameterError, TemplateError
from presswork.output_classes.classes import load_output_class
from presswork.output_classes.validate import Invalid, OutputClass, validate_stored
from presswork.prompts.front_matter import SUFFIX, FrontMatter, blank_front_matter, read_file, read_front_matter
from presswork.prompts.names import near_name
from presswork.prompts.rendering.block_texts import block_pieces
from presswork.prompts.syntax import check_blocks, make_environment, parse, template_error
from presswork.prompts.variables import Block, Trees, Variable, above, variables_inside, variables_of


@dataclass(frozen=True)
class Template:
    """A prompt file, ready to render; `hash` covers all of `sources`, the texts of its files by name."""

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
        """The file's name, for errors."""
        return self.name + SUFFIX

    @property
    def key(self) -> str:
        """The record key of a fan-in; for a select its key columns, as text for messages."""
        return ", ".join(self.front.key_columns) or "all"

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema that the request carries."""
        return output_schema(self.output_class)

    @cached_property
    def schema_json(self) -> str:
        """The schema as JSON, in the order in which it is sent."""
        return orjson.dumps(self.schema).decode()

    @cached_property
    def reads(self) -> frozenset[str]:
        """The names that the user block reads from outside: `record`, `params`, and the steps that it needs."""
        return frozenset(variable.name for variable in self.variables("user"))

    def variables(self, block: Block) -> list[Variable]:
        """List the variables that a block, and the statements above the blocks, read from outside."""
        return variables_of(self._trees, self.file, block)

    @property
    def stand_ins(self) -> dict[str, Any]:
        """Parameters for a check, before a run has values."""
        return {name: param.stand_in for name, param in self.front.params.items()}

    @cached_property
    def _has_names_above(self) -> bool:
        return bool(above(self._trees[self.file]))

    def render_block(self, block: Block, values: Mapping[str, Any]) -> str:
        """Fill one block; Jinja's errors are passed on unchanged. syntax.place_of finds their file and line."""
        pieces = block_pieces(self._jinja, block, values, names_above=self._has_names_above)
        return "".join(pieces).strip()

    def render_system(self, params: Mapping[str, Any]) -> str:
        """Fill the system block, which all records share; raises TemplateError if that fails."""
        hint = "The system block and anything above it can read only `params`."
        return self._render_whole("system", {"params": params}, hint, jinja2.UndefinedError)

    def render_example(self, number: int, params: Mapping[str, Any]) -> tuple[str, str]:
        """Return the prompt and the answer of an example, counted from 1; TemplateError if one of them is wrong."""
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
        except Exception as error:  # noqa: BLE001 - any error in a template's code is a mistake in the template
            raise template_error(self.file, error, hint if isinstance(error, on) else "") from None

    def parse_params(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Add defaults and convert types; raises ParameterError for an unknown name or a wrong value."""
        if unknown := sorted(set(values) - set(self.front.params)):
            known = ", ".join(sorted(self.front.params)) or "none"
            raise ParameterError(f"The template {self.name!r} has no parameter {unknown[0]!r}. Available: {known}.")
        if missing := [name for name, param in self.front.params.items() if param.required and name not in values]:
            raise ParameterError(
                f"The template {self.name!r} needs the parameter {missing[0]!r}. Set it with --set {missing[0]}=VALUE."
            )
        return {
            name: param.parse(name, values[name]) if name in values else param.default
            for name, param in self.front.params.items()
        }


MOST_LOADED = 64
_LOADED: dict[tuple[Path, str], Template] = {}
_LOADING = Lock()


def list_templates(folder: Path) -> list[str]:
    """Return the names of the templates in a folder; files that begin with an underscore are parts of others."""
    files = [path.name for path in folder.glob(f"*{SUFFIX}") if path.is_file()]
    # A name that begins with a dot is an editor's or a file manager's own, such as Emacs's lock of an open file.
    return sorted(name.removesuffix(SUFFIX) for name in files if not name.startswith(("_", ".")))


def no_such_template(folder: Path, name: str) -> TemplateError:
    """Return the error of an unknown name: it suggests the nearest template, and lists all."""
    known = list_templates(folder)
    return TemplateError(
        f"There is no template {name!r} in {folder.name}/.{near_name(name, known)} "
        f"Available: {', '.join(known) or 'none'}."
    )


def read_heads(
    folder: Path, names: Iterable[str] | None = None
) -> Iterator[tuple[str, FrontMatter | ConfigurationError]]:
    """Yield the front matter of each named template, by default of all; if it can't be read, the error."""
    for name in list_templates(folder) if names is None else names:
        file = name + SUFFIX
        try:
            source = _read(folder, file)
            head = None if source is None else read_front_matter(name, source)
        except ConfigurationError as error:
            yield name, error
        else:
            yield name, head or TemplateError(f"there is no such file in {folder.name}/.", file=file)


def load_template(folder: Path, name: str) -> Template:
    """Read a template and all its includes; TemplateError or OutputClassError gives file, line and remedy.

    A template whose files and output class are what they were is returned again: the checks before a run, the run and
    its steps load the same templates, and a trial loads one at each save.
    """
    known = _LOADED.get((folder, name))
    if known is None or not _is_current(folder, known):
        known = _load(folder, name)
        with _LOADING:
            if len(_LOADED) >= MOST_LOADED:
                _LOADED.clear()
            _LOADED[folder, name] = known
    return known


def _is_current(folder: Path, known: Template) -> bool:
    """Return whether loading a template again would give the same."""
    with suppress(ConfigurationError):
        as_it_is = all(_read(folder, file) == source for file, source in known.sources.items())
        output = known.front.output
        # A class that is made from the front matter's fields changes only with the file.
        return as_it_is and (not isinstance(output, str) or load_output_class(output) is known.output_class)
    return False


def _load(folder: Path, name: str) -> Template:
    file = name + SUFFIX
    sources: dict[str, str] = {}
    environment = make_environment(jinja2.FunctionLoader(lambda wanted: blank_front_matter(sources[wanted])))
    trees = dict(_read_all(environment, folder, file, sources))
    front = read_front_matter(name, sources[file])
    check_blocks(file, trees[file])
    output_class = load_output_class(front.output)
    try:
        # Some mistakes show only when a file is compiled.
        compiled = {source: environment.get_template(source) for source in sources}
    except jinja2.TemplateSyntaxError as error:
        raise template_error(file, error) from None
    # Jinja copies these for each record: a plain dict takes a third of the time of Jinja's own mapping.
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
        raise TemplateError(f"these files include each other in a circle: {circle}.", file=file)
    if file in sources:
        return
    source = _read(folder, file)
    if source is None and wanted_by:
        raise TemplateError(f"it includes {file!r}, which is not in {folder.name}/.", file=wanted_by[-1])
    if source is None:
        raise no_such_template(folder, file.removesuffix(SUFFIX))
    sources[file] = source
    tree = parse(environment, file, source)
    yield file, tree
    for named in jinja2.meta.find_referenced_templates(tree):
        if named is None:
            raise TemplateError("includes and imports must name their file, so that the version covers it.", file=file)
        yield from _read_all(environment, folder, named, sources, (*wanted_by, file))


def _read(folder: Path, file: str) -> str | None:
    """Read a file in the folder; None if there is none, or if a path or symbolic link leads out of the folder."""
    try:
        file.encode()  # a name that is not UTF-8 can't be hashed, stored or shown
        path = (folder / file).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            return None
        return read_file(path)
    except UnicodeDecodeError as error:
        raise TemplateError(f"the file is not UTF-8 text (byte {error.start}).", file=file) from None
    except (OSError, ValueError, RuntimeError) as error:
        # Symbolic links in a circle are a RuntimeError before Python 3.13.
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
    # Check the text first: rendering does not reach every branch.
    if outside := [found for found in variables_inside(trees, template.file, "system") if found.name != "params"]:
        first = min(outside, key=lambda found: (found.name, found.line))
        what = (
            f"the system block is shared by all records, so it can read only `params`, not {first.name!r}. "
            "Move anything that differs by record to the user block."
        )
        raise TemplateError(what, file=first.file, line=first.line)
    template.render_system(template.stand_ins)
