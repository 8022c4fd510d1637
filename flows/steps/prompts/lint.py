"""Lint: what is wrong with a template, found without a database, a key or a request.

An error is something that would fail for every record, or that the API would refuse; a note is something worth
knowing. What loading a template finds is told here too, with what only a comparison finds: of the variables with the
columns of the select, of the params with the SQL, of the limits with the model's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from flows.errors import ConfigurationError
from flows.steps.catalog import MODELS, Model, NotTold, ending, estimate_tokens, find_model
from flows.steps.model_rules import misfits, request_settings
from flows.steps.output_classes.classes import load_output_class
from flows.steps.output_classes.schema_checks import notes_on
from flows.steps.output_classes.schemas import full_schema
from flows.steps.prompts.front_matter import SUFFIX, FrontMatter, read_file, read_front_matter
from flows.steps.prompts.front_yaml import compose_yaml, doubtful_scalars
from flows.steps.prompts.names import template_name_fault
from flows.steps.prompts.render import Caching, make_brief
from flows.steps.prompts.selects import NotASelect, NotRead, Shape, parameters_of, read_select
from flows.steps.prompts.templates import Template, list_templates, load_template
from flows.steps.prompts.variables import Read, reads_of

Level = Literal["error", "note"]
_STOP_NO_RUN = frozenset({"model", "limits", "name"})
_PLACE = re.compile(r"^(?P<file>[^\s:,]+)(?:, line (?P<line>\d+)|: line (?P<line2>\d+))?:? (?P<message>.+)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a template; `code` is a word for programs."""

    file: str
    line: int | None
    level: Level
    code: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}, line {self.line}" if self.line else self.file
        return f"{where}: {self.message}"


def errors_that_stop(findings: Iterable[Finding]) -> list[Finding]:
    """The errors for which a run is not started.

    A model that is unknown here may be known to a gateway, and what a model takes the endpoint knows best: the run
    asks it. A run needs no name that a deployment can have.
    """
    return [finding for finding in findings if finding.level == "error" and finding.code not in _STOP_NO_RUN]


def lint_template(
    folder: Path,
    name: str,
    *,
    schema: bool = True,
    told: Mapping[str, Model | NotTold] | None = None,
    today: date | None = None,
) -> list[Finding]:
    """Return what there is to know about a template, errors first and then by line; none is raised.

    Without `schema` it is not asked whether the API can take the output class: that loads the SDK, for seconds. `told`
    is what an endpoint said of models, by the names that templates have for them; it wins over what is known here.
    Models that end soon are told as of `today`.
    """
    found: list[Finding] = []
    about = _About(told or {}, today or date.today())  # noqa: DTZ011 - a notice of 60 days; the hour is of no matter
    try:
        template = load_template(folder, name)
    except ConfigurationError as error:
        found.append(_loading(name, error))
        found += _of_broken_file(folder, name, about)
    else:
        lines = _Lines(folder, name)
        found += _model(template.front, lines, about)
        found += _scalars(lines)
        found += _name(template.front, folder, name)
        found += _schema(template, lines) if schema else ()
        found += _variables(template, folder)
        found += _sql(template, lines)
        found += _prefix(template)
    unique = {(finding.file, finding.code, finding.message): finding for finding in found}
    return sorted(unique.values(), key=lambda finding: (finding.level, finding.file, finding.line or 0))


@dataclass(frozen=True, slots=True)
class _About:
    """What models are judged by: what an endpoint said of them, and the day."""

    told: Mapping[str, Model | NotTold]
    today: date

    def model(self, name: str) -> Model | None:
        """What is known of a model: told, else known here."""
        told = self.told.get(name)
        return told if isinstance(told, Model) else find_model(name)


class _Lines:
    """Where the fields of a front matter stand in its file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.file = name + SUFFIX
        text = read_file(folder / self.file)
        end = text.find("\n---", 3)
        tree = compose_yaml(text[: end + 1])
        self._text = text
        self._nodes = {key.value: (key, value) for key, value in getattr(tree, "value", [])}

    def of(self, field: str) -> int | None:
        """The line of a field; None where it is left out."""
        found = self._nodes.get(field)
        return found[0].start_mark.line + 1 if found else None

    def of_text(self, field: str) -> int:
        """The line where a field's text begins: below its name, where it is a block."""
        found = self._nodes.get(field)
        if found is None:
            return 1
        return int(found[1].start_mark.line) + (2 if found[1].style in ("|", ">") else 1)

    def is_cut(self, field: str) -> bool:
        """Whether YAML has taken the end of a field's text for a comment: it stands without quotes, before a ` #`."""
        found = self._nodes.get(field)
        if found is None or getattr(found[1], "style", "") is not None or not isinstance(found[1].value, str):
            return False
        rest = self._text[found[1].end_mark.index :].partition("\n")[0]
        return rest.lstrip().startswith("#")

    def doubtful(self) -> Iterator[tuple[str, str, int]]:
        """What stands without quotes in examples and may be meant as more than text: its path, text and line."""
        _name, examples = self._nodes.get("examples", (None, None))
        for number, example in enumerate(getattr(examples, "value", ()), start=1):
            for name, value in getattr(example, "value", ()):
                if name.value in ("record", "inputs"):
                    for path, node in doubtful_scalars(value, name.value):
                        yield f"example {number}, {path}", node.value, node.start_mark.line + 1


