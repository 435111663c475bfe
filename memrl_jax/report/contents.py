"""What is in a report of runs: settings, evaluations, curves, memories and an episode."""

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memrl_jax import plot, statistics
from memrl_jax.config import Config, agent_name, flat
from memrl_jax.preset_configs import presets
from memrl_jax.report import page
from memrl_jax.rollout import Episode
from memrl_jax.run import folder, history, saved, software
from memrl_jax.run.pool import Pool, pasts, series

FIRST = "evaluation_return", "return"  # metrics whose curves are shown at once
NOT_DRAWN = "evaluation_unfinished", "training_steps", "steps", "episodes"  # told in other ways


def overview(pools: Sequence[Pool]) -> str:
    """Tabulate what was trained, and how far."""
    head = ["run", "environment", "agent", "memory", "seeds", "environment steps"]
    rows = []
    for pool in pools:
        given = flat(pool.config)
        steps = np.mean([past["step"][-1] for past in pasts(pool).values()])
        memory = str(given.get("memory", "-"))
        name, seeds = agent_name(pool.config), str(pool.seeds)
        rows.append([pool.name, pool.config.environment, name, memory, seeds, f"{steps:,.0f}"])
    return page.section("Runs", page.table(head, rows))


def settings(pools: Sequence[Pool]) -> str:
    """Tell in what runs differ, and each from the preset that is nearest; the rest is folded."""
    parts = []
    if len(pools) > 1:
        given = [flat(pool.config) for pool in pools]
        names = [name for name in _all(given) if len({_text(x.get(name)) for x in given}) > 1]
        rows = [[name, *(_text(x.get(name, "-")) for x in given)] for name in names]
        head = ["setting", *(pool.name for pool in pools)]
        parts += [page.heading("In what the runs differ"), page.table(head, rows)]
    for pool in pools:
        parts += _of_one(pool)
    return page.section("Settings", *parts)


def _of_one(pool: Pool) -> Iterator[str]:
    own = flat(pool.config)
    name, base = nearest_preset(pool.config)
    changed = [k for k in own if own[k] != base[k]]
    yield page.heading(f"{pool.name}: {name}, but for {len(changed)} settings")
    rows = [[k, _text(own[k]), _text(base[k])] for k in changed]
    yield page.table(["setting", "here", name], rows)
    for path, run in pool.runs.items():
        place = Path(path)
        lines = [[k, _text(x)] for k, x in {**own, **vars(run), "out": place.name}.items()]
        versions = [[k, str(x)] for k, x in software.written_with(place).items()]
        changes = [_change(entry) for entry in folder.changes(place)]
        yield page.folded(
            f"All settings and software of {place.name}",
            page.table(["setting", "value"], lines),
            page.table(["software", "version"], versions),
            *map(page.paragraph, changes),
        )


def nearest_preset(config: Config) -> tuple[str, dict[str, Any]]:
    """Return the preset, or else the defaults, that differ least: their name and their settings."""
    agent = agent_name(config)
    known = {f"preset {k}": x for k, x in presets.items() if agent_name(x) == agent}
    known |= {f"the defaults of {agent}": Config(agent=type(config.agent)())}
    own, given = flat(config), {name: flat(x) for name, x in known.items()}
    name = min(given, key=lambda name: sum(own[k] != x for k, x in given[name].items()))
    return name, given[name]


def _change(entry: Mapping[str, Any]) -> str:
    changed = ", ".join(f"{k} from {a} to {b}" for k, (a, b) in entry["changed"].items())
    return f"Changed at timestep {entry['timestep']:,}: {changed}."


