"""Find the variables that a template's blocks read, through all includes, with their lines.

It uses Jinja's own parse. Rendering needs the names, and so does the check of the system block; the lint needs the
columns and their lines.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import jinja2.meta
from jinja2 import nodes

from presswork.prompts.syntax import GLOBALS, NAMING

Block = Literal["system", "user"]
Trees = Mapping[str, nodes.Template]
"""The parse of each file of a template."""
DICT_METHODS = frozenset(dir(dict))
ASKING = frozenset({"defined", "undefined", "default", "d"})
"""The tests and filters with which a template checks whether there is a value."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A name that is read from outside: alone, or with one column, as `name.column` or name['column'].

    `optional` means that it may be missing: the template checks it with `is defined` or `default`.
    """

    file: str
    line: int
    name: str
    column: str | None = None
    optional: bool = False


def variables_of(trees: Trees, file: str, block: Block) -> list[Variable]:
    """List the variables that a block, and the statements above the blocks, read from outside."""
    return list(_variables(trees, file, [*above(trees[file]), *_inside(trees[file], block)]))


def variables_inside(trees: Trees, file: str, block: Block) -> list[Variable]:
    """List the variables that a block reads itself, without names that the statements above make."""
    made_above = set(_made_by(nodes.Template(above(trees[file]), lineno=1)))
    found = _variables(trees, file, _inside(trees[file], block))
    return [variable for variable in found if variable.name not in made_above]


def _variables(trees: Trees, file: str, body: list[nodes.Node]) -> Iterator[Variable]:
    part = nodes.Template(body, lineno=1)
    part.environment = trees[file].environment
    outside = jinja2.meta.find_undeclared_variables(part).difference(GLOBALS)
    asking = [node.node for node in part.find_all((nodes.Test, nodes.Filter)) if node.name in ASKING]
    optional = set(map(_named, asking))
    called = {id(call.node) for call in part.find_all(nodes.Call)}
    for node in part.find_all((nodes.Name, nodes.Getattr, nodes.Getitem)):
        named = _named(node)
        if named is not None and named[0] in outside and (id(node) not in called or named[1] not in DICT_METHODS):
            yield Variable(file, node.lineno, *named, optional=named in optional)
    made = set(_made_by(part))
    for include in part.find_all(nodes.Include):
        for inner in filter(None, jinja2.meta.find_referenced_templates(nodes.Template([include], lineno=1))):
            # An include sees the loop variables and the `set` names at its place.
            found = _variables(trees, inner, trees[inner].body)
            yield from (variable for variable in found if variable.name not in made)


def _named(node: nodes.Node | None) -> tuple[str, str | None] | None:
    match node:
        case nodes.Name(name=name, ctx="load"):
            return name, None
        case nodes.Getattr(node=nodes.Name(name=name), attr=column):
            return name, column
        case nodes.Getitem(node=nodes.Name(name=name), arg=nodes.Const(value=str(column))):
            return name, column
        case _:
            return None


def _made_by(part: nodes.Template) -> Iterator[str]:
    """Yield the names that a part defines itself."""
    for node in part.find_all((nodes.Name, nodes.Macro, nodes.Import, nodes.FromImport)):
        match node:
            case nodes.Name(name=str(name), ctx="store" | "param"):
                yield name
            case nodes.Macro(name=str(name)) | nodes.Import(target=str(name)):
                yield name
            case nodes.FromImport(names=names):
                yield from (name if isinstance(name, str) else name[1] for name in names)


def above(tree: nodes.Template) -> list[nodes.Node]:
    """List the statements above the blocks that make names: imports of macros, `set`."""
    return [node for node in tree.body if isinstance(node, NAMING)]


def _inside(tree: nodes.Template, block: Block) -> list[nodes.Node]:
    return [node for found in tree.find_all(nodes.Block) if found.name == block for node in found.body]
