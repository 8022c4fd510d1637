"""Tell whether an output class has changed, by the source of its file then and now; nothing of the past is executed."""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path

from presswork.output_classes.user_modules import parse_python
from presswork.output_classes.validate import OutputClass


def has_changed(output_class: OutputClass, text_then: Callable[[Path], str | None]) -> bool:
    """Return whether a class, or anything in its file that it is made with, differs from its file's text of then.

    A class that was not there has changed. False if the file of then is unknown or is not Python.
    """
    file = Path(inspect.getfile(output_class))
    then = text_then(file)
    if then is None:
        return False
    try:
        return _made_with(ast.parse(then), output_class.__name__) != _made_with(
            parse_python(file), output_class.__name__
        )
    except (SyntaxError, ValueError, OSError):
        return False


def _made_with(module: ast.Module, name: str) -> dict[str, str]:
    """Return the definitions in a module that a class is made with, itself included, each as a dump."""
    definitions: dict[str, list[ast.stmt]] = {}
    for statement in module.body:
        for bound in _names_of(statement):
            definitions.setdefault(bound, []).append(statement)
    found: dict[str, str] = {}
    follow = [name]
    while follow:
        each = follow.pop()
        if each in found or each not in definitions:
            continue
        found[each] = "\n".join(map(ast.dump, definitions[each]))
        parts = (node for statement in definitions[each] for node in ast.walk(statement))
        follow += [node.id for node in parts if isinstance(node, ast.Name)]
    return found


def _names_of(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [alias.asname or alias.name.partition(".")[0] for alias in names]
        case _:
            stored = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
            return [node.id for node in stored if isinstance(node.ctx, ast.Store)]
