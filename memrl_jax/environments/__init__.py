"""Environments by name. gymnax is imported only when one of its environments is made.

The last reward and the time, which MetaMaze and GaussianBandit observe, exceed the bounds that
gymnax declares; they are passed on unchanged.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from memrl_jax import checks, imports
from memrl_jax.environments.applications import APPLICATIONS
from memrl_jax.environments.babi import babi
from memrl_jax.environments.base import Arrival, batch, episode_metrics, episodic
from memrl_jax.environments.check import check, traced
from memrl_jax.environments.declared import one_line
from memrl_jax.environments.diagnostic import DIAGNOSTIC
from memrl_jax.environments.diagnostic.dials import bound
from memrl_jax.environments.gymnax import from_gymnax
from memrl_jax.environments.host import from_gymnasium, on_host
from memrl_jax.environments.mazes import (
    imaze,
    original,
    pattern_matching,
    sequential_goals,
    single_goal,
)
from memrl_jax.environments.meta import META
from memrl_jax.environments.popgym import TASKS
from memrl_jax.environments.suites import SUITES
from memrl_jax.environments.tmaze import TMaze
from memrl_jax.environments.trials import trials
from memrl_jax.environments.wrappers import frame_stack, numbered, view
from memrl_jax.spaces import Continuous
from memrl_jax.types import Array, Environment

# gymnax 1.x's ids, except MNISTBandit-bsuite, which downloads its data.
_GYMNAX = (
    "CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0",
    "Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar",
    "SpaceInvaders-MinAtar", "Catch-bsuite", "DeepSea-bsuite", "MemoryChain-bsuite",
    "UmbrellaChain-bsuite", "DiscountingChain-bsuite", "SimpleBandit-bsuite", "FourRooms-misc",
    "MetaMaze-misc", "PointRobot-misc", "BernoulliBandit-misc", "GaussianBandit-misc",
    "Reacher-misc", "Swimmer-misc", "Pong-misc", "FrozenLake-misc",
)  # fmt: skip


def cartpole_positions(**params: Any) -> Environment:
    """Make CartPole-v1 with velocities hidden: the observation is [x, theta]."""
    env = from_gymnax("CartPole-v1", **params)
    _, dtype, low, high = env.spec.observations
    return view(env, lambda x: x[::2], Continuous((2,), dtype, low[::2], high[::2]))


def pendulum_positions(**params: Any) -> Environment:
    """Make Pendulum-v1 with the velocity hidden: the observation is [cos theta, sin theta]."""
    env = from_gymnax("Pendulum-v1", **params)
    _, dtype, low, high = env.spec.observations
    return view(env, lambda x: x[:2], Continuous((2,), dtype, low[:2], high[:2]))


@checks.typed
def tmaze(
    corridor: int | Array = 8, active: bool = False, longest: int | None = None, **params: Any
) -> Environment:
    """Make the T-Maze; a `corridor` [] may be traced if `longest` limits it. See `TMaze`.

    The time limit is that of the longest corridor.
    """
    task = TMaze(bound("corridor", corridor, "longest", longest), active)
    return from_gymnax(task, corridor=corridor, **params)


def constructor_of(part: Any) -> Callable[..., Environment]:
    """Return the function from options to an `Environment` that `part` stands for.

    `part` is an `Environment`, an object with gymnax's interface, a class of such objects, or a
    function that returns either. An option goes to the class or function if that takes it, or else
    to the parameters of the environment.
    """
    if isinstance(part, Environment):
        return constructor_of(lambda: part)
    if not inspect.isclass(part) and hasattr(part, "default_params"):
        return partial(from_gymnax, part)
    checks.kind("environment", part, Callable)

    def make(**options: Any) -> Environment:
        taken = inspect.signature(part).parameters.values()
        free = any(x.kind is x.VAR_KEYWORD for x in taken)
        own = {k: x for k, x in options.items() if free or k in [x.name for x in taken]}
        rest = {k: x for k, x in options.items() if k not in own}
        checks.options("environment_args", part, own)
        made = part(**own)
        if not isinstance(made, Environment):
            return from_gymnax(made, **rest)
        if rest:
            checks.options("environment_args", part, rest)
        return made

    return make


def checked(make: Callable[..., Environment], **fixed: Any) -> Callable[..., Environment]:
    """Wrap `make` so that it checks names and types of options; `fixed` are other defaults."""

    def checked_make(**options: Any) -> Environment:
        checks.options("environment_args", make, options)
        return make(**(fixed | options))

    return checked_make


ENVIRONMENTS: dict[str, Callable[..., Environment]] = {
    **{name: partial(from_gymnax, name) for name in _GYMNAX},
    "CartPole-positions": cartpole_positions,
    "Pendulum-positions": pendulum_positions,
    "TMaze": tmaze,
    "TMaze-active": partial(tmaze, active=True),
    "IMaze": checked(imaze),
    "PatternMatching": checked(pattern_matching),
    "PatternMatching-unseen": checked(pattern_matching, unseen=True),
    "SingleGoal": checked(single_goal),
    "SingleGoal-indicator": checked(single_goal, indicator=True),
    "SequentialGoals": checked(sequential_goals),
    "SequentialGoals-indicator": checked(sequential_goals, indicator=True),
    "OriginalMaze": checked(original),
    "bAbI": checked(babi),
    **{name: partial(from_gymnax, task) for name, task in TASKS.items()},
    **{name: constructor_of(task) for name, task in (DIAGNOSTIC | APPLICATIONS).items()},
    **{name: checked(task) for name, task in META.items()},
}


def _constructor(name: str) -> Callable[..., Environment]:
    """Return the function from options to what `name` stands for."""
    suite, colon, theirs = str(name).partition(":")
    if colon and suite in SUITES:
        return constructor_of(partial(SUITES[suite], theirs))
    return constructor_of(imports.part("environment", name, ENVIRONMENTS))


def make(name: str, options: Mapping[str, Any]) -> Environment:
    """Make one of ENVIRONMENTS, of another suite, or a user's own, and check it by `traced`.

    A suite's are named `suite:id`, see `suites`; a user's own `module:name`.

    Raises ValueError, in one line, for an unknown name, for options that are refused, for any other
    error that the constructor raises, and for the name of an environment on the host.
    """
    if on_host(name):
        raise ValueError(
            f"environment: {name} steps on the host and cannot be compiled; train with "
            "memrl_jax.run.experiment.start or `memrl train`, step with environments.from_gymnasium"
        )
    constructor = _constructor(name)
    try:
        env = constructor(**options)
    except Exception as error:
        if isinstance(error, ValueError) and re.fullmatch(r"[\w-]+( option)?: .+", str(error)):
            raise  # one line that names a field already
        given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no options"
        raise ValueError(f"environment: {name} with {given} raised {one_line(error)}") from error
    traced(env, f"environment: {name}")
    return env


__all__ = [
    "ENVIRONMENTS", "Arrival", "TMaze", "batch", "check", "episode_metrics", "episodic",
    "frame_stack", "from_gymnasium", "from_gymnax", "make", "numbered", "trials", "view",
]  # fmt: skip
