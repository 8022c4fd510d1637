"""Read the source of content flows: list the flows, and find the templates that each of them names.

Flows are not imported: that would load Prefect, and mistakes should be reported before. `presswork run` and `open_run`
use this to check a flow's templates, and `presswork deploy` to make no deployments for the steps of a flow.

A template is named by a text in the body of the flow's function, in a default of its parameters, or in anything that
these refer to, through any number of functions, classes and constants of the same module and of modules of the project
that it imports. The product's own packages are left out. A text that is composed (`f"{kind}_reply"`) or that comes from
outside (a parameter, a setting, a star import) can't be seen.
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
from presswork.output_classes.user_modules import parse_python
from presswork.settings import ROOT

FLOWS = ROOT / "flows"
GENERIC = "content"
"""The flow that runs any template; people run it by the template's name."""

_PRODUCT = [FLOWS / "engine", *(ROOT / name for name in ("presswork", "db", "sandbox"))]
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Import = tuple[int, list[str]]
"""How many folders up a relative import goes (0: absolute), and the parts of the dotted name that it binds."""


@dataclass(frozen=True)
class FlowSource:
    """All whole texts in a flow's source, and those given as the template of `select` and `generate`."""

    texts: frozenset[str] = frozenset()
    selects: tuple[str, ...] = ()
    generates: tuple[str, ...] = ()

    def templates(self, known: Iterable[str]) -> tuple[str, ...]:
        """Return the flow's templates: those that it selects by and generates, and `known` ones among its texts."""
        return tuple(dict.fromkeys((*self.selects, *self.generates, *sorted(self.texts.intersection(known)))))


def list_flows(folder: Path = FLOWS) -> list[str]:
    """Return the names of flow files; raises ConfigurationError for a file that is not valid Python."""
    files = sorted(folder.glob("*.py"))
    return [file.stem for file in files if file.stem != GENERIC and read_flow(file, file.stem) is not None]


def read_flow(file: Path, name: str) -> FlowSource | None:
    """Read the flow of this name in a file, or return None if it has none; raises ConfigurationError if not Python."""
    if not file.is_file():
        return None
    tree = _parse(file)
    for node in tree.body:
        if isinstance(node, _Function) and node.name == name and any(map(_is_flow, node.decorator_list)):
            return _Reading(file, tree, node).result()
    return None


def read_function(function: Callable[..., Any]) -> FlowSource:
    """Read the function of a loaded flow; if its source is missing, only the texts in its code are known."""
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
    """Yield the texts in a compiled function, including those in nested functions and tuples."""
    match constant:
        case str():
            yield constant
        case CodeType(co_consts=parts) | (tuple() | frozenset() as parts):
            yield from chain.from_iterable(map(_texts_of, parts))


class _Reading:
    """Follows the names of one flow from definition to definition, and collects the texts."""

    def __init__(self, file: Path, tree: ast.Module, flow: _Function) -> None:
        # If the flow is defined inside a function, its names may be that function's.
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
    """Return a file's path for people: from the project's root if it is in the project."""
    return str(file.relative_to(ROOT) if file.is_relative_to(ROOT) else file)


def _locate(file: Path, level: int, parts: list[str]) -> tuple[Path, str] | None:
    """Return the module of the project that an imported name leads to, and the name inside it."""
    for base in [file.parents[level - 1]] if level else [file.parent, ROOT]:
        for end in range(len(parts) - 1, 0, -1):
            stem = base.joinpath(*parts[:end])
            for found in (stem.with_suffix(".py"), stem / "__init__.py"):
                if found.is_file() and not any(map(found.is_relative_to, _PRODUCT)):
                    return found, ".".join(parts[end:])
    return None


def _meanings(*scopes: ast.AST) -> dict[str, list[ast.AST | _Import]]:
    """Return the meanings of each name in modules or functions; several if it is bound more than once."""
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
    """Walk through a definition; in a function through the code that runs, not through what its form shows."""
    if not isinstance(definition, _Function):
        return ast.walk(definition)
    defaults = (*definition.args.defaults, *definition.args.kw_defaults)
    plain = (one for one in defaults if isinstance(one, ast.Constant | ast.Name | ast.Attribute))
    return chain.from_iterable(map(ast.walk, (*definition.body, *plain)))


def _is_flow(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return "flow" in (getattr(called, "id", None), getattr(called, "attr", None))
