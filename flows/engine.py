"""Keep content flows working that import from here, with a warning. Release 0.3 removes this module."""

import sys
import warnings
from typing import Any

import presswork

# Earlier copies of content.py import from flows.engine.choices.
sys.modules[f"{__name__}.choices"] = sys.modules[__name__]


def __getattr__(name: str) -> Any:
    if name not in presswork.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # One text for all names, so that it is shown once a file; a FutureWarning, because Python hides the others.
    message = "Import from presswork: release 0.3 removes flows.engine."
    warnings.warn(message, FutureWarning, stacklevel=2)
    return getattr(presswork, name)