def _loading(name: str, error: ConfigurationError) -> Finding:
    match = _PLACE.match(str(error))
    code = type(error).__name__.removesuffix("Error").lower()
    if match is None or not match["file"].endswith((SUFFIX, ".sql", ".j2")):
        return Finding(name + SUFFIX, None, "error", code, str(error))
    line = match["line"] or match["line2"]
    return Finding(match["file"], int(line) if line else None, "error", code, match["message"])


def _of_broken_file(folder: Path, name: str, about: _About) -> Iterator[Finding]:
    """What can be said of a template that does not load, so that not every mistake needs a run of the lint."""
    try:
        front = read_front_matter(name, read_file(folder / (name + SUFFIX)))
        lines = _Lines(folder, name)
    except (ConfigurationError, OSError, ValueError):
        return
    yield from _model(front, lines, about)
    yield from _scalars(lines)
    yield from _name(front, folder, name)
    try:
        load_output_class(front.output)
    except ConfigurationError as error:
        yield Finding(lines.file, lines.of("output"), "error", "outputclass", str(error))


def _model(front: FrontMatter, lines: _Lines, about: _About) -> Iterator[Finding]:
    said, model = about.told.get(front.model), about.model(front.model)
    if isinstance(said, NotTold):
        level: Level = "error" if said.is_unknown else "note"
        yield Finding(lines.file, lines.of("model"), level, "model", said.message)
    elif model is None:
        known = ", ".join(name for name, model in MODELS.items() if model.lifecycle != "retired")
        message = f"The model {front.model!r} is not known; known are {known}."
        yield Finding(lines.file, lines.of("model"), "error", "model", message)
    yield from _ending(front, lines, model, about.today)
    sent = request_settings(front, find_model(front.model))
    for misfit in misfits(front, sent, model):
        message = f"{misfit}."
        yield Finding(lines.file, lines.of(misfit.field) or lines.of("model"), "error", "limits", message)
    for name in front.accept_models:
        for misfit in misfits(front, sent, about.model(name), name):
            message = f"Where the gateway routes to {name}, it refuses the request: {misfit}."
            yield Finding(lines.file, lines.of("accept_models"), "note", "limits", message)
    if model is not None and model.thinks and not sent.get("thinking"):
        message = f"{front.model} always thinks: max_tokens ({front.max_tokens:,}) is for thinking and answer together."
        yield Finding(lines.file, lines.of("model"), "note", "thinking", message)


def _ending(front: FrontMatter, lines: _Lines, model: Model | None, today: date) -> Iterator[Finding]:
    told = ending(front.model, model, today)
    if told is not None and model is not None and model.lifecycle == "retired":
        yield Finding(lines.file, lines.of("model"), "error", "model", f"{told}. Name another model.")
    elif told is not None:
        yield Finding(lines.file, lines.of("model"), "note", "lifecycle", f"{told}. Move to another model.")


def _scalars(lines: _Lines) -> Iterator[Finding]:
    for path, text, line in lines.doubtful():
        message = (
            f"{path} is the text {text!r}, as it is written. Put it in quotes if that is meant, else write `true`, "
            "`false` or the number as records have it (1.1, not 1.10)."
        )
        yield Finding(lines.file, line, "note", "scalar", message)


def _name(front: FrontMatter, folder: Path, name: str) -> Iterator[Finding]:
    """Tell a template that selects its own records, and so has a deployment, from a step, whose name is free."""
    fault = template_name_fault(name, list_templates(folder)) if front.select is not None else None
    if fault is not None:
        yield Finding(name + SUFFIX, None, "error", "name", fault)


def _schema(template: Template, lines: _Lines) -> Iterator[Finding]:
    line = lines.of("output")
    try:
        notes = notes_on(full_schema(template.output_class), template.schema)
    except ConfigurationError as error:
        yield Finding(lines.file, line, "error", "outputclass", str(error))
    else:
        name = template.output_class.__name__
        yield from (Finding(lines.file, line, "note", "schema", f"The output class {name!r}: {it}") for it in notes)


