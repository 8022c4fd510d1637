"""Syntax: what a template may do, and what it reads, by Jinja's own parse of it.

It stands apart from templates.py because nothing here renders: all is known from the text alone, so that a mistake
costs no request, and stands in the branch that no check would have rendered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinMethodType
from typing import Any

import jinja2
import jinja2.meta
from jinja2 import nodes
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS

from flows.errors import TemplateError
from flows.steps.prompts.front_matter import blank_front_matter
from flows.steps.prompts.nulls import NULL, NULL_FILTERS, NULL_TESTS, WrittenConstants, call_arguments, fill_percent
from flows.steps.prompts.spelling import as_rendered

BLOCKS = frozenset({"system", "user"})
_DUNDER = re.compile(r"__\w+__")
_IN_WORDS: Mapping[type[Exception], str] = {
    TypeError: "a value is of a type that this line can't work with",
    ZeroDivisionError: "it divides by zero",
    ValueError: "a value has not the form that this line needs",
}
"""What Python's errors mean for whoever wrote the template; what they say themselves quotes the value."""
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
# What may stand above the blocks: it makes names and no text.
_NAMING = (nodes.Import, nodes.FromImport, nodes.Assign, nodes.AssignBlock, nodes.Macro)
CALLED = "()"
"""Marks a name that is called; no name of a template ends so."""
Trees = Mapping[str, nodes.Template]


class Missing(jinja2.StrictUndefined):
    """A value that is not there: to write it is an error, also as a part of a list."""

    __slots__ = ()
    __repr__ = jinja2.StrictUndefined.__str__


class Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which a dot on a mapping reads its keys: `record.items` is the column of that name.

    A method is what is called: `record.items()` is a mapping's own, whatever its keys are. NULL has the methods of an
    empty text and of an empty mapping, and nothing else: `record.address.city` is undefined where the address is NULL.
    """

    intercepted_binops = frozenset({"%", "+", "-", "*", "/", "//", "**"})
    intercepted_unops = frozenset({"+", "-"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Read a name of a value; a mapping's are its keys, and one that it lacks is undefined."""
        name = attribute.removesuffix(CALLED)
        if obj is NULL:
            return self._of_null(name, called=name != attribute)
        if name != attribute or not isinstance(obj, Mapping):
            found = super().getattr(obj, name)
            return NULL if found is None else found
        try:
            return obj[name]
        except LookupError:
            return self.undefined(obj=obj, name=name)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Read a part of a value; NULL has none."""
        found = self._of_null(argument, called=False) if obj is NULL else super().getitem(obj, argument)
        return NULL if found is None else found

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls: Python's own methods get, and may return, None for NULL."""
        if isinstance(obj, BuiltinMethodType) and self.wrap_str_format(obj) is None:
            args = call_arguments(obj, args)
        found = super().call(context, obj, *args, **kwargs)
        return NULL if found is None else found

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Work an operator out; `%` fills a text or divides, and a number is spelled as one of a record."""
        if operator == "%" and isinstance(left, str):
            return fill_percent(left, right)
        return as_rendered(super().call_binop(context, operator, left, right))

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        """Work a sign out; as call_binop."""
        return as_rendered(super().call_unop(context, operator, arg))

    def _of_null(self, name: Any, *, called: bool) -> Any:
        likes: tuple[object, ...] = ("", {}) if called else ()
        for like in likes:
            if hasattr(like, name):
                return super().getattr(like, name)
        return self.undefined(hint=f"what it reads {name!r} of is NULL")

    def _generate(
        self,
        source: nodes.Template,
        name: str | None,
        filename: str | None,
        defer_init: bool = False,  # noqa: FBT001, FBT002 - as Jinja hands it to this hook
    ) -> str:
        # When it is rendered, what is read and what is called look the same: a call is marked here.
        for call in source.find_all(nodes.Call):
            if isinstance(call.node, nodes.Getattr):
                call.node.attr += CALLED
        WrittenConstants().visit(source)
        return super()._generate(source, name, filename, defer_init)


def make_environment(loader: jinja2.BaseLoader) -> jinja2.Environment:
    """Make the sandboxed Jinja environment: strict, and without autoescape, for prompts are text and no HTML."""
    environment = Environment(
        loader=loader,
        undefined=Missing,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters = dict(NULL_FILTERS)
    environment.tests = dict(NULL_TESTS)
    environment.globals = {name: environment.globals[name] for name in ("range", "dict", "namespace")}
    return environment


def parse(environment: jinja2.Environment, file: str, source: str) -> nodes.Template:
    """Parse a file; TemplateError names the line of a mistake."""
    try:
        return environment.parse(blank_front_matter(source), file, file)
    except jinja2.TemplateSyntaxError as error:
        raise template_error(file, error) from None


def files_named_by(file: str, part: nodes.Template) -> Iterator[str]:
    """Yield the files that a part includes or imports; a name that is made while rendering raises TemplateError."""
    for name in jinja2.meta.find_referenced_templates(part):
        if name is None:
            raise TemplateError(f"{file}: includes and imports must name their file, so that the version covers it.")
        yield name


def refuse_unsafe(file: str, tree: nodes.Template) -> None:
    """Refuse a reach for Python's insides. What is put together while rendering, the sandbox refuses then."""
    if next(tree.find_all(nodes.Extends), None) is not None:
        raise TemplateError(f"{file}: `extends` is not supported; use `include` or a macro.")
    for node in tree.find_all((nodes.Getattr, nodes.Const)):
        match node:
            # In a constant too: as a subscript, or as an argument of `attr`, `map` and a dozen more filters.
            case nodes.Getattr(attr=str(name)) if name.startswith("_"):
                pass
            case nodes.Const(value=str(name)) if _DUNDER.search(name):
                pass
            case _:
                continue
        raise TemplateError(f"{file}, line {node.lineno}: {name!r} reaches into Python; templates read data only.")


