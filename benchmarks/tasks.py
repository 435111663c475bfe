"""What memories should learn under supervision: their tasks, and the claims made of them."""

from collections.abc import Callable

import numpy as np

from benchmarks.findings import Claim
from benchmarks.probes import Figures, Learner, Result, Test
from memrl_jax.tasks import associative_recall
from memrl_jax.tasks import copy as copying


def copy() -> Result:
    ntm = Learner("ntm", {"features": 100, "controller": "feedforward"})
    learners = {"NTM": ntm, "LSTM": Learner("lstm", {"features": 64})}
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
        "2-6 items": Test(associative_recall(6), 200),
        "12 items": Test(associative_recall(12, fewest=12), 200),
    }
    dnc = {"features": 64, "hidden": 64, "slots": 64, "width": 20, "read_heads": 1}
    # As many heads as in the paper, table 1.
    ntm = {"features": 100, "controller": "feedforward", "read_heads": 4, "write_heads": 4}
    learners = {
        "DNC": Learner("dnc", dnc, sequences=50_000),
        "NTM": Learner("ntm", ntm, sequences=50_000),
        "LSTM": Learner("lstm", {"features": 64}, sequences=50_000),
    }

    def claims(figures: Figures) -> list[Claim]:
        # In the paper an NTM is nearly perfect up to 12 items.
        best = {
            (name, test): float(np.min(figures[name][f"{test}: wrong bits"]))
            for name in ("DNC", "NTM")
            for test in tests
        }
        return [
            Claim(f"{name}: < 1 of 18 bits wrong at {test}, best seed", f"{x:.2f}", x < 1)
            for (name, test), x in best.items()
        ]

    return Result(
        "Associative recall, 2 to 6 items", associative_recall(6), tests, learners, claims
    )


RESULTS: dict[str, Callable[[], Result]] = {"copy": copy, "associative-recall": recall}
