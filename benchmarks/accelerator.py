"""What a GPU or TPU is given: many seeds and environments, long sequences, wide sum trees.

    python -m benchmarks.accelerator [--quick]

Training of DQN and R2D2 with up to 4,096 seeds and of PPO in up to 4,096 environments, beside
purejaxrl; sequences of 1,024 inputs as a loop, as a tree and in chunks; prioritized replay by the
width of its sum tree. Programs are compiled side by side, then timed in turns. Figures go to
benchmarks/results/, with the device's name.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
from rich.table import Table

from benchmarks import bare, buffers, command, memory, memrl, peers, purejaxrl, report
from benchmarks.command import Say, Setting
from benchmarks.peers import FLASHBAX
from benchmarks.targets import LARGE, SMALL
from benchmarks.timing import Program, Timing, interleave
from memrl_jax import presets
from memrl_jax.agents import DQNConfig, PPOConfig
from memrl_jax.config import Config

RADIXES = (8, 16, 32, 64, 128)
BATCH = 256  # transitions drawn from a sum tree
LENGTH = 1024  # of the sequences that memories are unrolled over
Make = Callable[[], list[Program]]


class Plan(NamedTuple):
    """What to time, and for how long."""

    seeds: tuple[int, ...]
    most: tuple[int, ...]  # seeds of R2D2 that may not fit: the last to be timed
    environments: tuple[int, ...]  # of PPO
    beside: tuple[int, ...]  # seeds and environments that purejaxrl is timed with
    memories: tuple[str, ...]
    tree_seeds: tuple[int, ...]
    seconds: float  # a turn of a program
    turns: int


FULL = Plan(
    seeds=(1, 256, 4096),
    most=(4096,),
    environments=(16, 256, 4096),
    beside=(1, 16, 256, 4096),
    memories=("mingru", "s5", "lru", "linear_attention", "mlstm", "deltanet"),
    tree_seeds=(1, 64),
    seconds=0.5,
    turns=3,
)
QUICK = Plan((1, 4), (8,), (16,), (1,), ("lru", "mlstm"), (1,), seconds=0.1, turns=3)


def prepared(makes: Sequence[Make]) -> list[Program]:
    """Make programs side by side: most of the time a compiler works on one core."""
    with ThreadPoolExecutor(8) as pool:
        return [program for made in pool.map(lambda make: make(), makes) for program in made]


def dqn(plan: Plan, say: Say) -> list[Timing]:
    """Time DQN on CartPole, 10 environments a seed, as a command and from Python."""
    config = Config(environments=10, agent=DQNConfig()).replace(
        capacity=SMALL, learning_starts=1_000, double=False
    )
    beside = [seeds for seeds in plan.seeds if seeds in plan.beside]
    say("compiling DQN")
    programs = prepared(
        [
            *(partial(_training, config, seeds) for seeds in plan.seeds),
            *(partial(_alone, memrl.anew, config, seeds, purejaxrl.ITERATIONS) for seeds in beside),
            partial(_alone, bare.update, config, 4, 2),
            partial(_alone, bare.environment, config),
        ]
    )
    if purejaxrl.can_run_dqn():
        programs += [purejaxrl.dqn(config, seeds) for seeds in beside]
    return _timed(plan, programs, say)


def r2d2(plan: Plan, seeds: Sequence[int], say: Say) -> list[Timing]:
    """Time R2D2 on CartPole, 10 environments a seed."""
    config = presets["r2d2"].replace(
        environment="CartPole-v1", capacity=SMALL, learning_starts=SMALL, total_steps=10_000_000
    )
    say("compiling R2D2")
    programs = prepared([partial(_training, config, count) for count in seeds])
    return _timed(plan, programs, say)


def ppo(plan: Plan, environments: int, say: Say) -> list[Timing]:
    """Time PPO with a GRU on CartPole, rollouts of 128 steps, one seed."""
    config = Config(environments=environments, rollout_length=128, agent=PPOConfig())
    config = config.replace(
        total_steps=1000 * environments * config.rollout_length,
        memory="gru",
        memory_args={"features": 128},
        encoder=(128,),
        head=(128,),
    )
    say("compiling PPO")
    programs = _training(config, 1)
    if purejaxrl.available() and environments in plan.beside:
        programs.append(purejaxrl.ppo(config))
    return _timed(plan, programs, say)


def scans(plan: Plan, models: Sequence[memory.Model], say: Say) -> list[Timing]:
    """Time memories whose updates form a monoid, by how they are scanned, and flax's GRU."""
    say("compiling memories")
    programs = prepared([partial(memory.passes, model, LENGTH) for model in models])
    return _timed(plan, programs, say)


