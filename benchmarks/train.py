"""DQN, R2D2, PPO and SAC beside other libraries and beside what they cannot do without.

    python -m benchmarks.train [--quick]

Everything is timed in turns within one run, and ratios are medians over the turns; even so they
mean little on a machine that is busy with other things. Figures go to benchmarks/results/.
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from rich.table import Table

from benchmarks import actors, bare, command, memrl, peers, purejaxrl, report
from benchmarks.command import Say
from benchmarks.targets import CONTINUOUS, LARGE, MIDDLE, ON_POLICY, SMALL, TRAINING, WINDOWS
from benchmarks.timing import Program, Timing, fastest, interleave
from memrl_jax import cli, presets
from memrl_jax.agents import DQNConfig, PPOConfig, SACConfig
from memrl_jax.config import Config
from memrl_jax.settings import named


class Setting(NamedTuple):
    """How environments and updates alternate."""

    name: str
    environments: int
    rollout_length: int

    def config(self, capacity: int) -> Config:
        # Stable-Baselines3 has no double Q-learning, so nobody uses it here.
        return Config(
            environments=self.environments, rollout_length=self.rollout_length, agent=DQNConfig()
        ).replace(capacity=capacity, learning_starts=1_000, double=False)


class Size(NamedTuple):
    """How large the networks of SAC and their batches are: those of DQN here, or SB3's own."""

    units: tuple[int, int]
    batch: int


class Plan(NamedTuple):
    """What to time, as capacities and seeds, and for how long."""

    settings: tuple[Setting, ...]
    training: tuple[tuple[int, int], ...]
    pieces: tuple[tuple[int, int], ...]  # of `training`; the pieces of an iteration alone
    anew: tuple[tuple[int, int], ...]  # `make_train` from Python, beside purejaxrl
    rejax: tuple[tuple[int, int], ...]
    sb3: tuple[tuple[int, int], ...]
    seconds: float  # a turn of a program; `memrl train` too goes on for about a second at a time
    turns: int


TEN = Setting("10 environments, an update per vector step", 10, 1)
ONE = Setting("1 environment, an update every 10 steps", 1, 10)
SINGLE = ((SMALL, 1), (MIDDLE, 1), (LARGE, 1))
FULL = Plan(
    settings=(TEN, ONE),
    training=tuple((capacity, seeds) for capacity, _ in SINGLE for seeds in (1, 8, 32)),
    pieces=SINGLE,
    anew=((SMALL, 1), (LARGE, 1), (SMALL, 8)),
    # Many seeds with larger memories take seconds an iteration and gigabytes for copies.
    rejax=(*SINGLE, (SMALL, 8), (SMALL, 32)),
    sb3=SINGLE,
    seconds=1.0,
    turns=5,
)
QUICK = Plan(
    settings=(TEN,),
    training=((SMALL, 1), (SMALL, 8), (MIDDLE, 1)),
    pieces=SINGLE[:1],
    anew=((SMALL, 1), (SMALL, 8)),
    rejax=SINGLE[:2],
    sb3=SINGLE[:1],
    seconds=0.2,
    turns=3,
)


def measure(plan: Plan, setting: Setting, say: Say) -> list[Timing]:
    """Compile all programs of a setting, then time them in turns."""
    programs = our_programs(plan, setting, say) + peer_programs(plan, setting, say)
    say(f"timing {len(programs)} programs, {plan.turns} turns of {plan.seconds} s each")
    return fastest(interleave(programs, plan.seconds, plan.turns))


def our_programs(plan: Plan, setting: Setting, say: Say) -> list[Program]:
    programs = []
    for case in plan.training:
        say("compiling memrl: {:,} rows, {} seeds".format(*case))
        begun = memrl.begin(setting.config(case[0]), case[1])
        if case in plan.pieces:
            programs += memrl.pieces(begun)
        programs.append(memrl.training(begun))
    config = setting.config(SMALL)
    floors = [bare.update(config, observation=4, actions=2), bare.environment(config)]
    return programs + floors


def peer_programs(plan: Plan, setting: Setting, say: Say) -> list[Program]:
    """Prepare the other libraries that are installed and can do the same."""
    programs = []
    if setting.rollout_length == 1:
        programs += trained_anew(plan, setting, say)
    # rejax always updates after every vector step.
    if peers.installed(peers.REJAX) and setting.rollout_length == 1:
        for capacity, seeds in plan.rejax:
            say(f"compiling rejax: {capacity:,} rows, {seeds} seeds")
            programs.append(peers.rejax(setting.config(capacity), seeds))
    if peers.installed(peers.SB3):
        for capacity, _ in plan.sb3:
            for threads in threads_to_try():
                programs.append(peers.stable_baselines3(setting.config(capacity), threads))
    return programs


