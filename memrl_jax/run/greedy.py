"""Greedy episodes of all seeds of a run."""

import numpy as np

from memrl_jax import parallel
from memrl_jax.rollout import Evaluation
from memrl_jax.run.lanes import EVALUATION
from memrl_jax.run.program import Carry, Program


def play(program: Program, carry: Carry, *stream: int) -> Evaluation:
    """Play greedy episodes, [S, E]; their keys depend on the seed and `stream` alone.

    If the program is strict, raises FloatingPointError for the first reward that is not finite.
    """
    lanes, episodes = program.lanes, program.run.evaluate_episodes
    keys = lanes.pad(lanes.keys(*stream))
    played = parallel.fetched(program.evaluate((keys, carry.train.agent, carry.varied)))
    played = Evaluation(*(lanes.joined(x)[:, :episodes] for x in played))
    for lane, episode in np.argwhere(~np.isfinite(played.total)) if program.strict else ():
        value, step = played.total[lane, episode], played.length[lane, episode]
        of = lanes.told(int(lane))
        raise FloatingPointError(
            f"reward: {value} at step {step} of episode {episode} of an evaluation of {of}"
        )
    return played


def evaluate(program: Program, carry: Carry, done: int) -> dict[str, np.ndarray]:
    """Return the means [S] of an evaluation during training, after `done` timesteps."""
    played = play(program, carry, EVALUATION, done)
    return {
        "return": np.mean(played.total, axis=1),
        "length": np.mean(played.length, axis=1),
        "unfinished": np.mean(np.logical_not(played.done), axis=1),
    }
