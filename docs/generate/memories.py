"""A page for every memory: docstring, equations, bytes of state, measured cost, and a picture."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import jax

from generate import markdown
from memrl_jax.memory import MEMORIES, stack

DOCS = Path(__file__).parents[1]
MEASURED = DOCS.parent / "benchmarks" / "results" / "memory.json"
KINDS = {
    "Baselines": ("none", "frame_stack", "memory_trace"),
    "Gated": ("gru", "lstm", "mingru", "mlstm"),
    "Linear recurrences": ("lru", "s5", "ffm", "shm", "linear_attention", "deltanet"),
    "Attention": ("gtrxl",),
    "External, by address": ("ntm", "dnc"),
    "Over past inputs": ("memn2n", "kv_memory", "mqn", "rmqn", "frmqn"),
    "Of others": ("stack",),
}
COPIED = (
    "Row by row, to which past steps a step attends: from step 9 on it says again what came in."
)
FIRST = "Row by row, to which past steps a step attends: the last has to tell what the first was."
HOW = {
    "ntm": "While vectors come in, the write head moves on; then the read head follows its track.",
    "dnc": "While vectors come in, free slots are written; then reads go forward along the links.",
    **dict.fromkeys(("gtrxl", "memn2n", "kv_memory"), COPIED),
    **dict.fromkeys(("mqn", "rmqn", "frmqn"), FIRST),
}


def pages() -> dict[str, str | bytes]:
    """Return a page for every memory in MEMORIES, and a table of all."""
    if missing := MEMORIES.keys() - {x for names in KINDS.values() for x in names}:
        raise ValueError(f"memories: {', '.join(sorted(missing))} have no kind in {__file__}")
    measured = json.loads(MEASURED.read_text())
    made: dict[str, str | bytes] = {"memories/table.md": _table(measured)}
    return made | {
        f"memories/{name}.md": _page(name, measured) for names in KINDS.values() for name in names
    }


def nbytes(name: str) -> int:
    """Return the bytes of the state of one sequence, by default options."""
    return sum(x.nbytes for x in jax.tree.leaves(MEMORIES[name]().initial_state()))


def cost(name: str, measured: Any, length: int, what: str) -> float:
    """Return the median microseconds of a step: alone, or of 32 sequences with gradients."""
    timings = measured["settings"][f"T = {length}, B = 32, D = 128"]["timings"]
    wanted = {f"{name} | {what}", f"{name}, sequential | {what}"}
    (found,) = [x for x in timings if x["name"] in wanted]
    return median(found["microseconds"]) / (1 if what == "step" else length)


def _table(measured: Any) -> str:
    rows = [
        (
            f"[`{name}`]({name}.md)",
            kind,
            f"{nbytes(name):,}",
            f"{cost(name, measured, 64, 'step'):.1f}",
            f"{cost(name, measured, 256, 'both'):,.0f}",
        )
        for kind, names in KINDS.items()
        for name in names
    ]
    head = ("memory", "kind", "bytes of state", "µs a step, acting", "µs a step, learning")
    return (
        "# All memories in a table\n\n"
        + markdown.table(head, rows)
        + "Bytes: one sequence, default options. "
        + _conditions(measured)
    )


def _conditions(measured: Any) -> str:
    machine = measured["machine"]
    where = f"{machine['devices']}, jax {machine['jax']}, {machine['date'][:10]}"
    return (
        "Microseconds (µs): a step of one sequence alone; and of 32 sequences of 256 steps, "
        "forward and backward, a step of all. 128 features (`ntm` and `dnc` with 128 slots of 32), "
        f"inputs of 128 numbers, {where}, by `python -m benchmarks.memory`.\n"
    )


def _page(name: str, measured: Any) -> str:
    constructor = stack if name == "stack" else MEMORIES[name]
    note = (DOCS / "memories" / "notes" / f"{name}.md").read_text()
    equations, good = note.split("\n**Good at:**")
    lengths = (64, 256, 1024)
    rows = [(f"{n:,}", f"{cost(name, measured, n, 'both'):,.1f}") for n in lengths]
    parts = [
        f"# `{name}`\n\n",
        markdown.docstring(constructor),
        "## Equations\n\n",
        equations,
        f"\n\n**Good at:**{good}\n",
        "## What it costs\n\n",
        f"State of one sequence, by default options: **{nbytes(name):,} bytes**. ",
        f"A step of one sequence: **{cost(name, measured, 64, 'step'):.1f} µs**.\n\n",
        markdown.table(("steps in a sequence", "µs a step of 32, learning"), rows),
        _conditions(measured),
        _picture(name),
        "\n## Options\n\n",
        markdown.signature(name, MEMORIES[name]),
        f"```sh\nmemrl train drqn --environment TMaze --memory {name}\n```\n",
    ]
    return "".join(parts)


def _picture(name: str) -> str:
    """Return what a memory with addresses looks at; its picture is stored."""
    if not (DOCS / "pictures" / f"addresses-{name}.png").exists():
        return ""
    return (
        "\n## What it addresses\n\n"
        f"![Where {name} reads and writes, step by step](../pictures/addresses-{name}.png)\n\n"
        f"Trained, then shown something new: `python docs/pictures/draw.py {name}`. {HOW[name]}\n"
    )
