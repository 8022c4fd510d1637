"""Find the output class that a template names in a module of flows/, or make it from the template's fields.

`output: Entry` is a class in flows/outputs.py, `output: shop.Entry` one in flows/shop.py. Such a module belongs to the
user and must load quickly, so it may not import Prefect, SQL or the SDK, even through another module. Its import
statements are checked before it is loaded, and the loaded modules afterwards.
"""

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterable

from pydantic import BaseModel

from presswork.errors import OutputClassError, place_in
from presswork.output_classes.fields import OutputFields, make_output_class
from presswork.output_classes.user_modules import (
    HEAVY,
    PACKAGE,
    file_of,
    is_of_presswork,
    module_of,
    modules_loaded_by,
    shown_path,
)
from presswork.output_classes.validate import OutputClass

_NAME = re.compile(r"(?:[A-Za-z]\w*\.)*[A-Za-z_]\w*", re.ASCII)

_heavy_imports: dict[str, frozenset[str]] = {}
"""The heavy packages that each module loaded the first time. A second import would not show them."""


def load_output_class(output: str | OutputFields) -> OutputClass:
    """Find or make the class. OutputClassError lists the available classes, or names what is wrong with the module."""
    if isinstance(output, OutputFields):
        return make_output_class(output)
    module, name = module_of(output), output.rpartition(".")[2]
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
    if is_of_presswork(module):
        raise OutputClassError(
            f"The output class {output!r} is in flows/{first}, which is part of Presswork. Put your class into your "
            "own module, such as flows/shop.py, and write shop.Entry."
        )
    if file_of(module) is None:
        raise OutputClassError(
            f"There is no module flows/{module.replace('.', '/')}.py for the output class {output!r}. Create it, or "
            "use a class in flows/outputs.py."
        )


def _load(module: str, file: str) -> object:
    _refuse_imports(module, file)
    before = _loaded_heavy()
    try:
        loaded = importlib.import_module(f"{PACKAGE}.{module}")
    except (Exception, SystemExit) as error:
        # The user's file may raise any error, and a script may even end the process.
        raise OutputClassError(f"{_place_of(error, file)} can't be loaded: {_words_of(error)}.") from error
    if heavy := _heavy_imports.setdefault(module, _loaded_heavy() - before):
        raise OutputClassError(
            f"{file} can't contain output classes: one of its imports loads {', '.join(sorted(heavy))}. Move the "
            "classes to a module without that import."
        )
    return loaded


def _loaded_heavy() -> frozenset[str]:
    # Looked up one by one: a process has thousands of modules, and this is called for each template of a run.
    return frozenset(name for name in HEAVY if name in sys.modules)


def _refuse_imports(module: str, file: str) -> None:
    for found in modules_loaded_by(module):
        if found.refused is not None:
            line, imported = found.refused
            raise OutputClassError(
                f"{file} can't contain output classes: {PACKAGE}/{found.name.replace('.', '/')}.py, line {line}, "
                f"imports {imported}. Move the classes to a module that does not import Prefect, SQL, the SDK or "
                "Presswork."
            )


def forget_loading(modules: Iterable[str]) -> None:
    """Forget what modules loaded the first time, because their files have changed."""
    for module in modules:
        _heavy_imports.pop(module, None)


def _place_of(error: BaseException, file: str) -> str:
    """Return the place in the user's modules that an error comes from, with a comma after a line."""
    if isinstance(error, SyntaxError):
        places = [(error.filename, error.lineno)]
    else:
        frames = traceback.extract_tb(error.__traceback__)
        places = [(frame.filename, frame.lineno) for frame in reversed(frames)]
    for path, line in places:
        if line and (shown := shown_path(path)):
            return f"{place_in(shown, line)},"
    return file


def _words_of(error: BaseException) -> str:
    # The message of a SyntaxError repeats its place.
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {said}".rstrip(".")
