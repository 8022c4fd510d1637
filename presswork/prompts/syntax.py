"""Make the Jinja environment of templates, and reject forbidden syntax in the parse of a template.

This is separate from templates.py because nothing is rendered here. So a mistake costs no request, and is found even
in a branch that no check would render.
"""

import re
from collections.abc import Iterable, Mapping
from types import BuiltinMethodType
from typing import Any, TypeVar

import jinja2
from jinja2 import nodes
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.visitor import NodeTransformer

from presswork.errors import TemplateError
from presswork.prompts.front_matter import blank_front_matter
from presswork.prompts.nulls import NULL, NULL_FILTERS, NULL_NAME, NULL_TESTS, call_arguments, fill_percent
from presswork.prompts.spelling import as_rendered

E = TypeVar("E", bound="Environment")
BLOCKS = frozenset({"system", "user"})
_PRIVATE = re.compile(r"^_")
_DUNDER = re.compile(r"__\w+__")
_IN_WORDS: Mapping[type[Exception], str] = {
    TypeError: "a value has a type that this line can't use",
    ZeroDivisionError: "division by zero",
    ValueError: "a value does not have the format that this line needs",
}
"""The meaning of Python's errors for the template's author; the errors' own messages quote values."""
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
NAMING = (nodes.Import, nodes.FromImport, nodes.Assign, nodes.AssignBlock, nodes.Macro)
"""The statements allowed above the blocks: they make names and no text."""
GLOBALS = ("range", "dict", "namespace")
"""Jinja's own functions that a template may call."""
CALLED = "()"
"""Marks a name that is called; no name in a template ends like this."""


class Missing(jinja2.StrictUndefined):
    """A missing value: rendering it is an error, even as a part of a list."""

    __slots__ = ()
    __repr__ = jinja2.StrictUndefined.__str__


class Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which a dot on a mapping reads its keys: `record.items` is the column of that name.

    Only a call uses a method: `record.items()` is the mapping's own, whichever keys it has. NULL has the methods of an
    empty text and of an empty mapping, and nothing else: `record.address.city` is undefined if the address is NULL.
    """

    intercepted_binops = frozenset({"%", "+", "-", "*", "/", "//", "**"})
    intercepted_unops = frozenset({"+", "-"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Read an attribute; for a mapping it is a key, and a missing key is undefined."""
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
        """Read an item of a value; NULL has none."""
        found = self._of_null(argument, called=False) if obj is NULL else super().getitem(obj, argument)
        return NULL if found is None else found

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method for a template; Python's own methods get None for NULL, and None becomes NULL."""
        if isinstance(obj, BuiltinMethodType) and self.wrap_str_format(obj) is None:
            args = call_arguments(obj, args)
        found = super().call(context, obj, *args, **kwargs)
        return NULL if found is None else found

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute an operator. A float result has no exponent, as in a record; `%` also formats texts."""
        if operator == "%" and isinstance(left, str):
            return fill_percent(left, right)
        return as_rendered(super().call_binop(context, operator, left, right))

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        """Compute a sign; a float result has no exponent."""
        return as_rendered(super().call_unop(context, operator, arg))

    def _of_null(self, name: Any, *, called: bool) -> Any:
        likes: tuple[object, ...] = ("", {}) if called else ()
        for like in likes:
            if hasattr(like, name):
                return super().getattr(like, name)
        return self.undefined(hint=f"it reads {name!r} of a value that is NULL")

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        # At rendering time, reading and calling look the same, so calls are marked here.
        for call in source.find_all(nodes.Call):
            if isinstance(call.node, nodes.Getattr):
                call.node.attr += CALLED
        WrittenConstants().visit(source)
        return super()._generate(source, name, filename, defer_init)


class WrittenConstants(NodeTransformer):
    """Replaces `none` in a template by NULL, and a number with a fraction by a Number."""

    def get_visitor(self, node: nodes.Node) -> Any:
        """Return the method for a node; None if only its children may change."""
        methods: dict[type[nodes.Node], Any] = {nodes.Const: self._replaced, nodes.Slice: self._bounded}
        return methods.get(type(node))

    def _replaced(self, node: nodes.Const) -> nodes.Expr:
        if node.value is None:
            return nodes.ImportedName(NULL_NAME, lineno=node.lineno)
        # A compiled constant is a plain float. With a sign before it, Environment computes it, and so spells it like
        # a record's number.
        return nodes.Pos(node, lineno=node.lineno) if type(node.value) is float else node

    def _bounded(self, node: nodes.Slice) -> nodes.Slice:
        """Replace a bound that is NULL by Python's None, which means no bound."""
        for part in ("start", "stop", "step"):
            bound = getattr(node, part)
            if bound is not None and not isinstance(bound, nodes.Const):
                is_null = nodes.Test(bound, "none", [], [], None, None)
                setattr(node, part, nodes.CondExpr(is_null, nodes.Const(None), bound))
        return node


