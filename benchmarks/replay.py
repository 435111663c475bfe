"""Replay memories alone: time and bytes beside other libraries, and the radix of the sum tree.

    python -m benchmarks.replay [--quick]

Everything in a table is timed in turns within one run, and ratios are medians over the turns;
even so they mean little on a machine that is busy with other things. JAX libraries run whole
iterations in one compiled loop, the others in a loop of Python. For R2D2, a whole iteration is
timed beside its pieces. Figures go to benchmarks/results/.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from rich.table import Table

from benchmarks import buffers, command, memrl, peers, report
from benchmarks.buffers import PRIORITIZED, Case
from benchmarks.command import Say, Setting
from benchmarks.peers import CPPRB, FLASHBAX, SB3
from benchmarks.targets import ITERATION, LARGE, MIDDLE, SMALL, UNIFORM, Target
from benchmarks.targets import PRIORITIZED as AT_LEAST
from benchmarks.timing import Program, Timing, interleave
from memrl_jax import presets, tree
from memrl_jax.settings import named

RADIXES = (4, 8, 16, 32, 64)
TARGETS = {"uniform": UNIFORM, PRIORITIZED: AT_LEAST}


class Plan(NamedTuple):
    """What to time, and for how long."""

    replays: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    cases: tuple[tuple[int, int], ...]  # rows and seeds
    radix_rows: tuple[int, ...]  # none: the radix is not compared
    sequences: bool
    r2d2: bool
    seconds: float  # a turn of a program
    turns: int


FULL = Plan(
    replays=("uniform", PRIORITIZED),
    batch_sizes=(32, 256),
    cases=tuple((rows, seeds) for rows in (SMALL, MIDDLE, LARGE) for seeds in (1, 16)),
    radix_rows=(MIDDLE, LARGE),
    sequences=True,
    r2d2=True,
    seconds=0.3,
    turns=5,
)
QUICK = FULL._replace(
    batch_sizes=(32,), cases=((SMALL, 1), (MIDDLE, 1)), radix_rows=(), sequences=False, r2d2=False
)._replace(seconds=0.1, turns=5)


def settings(plan: Plan) -> list[Setting]:
    """List what is timed together."""
    found = [
        compared(plan, f"{replay}, batches of {size} transitions", base, plan.cases)
        for replay in plan.replays
        for size in plan.batch_sizes
        for base in [Case(replay, SMALL, size)]
    ]
    if plan.sequences:
        windows = {"period": 20, "length": 79, "stride": 20}
        found += [
            compared(
                plan,
                f"{replay}, batches of 32 windows of 80 timesteps",
                Case(replay, MIDDLE, 32, **windows),
                ((MIDDLE, 1),),
            )
            for replay in plan.replays
        ]
    if plan.radix_rows:
        found += [radixes(plan, size) for size in plan.batch_sizes]
    return [*found, r2d2(plan)] if plan.r2d2 else found


def compared(plan: Plan, name: str, base: Case, cases: Sequence[tuple[int, int]]) -> Setting:
    """Time ours beside the libraries that are installed and have such a memory."""

    def programs(say: Say) -> list[Program]:
        return [
            program
            for rows, seeds in cases
            for program in beside(base._replace(rows=rows), seeds, say)
        ]

    targets = [
        target
        for target in TARGETS[base.replay]
        # cpprb has no windows, and growth needs several capacities.
        if len(cases) > 1 or FLASHBAX in target.name
    ]
    return _setting(plan, name, programs, targets)


def beside(case: Case, seeds: int, say: Say) -> list[Program]:
    """Prepare every library's memory for a case."""
    say(f"compiling {case.replay}: {case.rows:,} rows, {seeds} seeds")
    programs = [buffers.program("memrl", case, buffers.memrl(case), seeds)]
    if peers.installed(FLASHBAX):
        programs.append(buffers.program(FLASHBAX, case, buffers.flashbax(case), seeds))
    if seeds == 1 and case.length == 1:
        programs += [program for program, _ in on_host(case)]
    return programs


