"""Designs and objectives by name: those of alens, and your own as `module:Class`.

In: the value of `--lens` or `--objective`, and its options. Out: the class, imported, and an instance of it. Only the
module that the user named is imported, from the working directory or from wherever Python finds it.
"""

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from alens.errors import RequestError

T = TypeVar("T")


def find(what: str, name: str, known: Mapping[str, str], base: type[T]) -> type[T]:
    """The class that `name` means: one of `known`, or `module:Class`, a subclass of `base`.

    Raises `RequestError` for a name that is neither, or a class that is something else.
    """
    if name not in known and ":" not in name:
        raise RequestError(
            f"{what} is {name!r}: it must be one of {', '.join(known)}, or module:Class for one of your own"
        )
    module_name, _, attribute = known.get(name, name).partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise RequestError(f"{what} is {name!r}: it must be module:Class, such as my_lenses:Mine")
    here = str(Path.cwd())
    if name not in known and here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does: a file beside the job script is found
    plugin = getattr(_module(what, name, module_name), attribute, None)
    if plugin is None:
        raise RequestError(f"{what} is {name!r}: {module_name} has no {attribute!r}")
    if not (inspect.isclass(plugin) and issubclass(plugin, base)):
        raise RequestError(f"{what} is {name!r}: it is not a subclass of {base.__module__}.{base.__name__}")
    return plugin


def _module(what: str, name: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        problem = str(error)
    except Exception as error:  # a file of the user's own: anything may be wrong with it
        problem = f"{type(error).__name__}: {error}"
    raise RequestError(f"{what} is {name!r}: cannot import {module_name} ({' '.join(problem.split())})")


def make(what: str, name: str, plugin: type[T], options: Mapping[str, Any], *arguments: Any) -> T:
    """An instance of the class with these options. Raises `RequestError` for an option that it does not have."""
    parameters = inspect.signature(plugin).parameters.values()
    takes = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for option in options:
            if option not in takes:
                raise RequestError(
                    f"{what} {name} has no option {option!r}: it has {', '.join(takes) or 'none'}"
                )
    return plugin(*arguments, **options)
