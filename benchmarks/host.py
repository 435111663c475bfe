"""PPO in environments on the host, beside Stable-Baselines3 in the same ones.

    python -m benchmarks.host [--quick]

Both train on gymnasium's CartPole-v1, 8 copies stepped one after another, 128 steps, 4 epochs of 4
minibatches, two networks of 64 and 64 units; ours also with 4 seeds, which take turns. Figures go
to benchmarks/results/.
"""

import jax

from benchmarks import actors, command, peers, report
from benchmarks.command import Say, Setting
from benchmarks.targets import Target, faster_than
from benchmarks.timing import Program, Timing, fastest, interleave
from benchmarks.train import threads_to_try
from memrl_jax import parallel
from memrl_jax.config import Config
from memrl_jax.preset_configs import presets
from memrl_jax.run.host_program import make_host_program
from memrl_jax.run.program import Run

SEEDS = (1, 4)
CONFIG = presets["ppo"].replace(
    environment="gymnasium:CartPole-v1",
    environments=8,
    rollout_length=128,
    epochs=4,
    minibatches=4,
    separate=True,
    total_steps=2**20,
)


def ours(config: Config, seeds: int) -> Program:
    """Prepare the training steps of a run on the host."""
    program = make_host_program(config, Run(seeds=seeds, evaluate_episodes=1))
    carry = program.init((parallel.seed_keys(0, seeds), {}, None))

    def advance(iterations: int) -> None:
        nonlocal carry
        carry = jax.block_until_ready(program.chunk(carry, iterations))

    return Program("memrl", 0, seeds, None, advance, lambda: program.totals(carry)["steps"].sum())


def measure(quick: bool, say: Say) -> list[Timing]:
    say("compiling")
    programs = [ours(CONFIG, seeds) for seeds in SEEDS]
    programs += [actors.ppo(CONFIG, threads) for threads in threads_to_try()]
    return fastest(interleave(programs, seconds=0.5 if quick else 2, turns=3 if quick else 5))


def main() -> None:
    quick = command.quick(__doc__.partition("\n")[0])
    target = Target(f"steps/s of memrl / {peers.SB3}", False, 1.0, faster_than(peers.SB3, 0))
    setting = Setting(
        "PPO, 8 environments x 128 steps, 4 epochs of 4 minibatches, gymnasium's CartPole-v1",
        lambda say: measure(quick, say),
        lambda timings: [report.speeds(timings)],
        [target],
    )
    machine = report.machine((peers.SB3, "torch", "gymnasium"))
    command.run("host-quick" if quick else "host", machine, [setting])


if __name__ == "__main__":
    main()
