"""The probes are what they say: their values by enumeration, for every kind of action."""

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.environments import numbered
from memrl_jax.environments.check import QUICKLY, observed, play, traced
from memrl_jax.testing.probes import BRIBE, KINDS, PROBES, STEPS, Probe, environment, value

LANES = Probe(*(np.stack(x) for x in zip(*PROBES.values(), strict=True)))


@pytest.mark.parametrize("kind", KINDS)
def test_probes_do_as_they_say(kind: str) -> None:
    env = environment(PROBES["both"], kind)
    traced(env)
    run = jax.jit(
        jax.vmap(lambda probe, key: play(environment(probe, kind), key, 40)),
        compiler_options=QUICKLY,
    )
    lanes = jax.device_get(run(LANES, jax.random.split(jax.random.key(0), len(PROBES))))
    for i, probe in enumerate(PROBES.values()):
        t = jax.tree.map(lambda x, i=i: x[i], lanes)
        observed(environment(probe, kind), t)
        np.testing.assert_array_equal(t.start, np.arange(41) % (probe.length + 1) == 0)
        assert (t.reward < BRIBE).all() and (t.discount[t.last] == 0).all()
        cues = {*t.observation[t.start]}
        assert cues == ({0, 1} if probe.cued else {2})


GRID = [np.array([a, b], np.float32) for a, b in product([-1, -0.5, 0, 0.5, 1], repeat=2)]


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_illegal_earns_more_than_the_known_value(kind: str) -> None:
    """All actions are tried at the last step, the only one that pays."""
    number = (lambda env: env) if kind == "continuous" else numbered
    space = number(environment(PROBES["both"], kind)).spec.actions
    tried = jnp.stack(GRID) if kind == "continuous" else jnp.arange(space.n)

    @jax.jit
    def rewards(probe: Probe, cue: Any) -> Any:
        env = number(environment(probe, kind))
        state, _ = env.reset(jax.random.key(0))
        at_end = state.state._replace(cue=cue, time=probe.length - 1)
        step = jax.vmap(lambda a: env.step(jax.random.key(0), state._replace(state=at_end), a))
        end, t = step(tried)
        return t.reward, end.state.illegal

    for probe, cue in product(PROBES.values(), (0, 1)):
        if cue == 0 and not probe.cued:
            continue
        reward, illegal = map(np.asarray, rewards(probe, jnp.int32(cue)))
        best = value(probe, cue, probe.length - 1, 0.9)
        assert reward[illegal == 0].max() == pytest.approx(best)
        assert (reward[illegal == 1] == BRIBE).all()
        assert (illegal.sum() > 0) == kind.startswith("masked")
        assert (reward[illegal == 0].min() < best) == probe.acts
    assert value(PROBES["later"], 1, 0, 0.9) == pytest.approx(-(0.9 ** (STEPS - 1)))
