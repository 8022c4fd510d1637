"""Read the source of content flows: which flows there are, and which templates each of them names.

A flow is not imported: that would load Prefect, and a mistake should be said before. One reading serves `presswork run`
and `open_run`, which check a flow's templates, and `presswork deploy`, which makes no deployment of a flow's steps.

A template is named by a text that stands in the body of the flow's function, in a default of its parameters, or in
what these refer to, however many functions, classes and constants lie between: those of the same module, and of
modules of the project that it imports. The product's own packages are left out. A text that is put together
(`f"{kind}_reply"`), and one that comes from outside (a parameter, a setting, a star import), can't be seen.
"""

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import CodeType
from typing import Any

from presswork.errors import ConfigurationError
from presswork.output_classes.classes import parse_python
from presswork.settings import ROOT

FLOWS = ROOT / "flows"
GENERIC = "content"
"""The flow that runs any template; it is run by the template's name."""

_PRODUCT = [FLOWS / "engine", *(ROOT / name for name in ("presswork", "db", "sandbox"))]
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Import = tuple[int, list[str]]
"""How many folders up a relative import goes (0: it is absolute), and the parts of the dotted name that it binds."""


@dataclass(frozen=True)
class FlowSource:
    """What a flow's source says: all its whole texts, and those given as the template of `select`, `generate`."""

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
    tree = _parse(file)
    for node in tree.body:
        if isinstance(node, _Function) and node.name == name and any(map(_is_flow, node.decorator_list)):
            return _Reading(file, tree, node).result()
    return None


def read_function(function: Callable[..., Any]) -> FlowSource:
    """Read a flow's function that is loaded; where its source is not there, only the texts in its code are known."""
    code = inspect.unwrap(function).__code__
    file = Path(code.co_filename)
    try:
        tree = _parse(file)
    except (OSError, ConfigurationError):
        return FlowSource(frozenset(_texts_of(code)))
    functions = (node for node in ast.walk(tree) if isinstance(node, _Function) and node.name == code.co_name)
    for function_node in functions:
        # A function's code begins with its first decorator.
        if code.co_firstlineno == min(part.lineno for part in (function_node, *function_node.decorator_list)):
            return _Reading(file, tree, function_node).result()
    return FlowSource(frozenset(_texts_of(code)))


def _texts_of(constant: object) -> Iterator[str]:
    """Find the texts in a compiled function, those of the functions and of the tuples in it included."""
    match constant:
        case str():
            yield constant
        case CodeType(co_consts=parts) | (tuple() | frozenset() as parts):
            yield from chain.from_iterable(map(_texts_of, parts))


class _Reading:
    """Follows the names of one flow from definition to definition, and collects the texts."""

    def __init__(self, file: Path, tree: ast.Module, flow: _Function) -> None:
        # A name in a flow that stands in a function may be that function's.
        around = (node for node in ast.walk(tree) if isinstance(node, _Function) and flow in ast.walk(node))
        self._meanings = {file: _meanings(tree, *around)}
        self._followed: set[tuple[Path, str]] = set()
        self._texts: set[str] = set()
        self._calls: dict[str, list[str]] = {"select": [], "generate": []}
        self._read(file, flow)

    def result(self) -> FlowSource:
        selects, generates = (tuple(dict.fromkeys(names)) for names in self._calls.values())
        return FlowSource(frozenset(self._texts), selects, generates)

    def _read(self, file: Path, definition: ast.AST) -> None:
        for node in _inside(definition):
            match node:
                case ast.Constant(value=str(text)):
                    self._texts.add(text)
                case ast.Call(func=ast.Attribute(attr="select" | "generate" as method), args=args, keywords=keywords):
                    given = [*args[:1], *(word.value for word in keywords if word.arg == "template_name")]
                    texts = (one.value for one in given if isinstance(one, ast.Constant))
                    self._calls[method] += [text for text in texts if isinstance(text, str)]
                case ast.Name() | ast.Attribute():
                    self._follow(file, ast.unparse(node))

    def _follow(self, file: Path, dotted: str) -> None:
        if (file, dotted) in self._followed:
            return
        self._followed.add((file, dotted))
        first, *rest = dotted.split(".")
        for meaning in self._meanings[file].get(first, []):
            if isinstance(meaning, ast.AST):
                self._read(file, meaning)
            elif found := _locate(file, meaning[0], [*meaning[1], *rest]):
                module, name = found
                if module not in self._meanings:
                    self._meanings[module] = _meanings(_parse(module))
                self._follow(module, name)


def _parse(file: Path) -> ast.Module:
    try:
        return parse_python(file)
    except SyntaxError as error:
        raise ConfigurationError(f"{short_path(file)}, line {error.lineno}: {error.msg}.") from None


def short_path(file: Path) -> str:
    """Name a file as people know it: from the project's root where it is in the project."""
    return str(file.relative_to(ROOT) if file.is_relative_to(ROOT) else file)


def _locate(file: Path, level: int, parts: list[str]) -> tuple[Path, str] | None:
    """Find the module of the project that an imported name leads to, and what is named in it."""
    for base in [file.parents[level - 1]] if level else [file.parent, ROOT]:
        for end in range(len(parts) - 1, 0, -1):
            stem = base.joinpath(*parts[:end])
            for found in (stem.with_suffix(".py"), stem / "__init__.py"):
                if found.is_file() and not any(map(found.is_relative_to, _PRODUCT)):
                    return found, ".".join(parts[end:])
    return None


def _meanings(*scopes: ast.AST) -> dict[str, list[ast.AST | _Import]]:
    """Say what each name stands for in a module, or in a function; several where it is bound more than once."""
    found: dict[str, list[ast.AST | _Import]] = {}
    for name, meaning in chain.from_iterable(map(_bound_in, scopes)):
        found.setdefault(name, []).append(meaning)
    return found


def _bound_in(scope: ast.AST) -> Iterator[tuple[str, ast.AST | _Import]]:
    for node in ast.iter_child_nodes(scope):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node
            case ast.Import(names=names):
                for one in names:
                    # Without `as`, `import a.b` binds a.
                    bound = one.name if one.asname else one.name.partition(".")[0]
                    yield one.asname or bound, (0, bound.split("."))
            case ast.ImportFrom(module=module, names=names, level=level):
                for one in names:
                    yield one.asname or one.name, (level, [*(module.split(".") if module else ()), one.name])
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


def _is_flow(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return "flow" in (getattr(called, "id", None), getattr(called, "attr", None))