def make_environment(loader: jinja2.BaseLoader) -> jinja2.Environment:
    """Make the sandboxed Jinja environment: strict, and without autoescape, as prompts are text and not HTML."""
    return environment_of(Environment, loader)


def environment_of(kind: type[E], loader: jinja2.BaseLoader) -> E:
    """Make an environment of a class of its own, with the same settings."""
    environment = kind(
        loader=loader,
        undefined=Missing,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters = dict(NULL_FILTERS)
    environment.tests = dict(NULL_TESTS)
    environment.globals = {name: environment.globals[name] for name in GLOBALS}
    return environment


def parse(environment: jinja2.Environment, file: str, source: str) -> nodes.Template:
    """Parse a file and reject forbidden syntax; TemplateError names the line of a mistake."""
    try:
        tree = environment.parse(blank_front_matter(source), file, file)
    except jinja2.TemplateSyntaxError as error:
        raise template_error(file, error) from None
    _refuse_unsafe(file, tree)
    # Inside an `if`, Jinja would report an unknown filter or test only at rendering time.
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        word, known = ("filter", FILTERS) if isinstance(node, nodes.Filter) else ("test", TESTS)
        if node.name not in known:
            raise TemplateError(f"Jinja has no {word} {node.name!r}.", file=file, line=node.lineno)
    return tree


def _refuse_unsafe(file: str, tree: nodes.Template) -> None:
    """Reject access to Python's internals; the sandbox rejects names that are composed while rendering."""
    if next(tree.find_all(nodes.Extends), None) is not None:
        raise TemplateError("`extends` is not supported; use `include` or a macro.", file=file)
    found: Iterable[Any] = tree.find_all((nodes.Getattr, nodes.Const))
    for node in found:
        # Also in a constant, which may be a subscript, or an argument of `attr`, `map` and a dozen more filters.
        name, inside = (node.attr, _PRIVATE) if isinstance(node, nodes.Getattr) else (node.value, _DUNDER)
        if isinstance(name, str) and inside.search(name):
            raise TemplateError(f"{name!r} reaches into Python. Templates read only data.", file=file, line=node.lineno)


def check_blocks(file: str, tree: nodes.Template) -> None:
    """Reject blocks other than `system` and `user`, and content outside of them, which no request would contain."""
    have = "a template has the blocks `system` and `user`"
    top = [node for node in tree.body if isinstance(node, nodes.Block)]
    for block in tree.find_all(nodes.Block):
        if block.name not in BLOCKS or block not in top:
            message = f"{have}, side by side; {block.name!r} is not allowed here."
            raise TemplateError(message, file=file, line=block.lineno)
    if all(block.name != "user" for block in top):
        raise TemplateError(f"{have}. The `user` block is missing.", file=file)
    for node in tree.body:
        if (line := _line_of_stray(node)) is not None:
            message = "content outside the blocks `system` and `user` is not sent. Move it into one of them."
            raise TemplateError(message, file=file, line=line)


def template_error(file: str, error: Exception, hint: str = "") -> TemplateError:
    """Make a TemplateError with file and line from another error, and add a hint."""
    message = error.message if isinstance(error, jinja2.TemplateError) else str(error)
    place, line = place_of(file, error)
    what = f"{(message or type(error).__name__).rstrip('.')}. {hint}".rstrip()
    return TemplateError(what, file=place, line=line)


def place_of(file: str, error: Exception) -> tuple[str, int | None]:
    """Find the file and line of an error in parsing or rendering, which may be an included file's."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.name or file, error.lineno
    place: tuple[str, int | None] = file, None
    trace = error.__traceback__
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if isinstance(template, jinja2.Template):
            place = template.name or file, template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return place


def without_values(error: Exception, sources: Iterable[str]) -> str:
    """Describe a rendering error of a record; it quotes only text of the template, as no message may contain data."""
    if not isinstance(error, jinja2.TemplateError):
        named = type(error).__name__
        told = next((text for kind, text in _IN_WORDS.items() if isinstance(error, kind)), None)
        return f"{told} ({named})" if told else named
    message = (error.message or type(error).__name__).rstrip(".")
    quoted = ["".join(pair) for pair in _QUOTED.findall(message)]
    if isinstance(error, jinja2.UndefinedError):
        known = "\n".join(sources)
        if any(piece not in known and not piece.endswith(" object") for piece in quoted):
            return "it reads a name that the data does not have"
    return message


def _line_of_stray(node: nodes.Node) -> int | None:
    """Return the line of forbidden content in a node outside the blocks; None if there is none."""
    if not isinstance(node, nodes.Output):
        return None if isinstance(node, (nodes.Block, *NAMING)) else node.lineno
    for part in node.nodes:
        if not isinstance(part, nodes.TemplateData):
            return part.lineno
        if part.data.strip():
            # Jinja's line for text is that of its beginning, which may be a blank line.
            return part.lineno + part.data[: len(part.data) - len(part.data.lstrip())].count("\n")
    return None
