"""How soft actor-critic treats continuous actions, and how discrete ones."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from memrl_jax import distributions, spaces
from memrl_jax.agents.exploration import discrete_actions
from memrl_jax.distributions import Distribution
from memrl_jax.networks import CriticHead, QHead
from memrl_jax.spaces import Continuous, masked
from memrl_jax.types import Array, Key, Spec


class Choices(NamedTuple):
    """How a policy's choices are sampled, and evaluated by critics.

    A choice is a sampled continuous action, scaled to bounds of -1 and 1, or the probabilities
    [..., A] of all discrete actions, over which expectations are exact.
    """

    distribution: Distribution
    critic: Callable[..., nn.Module]  # widths, layers -> a critic's head: x [..., D], *inputs -> q
    draw: Callable[..., Any]  # key, parameters, legal -> (choice, its entropy in nats [...])
    from_action: Callable[..., Any]  # action -> the choice that it stands for
    inputs: Callable[..., tuple[Any, ...]]  # choice -> what the critic takes besides x
    expected: Callable[..., Array]  # q, choice -> the choice's value [...]
    target_entropy: Callable[..., Array]  # legal -> nats, [] or [...]


def choices(spec: Spec, target_entropy: Any) -> Choices:
    """Return the choices for the actions of a spec: `continuous` or `discrete` ones.

    Raises ValueError unless they are all continuous, with finite bounds, or one `Discrete`.
    """
    if all(isinstance(part, Continuous) for part in spaces.parts(spec.actions)):
        return continuous(spec.actions, target_entropy)
    return discrete(discrete_actions("sac", spec), target_entropy)


def continuous(space: Any, target_entropy: Any) -> Choices:
    """Choose by a tanh-normal distribution: a sampled action is an input of the critics.

    The target entropy, -1 for None, is per number in an action.
    Haarnoja et al. (2018a), appendix C.
    """
    distribution = distributions.from_space(space, distributions.tanh_normal)
    target = -1.0 if target_entropy is None else target_entropy
    size = sum(math.prod(part.shape) for part in spaces.parts(space))
    log_volume = sum(distributions.scale(part).log_volume for part in spaces.parts(space))

    def from_action(action: Any) -> Any:
        return spaces.over(lambda part, x: distributions.scale(part).inwards(x), space, action)

    def draw(key: Key, parameters: Array, legal: Any) -> tuple[Any, Array]:
        action, log_prob = distribution.sample_and_log_prob(key, parameters, legal)
        return from_action(action), -(log_prob + log_volume)

    return Choices(
        distribution,
        CriticHead,
        draw,
        from_action,
        inputs=lambda choice: (choice,),
        expected=lambda q, choice: q,
        target_entropy=lambda legal: jnp.float32(size) * target,
    )


def discrete(actions: int, target_entropy: Any) -> Choices:
    """Choose by probabilities: the critics evaluate all actions, and expectations are exact.

    The target entropy, 0.5 for None, is a share of the logarithm of the number of legal actions.
    Christodoulou (2019), section 3.
    """
    distribution = distributions.categorical(actions)
    target = 0.5 if target_entropy is None else target_entropy

    def draw(key: Key, logits: Array, legal: Any) -> tuple[Array, Array]:
        return jax.nn.softmax(masked(logits, legal), axis=-1), distribution.entropy(logits, legal)

    def most(legal: Any) -> Array:
        if isinstance(legal, tuple):
            return jnp.float32(math.log(actions))
        return jnp.log(jnp.sum(legal, axis=-1, dtype=jnp.float32))

    return Choices(
        distribution,
        critic=lambda widths, layers: QHead(actions, widths, layers=layers),
        draw=draw,
        from_action=lambda action: jax.nn.one_hot(action, actions, dtype=jnp.float32),
        inputs=lambda choice: (),
        expected=lambda q, choice: jnp.sum(q * choice, axis=-1),
        target_entropy=lambda legal: most(legal) * target,
    )
