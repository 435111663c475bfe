"""The smallest run that learns anything: seconds to compile, milliseconds to train."""

import memrl_jax

SMALL = memrl_jax.presets["drqn"].replace(
    environment="TMaze",
    environments=2,
    encoder=(8,),
    memory_args={"features": 8},
    total_steps=640,
    agent=memrl_jax.presets["drqn"].agent.replace(
        window=4, batch_size=4, capacity=160, learning_starts=80, target_period=5
    ),
)
