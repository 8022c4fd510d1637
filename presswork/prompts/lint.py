"""Find all mistakes in a template without a database, a key or a request.

An error would fail for every record, or the API would reject it; a note is only worth knowing. The findings include
the errors of loading a template, and those that only a comparison finds: of the variables with the columns of the
select, of the params with the SQL, of the limits with the model's.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from db.machine import utc_now
from presswork.catalog import MODELS, Model, ModelsByName, NotTold, ending, estimate_tokens, find_model
from presswork.errors import ConfigurationError, TemplateError, place_in
from presswork.model_rules import misfits, request_settings
from presswork.output_classes.classes import load_output_class
from presswork.output_classes.schemas import full_schema, notes_on
from presswork.prompts.front_matter import SUFFIX, FrontMatter, read_file, read_front_matter
from presswork.prompts.front_yaml import FieldPlaces
from presswork.prompts.names import template_name_fault
from presswork.prompts.render import Caching, make_brief
from presswork.prompts.select_shapes import NotASelect, NotRead, Shape, parameters_of, read_select
from presswork.prompts.templates import Template, list_templates, load_template
from presswork.prompts.variables import Variable

Level = Literal["error", "note"]
_STOP_NO_RUN = frozenset({"model", "limits", "name"})


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding about a template; `code` is a word for programs."""

    file: str
    line: int | None
    level: Level
    code: str
    message: str

    def __str__(self) -> str:
        return f"{place_in(self.file, self.line)}: {self.message}"


def errors_that_stop(findings: Iterable[Finding]) -> list[Finding]:
    """Return the errors that stop a run before it starts.

    A model unknown here may be known to a gateway, and the endpoint knows best what a model accepts: the run asks it.
    The name of a deployment does not matter to a run.
    """
    return [finding for finding in findings if finding.level == "error" and finding.code not in _STOP_NO_RUN]


def load_sound(folder: Path, name: str) -> Template:
    """Load a template; raises TemplateError with the first mistake that would stop a run."""
    template = load_template(folder, name)
    errors = errors_that_stop(_sorted(_findings(folder, name, {}, _today(), schema=False, loaded=template)))
    if errors:
        more = f" (and {len(errors) - 1} more: `presswork templates lint {name}`)" if len(errors) > 1 else ""
        raise TemplateError(f"{errors[0]}{more}")
    return template


def lint_template(
    folder: Path,
    name: str,
    *,
    schema: bool = True,
    told: ModelsByName | None = None,
    today: date | None = None,
) -> list[Finding]:
    """Return all findings on a template, errors first and then by line; raises none of them.

    Without `schema`, it does not check that the API accepts the output class, and gives no note on the prompt cache:
    these load the SDK, which takes seconds.
    `told` has what an endpoint reported of models, by the names used in templates; it overrides what is known here.
    `today` is the date for notes on models that end soon.
    """
    return _sorted(_findings(folder, name, told or {}, today or _today(), schema=schema))


def _sorted(found: Iterable[Finding]) -> list[Finding]:
    unique = {(finding.file, finding.code, finding.message): finding for finding in found}
    return sorted(unique.values(), key=lambda finding: (finding.level, finding.file, finding.line or 0))


def _today() -> date:
    return utc_now().date()


def _known(told: ModelsByName, name: str) -> Model | None:
    """Return a model as the endpoint reported it, or else as it is known here."""
    said = told.get(name)
    return said if isinstance(said, Model) else find_model(name)


def _findings(
    folder: Path, name: str, told: ModelsByName, today: date, *, schema: bool, loaded: Template | None = None
) -> Iterator[Finding]:
    # Check the front matter even if the template does not load, so that one lint finds as many mistakes as possible.
    head = _read_head(folder, name)
    if head is not None:
        front, places = head
        yield from _model(front, places, told, today)
        yield from _scalars(places)
        # A template that selects its own records has a deployment; the name of a step is free.
        if front.select is not None and (fault := template_name_fault(name, list_templates(folder))):
            yield Finding(name + SUFFIX, None, "error", "name", fault)
    try:
        template = loaded or load_template(folder, name)
    except ConfigurationError as error:
        code = type(error).__name__.removesuffix("Error").lower()
        if isinstance(error, TemplateError) and error.file is not None:
            yield Finding(error.file, error.line, "error", code, str(error.what))
        else:
            yield Finding(name + SUFFIX, None, "error", code, str(error))
        if head is not None:
            yield from _output_class(*head)
    else:
        assert head is not None, "a template that loads has a front matter"
        yield from _schema(template, places) if schema else ()
        yield from _variables(template, folder)
        yield from _sql(template, places)
        # A brief has the schema, which the SDK makes.
        yield from _prefix(template) if schema else ()


def _read_head(folder: Path, name: str) -> tuple[FrontMatter, FieldPlaces] | None:
    file = name + SUFFIX
    try:
        text = read_file(folder / file)
        return read_front_matter(name, text), FieldPlaces(file, text)
    except (ConfigurationError, OSError, ValueError):
        return None


def _output_class(front: FrontMatter, places: FieldPlaces) -> Iterator[Finding]:
    try:
        load_output_class(front.output)
    except ConfigurationError as error:
        yield Finding(places.file, places.line_of("output"), "error", "outputclass", str(error))


