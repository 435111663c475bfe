"""Draw the pictures of the site that need training: `python docs/pictures/draw.py NAME ...`.

Names are `start`, for the page of that name, and memories with addresses; minutes for all of them.
"""

import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax import diagnose, plot
from memrl_jax.memory import MEMORIES
from memrl_jax.networks import MLP
from memrl_jax.tasks import copy, make_probe, remember_first, train

HERE = Path(__file__).parent
WIDTH = 32
COPY = copy(bits=6, length=8), copy(bits=6, length=8, shortest=8)  # trained on, and shown
SAME = copy(bits=6, length=8, shortest=8)
FIRST = remember_first(length=16)
# memory -> its options, the task to learn and an example of it, steps, and what is to be seen
PROBES: dict[str, tuple[dict[str, Any], tuple[Any, Any], int, str]] = {
    "ntm": (
        {"features": 32, "slots": 16, "width": 10, "hidden": 32},
        COPY,
        1_500,
        "8 vectors come in, and are then said again",
    ),
    "dnc": (
        {"features": 32, "slots": 16, "width": 10, "read_heads": 1, "hidden": 32},
        COPY,
        1_500,
        "8 vectors come in, and are then said again",
    ),
    "gtrxl": (
        {"features": 32, "heads": 2, "window": 20},
        (SAME, SAME),
        800,
        "8 vectors come in, and are then said again",
    ),
    "memn2n": (
        {"features": 32, "slots": 20, "hops": 2},
        (SAME, SAME),
        800,
        "8 vectors come in, and are then said again",
    ),
    "kv_memory": (
        {"features": 32, "slots": 20, "hops": 2},
        (SAME, SAME),
        800,
        "8 vectors come in, and are then said again",
    ),
    **{
        name: (
            {"features": 32, "frames": 17},
            (FIRST, FIRST),
            800,
            "16 symbols; the first is asked for at the end",
        )
        for name in ("mqn", "rmqn", "frmqn")
    },
}


def draw(name: str) -> None:
    """Train a memory on its task, and draw what it addresses in an example."""
    options, (task, shown), steps, about = PROBES[name]
    memory = MEMORIES[name](**options)
    probe = make_probe(task, memory, WIDTH, 16, learning_rate=5e-3, max_gradient_norm=10.0)
    fast = {"xla_backend_optimization_level": 1}
    state, metrics = jax.jit(partial(train, probe, steps=steps), compiler_options=fast)(
        jax.random.key(0)
    )
    wrong = float(metrics["errors"][-100:].sum() / metrics["answers"][-100:].sum())
    print(f"{name}: {wrong:.1%} of answers wrong in the last 100 steps")
    record = recorded(memory, state.params, shown.sample(jax.random.key(1)).input)
    out = HERE / f"addresses-{name}.png"
    if "write" in record:
        plot.addresses(record, out, title=f"{name}: {about}")
    else:
        plot.attention(record["attention"], out, title=f"{name}: {about}")


def recorded(memory: Any, params: Any, xs: Any) -> dict[str, Any]:
    """Return what a memory addresses at every step of inputs [T, D]."""
    encoded = MLP((WIDTH,)).apply(params["encoder"], xs)
    return diagnose.record(
        lambda state, x: memory.step(params["memory"], state, *x),
        lambda state, x: memory.inspect(params["memory"], state, *x),
        memory.initial_state(),
        (encoded, jnp.arange(len(xs)) == 0),
    )


def start() -> None:
    """Run the blocks of the page, and save its figures."""
    names: dict[str, Any] = {}
    text = (HERE.parent / "start.md").read_text()
    pictures = iter(("episode", "erasure"))
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(block, names)
        if "figure = " in block:
            names["figure"].savefig(HERE / f"start-{next(pictures)}.png", dpi=100)


def main(names: list[str]) -> None:
    """Draw what is named, or all."""
    for name in names or ["start", *PROBES]:
        start() if name == "start" else draw(name)


if __name__ == "__main__":
    main(sys.argv[1:])
