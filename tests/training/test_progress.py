"""The marks of an epoch that is over."""

import math

import pytest

from bnn_lightning.training.progress import TrainingSummary


@pytest.mark.parametrize(
    ("elbo_per_n", "weight", "marks"),
    [
        (-0.4, 1.0, []),
        (-2.4, 1.0, ["posterior not converged"]),
        (-0.4, 0.1, ["tempered"]),
        (-5.0, 0.0, ["tempered", "posterior not converged"]),
        (float("nan"), 1.0, ["posterior not converged"]),
        (None, 1.0, []),
    ],
)
def test_marks(elbo_per_n, weight, marks):
    # ln 10 = 2.303
    assert TrainingSummary(4, 1000, 10, 0.1, 0.9, 300.0, weight, elbo_per_n).marks == marks


def summary(**changes):
    values = {
        "epoch": 1,
        "num_train": 100,
        "num_classes": 10,
        "nll": 0.5,
        "accuracy": 0.9,
        "kl": 10.0,
        "kl_weight": 1.0,
    }
    return TrainingSummary(**values | {"elbo_per_n": -0.6} | changes)


@pytest.mark.parametrize(
    ("changes", "flagged"),
    [
        ({"accuracy": 0.19}, True),
        ({"accuracy": 0.21}, False),
        ({"accuracy": 0.19, "epoch": 0}, False),  # the first epoch says nothing yet
        ({"accuracy": math.nan}, True),
        ({"num_classes": 2, "accuracy": 0.7}, True),  # twice guessing would be 1
        ({"num_classes": 2, "accuracy": 0.8}, False),
    ],
)
def test_not_learning(changes, flagged):
    assert ("not learning" in summary(**changes).marks) == flagged


@pytest.mark.parametrize("sparsity", [None, 0.5, 0.995])
@pytest.mark.parametrize("nll", [0.5, 2.2])
def test_collapsed_only_when_sparse_and_guessing(nll, sparsity):
    assert summary(nll=nll, sparsity=sparsity).has_collapsed == (nll == 2.2 and sparsity == 0.995)
