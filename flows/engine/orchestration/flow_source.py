"""Read the source of content flows: which flows there are, and which templates each of them names.

A flow is not imported: that would load Prefect, and a mistake should be said before. One reading serves `presswork run`
and `open_run`, which check a flow's templates, and `presswork deploy`, which makes no deployment of a flow's steps.

A template is named by a text that stands in the body of the flow's function, in a default of its parameters, or in
what these refer to, however many functions, classes and constants lie between: those of the same module, and of
modules of the project that it imports. The product's own packages are left out. A text that is put together
(`f"{kind}_reply"`), and one that comes from outside (a parameter, a setting, a star import), can't be seen.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from flows.errors import ConfigurationError
from flows.settings import ROOT

FLOWS = ROOT / "flows"
GENERIC = "content"
"""The flow that runs any template; it is run by the template's name."""

_PRODUCT = [*(FLOWS / name for name in ("commands", "control", "engine", "sandbox", "steps")), ROOT / "db"]
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class FlowSource:
    """What a flow's source says: all its whole texts, and those that stand first in a call of `select`, `generate`."""

    texts: frozenset[str] = frozenset()
    selects: tuple[str, ...] = ()
    generates: tuple[str, ...] = ()

    def templates(self, known: Iterable[str]) -> tuple[str, ...]:
        """Name the flow's templates: those that it selects by and generates, and the `known` ones that it names."""
        return tuple(dict.fromkeys((*self.selects, *self.generates, *sorted(self.texts.intersection(known)))))


def list_flows(folder: Path = FLOWS) -> list[str]:
    """Name the flow files; a file that is no Python is a ConfigurationError."""
    files = sorted(folder.glob("*.py"))
    return [file.stem for file in files if file.stem != GENERIC and read_flow(file, file.stem) is not None]


def read_flow(file: Path, name: str) -> FlowSource | None:
    """Read the Prefect flow of this name in a file; None where it has none; raises ConfigurationError for no Python."""
    if not file.is_file():
        return None
    module = _open(file)
    for node in module.definitions.get(name, []):
        if isinstance(node, _Function) and any(map(_is_flow, node.decorator_list)):
            return _Reading().of(module, node)
    return None


def read_function(function: Callable[..., Any]) -> FlowSource:
    """Read a flow's function that is loaded; where its source is not there, it says nothing."""
    code = inspect.unwrap(function).__code__
    try:
        module = _open(Path(code.co_filename))
    except (OSError, ConfigurationError):
        return FlowSource()
    for node in ast.walk(module.scopes[0]):
        if isinstance(node, _Function) and node.name == code.co_name and _first_line(node) == code.co_firstlineno:
            return _Reading().of(module, node)
    return FlowSource()


@dataclass(frozen=True)
class _Import:
    """What an import binds: a dotted name, from `level` folders above where it is relative."""

    dotted: str
    level: int = 0


@dataclass(frozen=True)
class _Module:
    """A module, with the scopes in which its names are looked up: itself, and the functions around a flow."""

    file: Path
    scopes: tuple[ast.AST, ...]

    def around(self, function: ast.AST) -> _Module:
        """Look names up in this function, and in those that hold it, as well."""
        functions = (node for node in ast.walk(self.scopes[0]) if isinstance(node, _Function))
        return _Module(self.file, (*self.scopes, *(node for node in functions if function in ast.walk(node))))

    @cached_property
    def definitions(self) -> dict[str, list[ast.AST | _Import]]:
        """What each name stands for; several where it is bound more than once."""
        found: dict[str, list[ast.AST | _Import]] = {}
        for name, meaning in chain.from_iterable(map(_bound_in, self.scopes)):
            found.setdefault(name, []).append(meaning)
        return found


