"""What memories should learn under supervision: their tasks, and the claims made of them."""

from collections.abc import Callable

import numpy as np

from benchmarks.findings import Claim
from benchmarks.probes import Figures, Learner, Result, Test
from memrl_jax.tasks import associative_recall
from memrl_jax.tasks import copy as copying


def copy() -> Result:
    ntm = Learner("ntm", {"features": 100, "controller": "feedforward"}, first_slot=True)
    learners = {"NTM": ntm, "LSTM": Learner("lstm", {"features": 256})}
    tests = {
        "lengths 1-20": Test(copying(), 200),
        "length 100": Test(copying(length=100, shortest=100), 20),
    }

    def claims(figures: Figures) -> list[Claim]:
        solved = int(np.sum(figures["NTM"]["lengths 1-20: wrong bits"] < 0.1))
        best = float(np.min(figures["NTM"]["length 100: % wrong"]))
        return [
            Claim("NTM: < 0.1 wrong bits a sequence in 4 of 5 seeds", f"{solved}", solved >= 4),
            Claim("NTM: <= 1 % wrong at length 100, best seed", f"{best:.2f} %", best <= 1),
        ]

    return Result("Copy, up to 20 vectors of 8 bits", copying(), tests, learners, claims)


def recall() -> Result:
    tests = {
        "up to 6 items": Test(associative_recall(6), 200),
        "12 items": Test(associative_recall(12, fewest=12), 200),
    }
    learners = {
        "DNC": Learner("dnc", {"features": 100, "hidden": 100}),
        "NTM": Learner("ntm", {"features": 100, "controller": "feedforward"}),
        "LSTM": Learner("lstm", {"features": 256}),
    }

    def claims(figures: Figures) -> list[Claim]:
        found = {}
        for name in ("DNC", "NTM"):
            known, more = (figures[name][f"{test}: % wrong"].min() for test in tests)
            found[name] = known, more
        return []

    return Result("Associative recall", associative_recall(6), tests, learners, claims)


RESULTS: dict[str, Callable[[], Result]] = {"copy": copy, "associative-recall": recall}