def refuse_unknown(file: str, tree: nodes.Template) -> None:
    """Refuse filters and tests that there are not. Jinja leaves those inside an `if` for the day it is rendered."""
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        word, known = ("filter", FILTERS) if isinstance(node, nodes.Filter) else ("test", TESTS)
        if node.name not in known:
            raise TemplateError(f"{file}, line {node.lineno}: Jinja has no {word} {node.name!r}.")


def check_blocks(file: str, tree: nodes.Template) -> None:
    """Refuse other blocks than `system` and `user`, and text outside of them, which would be in no request."""
    top = [node for node in tree.body if isinstance(node, nodes.Block)]
    for block in tree.find_all(nodes.Block):
        if block.name not in BLOCKS or block not in top:
            raise TemplateError(
                f"{file}, line {block.lineno}: a template has the blocks `system` and `user`, side by side; "
                f"{block.name!r} can't stand here."
            )
    if all(block.name != "user" for block in top):
        raise TemplateError(f"{file}: a template has the blocks `system` and `user`, and this one has no `user` block.")
    for node in tree.body:
        if not isinstance(node, (nodes.Block, *_NAMING)) and not _is_blank(node):
            raise TemplateError(
                f"{file}, line {_first_line(node)}: what stands outside the blocks `system` and `user` is not sent; "
                "move it into one of them."
            )


def names_before_blocks(tree: nodes.Template) -> bool:
    """Whether something stands above the blocks that makes names: imports of macros, `set`."""
    return any(isinstance(node, _NAMING) for node in tree.body)


def read_by_user(trees: Trees, file: str) -> frozenset[str]:
    """Return the names that the user block, and what stands above it, takes from outside; includes included."""
    tree = trees[file]
    return _names(trees, tree, [*_above(tree), *_inside(tree, "user")])


