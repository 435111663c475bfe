"""A page for every public module, by mkdocstrings; every public name must have a docstring."""

import ast
import importlib
import inspect
import textwrap
from types import ModuleType
from typing import Any

MODULES = {
    "memrl_jax": "what most programs need",
    "types": "the data, and the protocols of all parts",
    "spaces": "observation and action spaces",
    "environments": "environments by name, wrappers, adapters",
    "environments.base": "environments made of episodes",
    "environments.interface": "gymnax's methods without gymnax",
    "environments.meta.strategies": "what meta-learners are compared with",
    "memory": "neural memories and how they are made",
    "memory.monoid": "how updates combine, and scans over them",
    "networks": "encoders, heads, and networks with a memory",
    "replay": "replay memories",
    "episodic": "tables looked up by the nearest keys",
    "agents": "agents and their settings",
    "agents.optimizer": "how gradients are followed",
    "agents.exploration": "how random actions are mixed in",
    "returns": "returns, advantages, value rescaling",
    "distributions": "distributions of actions",
    "normalize": "running statistics",
    "settings": "settings as data",
    "config": "the config of a run",
    "build": "a config becomes an environment, an agent, a trainer",
    "rollout": "acting within JAX",
    "host_rollout": "acting in environments on the host",
    "train": "the training loop",
    "transfer": "parameters taken from another agent",
    "deployment": "a trained agent in any loop",
    "sweeps": "sweeps in memory",
    "points": "the points of a sweep",
    "tasks": "supervised probes of memory",
    "diagnose": "what a memory holds, and for how long",
    "statistics": "means over seeds, and what intervals are worth",
    "plot": "pictures and films",
    "report": "runs on one page of HTML",
    "planning": "values of known MDPs",
    "schedules": "one straight line",
    "tree": "functions on whole pytrees",
    "testing": "checks for parts of your own",
    "run.experiment": "a run on disk",
    "run.history": "the metrics of a run",
    "run.trackers": "TensorBoard and others",
}


def pages() -> dict[str, str | bytes]:
    """Return a page for every module, and a list of them; raises ValueError without a docstring."""
    rows = "".join(f"| [`{_full(x)}`]({x}.md) | {about} |\n" for x, about in MODULES.items())
    index = f"# API\n\n| module | what it holds |\n|---|---|\n{rows}"
    seen: set[str] = set()
    made = {f"api/{x}.md": _page(x, about, seen) for x, about in MODULES.items()}
    return {"api/index.md": index} | made


def _full(module: str) -> str:
    return module if module == "memrl_jax" else f"memrl_jax.{module}"


def _page(module: str, about: str, seen: set[str]) -> str:
    """Document the public names of a module; those that were `seen` on another page are links."""
    loaded = importlib.import_module(_full(module))
    named = {name: getattr(loaded, name) for name in public(loaded)}
    undocumented = [name for name, x in named.items() if _makes(x) and not documented(x)]
    if undocumented:
        raise ValueError(f"{loaded.__name__}: no docstring: {', '.join(undocumented)}")
    homes = {home(loaded, name, x): name for name, x in named.items() if _makes(x)}
    blocks = "".join(_block(x, named[name]) for x, name in homes.items() if x not in seen)
    links = [f"- [`{name}`][{place}]\n" for place, name in homes.items() if place in seen]
    seen.update(homes)
    constants = [f"- `{name}`: {_told(x)}\n" for name, x in named.items() if not _makes(x)]
    parts = (_section("Constants", constants), blocks, _section("Told elsewhere", links))
    return f"# {_full(module)}\n\n{about[0].upper()}{about[1:]}.\n\n{''.join(parts)}"


def _block(place: str, x: Any) -> str:
    """Document a name; the fields of a tuple stand in code, with the comments beside them."""
    if not (inspect.isclass(x) and issubclass(x, tuple)):
        return f"::: {place}\n\n"
    source = textwrap.dedent(inspect.getsource(x))
    (described,) = ast.parse(source).body
    lines = [y for y in described.body if isinstance(y, ast.AnnAssign)]
    fields = source.splitlines()[lines[0].lineno - 1 : lines[-1].end_lineno] if lines else []
    text = textwrap.dedent("\n".join(fields))
    return f"::: {place}\n    options: {{show_source: false}}\n\n```python\n{text}\n```\n\n"


def _section(title: str, lines: list[str]) -> str:
    return f"## {title}\n\n{''.join(lines)}\n" if lines else ""


def public(module: ModuleType) -> list[str]:
    """Return the public names of a module: its `__all__`, or what it defines itself."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = {n: x for n, x in vars(module).items() if not n.startswith("_") and _makes(x)}
    return [n for n, x in own.items() if x.__module__ == module.__name__]


def home(module: ModuleType, name: str, x: Any) -> str:
    """Return where a public thing is defined."""
    defined = inspect.unwrap(x)
    return f"{defined.__module__}.{getattr(defined, '__name__', name)}"


def documented(x: Any) -> bool:
    """Tell whether a function or class has a docstring of its own."""
    text = inspect.getdoc(x)
    return bool(text) and not text.startswith(f"{getattr(x, '__name__', '')}(")


def _makes(x: Any) -> bool:
    return inspect.isfunction(x) or inspect.isclass(x)


def _told(x: Any) -> str:
    names = ", ".join(f"`{name}`" for name in x) if isinstance(x, dict) else ""
    return f"a dictionary of {names}" if names else f"`{type(x).__name__}`"