def _model(front: FrontMatter, places: FieldPlaces, told: ModelsByName, today: date) -> Iterator[Finding]:
    level: Level
    said, model = told.get(front.model), _known(told, front.model)
    if isinstance(said, NotTold):
        level = "error" if said.is_unknown else "note"
        yield Finding(places.file, places.line_of("model"), level, "model", said.message)
    elif model is None:
        known = ", ".join(name for name, model in MODELS.items() if model.lifecycle != "retired")
        message = f"The model {front.model!r} is unknown. Available: {known}."
        yield Finding(places.file, places.line_of("model"), "error", "model", message)
    if (end := ending(front.model, model, today)) is not None:
        is_over = model is not None and model.lifecycle == "retired"
        message = f"{end}. {'Name another model' if is_over else 'Move to another model'}."
        level, code = ("error", "model") if is_over else ("note", "lifecycle")
        yield Finding(places.file, places.line_of("model"), level, code, message)
    sent = request_settings(front, find_model(front.model))
    for misfit in misfits(front, sent, model):
        message = f"{misfit}."
        yield Finding(places.file, places.line_of(misfit.field) or places.line_of("model"), "error", "limits", message)
    for name in front.accept_models:
        for misfit in misfits(front, sent, _known(told, name), name):
            message = f"If the gateway routes to {name}, it rejects the request: {misfit}."
            yield Finding(places.file, places.line_of("accept_models"), "note", "limits", message)
    if model is not None and model.thinks and not sent.get("thinking"):
        message = f"{front.model} always thinks: max_tokens ({front.max_tokens:,}) covers thinking and answer together."
        yield Finding(places.file, places.line_of("model"), "note", "thinking", message)


def _scalars(places: FieldPlaces) -> Iterator[Finding]:
    for path, text, line in places.doubtful_scalars():
        message = (
            f"{path} is the text {text!r}, as written. If you mean the text, put it in quotes; if not, write `true`, "
            "`false` or the number as records have it (1.1, not 1.10)."
        )
        yield Finding(places.file, line, "note", "scalar", message)


def _schema(template: Template, places: FieldPlaces) -> Iterator[Finding]:
    line = places.line_of("output")
    try:
        notes = notes_on(full_schema(template.output_class), template.schema)
    except ConfigurationError as error:
        yield Finding(places.file, line, "error", "outputclass", str(error))
    else:
        name = template.output_class.__name__
        yield from (Finding(places.file, line, "note", "schema", f"The output class {name!r}: {it}") for it in notes)


def _variables(template: Template, folder: Path) -> Iterator[Finding]:
    known = {"record", "params", *list_templates(folder)}
    shape = read_select(template.select_sql) if template.select_sql is not None else None
    # Any other name in a system block is an error when the template is loaded.
    for variable in (*template.variables("system"), *template.variables("user")):
        name, column = variable.name, variable.column
        if variable.optional:
            continue
        if name == "params" and column is not None and column not in template.front.params:
            message = f"The parameter {column!r} is not declared in `params`."
            yield Finding(variable.file, variable.line, "error", "params", message)
        elif name == "record" and column is not None and isinstance(shape, Shape):
            yield from _column(variable, column, shape)
        elif name not in known:
            message = f"{name!r} is not `record`, `params` or a step: there is no {name}{SUFFIX}."
            yield Finding(variable.file, variable.line, "error", "step", message)


def _column(variable: Variable, column: str, shape: Shape) -> Iterator[Finding]:
    if not shape.star and column not in shape.columns:
        yields = f"it yields {', '.join(shape.columns) or 'no named column'}"
        level: Level = "note"
        if column.lower() in {name.lower() for name in shape.columns}:
            message = f"The database decides if `record.{column}` exists, as only its case differs; {yields}."
        elif shape.unnamed:
            message = f"The select names no column {column!r}. Name a computed column with AS; {yields}."
        else:
            level, message = "error", f"The select does not provide `record.{column}`; {yields}."
        yield Finding(variable.file, variable.line, level, "variable", message)


def _sql(template: Template, places: FieldPlaces) -> Iterator[Finding]:
    sql, front = template.select_sql, template.front
    used: dict[str, int] = {}
    if sql is not None:
        own_file = str(front.select).strip() if sql != front.select else None
        file, first = (own_file, 1) if own_file else (places.file, places.first_line_of_text("select"))
        used = parameters_of(sql, front.params)
        if places.is_cut("select"):
            message = "YAML drops the text after ` #` as a comment. Write the SQL below `select: |`."
            yield Finding(places.file, places.line_of("select"), "note", "sql", message)
        for name, line in used.items():
            if name not in front.params:
                message = f"The select uses :{name}, which `params` does not declare."
                yield Finding(file, first + line - 1, "error", "params", message)
        yield from _select(front, read_select(sql), file, first)
    read = {variable.column for variable in (*template.variables("system"), *template.variables("user"))}
    for name in front.params:
        if name not in used and name not in read:
            message = f"The parameter {name!r} is declared but not used in the select or the prompt."
            yield Finding(places.file, places.line_of("params"), "note", "params", message)


def _select(front: FrontMatter, shape: Shape | NotRead | NotASelect, file: str, first: int) -> Iterator[Finding]:
    match shape:
        case NotRead(line, reason):
            message = f"The select can't be read here, so its columns are not checked: {reason}."
            yield Finding(file, first + line - 1, "note", "sql", message)
        case NotASelect(reason):
            yield Finding(file, first, "error", "sql", reason[0].upper() + reason[1:])
        case Shape(star=True):
            message = "SELECT * hides the columns, so the variables are not checked. Name the columns."
            yield Finding(file, first, "note", "star", message)
        case Shape(columns, unnamed=unnamed):
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
            f"The system block has about {tokens:,} tokens. {template.front.model} caches {model.cacheable:,} or "
            f"more, so each request pays for it in full. {marked}If this is intended, set `cache: off`."
        )
        yield Finding(template.name + SUFFIX, None, "note", "cache", message)
