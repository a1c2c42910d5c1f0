"""The caveats of an epoch that is over."""

import math

import pytest

from bnn_lightning import Categorical
from bnn_lightning.checkpoints.summary import TrainingSummary


@pytest.mark.parametrize(
    ("elbo_per_n", "weight", "caveats"),
    [
        (-0.4, 1.0, []),
        (-2.4, 1.0, ["posterior not converged"]),
        (-0.4, 0.1, ["tempered"]),
        (-5.0, 0.0, ["tempered", "posterior not converged"]),
        (float("nan"), 1.0, ["posterior not converged"]),
        (None, 1.0, []),
    ],
)
def test_tempered_and_unconverged_epochs_have_caveats(elbo_per_n, weight, caveats):
    # ln 10 = 2.303
    assert summary(epoch=4, kl_weight=weight, elbo_per_n=elbo_per_n).caveats == caveats


def summary(classes=10, **changes):
    guess = Categorical().uninformed(classes)
    values = {
        "epoch": 1,
        "num_train": 100,
        "nll": 0.5,
        "score": 0.9,
        "kl": 10.0,
        "kl_weight": 1.0,
        "elbo_per_n": -0.6,
        "uninformed_nll": guess.nll,
        "uninformed_score": guess.score,
    }
    return TrainingSummary(**values | changes)


@pytest.mark.parametrize(
    ("changes", "flagged"),
    [
        ({"score": 0.18}, True),
        ({"score": 0.21}, False),
        ({"score": 0.18, "epoch": 0}, False),  # the first epoch says nothing yet
        ({"score": math.nan}, True),
        ({"classes": 2, "score": 0.54}, True),  # twice guessing would be 1
        ({"classes": 2, "score": 0.56}, False),
        ({"classes": 3, "score": 0.65}, False),
    ],
)
def test_an_epoch_that_guesses_is_marked_as_not_learning(changes, flagged):
    assert ("not learning" in summary(**changes).caveats) == flagged


@pytest.mark.parametrize("sparsity", [None, 0.5, 0.995])
@pytest.mark.parametrize("nll", [0.5, 2.2])
def test_collapsed_only_when_sparse_and_guessing(nll, sparsity):
    assert summary(nll=nll, sparsity=sparsity).has_collapsed == (nll == 2.2 and sparsity == 0.995)