def on_host(case: Case) -> list[tuple[Program, int]]:
    """Prepare the memories outside JAX, and count their bytes."""
    found = [buffers.cpprb(case)] if peers.installed(CPPRB) else []
    if case.replay != PRIORITIZED and peers.installed(SB3):
        found.append(buffers.stable_baselines3(case))
    return found


def radixes(plan: Plan, batch_size: int) -> Setting:
    """Time the prioritized memory with sum trees of other widths; the first is our default."""

    def programs(say: Say) -> list[Program]:
        found = []
        for rows in plan.radix_rows:
            say(f"compiling radixes: {rows:,} rows")
            case = Case(PRIORITIZED, rows, batch_size)
            found.append(buffers.program("memrl", case, buffers.memrl(case)))
            for radix in RADIXES:
                memory = buffers.memrl(case, radix=radix)
                found.append(buffers.program(f"radix {radix}", case, memory))
        return found

    return _setting(plan, f"radix, batches of {batch_size} transitions", programs, ())


def r2d2(plan: Plan) -> Setting:
    """Time a whole iteration of R2D2 and its pieces."""

    def measure(say: Say) -> list[Timing]:
        config = presets["r2d2"].replace(
            environment="TMaze", environment_args={"corridor": 50}, total_steps=1_000_000
        )
        # Prioritized memories are filled by acting.
        config = config.replace(learning_starts=named(config)["capacity"])
        say("compiling R2D2")
        begun = memrl.begin(config, seeds=1)
        programs = [*memrl.pieces(begun), memrl.training(begun)]
        say(f"timing {len(programs)} programs")
        return interleave(programs, plan.seconds, plan.turns)

    return Setting("R2D2, T-maze with a corridor of 50", measure, _pieces, ITERATION)


def _setting(plan: Plan, name: str, programs: Any, targets: Sequence[Target]) -> Setting:
    def measure(say: Say) -> list[Timing]:
        found = programs(say)
        say(f"timing {len(found)} programs, {plan.turns} turns of {plan.seconds} s each")
        return interleave(found, plan.seconds, plan.turns)

    return Setting(name, measure, _beside, targets)


def _beside(timings: Sequence[Timing]) -> list[Table]:
    return [report.beside(timings, "memrl")]


def _pieces(timings: Sequence[Timing]) -> list[Table]:
    return [report.split(timings)]


def bytes_per_row(rows: int) -> dict[str, dict[str, float]]:
    """Count the bytes of all arrays per timestep kept, by library and kind of memory."""
    out: dict[str, dict[str, float]] = {"memrl": {}, FLASHBAX: {}, CPPRB: {}, SB3: {}}
    for replay in ("uniform", PRIORITIZED):
        case = Case(replay, rows, 32)
        ours = jax.eval_shape(buffers.memrl(case).init)
        out["memrl"][replay] = tree.nbytes(ours) / rows
        if peers.installed(FLASHBAX):
            theirs = jax.eval_shape(buffers.flashbax(case).init)
            out[FLASHBAX][replay] = tree.nbytes(theirs) / rows
        for program, nbytes in on_host(case):
            out[program.name][replay] = nbytes / rows
    return out


def _bytes(rows: int) -> tuple[Table, dict[str, Any]]:
    counted = bytes_per_row(rows)
    title = f"bytes per row, {rows:,} rows ({CPPRB} without its trees)"
    return report.matrix(title, counted), {"bytes_per_row": {"rows": rows, **counted}}


def main() -> None:
    quick = command.quick(__doc__.partition("\n")[0])
    plan = QUICK if quick else FULL
    machine = report.machine((FLASHBAX, CPPRB, SB3, "torch"))
    rows = max(rows for rows, _ in plan.cases)
    name = "replay-quick" if quick else "replay"
    command.run(name, machine, settings(plan), partial(_bytes, rows))


if __name__ == "__main__":
    main()
