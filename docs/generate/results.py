"""A page for every stored result: claims, figures, command and budget, as in result.json."""

import json
from pathlib import Path
from statistics import mean
from typing import Any

from generate import markdown, timings

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
FEW = 12  # values that are written out side by side


def pages() -> dict[str, str | bytes]:
    """Return a page for every result, its pictures, and a page of all claims."""
    found = {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(RESULTS.glob("*/result.json"))
    }
    made: dict[str, str | bytes] = {
        "results/claims.md": _claims(found),
        "results/timings.md": timings.page(),
    }
    for name, result in found.items():
        pictures = sorted((RESULTS / name).glob("*.png"))
        made[f"results/{name}.md"] = _page(name, result, [x.name for x in pictures])
        made |= {f"results/{name}/{x.name}": x.read_bytes() for x in pictures}
    return made


def _claims(found: dict[str, Any]) -> str:
    rows = [
        (f"[{name}]({name}.md)", claim["text"], claim["figure"], _verdict(claim))
        for name, result in found.items()
        for claim in result["claims"]
    ]
    missed = sum(row[-1] != "reached" for row in rows)
    told = f"{len(rows)} claims of {len(found)} results; {missed} were not reached."
    return f"# All claims\n\n{told}\n\n" + markdown.table(("result", "claim", "figure", ""), rows)


def _verdict(claim: Any) -> str:
    return "reached" if claim["reached"] else "**not reached**"


def _page(name: str, result: Any, pictures: list[str]) -> str:
    known = {"title", "claims", "seeds", "minutes", "cores", "versions", "configs", "episodes"}
    figures = {key: x for key, x in result.items() if key not in known}
    parts = [
        f"# {name}\n\n{result['title']}.\n\n```sh\npython -m benchmarks.results {name}\n```\n\n",
        "".join(f"![{result['title']}: {x}]({name}/{x})\n\n" for x in pictures),
        _judged(result),
        "## Budget\n\n" + markdown.table(("what", "how much"), _budget(result)),
        "## Figures\n\n" + "".join(_figure(key, x) for key, x in figures.items()),
        "## Configs\n\n",
        *(markdown.folded(label, _config(x)) for label, x in result["configs"].items()),
    ]
    return "".join(parts)


def _judged(result: Any) -> str:
    if not result["claims"]:
        return "Nothing was claimed; the figures are told as they are.\n\n"
    rows = [(x["text"], x["figure"], _verdict(x)) for x in result["claims"]]
    return "## Claims\n\n" + markdown.table(("claim", "figure", ""), rows)


def _budget(result: Any) -> list[tuple[str, str]]:
    versions = result["versions"]
    software = ", ".join(f"{k} {versions[k]}" for k in ("memrl_jax", "jax", "python"))
    rows = [("seeds", str(len(result["seeds"]))), ("minutes", f"{result['minutes']:g}")]
    rows += [("cores", str(result["cores"])), ("software", software)]
    if "episodes" in result:
        rows.insert(1, ("episodes a seed", f"{result['episodes']:,}"))
    given = [x for x in result["configs"].values() if isinstance(x, dict)]
    steps = {x["total_steps"] for x in given if "total_steps" in x}
    if steps:
        rows.insert(0, ("timesteps", ", ".join(f"{x:,}" for x in sorted(steps))))
    return rows


def _figure(name: str, x: Any) -> str:
    """Tell of one measured thing: rows of numbers as a table, everything else as JSON."""
    if isinstance(x, dict) and all(_row(values) for values in x.values()):
        rows = [(label, *_numbers(values)) for label, values in x.items()]
        return f"### {name.capitalize()}\n\n" + markdown.table(("", "mean", "of the seeds"), rows)
    return markdown.folded(name.capitalize(), f"```json\n{json.dumps(x, indent=1)}\n```")


def _row(values: Any) -> bool:
    return isinstance(values, list) and 0 < len(values) <= FEW and all(_number(x) for x in values)


def _number(x: Any) -> bool:
    return x is None or isinstance(x, int | float)


def _numbers(values: list[Any]) -> tuple[str, str]:
    known = [x for x in values if x is not None]
    told = ", ".join("never" if x is None else f"{x:.4g}" for x in values)
    return (f"{mean(known):.4g}" if known else "-"), told


def _config(config: Any) -> str:
    return f"```json\n{json.dumps(config, indent=1)}\n```"