@dataclass
class _Reading:
    """Follows the names of one flow from definition to definition, and collects the texts."""

    texts: set[str] = field(default_factory=set)
    calls: dict[str, dict[str, None]] = field(default_factory=lambda: {"select": {}, "generate": {}})
    modules: dict[Path, _Module] = field(default_factory=dict)
    followed: set[tuple[Path, str]] = field(default_factory=set)

    def of(self, module: _Module, function: ast.AST) -> FlowSource:
        self.modules[module.file] = module.around(function)
        self._read(self.modules[module.file], function)
        return FlowSource(frozenset(self.texts), tuple(self.calls["select"]), tuple(self.calls["generate"]))

    def _read(self, module: _Module, definition: ast.AST) -> None:
        for node in _inside(definition):
            match node:
                case ast.Constant(value=str(text)):
                    self.texts.add(text)
                case ast.Call(
                    func=ast.Attribute(attr="select" | "generate" as method), args=[ast.Constant(str(text)), *_]
                ):
                    self.calls[method][text] = None
                case ast.Name() | ast.Attribute():
                    self._follow(module, ast.unparse(node))

    def _follow(self, module: _Module, dotted: str) -> None:
        if (module.file, dotted) in self.followed:
            return
        self.followed.add((module.file, dotted))
        first, *rest = dotted.split(".")
        for meaning in module.definitions.get(first, []):
            if isinstance(meaning, ast.AST):
                self._read(module, meaning)
            elif found := _locate(module.file, [*meaning.dotted.split("."), *rest], meaning.level):
                file, name = found
                if file not in self.modules:
                    self.modules[file] = _open(file)
                self._follow(self.modules[file], name)


def _open(file: Path) -> _Module:
    try:
        return _Module(file, (ast.parse(file.read_bytes(), file.name),))
    except SyntaxError as error:
        named = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
        raise ConfigurationError(f"{named}, line {error.lineno}: {error.msg}.") from None


def _locate(file: Path, dotted: list[str], level: int) -> tuple[Path, str] | None:
    """Find the module of the project that a dotted name leads to, and the name in it."""
    for base in [file.parents[level - 1]] if level else [file.parent, ROOT]:
        for end in range(len(dotted) - 1, 0, -1):
            stem = base.joinpath(*dotted[:end])
            for found in (stem.with_suffix(".py"), stem / "__init__.py"):
                if found.is_file() and not any(map(found.is_relative_to, _PRODUCT)):
                    return found, ".".join(dotted[end:])
    return None


def _bound_in(scope: ast.AST) -> Iterator[tuple[str, ast.AST | _Import]]:
    """Say what is bound in a module or function, but not what is within its own functions and classes."""
    for node in ast.iter_child_nodes(scope):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node
            case ast.Import(names=names):
                yield from (
                    (one.asname, _Import(one.name)) if one.asname else (first, _Import(first))
                    for one in names
                    for first in [one.name.partition(".")[0]]
                )
            case ast.ImportFrom(module=module, names=names, level=level):
                prefix = f"{module}." if module else ""
                yield from ((one.asname or one.name, _Import(prefix + one.name, level)) for one in names)
            case ast.Assign() | ast.AnnAssign():
                targets = (part for part in ast.walk(node) if isinstance(part, ast.Name))
                yield from ((target.id, node) for target in targets if isinstance(target.ctx, ast.Store))
            case _:
                yield from _bound_in(node)


def _inside(definition: ast.AST) -> Iterator[ast.AST]:
    """Walk through a definition; of a function through what runs, not through what its form shows."""
    if not isinstance(definition, _Function):
        return ast.walk(definition)
    defaults = (*definition.args.defaults, *definition.args.kw_defaults)
    plain = (one for one in defaults if isinstance(one, ast.Constant | ast.Name | ast.Attribute))
    return chain.from_iterable(map(ast.walk, (*definition.body, *plain)))


def _first_line(function: _Function) -> int:
    return min(part.lineno for part in (function, *function.decorator_list))


def _is_flow(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return getattr(called, "id", None) == "flow" or getattr(called, "attr", None) == "flow"
