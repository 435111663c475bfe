"""How far off Q is when a replayed window begins from a zero or a stored memory, burnt in or not.

    python -m benchmarks.staleness [--quick]

R2D2 is trained on the T-Maze with a corridor of 50. Its replay memory then holds memory states of
older parameters. Windows are drawn whose episode is still held from its start, so that the true
state of the present parameters is known. Delta-Q is taken over the same timesteps for all four ways
to begin: at once or `burn_in` actions earlier, from zero or from the stored state.
Kapturowski et al. (2019), section 3.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.agents import tmaze_50
from memrl_jax import cli, parallel, tree
from memrl_jax.build import make, make_body, make_environment
from memrl_jax.config import Config
from memrl_jax.diagnose import delta_q
from memrl_jax.networks import QHead
from memrl_jax.replay import ring
from memrl_jax.run import files
from memrl_jax.settings import named
from memrl_jax.types import Array, Key

RESULTS = Path(__file__).parent / "results"
WINDOWS = 256  # drawn from each seed's replay memory


def staleness(config: Config, key: Key) -> dict[str, Array]:
    """Train; return the mean delta-Q of every timestep to learn from, [window], by way to begin."""
    env = make_environment(config)
    options: Any = config.agent
    head = QHead(env.spec.actions.n, options.head, options.dueling, options.body.layers)
    network = make_body(options.body, env.spec)(head)
    train_key, draw_key = jax.random.split(key)
    trainer, steps = make(config)
    state, _ = trainer.init(train_key)
    state, _ = jax.lax.scan(lambda state, _: trainer.step(state), state, length=steps)
    params, held = state.agent.learner.params, state.agent.replay.ring

    period, learned = config.rollout_length, options.experience.window
    # In so many timesteps an episode surely begins; from there on the memory is true.
    history = -(-(env.horizon + 1) // period) * period
    first = history + options.experience.burn_in  # timestep of the first action to learn from
    environments, rows = held.record.shape[:2]
    shape = ring.windows(rows // period, period, first + learned, period, 1)
    oldest, count = ring.starts(shape, held)
    index = jax.random.randint(draw_key, (WINDOWS,), 0, count * environments)
    start, environment = oldest + index // environments * period, index % environments
    segment = ring.gather(shape, held, start % rows, environment)

    def off(begin: int, stored: bool) -> Array:
        """Return delta-Q, [learned], when beginning at that timestep of the window."""
        memory = ring.gather(shape, held, (start + begin) % rows, environment).memory
        memory = memory if stored else jax.tree.map(jnp.zeros_like, memory)
        before, rest = (
            tree.at(segment.timestep, part)
            for part in (slice(begin), slice(begin, first + learned))
        )
        truth, _ = network.unroll(params, segment.memory, before)
        return delta_q(network, params, rest, memory, truth, first - begin).mean(axis=1)

    return {
        "zero": off(first, stored=False),
        "stored": off(first, stored=True),
        "zero + burn-in": off(history, stored=False),
        "stored + burn-in": off(history, stored=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few updates, in a minute")
    quick = parser.parse_args().quick
    cli.use_every_core()
    config, seeds = tmaze_50().runs["R2D2"], 2 if quick else 4
    config = config.replace(total_steps=8_000 if quick else 40_000)
    keys = parallel.pad(parallel.seed_keys(0, seeds), seeds)
    played = jax.device_get(parallel.over_seeds(lambda key: staleness(config, key), seeds)(keys))
    table = Table("window begins from", "first timestep", "last timestep", "mean", "of zero's")
    zero = played["zero"].mean()
    for label, x in played.items():
        cells = [f"{value:.4f}" for value in (x[:, 0].mean(), x[:, -1].mean(), x.mean())]
        table.add_row(label, *cells, f"{x.mean() / zero:.0%}")
    console = Console()
    console.print(table)
    console.print(
        f"delta-Q, mean of {seeds} seeds x {WINDOWS} windows of {named(config)['window']} actions"
    )
    path = RESULTS / f"staleness{'-quick' * quick}.json"
    figures = {label: x.mean(axis=1).tolist() for label, x in played.items()}
    files.write(path, json.dumps({"machine": report.machine(), "delta_q": figures}, indent=2))
    console.print(f"figures: {path}")


if __name__ == "__main__":
    main()