def evaluations(pools: Sequence[Pool]) -> str:
    """Tabulate the last greedy evaluations, with intervals over seeds."""
    title = "Last evaluations"
    have = [pool for pool in pools if all("evaluation_return" in x for x in pasts(pool).values())]
    if not have:
        return page.section(title, page.paragraph("There has been no evaluation yet."))
    head = ["run", "seeds", "steps", "return", "length", "did not end"]
    rows = []
    for pool in have:
        steps, returns = series(pool, "evaluation_return")
        length, unfinished = (series(pool, f"evaluation_{x}")[1] for x in ("length", "unfinished"))
        cells = [_unbroken(statistics.text(x[:, -1])) for x in (returns, length)]
        share = f"{100 * unfinished[:, -1].mean():.3g} %"
        rows.append([pool.name, str(pool.seeds), f"{steps[-1]:,.0f}", *cells, share])
    caption = f"IQM over seeds, and {statistics.caption([pool.seeds for pool in have])}"
    return page.section(title, page.table(head, rows, caption))


def curves(pools: Sequence[Pool]) -> str:
    """Draw the curves of all metrics, those of returns first."""
    names = _all([x for pool in pools for x in pasts(pool).values()])
    names = [x for x in names if not x.endswith(("timestep", "step")) and x not in NOT_DRAWN]
    first = [name for name in FIRST if name in names]
    others = [name for name in names if name not in FIRST]
    shown = [_curve(pools, name) for name in first] or [page.paragraph("There is none yet.")]
    return page.section(
        "Curves", *shown, page.folded("More metrics", *(_curve(pools, name) for name in others))
    )


def _curve(pools: Sequence[Pool], name: str) -> str:
    """Draw the curves of those runs that have a metric, from where all their seeds have it."""
    have = [pool for pool in pools if all(name in past for past in pasts(pool).values())]
    drawn = {pool.name: series(pool, name) for pool in have}
    empty = [k for k, (_, y) in drawn.items() if np.isnan(y).all(axis=1).any()]
    rest = {k: x for k, x in drawn.items() if k not in empty}
    label = history.shown(name)
    told = page.paragraph(f"Not every seed of {', '.join(empty)} has a {label}.") if empty else ""
    if not rest:
        return told
    figure = plot.curves(rest, ylabel=label, title=label)
    return told + page.picture(_png(figure), "png", f"Curves of {label} over environment steps")


def episode(pool: Pool) -> str:
    """Show a greedy episode of a run's first seed, and what its memory did in it."""
    path = next(iter(pool.runs))
    (played,) = saved.play(path, 0, 1)
    steps, total = len(played.reward), float(played.reward.sum())
    told = f"seed 0 of {Path(path).name}: {steps} steps, return {total:.4g}"
    shown = [page.paragraph(f"A greedy episode of {told}."), *_memory(played), _film(played)]
    return page.section(f"An episode: {pool.name}", *shown)


def _memory(episode: Episode) -> Iterator[str]:
    """Draw where the memory wrote and read, and to what it attended."""
    record, starts = episode.record, np.arange(len(episode.reward)) == 0
    if not {"read", "write", "attention"} & set(record):
        yield page.paragraph("Its memory has no addresses to show.")
    if "read" in record or "write" in record:
        figure = plot.addresses(record, title="Where the memory writes and reads")
        yield page.picture(_png(figure), "png", "Weights of every head over slots and steps")
    if "attention" in record:
        title = "To which past steps the memory attends"
        figure = plot.attention(record["attention"], starts=starts, title=title)
        yield page.picture(_png(figure), "png", "Attention of every step to the steps before it")


def _film(episode: Episode) -> str:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "film.gif"
        try:
            plot.film([episode], path)
        except ValueError as error:
            return page.paragraph(f"It cannot be filmed ({error}).")
        return page.picture(path.read_bytes(), "gif", "Film of the episode, a frame for every step")


def _unbroken(text: str) -> str:
    return text.replace(" ", "\u00a0")


def _png(figure: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def _all(given: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names in any of several mappings, in their order."""
    return list(dict.fromkeys(name for x in given for name in x))


def _text(value: Any) -> str:
    """Write a setting as on the command line."""
    if isinstance(value, Mapping):
        return " ".join(f"{k}={_text(x)}" for k, x in value.items()) or "-"
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value)) or "-"
    return str(value) if value != "" else "-"