def widths(plan: Plan, say: Say) -> list[Timing]:
    """Time an add, a draw and an update of prioritized replay by the radix of its sum tree."""
    case = buffers.Case(buffers.PRIORITIZED, LARGE, BATCH)
    say("compiling sum trees")

    def ours(radix: int, seeds: int) -> Program:
        return buffers.program(f"radix {radix}", case, buffers.memrl(case, radix=radix), seeds)

    makes = [partial(_alone, ours, r, seeds) for seeds in plan.tree_seeds for r in RADIXES]
    if peers.installed(FLASHBAX):
        makes += [
            partial(_alone, buffers.program, FLASHBAX, case, buffers.flashbax(case), seeds)
            for seeds in plan.tree_seeds
        ]
    return _timed(plan, prepared(makes), say)


def _training(config: Config, seeds: int) -> list[Program]:
    return [memrl.training(memrl.begin(config, seeds))]


def _alone(make: Callable[..., Program], *arguments: Any) -> list[Program]:
    return [make(*arguments)]


def _timed(plan: Plan, programs: list[Program], say: Say) -> list[Timing]:
    say(f"timing {len(programs)} programs, {plan.turns} turns of {plan.seconds} s each")
    return interleave(programs, plan.seconds, plan.turns)


def _speeds(timings: Sequence[Timing]) -> list[Table]:
    floor = any(t.name == bare.UPDATE for t in timings)
    return [report.speeds(timings), *([report.floor(timings)] if floor else [])]


def settings(plan: Plan) -> list[Setting]:
    """List what is timed together."""
    models = [
        *(model for name in plan.memories for model in memory.scanned(name)),
        memory.flax("flax GRU"),
    ]
    nbytes = {model.name: model.nbytes for model in models}
    fewer = [seeds for seeds in plan.seeds if seeds not in plan.most]

    def tabulated(timings: Sequence[Timing]) -> list[Table]:
        return [report.memories(timings, nbytes, "flax GRU")]

    return [
        Setting("DQN, CartPole-v1", partial(dqn, plan), _speeds),
        Setting("R2D2, CartPole-v1", partial(r2d2, plan, fewer), _speeds),
        *(
            Setting(
                f"PPO with a GRU, {count:,} environments x 128 steps, CartPole-v1",
                partial(ppo, plan, count),
                _speeds,
            )
            for count in plan.environments
        ),
        Setting(
            f"prioritized replay, {LARGE:,} rows, batches of {BATCH} transitions",
            partial(widths, plan),
            lambda timings: [report.beside(timings, f"radix {RADIXES[0]}")],
        ),
        Setting(
            f"scans, T = {LENGTH}, B = {memory.B}, D = {memory.D}",
            partial(scans, plan, models),
            tabulated,
        ),
        Setting("R2D2, CartPole-v1, most seeds", partial(r2d2, plan, plan.most), _speeds),
    ]


def main() -> None:
    quick = command.quick(__doc__.partition("\n")[0])
    device = jax.devices()[0].device_kind
    plan = QUICK if quick else FULL
    machine = report.machine((FLASHBAX,)) | {"device": device}
    command.run("accelerator-quick" if quick else "accelerator", machine, settings(plan))


if __name__ == "__main__":
    main()
