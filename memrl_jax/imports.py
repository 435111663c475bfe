"""The user's own parts: modules imported by name or path, and what is in them."""

import importlib
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from memrl_jax import checks


def load(field: str, name: str) -> ModuleType:
    """Import a module by its name (the current folder counts), or by the path of its .py file.

    Raises ValueError, in one line, if there is no such module, if importing it raises, and for a
    file that has the name of another module.
    """
    path = Path(name)
    if path.suffix != ".py":
        return _imported(field, name, Path.cwd(), name)
    folder = path.parent.resolve()
    if not path.is_file():
        raise ValueError(f"{field}: {name!r} is no file; {_near(path.name, folder)}")
    module = _imported(field, name, folder, path.stem)
    origin = getattr(module, "__file__", None) or "built in"
    if not Path(origin).exists() or not path.samefile(origin):
        raise ValueError(f"{field}: {name!r} has the name of another module ({origin}); rename it")
    return module


def part(field: str, name: str, registry: Mapping[str, Any]) -> Any:
    """Return what `name` stands for: an entry of a registry, or what `module:name` refers to."""
    where, colon, attribute = str(name).rpartition(":")
    if not colon:
        return registry[checks.known(field, name, registry)]
    module = load(field, where)
    if not hasattr(module, attribute):
        held = {k: getattr(x, "__module__", None) for k, x in vars(module).items() if k[0] != "_"}
        own = [k for k, origin in held.items() if origin in (None, module.__name__)]
        checks.known(f"{field}: {where}", attribute, own)
    return getattr(module, attribute)


def _imported(field: str, name: str, folder: Path, module: str) -> ModuleType:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"{field}: {name!r} is no module; {_near(module, folder)}") from None
        raise ValueError(f"{field}: {name!r} raised {_told(error)}") from error


def _near(name: str, folder: Path) -> str:
    """Suggest a module of a folder, and say which folder was searched."""
    found = [x.name for x in folder.glob("*.py")] + [
        x.parent.name for x in folder.glob("*/__init__.py")
    ]
    stems = found if name.endswith(".py") else [x.removesuffix(".py") for x in found]
    return f"{checks.nearest(name, stems)}(looked for in {folder})"


def _told(error: BaseException) -> str:
    """Describe in one line what was raised, and where."""
    *_, last = traceback.extract_tb(error.__traceback__)
    # A SyntaxError names its place itself.
    place = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"
    return " ".join(f"{type(error).__name__}: {error}{place}".split())