def _variables(template: Template, folder: Path) -> Iterator[Finding]:
    steps = set(list_templates(folder))
    shape = read_select(template.select_sql) if template.select_sql is not None else None
    for read in reads_of(template, "system"):
        # What else a system block reads is an error when the template is loaded.
        yield from _param(template, read)
    for read in reads_of(template, "user"):
        yield from _param(template, read)
        if read.name == "record" and read.column is not None:
            yield from _column(read, read.column, shape)
        elif read.name not in {"record", "params", *steps}:
            message = f"{read.name!r} is neither `record`, `params` nor a step: there is no {read.name}{SUFFIX}."
            yield Finding(read.file, read.line, "error", "step", message)


def _param(template: Template, read: Read) -> Iterator[Finding]:
    if read.name == "params" and read.column is not None and read.column not in template.front.params:
        message = f"The parameter {read.column!r} is not declared in `params`."
        yield Finding(read.file, read.line, "error", "params", message)


def _column(read: Read, column: str, shape: Shape | NotRead | NotASelect | None) -> Iterator[Finding]:
    if isinstance(shape, Shape) and not shape.star and column not in shape.columns:
        yields = f"it yields {', '.join(shape.columns) or 'no named column'}"
        level: Level = "note"
        if column.lower() in {name.lower() for name in shape.columns}:
            message = f"Whether the select provides `record.{column}`, by its case, the database decides; {yields}."
        elif shape.unnamed:
            message = f"The select names no column {column!r}; give a computed one its name with AS; {yields}."
        else:
            level, message = "error", f"The select does not provide `record.{column}`; {yields}."
        yield Finding(read.file, read.line, level, "variable", message)


def _sql(template: Template, lines: _Lines) -> Iterator[Finding]:
    sql, front = template.select_sql, template.front
    used: dict[str, int] = {}
    if sql is not None:
        own_file = str(front.select).strip() if sql != front.select else None
        file, first = (own_file, 1) if own_file else (lines.file, lines.of_text("select"))
        used = parameters_of(sql, front.params)
        if lines.is_cut("select"):
            message = "YAML takes what follows ` #` for a comment and leaves it out. Write the SQL below `select: |`."
            yield Finding(lines.file, lines.of("select"), "note", "sql", message)
        for name, line in used.items():
            if name not in front.params:
                message = f"The select uses :{name}, which `params` does not declare."
                yield Finding(file, first + line - 1, "error", "params", message)
        yield from _select(front, read_select(sql), file, first)
    read = {found.column for block in ("system", "user") for found in reads_of(template, block)}
    for name in front.params:
        if name not in used and name not in read:
            message = f"The parameter {name!r} is declared, but neither the select nor the prompt uses it."
            yield Finding(lines.file, lines.of("params"), "note", "params", message)


def _select(front: FrontMatter, shape: Shape | NotRead | NotASelect, file: str, first: int) -> Iterator[Finding]:
    match shape:
        case NotRead(line, reason):
            message = f"The select can't be read here, so its columns are not checked: {reason}."
            yield Finding(file, first + line - 1, "note", "sql", message)
        case NotASelect(reason):
            yield Finding(file, first, "error", "sql", reason[0].upper() + reason[1:])
        case Shape(columns, star, unnamed):
            if star:
                message = "With SELECT * the columns are not known here, so the variables are not checked; name them."
                yield Finding(file, first, "note", "star", message)
            else:
                yield from _key(front, columns, unnamed, file, first)


def _key(front: FrontMatter, columns: tuple[str, ...], unnamed: int, file: str, first: int) -> Iterator[Finding]:
    known = {*columns, *(name.lower() for name in columns)}
    for column in front.key_columns:
        if column not in known and column.lower() not in known:
            level: Level = "note" if unnamed else "error"
            message = f"The select does not yield the key {column!r}; it yields {', '.join(columns)}."
            yield Finding(file, first, level, "key", message)


def _prefix(template: Template) -> Iterator[Finding]:
    model = find_model(template.front.model)
    if model is None or model.cacheable is None or template.front.cache == "off":
        return
    try:
        brief = make_brief(template, "lint", template.stand_ins)
    except ConfigurationError:
        return
    tokens = estimate_tokens(len(brief.system), model)
    if brief.system and tokens < model.cacheable:
        marked = "It is not marked for the cache. " if brief.caching is Caching.TOO_SHORT else ""
        message = (
            f"The system block has about {tokens:,} tokens; {template.front.model} caches {model.cacheable:,} and "
            f"more, so each request pays for it in full. {marked}`cache: off` says that this is meant."
        )
        yield Finding(template.name + SUFFIX, None, "note", "cache", message)
