"""Films of environments, one a family, in which actions are drawn at random."""

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memrl_jax import environments, plot, spaces
from memrl_jax.environments.check import recorded
from memrl_jax.rollout import Episode

QUICKLY = {"xla_backend_optimization_level": 0}
# name -> options and what is to be seen
FILMS: dict[str, tuple[dict[str, Any], str]] = {
    "TMaze": ({}, "the T-Maze: the cue at first, the junction at the end"),
    "MemoryLength": ({"length": 10}, "a bit, then nothing, then the question"),
    "DelayedMatch": ({}, "symbols, one after another"),
    "KeyDoor": ({}, "rooms with a key, apples and a door"),
    "RockSample": ({}, "a rover among rocks"),
    "MiniGrid-MemoryS7": ({}, "a corridor of MiniGrid, seen from within"),
    "IMaze": ({}, "a first-person maze"),
    "bAbI": ({}, "a story, a sentence a step, then the question; words are numbers"),
    "RepeatPreviousEasy": ({}, "cards, one after another"),
    "BattleshipEasy": ({}, "hits and misses"),
    "CartPole-positions": ({}, "where the cart and the pole are, not how fast they move"),
    "Breakout-MinAtar": ({}, "Breakout of MinAtar"),
    "HiddenRobot": ({}, "a robot that does not see its velocity"),
    "Recommender": ({}, "clicks of a user"),
    "Instructions": ({}, "a sentence to be followed in a room"),
    "BernoulliBandit": ({}, "a bandit"),
}
STEPS = 24


def pages() -> dict[str, str | bytes]:
    """Return a page of films, and the films."""
    films = {name: _film(name, options) for name, (options, _) in FILMS.items()}
    text = "# Films\n\nOne of each family, with actions drawn at random. "
    text += "`memrl watch RUN` films a trained agent, with what it has in mind.\n\n"
    for name, (_, about) in FILMS.items():
        told = f"{about[0].upper()}{about[1:]}."
        text += f"## {name}\n\n![{name}: {about}](films/{name}.gif)\n\n{told}\n\n"
    made = {f"environments/films/{name}.gif": film for name, film in films.items()}
    return {"environments/films.md": text, **made}


def _film(name: str, options: dict[str, Any]) -> bytes:
    env = environments.make(name, options)
    play = jax.jit(lambda key: recorded(env, key, STEPS), compiler_options=QUICKLY)
    timestep, action = jax.device_get(play(jax.random.key(0)))
    steps = int(np.argmax(timestep.last)) if timestep.last.any() else STEPS
    observation, action = jax.tree.map(lambda x: x[:steps], (timestep.observation, action))
    if spaces.discrete(env.spec.actions):
        action = spaces.flat_index(env.spec.actions, action)
    else:
        action = np.zeros(steps, np.int32)  # a film shows whole numbers only
    episode = Episode(observation, action, timestep.reward[1 : steps + 1], {})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "film.gif"
        plot.film([episode], out)
        return out.read_bytes()
