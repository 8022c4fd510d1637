"""Find the output class that a template names in a module of flows/, or make it from the template's fields.

`output: Entry` is a class in flows/outputs.py, `output: shop.Entry` one in flows/shop.py. Such a module belongs to the
user and must load quickly, so it may not import Prefect, SQL or the SDK, even through another module. Its import
statements are checked before it is loaded, and the loaded modules afterwards.
"""

import ast
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from threading import Lock

from pydantic import BaseModel

from presswork.errors import OutputClassError
from presswork.output_classes.fields import OutputFields, make_output_class
from presswork.output_classes.validate import OutputClass

PACKAGE = "flows"
OUTPUTS = "outputs"
_HEAVY = frozenset({"prefect", "sqlalchemy", "anthropic", "db"})
_PRESSWORK = frozenset({"content", "engine"})
_PARSING = Lock()
_NAME = re.compile(r"(?:[A-Za-z]\w*\.)*[A-Za-z_]\w*", re.ASCII)

_heavy_imports: dict[str, frozenset[str]] = {}
"""The heavy packages that each module loaded the first time. A second import would not show them."""


def load_output_class(output: str | OutputFields) -> OutputClass:
    """Find or make the class. OutputClassError lists the available classes, or names what is wrong with the module."""
    if isinstance(output, OutputFields):
        return make_output_class(output)
    module, _, name = output.rpartition(".")
    module = module or OUTPUTS
    _check_module(output, module)
    file = f"{PACKAGE}/{module.replace('.', '/')}.py"
    classes = {label: value for label, value in vars(_load(module, file)).items() if inspect.isclass(value)}
    known = {label: value for label, value in classes.items() if issubclass(value, BaseModel) and value.model_fields}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise OutputClassError(f"There is no output class {name!r} in {file}. Available: {there}.")
    return known[name]


def _check_module(output: str, module: str) -> None:
    if not _NAME.fullmatch(output):
        raise OutputClassError(
            f"{output!r} is not the name of an output class. Write Entry for a class in flows/outputs.py, shop.Entry "
            "for one in flows/shop.py, or list the fields."
        )
    first = module.partition(".")[0]
    if first == PACKAGE:
        raise OutputClassError(f"The output class {output!r} must not begin with {PACKAGE!r}. Write {output[6:]!r}.")
    if first in _PRESSWORK:
        raise OutputClassError(
            f"The output class {output!r} is in flows/{first}, which is part of Presswork. Put your class into your "
            "own module, such as flows/shop.py, and write shop.Entry."
        )
    if _file_of(module) is None:
        raise OutputClassError(
            f"There is no module flows/{module.replace('.', '/')}.py for the output class {output!r}. Create it, or "
            "use a class in flows/outputs.py."
        )


def _load(module: str, file: str) -> object:
    for place, line, imported in _refused_imports(module, set()):
        raise OutputClassError(
            f"{file} can't contain output classes: {place}, line {line}, imports {imported}. Move the classes to a "
            "module that does not import Prefect, SQL, the SDK or Presswork."
        )
    before = set(sys.modules)
    try:
        loaded = importlib.import_module(f"{PACKAGE}.{module}")
    except (Exception, SystemExit) as error:
        # The user's file may raise any error, and a script may even end the process.
        raise OutputClassError(f"{file} can't be loaded: {type(error).__name__}: {error}.") from error
    if heavy := _heavy_imports.setdefault(module, _HEAVY & (sys.modules.keys() - before)):
        raise OutputClassError(
            f"{file} can't contain output classes: one of its imports loads {', '.join(sorted(heavy))}. Move the "
            "classes to a module without that import."
        )
    return loaded


def parse_python(file: Path) -> ast.Module:
    """Parse a Python file. Raises SyntaxError, ValueError or OSError."""
    # Two threads can't parse at the same time: they would share CPython's only counter of the depth (gh-106905).
    with _PARSING:
        return ast.parse(file.read_bytes(), file.name)


def _refused_imports(module: str, seen: set[str]) -> Iterator[tuple[str, int, str]]:
    """Yield each forbidden import (file, line, name) of a module and of the user's modules that it imports."""
    path = _file_of(module)
    if path is None or module in seen:
        return
    seen.add(module)
    try:
        tree = parse_python(path)
    except (SyntaxError, ValueError, OSError):
        return  # the import reports what is wrong
    package = f"{PACKAGE}.{module}" if path.name == "__init__.py" else f"{PACKAGE}.{module}".rpartition(".")[0]
    for line, name in _imports(tree, package):
        parts = name.split(".")
        if _is_refused(parts):
            yield "/".join((PACKAGE, *module.split("."))) + ".py", line, name
        elif parts[0] == PACKAGE:
            for end in range(2, len(parts) + 1):
                yield from _refused_imports(".".join(parts[1:end]), seen)


def _is_refused(parts: list[str]) -> bool:
    match parts:
        case [package, *_rest] if package in _HEAVY:
            return True
        case ["presswork", *rest]:
            return rest[:1] != ["errors"]
        case ["flows", name, *_rest]:
            return name in _PRESSWORK
    return False


def _imports(node: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Yield the imports that run when a module is loaded: not those inside functions or only for type checkers."""
    for part in ast.iter_child_nodes(node):
        match part:
            case ast.Import():
                yield from ((part.lineno, alias.name) for alias in part.names)
            case ast.ImportFrom():
                source = _absolute(part, package)
                yield from ((part.lineno, f"{source}.{alias.name}") for alias in part.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                pass
            case ast.If() if "TYPE_CHECKING" in ast.unparse(part.test):
                for statement in part.orelse:
                    yield from _imports(ast.Module([statement], []), package)
            case _:
                yield from _imports(part, package)


def _absolute(statement: ast.ImportFrom, package: str) -> str:
    try:
        return importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)
    except ImportError:
        return ""  # the import reports what is wrong


def _file_of(module: str) -> Path | None:
    paths = [Path(folder, *module.split(".")) for folder in import_module(PACKAGE).__path__]
    files = [file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py")]
    return next((file for file in files if file.is_file()), None)