def read_by_system(trees: Trees, file: str) -> frozenset[str]:
    """Return the names that the system block takes from outside; includes included."""
    tree = trees[file]
    # What stands above may be there for the user block alone.
    return _names(trees, tree, _inside(tree, "system")) - set(_own_names(nodes.Template(_above(tree), lineno=1)))


def line_of(tree: nodes.Template, block: str, name: str) -> int | None:
    """Return the first line in a block that reads a name."""
    for node in _inside(tree, block):
        for found in _with_descendants(node):
            if isinstance(found, nodes.Name) and found.name == name:
                return found.lineno
    return None


def template_error(file: str, error: Exception) -> TemplateError:
    """Say an error of a template with its file and line."""
    message = error.message if isinstance(error, jinja2.TemplateError) else str(error)
    return TemplateError(f"{place_of(file, error)}: {(message or type(error).__name__).rstrip('.')}.")


def place_of(file: str, error: Exception) -> str:
    """Name the file and line where parsing or rendering went wrong, which may be an include's."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.name or file}, line {error.lineno}"
    place, trace = file, error.__traceback__
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if isinstance(template, jinja2.Template):
            place = f"{template.name}, line {template.get_corresponding_lineno(trace.tb_lineno)}"
        trace = trace.tb_next
    return place


def without_values(error: Exception, sources: Iterable[str]) -> str:
    """Say what went wrong with a record, quoting only what stands in the template: its text belongs in no message."""
    if not isinstance(error, jinja2.TemplateError):
        named = type(error).__name__
        told = next((text for kind, text in _IN_WORDS.items() if isinstance(error, kind)), None)
        return f"{told} ({named})" if told else named
    message = (error.message or type(error).__name__).rstrip(".")
    quoted = ["".join(pair) for pair in _QUOTED.findall(message)]
    if isinstance(error, jinja2.UndefinedError):
        known = "\n".join(sources)
        if any(piece not in known and not piece.endswith(" object") for piece in quoted):
            return "it reads by a name that the data does not have"
    return message


def _names(trees: Trees, tree: nodes.Template, body: list[nodes.Node]) -> frozenset[str]:
    part = nodes.Template(body, lineno=1)
    part.environment = tree.environment
    names = jinja2.meta.find_undeclared_variables(part)
    own = set(_own_names(part))
    for include in part.find_all(nodes.Include):
        for included in files_named_by("", nodes.Template([include], lineno=1)):
            # An include sees the loop variables and the `set` of the place where it stands.
            names |= _names(trees, trees[included], trees[included].body) - own
    return frozenset(names - set(tree.environment.globals if tree.environment else ()))


def _own_names(part: nodes.Template) -> Iterator[str]:
    for node in part.find_all((nodes.Name, nodes.Macro, nodes.Import, nodes.FromImport)):
        match node:
            case nodes.Name(name=str(name), ctx="store" | "param"):
                yield name
            case nodes.Macro(name=str(name)) | nodes.Import(target=str(name)):
                yield name
            case nodes.FromImport(names=names):
                yield from (name if isinstance(name, str) else name[1] for name in names)
            case _:
                pass


def _above(tree: nodes.Template) -> list[nodes.Node]:
    return [node for node in tree.body if isinstance(node, _NAMING)]


def _inside(tree: nodes.Template, block: str) -> list[nodes.Node]:
    return [node for found in tree.find_all(nodes.Block) if found.name == block for node in found.body]


def _with_descendants(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    for child in node.iter_child_nodes():
        yield from _with_descendants(child)


def _is_blank(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Output) and all(
        isinstance(part, nodes.TemplateData) and not part.data.strip() for part in node.nodes
    )


def _first_line(node: nodes.Node) -> int:
    # Jinja gives text the line on which it begins, blank lines included.
    for part in _with_descendants(node):
        if isinstance(part, nodes.TemplateData):
            if part.data.strip():
                return part.lineno + part.data[: len(part.data) - len(part.data.lstrip())].count("\n")
        elif not isinstance(part, nodes.Output):
            return part.lineno
    return node.lineno
