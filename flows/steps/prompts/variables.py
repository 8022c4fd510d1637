"""Variables: what a template's blocks read, through all that they include, and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import jinja2
import jinja2.meta
from jinja2 import nodes

from flows.steps.prompts.syntax import Trees, make_environment, parse
from flows.steps.prompts.templates import Template

DICT_METHODS = frozenset(dir(dict))


@dataclass(frozen=True, slots=True)
class Read:
    """A variable that is read: by its name alone, or one column of it, as `name.column` or name['column']."""

    file: str
    line: int
    name: str
    column: str | None = None


def reads_of(template: Template, block: Literal["system", "user"]) -> list[Read]:
    """List what a block reads; what it asks for with `is defined` or `default` may be missing and is left out."""
    environment = make_environment(jinja2.DictLoader({}))
    trees = {
        file: parse(environment, file, source) for file, source in template.sources.items() if not file.endswith(".sql")
    }
    own = trees[template.file]
    above = [node for node in own.body if not isinstance(node, nodes.Block)]
    inside = [node for found in own.find_all(nodes.Block) if found.name == block for node in found.body]
    part = nodes.Template([*above, *inside], lineno=1)
    part.environment = environment
    return list(_reads(trees, part, template.file, frozenset({template.file})))


def _reads(trees: Trees, tree: nodes.Template, file: str, seen: frozenset[str]) -> Iterator[Read]:
    undeclared = jinja2.meta.find_undeclared_variables(tree) - set(tree.environment.globals if tree.environment else ())
    optional = set(_optional(tree))
    called = {id(call.node) for call in tree.find_all(nodes.Call)}
    for node in tree.find_all((nodes.Name, nodes.Getattr, nodes.Getitem)):
        named = _named(node)
        if named is None or named[0] not in undeclared or named in optional:
            continue
        if id(node) not in called or named[1] not in DICT_METHODS:
            yield Read(file, node.lineno, named[0], named[1])
    for include in tree.find_all(nodes.Include):
        inner = getattr(include.template, "value", None)
        if isinstance(inner, str) and inner not in seen:
            # An include sees the loop variables and the `set` of the place where it stands.
            own = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
            yield from (read for read in _reads(trees, trees[inner], inner, seen | {inner}) if read.name not in own)


def _named(node: nodes.Node) -> tuple[str, str | None] | None:
    match node:
        case nodes.Name(name=name, ctx="load"):
            return name, None
        case nodes.Getattr(node=nodes.Name(name=name), attr=column):
            return name, column
        case nodes.Getitem(node=nodes.Name(name=name), arg=nodes.Const(value=str(column))):
            return name, column
        case _:
            return None


def _optional(tree: nodes.Template) -> Iterator[tuple[str, str | None]]:
    asked: list[nodes.Expr | None] = [
        test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")
    ]
    asked += [found.node for found in tree.find_all(nodes.Filter) if found.name in ("default", "d")]
    for node in asked:
        named = _named(node) if node is not None else None
        if named is not None:
            yield named
