"""Environments of other suites, where these are installed: a hundred steps of each."""

import re

import pytest

from memrl_jax import environments
from memrl_jax.testing import check_environment

IDS = ["brax:inverted_pendulum", "craftax:Craftax-Classic-Symbolic-v1", "jumanji:Game2048-v1"]
IDS += ["jumanji:Snake-v1", "xminigrid:MiniGrid-MemoryS8"]


@pytest.mark.parametrize("name", IDS)
def test_suites_keep_to_what_agents_rely_on(name):
    pytest.importorskip(name.partition(":")[0])
    check_environment(name, steps=100)


def test_a_suite_that_is_missing_is_named():
    with pytest.raises(ValueError, match=re.escape("did you mean 'CartPole-v1'")):
        environments.make("CartPol-v1", {})


@pytest.mark.parametrize("suite", environments.suites.SUITES)
def test_unknown_ids_are_answered_in_one_line(suite):
    with pytest.raises(ValueError, match=r"unknown|cannot be imported") as error:
        environments.make(f"{suite}:nothing", {})
    assert "\n" not in str(error.value)
