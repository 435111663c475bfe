"""A policy and a value as one network, with one body or two."""

from typing import Any

from memrl_jax import draws
from memrl_jax.networks.heads import ActorCriticHead, PolicyHead, ValueHead
from memrl_jax.networks.layers import PLAIN
from memrl_jax.settings import LayersConfig
from memrl_jax.types import Array, Body, Key, Network, State, TimeStep


def actor_critic(
    body: Body,
    size: int,
    widths: tuple[int, ...] = (),
    layers: LayersConfig = PLAIN,
    separate: bool = False,
) -> Network:
    """Return a network of a policy's parameters [..., size] and values [...].

    Each head has its own hidden layers. With `separate`, each also has its own encoder and memory:
    `pair` combines the two networks.
    """
    if separate:
        return pair(body(PolicyHead(size, widths, layers)), body(ValueHead(widths, layers)))
    return body(ActorCriticHead(size, widths, layers))


def pair(actor: Network, critic: Network) -> Network:
    """Return two networks as one: states and outputs in pairs.

    Parameters are the actor's by part, {"encoder", "memory", "head"}, and the "critic"'s. `inspect`
    records what the actor's memory does.
    """

    def init(key: Key, timestep: TimeStep, *inputs: Any) -> Any:
        actor_key, critic_key = draws.split(key)
        own = actor.init(actor_key, timestep, *inputs)
        return {**own, "critic": critic.init(critic_key, timestep, *inputs)}

    def initial_state(batch: int) -> State:
        return actor.initial_state(batch), critic.initial_state(batch)

    def step(params: Any, state: State, timestep: TimeStep, *inputs: Any) -> tuple[State, Any]:
        actors, policy = actor.step(params, state[0], timestep, *inputs)
        critics, value = critic.step(params["critic"], state[1], timestep, *inputs)
        return (actors, critics), (policy, value)

    def unroll(params: Any, state: State, timestep: TimeStep, *inputs: Any) -> tuple[State, Any]:
        actors, policies = actor.unroll(params, state[0], timestep, *inputs)
        critics, values = critic.unroll(params["critic"], state[1], timestep, *inputs)
        return (actors, critics), (policies, values)

    def inspect(params: Any, state: State, timestep: TimeStep) -> dict[str, Array]:
        return actor.inspect(params, state[0], timestep)

    return Network(init, initial_state, step, unroll, inspect)
