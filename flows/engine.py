"""The former home of what a content flow imports: import it from `presswork`. This module goes with release 0.3."""

import sys
import warnings
from typing import Any

import presswork

# Earlier copies of content.py import from flows.engine.choices.
sys.modules[f"{__name__}.choices"] = sys.modules[__name__]


def __getattr__(name: str) -> Any:
    if name not in presswork.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    message = f"Import {name} from presswork: flows.engine goes with release 0.3."
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return getattr(presswork, name)
