"""Networks of timesteps: an encoder, a memory and a head.

Linen modules are used only through `init` and `apply`.
"""

from memrl_jax.networks.actor_critic import actor_critic
from memrl_jax.networks.encoder import STACKS, Encoder, encoder, features
from memrl_jax.networks.heads import (
    ActorCriticHead,
    CriticHead,
    EmbeddingHead,
    PolicyHead,
    QHead,
    ValueHead,
)
from memrl_jax.networks.layers import MLP
from memrl_jax.networks.recurrent import recurrent
from memrl_jax.networks.twins import TwinHeads, twins

__all__ = ["MLP", "STACKS", "Encoder", "actor_critic", "encoder", "features", "recurrent"]
__all__ += ["ActorCriticHead", "CriticHead", "EmbeddingHead", "PolicyHead", "QHead", "ValueHead"]
__all__ += ["TwinHeads", "twins"]