def trained_anew(plan: Plan, setting: Setting, say: Say) -> list[Program]:
    """Prepare whole trainings from Python, ours and purejaxrl's."""
    programs = []
    for capacity, seeds in plan.anew:
        say(f"compiling make_train: {capacity:,} rows, {seeds} seeds")
        programs.append(memrl.anew(setting.config(capacity), seeds, purejaxrl.ITERATIONS))
        if purejaxrl.can_run_dqn():
            say(f"compiling {purejaxrl.PUREJAXRL}: {capacity:,} rows, {seeds} seeds")
            programs.append(purejaxrl.dqn(setting.config(capacity), seeds))
        else:
            say(f"without {purejaxrl.PUREJAXRL}: {purejaxrl.CHECKOUT} names no checkout")
    return programs


def measure_windows(plan: Plan, preset: str, say: Say) -> list[Timing]:
    """Time an agent with a memory on CartPole, and gradient steps on the same windows alone."""
    config = presets[preset].replace(environment="CartPole-v1", total_steps=10_000_000)
    if named(config)["replay"] == "prioritized":  # it can only be filled by acting
        config = config.replace(learning_starts=named(config)["capacity"])
    say(f"compiling {preset}")
    # The previous action and reward are inputs beside the observation.
    floor = bare.update(config, observation=4 + 2 + 1, actions=2)
    programs = [memrl.training(memrl.begin(config, seeds=1)), floor]
    return fastest(interleave(programs, plan.seconds, plan.turns))


def measure_ppo(plan: Plan, say: Say) -> list[Timing]:
    """Time PPO with a GRU, its update, and recurrent PPO of other libraries."""
    config = Config(environments=16, rollout_length=128, total_steps=2**20, agent=PPOConfig())
    config = config.replace(
        memory="gru", memory_args={"features": 128}, encoder=(128,), head=(128,)
    )
    say("compiling PPO")
    begun = memrl.begin(config, seeds=1)
    programs = [*memrl.ppo_pieces(begun), memrl.training(begun)]
    if peers.installed(actors.SB3_CONTRIB):
        programs += [actors.recurrent_ppo(config, threads) for threads in threads_to_try()]
    if purejaxrl.available():
        say(f"compiling {purejaxrl.PUREJAXRL}")
        programs.append(purejaxrl.ppo(config))
    else:
        say(f"without {purejaxrl.PUREJAXRL}: {purejaxrl.CHECKOUT} names no checkout")
    return fastest(interleave(programs, plan.seconds, plan.turns))


def measure_sac(plan: Plan, size: Size, say: Say) -> list[Timing]:
    """Time SAC on Pendulum in one environment, a gradient step a step, and its products alone."""
    config = Config(environment="Pendulum-v1", environments=1, agent=SACConfig()).replace(
        encoder=size.units[:1],
        head=size.units[1:],
        batch_size=size.batch,
        capacity=LARGE,
        learning_rate=3e-4,
    )
    say("compiling SAC")
    programs = [
        memrl.training(memrl.begin(config, seeds=1)),
        memrl.products((LARGE, 1), size.units, size.batch),
    ]
    if peers.installed(peers.SB3):
        programs += [actors.soft_actor_critic(config, threads) for threads in threads_to_try()]
    return fastest(interleave(programs, plan.seconds, plan.turns))


def threads_to_try() -> set[int]:
    """Return how many threads torch may take: of them, the fastest counts."""
    return {1, len(os.sched_getaffinity(0))}


def main() -> None:
    quick = command.quick(__doc__.partition("\n")[0])
    cli.use_every_core()
    plan = QUICK if quick else FULL
    settings = [
        command.Setting(setting.name, partial(measure, plan, setting), tables, TRAINING)
        for setting in plan.settings
    ]
    for preset in ("drqn", "r2d2"):
        config = presets[preset]
        settings.append(
            command.Setting(
                f"{preset}: windows of {named(config)['window']}, CartPole-v1",
                partial(measure_windows, plan, preset),
                lambda timings: [report.speeds(timings), report.beside(timings, bare.UPDATE)],
                WINDOWS,
            )
        )
    settings.append(
        command.Setting(
            "PPO with a GRU, 16 environments x 128 steps, 4 epochs of 4 minibatches, CartPole-v1",
            partial(measure_ppo, plan),
            lambda timings: [report.speeds(timings), report.beside(timings, "gradients")],
            ON_POLICY,
        )
    )
    for size in (Size((120, 84), 128), Size((256, 256), 256)):
        settings.append(
            command.Setting(
                "SAC, {} and {} units, batches of {}, Pendulum-v1".format(*size.units, size.batch),
                partial(measure_sac, plan, size),
                lambda timings: [report.speeds(timings), report.beside(timings, "products")],
                CONTINUOUS,
            )
        )
    command.run("train-quick" if quick else "train", report.machine(), settings)


def tables(timings: Sequence[Timing]) -> list[Table]:
    return [report.speeds(timings), report.split(timings), report.floor(timings)]


if __name__ == "__main__":
    main()
