"""A page of what was timed and counted: the JSON files of benchmarks/results, with targets."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from generate import markdown

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def page() -> str:
    """Return the page; runs of the short form (`--quick`) are left out."""
    files = [x for x in sorted(RESULTS.glob("*.json")) if not x.stem.endswith("-quick")]
    about = "What was timed or counted, each by one command, with its targets, reached or not."
    return f"# Timings and counts\n\n{about}\n\n" + "".join(
        _told(x.stem, json.loads(x.read_text())) for x in files
    )


def _told(name: str, result: Any) -> str:
    machine = result["machine"]
    where = f"{machine['devices']}, {machine['cores']} cores, jax {machine['jax']}"
    head = f"## {name}\n\n`python -m benchmarks.{name}`; {machine['date'][:10]}, {where}.\n\n"
    settings = "".join(_setting(k, x) for k, x in result.get("settings", {}).items())
    others = {k: x for k, x in result.items() if k not in ("machine", "settings")}
    folded = (markdown.folded(k.replace("_", " "), _json(x)) for k, x in others.items())
    return head + settings + "".join(folded)


def _setting(name: str, setting: Any) -> str:
    rows = [_target(x) for x in setting["targets"] if x["ratio"] is not None]
    text = f"### {name}\n\n"
    if rows:
        text += markdown.table(("ratio", "measured", "to reach", ""), rows)
    times = [(x["name"].replace("|", r"\|"), f"{_time(x):,.1f}") for x in setting["timings"]]
    return text + markdown.folded("All times", markdown.table(("what", "µs (median)"), times))


def _target(target: Any) -> tuple[str, ...]:
    bound = "at most" if target["name"].startswith("time") else "at least"
    verdict = "reached" if target["reached"] else "**not reached**"
    return target["name"], f"{target['ratio']:.2f}", f"{bound} {target['bound']:g}", verdict


def _time(timing: Any) -> float:
    return median(timing["microseconds"])


def _json(x: Any) -> str:
    return f"```json\n{json.dumps(x, indent=1)}\n```"
